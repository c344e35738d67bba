"""The model card of an exported model: description, training data, accuracy and cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ppgs.compare.analysis.run_cost import total_cost
from ppgs.compare.loading.cost import SOURCE_NAMES, own_source
from ppgs.compare.loading.reader import load_runs
from ppgs.compare.loading.sources import Place
from ppgs.compare.model import Run
from ppgs.compare.statistics import nan_mean, pooled_dice
from ppgs.formatting import duration, number, patch_text, size
from ppgs.plans import Configuration, Dataset, load_dataset, load_plans, read_json
from ppgs.runs.events import read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import Manifest, read_manifest
from ppgs.runs.request import TrainingRequest
from ppgs.runs.state import RunState
from ppgs.schedule import Schedule, load
from ppgs.trainers import DEFAULT

T = TypeVar("T")
_Stage = tuple[str, int, int, str]
_FACTS = ("description", "reference", "release", "licence", "license")


def write_card(runs: Sequence[RunFolder], first_stage: Sequence[RunFolder]) -> str:
    """Return a Markdown card for one model's folds. It names the GPU but nothing else of the machine, and no paths.

    `first_stage` are the folds of a cascade's first stage that are exported with it.
    """
    first = runs[0]
    manifest = read_manifest(first)
    dataset = load_dataset(first.model / "dataset.json")
    configuration = _configuration(first)
    place = Place(
        first.model, first.model.name, manifest.dataset, tuple((run.fold, run.path) for run in runs), manifest.name
    )
    loaded = load_runs([place], None).runs
    folds = ["all cases"] if first.fold == "all" else [run.fold for run in runs]
    parts = [
        f"# {manifest.dataset} {manifest.configuration}",
        f"An nnU-Net v2 model (fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}), trained with ppgs under the "
        f"*Progressive Growing of Patch Size* curriculum. {_network(configuration)}",
        *_use(runs, first_stage, manifest, configuration),
        *_data(first, dataset, configuration, manifest.origin.get("data")),
        *_training(runs, manifest),
        *(_validation(loaded[0]) if loaded else ["## Validation", "Not validated."]),
        *(_cost(loaded[0]) if loaded else []),
        "## Limits",
        "For research. Not a medical device; not validated for any clinical use. Dice is of the data above and says "
        "nothing of other scanners, protocols or patients.",
        "## Please cite",
        "- Fischer et al., *Progressive Growing of Patch Size: Curriculum Learning for Accelerated and Improved "
        "Medical Image Segmentation*, arXiv 2510.23241\n"
        "- Isensee et al., *nnU-Net: a self-configuring method for deep learning-based biomedical image "
        "segmentation*, Nature Methods 18 (2021)",
    ]
    return "\n\n".join(parts) + "\n"


def _network(configuration: Configuration) -> str:
    if configuration.architecture.startswith("ppgs."):
        return f"The network is `{configuration.architecture}`: ppgs must be installed to use it."
    return "The network is nnU-Net's own: ppgs is not needed to use it."


def _use(
    runs: Sequence[RunFolder], first_stage: Sequence[RunFolder], manifest: Manifest, configuration: Configuration
) -> list[str]:
    commands, missing = ["nnUNetv2_install_pretrained_model_from_zip FILE.zip"], list[str]()
    output = "SEGMENTATIONS"
    if first_stage:
        commands.append(_command(first_stage, read_manifest(first_stage[0]), "FIRST_STAGE"))
    elif configuration.previous_stage is not None:
        missing.append(
            f"This is a cascade's second stage, and the zip does not contain the first one, "
            f"`{configuration.previous_stage}`: FIRST_STAGE is a folder of its segmentations of the same images."
        )
    if configuration.previous_stage is not None:
        output += " -prev_stage_predictions FIRST_STAGE"
    commands.append(_command(runs, manifest, output))
    needed = manifest.versions.get("nnunetv2")
    return ["## Use", *([f"With nnunetv2 {needed} or later:"] if needed else []), _block(commands), *missing]


def _command(runs: Sequence[RunFolder], of: Manifest, output: str) -> str:
    trainer = "" if of.request.trainer == DEFAULT else f" -tr {of.request.trainer}"
    model = f"-d {of.dataset}{trainer} -p {of.plans} -f {' '.join(run.fold for run in runs)} -c {of.configuration}"
    return f"nnUNetv2_predict {model} -i IMAGES -o {output}"


def _block(lines: Sequence[str]) -> str:
    return "\n".join(("```bash", *lines, "```"))


def _data(run: RunFolder, dataset: Dataset, configuration: Configuration, digest: str | None) -> list[str]:
    raw = read_json(run.model / "dataset.json")
    rows: list[Sequence[object]] = [(key, raw[key]) for key in _FACTS if raw.get(key)]
    rows += [
        ("training cases", raw.get("numTraining", "-")),
        *([("digest of their files", digest)] if digest is not None else []),
        ("channels", ", ".join(dataset.channels)),
        ("labels", ", ".join(f"{name} ({_value(value)})" for name, value in dataset.labels.items())),
        ("file ending", dataset.file_ending),
        ("spacing the network sees", " x ".join(f"{s:g}" for s in configuration.spacing) + " mm"),
    ]
    return ["## Data", _table(("", ""), rows)]


def _value(value: int | tuple[int, ...]) -> str:
    return str(value) if isinstance(value, int) else "+".join(map(str, value))


@dataclass(frozen=True)
class _Trained:
    """A fold with its request, its schedule and its event log's state; read once, as logs may be long."""

    run: RunFolder
    request: TrainingRequest
    schedule: Schedule
    state: RunState

    @classmethod
    def of(cls, run: RunFolder) -> _Trained:
        schedule = load(run.schedule)
        assert isinstance(schedule, Schedule)
        return cls(run, read_manifest(run).request, schedule, RunState().apply_all(read_events(run.events)))


def _training(runs: Sequence[RunFolder], manifest: Manifest) -> list[str]:
    trained = [_Trained.of(run) for run in runs]
    stages = {one.run: _trained_stages(one) for one in trained}
    # Early stopping and budgets give the folds of one model different stages.
    by_stages = _grouped(stages)
    head, rows = ["stage", "patch", "batch", "epochs", "foreground"], list[Sequence[object]]()
    for of_folds, folds in by_stages.items():
        numbered = [(index, *stage) for index, stage in enumerate(of_folds, 1)]
        rows += [(folds, *row) for row in numbered] if len(by_stages) > 1 else numbered
    epochs = _range(sum(epochs for _, _, epochs, _ in of_fold) for of_fold in stages.values())
    iterations = _range(one.schedule.iterations_per_epoch for one in trained)
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return [
        "## Training",
        f"Schedule `{manifest.schedule}`: {epochs} epochs of {iterations} iterations in {_range(map(len, by_stages))} "
        f"stages, seed {manifest.seed}.",
        *_settings({one.run: _setting(one) for one in trained}),
        *_pretrained(manifest),
        _table([*(["fold"] if len(by_stages) > 1 else []), *head], rows),
        f"Made with {versions}." if versions else "",
    ]


def _settings(by_run: Mapping[RunFolder, str]) -> list[str]:
    by_setting = _grouped(by_run)
    if len(by_setting) == 1:
        return list(by_setting)
    return ["\n".join(f"- Fold {folds}: {text}" for text, folds in by_setting.items())]


def _setting(one: _Trained) -> str:
    """Describe optimiser, learning rate, loss, augmentation and mirroring."""
    request, schedule = one.request, one.schedule
    whose = its = "nnU-Net's"
    if request.trainer != DEFAULT:
        whose, its = f"those of the trainer class `{request.trainer}`", "its"
    how = "to whole batches by ppgs" if _augments_batches(one) else "sample by sample"
    if (rate := schedule.learning_rate.text) is None:
        text = f"Optimiser, learning rate and loss are {whose}."
    else:
        text = f"Optimiser and loss are {whose}; the learning rate {rate}."
    text += f" Augmentation uses {its} transforms, applied {how}."
    if isinstance(schedule.mirroring, tuple):
        axes = ", ".join(map(str, schedule.mirroring))
        text += f" Mirroring, in training and inference, is {f'limited to the axes {axes}' if axes else 'off'}."
    return text


def _augments_batches(one: _Trained) -> bool:
    """Return whether whole batches were augmented; a cascade's second stage and some trainers cannot be."""
    if one.request.augmentation != "batchwise" or _configuration(one.run).previous_stage is not None:
        return False
    return not any(f"{one.request.trainer} augments sample by sample" in warning for warning in one.state.warnings)


def _configuration(run: RunFolder) -> Configuration:
    return load_plans(run.model / "plans.json").configuration(read_manifest(run).configuration)


def _trained_stages(one: _Trained) -> tuple[_Stage, ...]:
    """Return patch, batch size, epochs and share of foreground of each stage, up to an early stop."""
    schedule = one.schedule
    end = one.state.ended_after or schedule.epochs
    return tuple(
        (
            patch_text(s.patch_size),
            s.batch_size,
            min(s.epochs, end - schedule.first_epoch(i)),
            f"{s.foreground_share:.0%}",
        )
        for i, s in enumerate(schedule.stages)
        if schedule.first_epoch(i) < end
    )


def _grouped(by_run: Mapping[RunFolder, T]) -> dict[T, str]:
    """Return the folds (`0, 2`) that share each value."""
    folds: dict[T, list[str]] = {}
    for run, value in by_run.items():
        folds.setdefault(value, []).append(run.fold)
    return {value: ", ".join(names) for value, names in folds.items()}


def _range(values: Iterable[int]) -> str:
    known = sorted(set(values))
    return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"


def _pretrained(manifest: Manifest) -> list[str]:
    if (start := manifest.pretrained) is None:
        return []
    text = f"The training started from pretrained weights (`{Path(start['source']).name}`, digest {start['digest']}"
    if "dataset" in start:
        text += f"; trained on {start['dataset']} {start['configuration']} with the plans {start['plans']}"
    text += "), except for the segmentation heads."
    if manifest.request.freeze:
        text += f" Frozen parameters: {', '.join(f'`{pattern}`' for pattern in manifest.request.freeze)}."
    return [text]


def _validation(run: Run) -> list[str]:
    keys = run.class_keys
    rows: list[Sequence[object]] = []
    for fold in run.folds:
        dice = pooled_dice(fold.cases, keys)
        rows.append((f"fold {fold.name}", len(fold.cases), *_dice(dice, keys)))
    if len(run.folds) > 1:
        rows.append(("pooled", sum(1 for _ in run.cases), *_dice(pooled_dice(run.cases, keys), keys)))
    text = "Dice of nnU-Net's validation, mean over cases."
    if run.on_training_cases:
        text += " **These are the cases that the model was trained on**: it was trained on all of them."
    return ["## Validation", text, _table(("", "cases", "mean", *(run.classes[k] for k in keys)), rows)]


def _dice(dice: dict[str, float], keys: Sequence[str]) -> list[str]:
    return [number(v, 4) for v in (nan_mean([dice[k] for k in keys]), *(dice[k] for k in keys))]


def _cost(run: Run) -> list[str]:
    costs = [fold.cost for fold in run.folds]
    total = total_cost(costs, own_source(costs), None, None)
    carbon = None if total.co2_kg is None else f"{total.co2_kg:.3g} kg CO2eq (estimate, {total.co2_basis})"
    rows = [
        ("device", run.provenance.hardware or run.provenance.device),
        ("training time", None if total.seconds is None else duration(total.seconds)),
        ("time from", SOURCE_NAMES[total.source] if total.source else None),
        ("energy", None if total.energy_kwh is None else f"{total.energy_kwh:.3g} kWh"),
        ("carbon", carbon),
        ("peak GPU memory", None if total.peak_memory_bytes is None else size(total.peak_memory_bytes)),
    ]
    folds = "one fold" if len(run.folds) == 1 else f"all {len(run.folds)} folds"
    return ["## Cost", f"Of training {folds}.", _table(("", ""), [(k, v) for k, v in rows if v is not None])]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
