"""nnU-Net's integration scenario under ppgs: four labellings of Hippocampus, four configurations, then stock tools.

Labellings: plain, regions, ignore label, regions with ignore label. Configurations: 2d, 3d_lowres, 3d_fullres and
3d_cascade_fullres, the second and the last tied into a cascade by hand, as nnU-Net's own integration test does.
Trainings are as short as the curriculum allows (an epoch a stage, one iteration an epoch): what is checked is that
everything works together, not how good it is. Then nnU-Net's stock `find_best_configuration` with ensembles and
postprocessing runs on the results, and stock prediction must give the voxels of `ppgs predict`.

    python benchmarks/matrix.py path/to/Task04_Hippocampus --root FOLDER -o benchmarks/results/matrix.md

What is finished in FOLDER is kept: a matrix that was stopped is continued.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ppgs.plans import load_plans
from ppgs.schedule import PlanFacts, grow
from ppgs.tasks import Roots

CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
SCHEDULE = "efficiency"
FOLDS = 2
IGNORE = 3


def _sparse(labels: np.ndarray) -> np.ndarray:
    """Two of three slices are not annotated."""
    sparse = labels.copy()
    sparse[np.arange(len(labels)) % 3 != 0] = IGNORE
    return sparse


def _same(labels: np.ndarray) -> np.ndarray:
    return labels


@dataclass(frozen=True)
class Labelling:
    """One way to label the same images."""

    dataset_id: int
    name: str
    labels: dict[str, Any]
    order: tuple[int, ...] | None
    change: Callable[[np.ndarray], np.ndarray]

    @property
    def dataset(self) -> str:
        return f"Dataset{self.dataset_id}_Hippocampus{self.name.title().replace(' ', '').replace('+', '')}"


_CLASSES = {"background": 0, "anterior": 1, "posterior": 2}
_REGIONS = {"background": 0, "hippocampus": [1, 2], "posterior": 2}
LABELLINGS = (
    Labelling(990, "plain", _CLASSES, None, _same),
    Labelling(991, "regions", _REGIONS, (1, 2), _same),
    Labelling(992, "ignore", {**_CLASSES, "ignore": IGNORE}, None, _sparse),
    Labelling(993, "regions + ignore", {**_REGIONS, "ignore": IGNORE}, (1, 2), _sparse),
)


def make_raw(labelling: Labelling, source: Path, raw: Path, cases: int) -> None:
    """The first cases of the Decathlon's task as a raw nnU-Net dataset; one more as a test image."""
    if (raw / "dataset.json").is_file():
        return
    names = sorted(p.name.removesuffix(".nii.gz") for p in (source / "labelsTr").glob("hippocampus_*.nii.gz"))
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    for name in names[:cases]:
        shutil.copy(source / "imagesTr" / f"{name}.nii.gz", raw / "imagesTr" / f"{name}_0000.nii.gz")
        image = sitk.ReadImage(str(source / "labelsTr" / f"{name}.nii.gz"))
        changed = sitk.GetImageFromArray(labelling.change(sitk.GetArrayFromImage(image)))
        changed.CopyInformation(image)
        sitk.WriteImage(changed, str(raw / "labelsTr" / f"{name}.nii.gz"))
    for name in names[cases : cases + 1]:
        shutil.copy(source / "imagesTr" / f"{name}.nii.gz", raw / "imagesTs" / f"{name}_0000.nii.gz")
    content: dict[str, Any] = {
        "channel_names": {"0": "MRI"},
        "labels": labelling.labels,
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    if labelling.order is not None:
        content["regions_class_order"] = labelling.order
    (raw / "dataset.json").write_text(json.dumps(content, indent=2))


def add_cascade(plans_file: Path) -> None:
    """A low resolution and a cascade, which nnU-Net plans for large images only."""
    plans = json.loads(plans_file.read_text())
    sections = plans["configurations"]
    if "3d_lowres" in sections:
        return
    full = sections["3d_fullres"]
    architecture = copy.deepcopy(full["architecture"])
    arguments, stages = architecture["arch_kwargs"], 3
    for key in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage"):
        if key in arguments:
            arguments[key] = arguments[key][:stages]
    arguments["n_conv_per_stage_decoder"] = arguments["n_conv_per_stage_decoder"][: stages - 1]
    arguments["n_stages"] = stages
    sections["3d_lowres"] = {
        "inherits_from": "3d_fullres",
        "data_identifier": f"{plans['plans_name']}_3d_lowres",
        "patch_size": [size // 2 for size in full["patch_size"]],
        "median_image_size_in_voxels": [size / 2 for size in full["median_image_size_in_voxels"]],
        "spacing": [2 * spacing for spacing in full["spacing"]],
        "architecture": architecture,
        "next_stage": "3d_cascade_fullres",
    }
    sections["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    plans_file.write_text(json.dumps(plans, indent=4))


def split_by_hand(folder: Path, truth: Path) -> None:
    """Custom splits: as many folds as there are, every other case each."""
    names = sorted(p.name.removesuffix(".nii.gz") for p in truth.glob("*.nii.gz"))
    parts = [names[fold::FOLDS] for fold in range(FOLDS)]
    splits = [{"train": [n for n in names if n not in part], "val": part} for part in parts]
    (folder / "splits_final.json").write_text(json.dumps(splits, indent=1))


class Matrix:
    """All trainings and checks of one root."""

    def __init__(self, root: Path, source: Path, cases: int) -> None:
        self.roots, self.source, self.cases = Roots.under(root), source, cases
        self.work = root
        self.environ = {**os.environ, **self.roots.environment, "COLUMNS": "160"}

    def ppgs(self, *arguments: object) -> str:
        return self._run([sys.executable, "-m", "ppgs", *map(str, arguments)])

    def stock(self, command: str, *arguments: object) -> str:
        """One of nnU-Net's own commands."""
        found = shutil.which(command, path=str(Path(sys.executable).parent))
        return self._run([found or command, *map(str, arguments)])

    def _run(self, command: list[str]) -> str:
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=self.environ)
        shown = " ".join(Path(command[0]).name if i == 0 else a for i, a in enumerate(command))
        print(f"{time.perf_counter() - started:7.1f} s  {shown}", file=sys.stderr, flush=True)
        if done.returncode:
            raise SystemExit(f"{shown}\nended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def model(self, labelling: Labelling, configuration: str, plans: str = "nnUNetPlans") -> Path:
        trainer = f"nnUNetTrainerPPGS_{SCHEDULE}"
        return self.roots.results / labelling.dataset / f"{trainer}__{plans}__{configuration}"

    def prepare(self, labelling: Labelling) -> None:
        make_raw(labelling, self.source, self.roots.raw / labelling.dataset, self.cases)
        prepared = self.roots.preprocessed / labelling.dataset
        if not (prepared / "splits_final.json").is_file():
            self.ppgs("prepare", labelling.dataset_id)
        add_cascade(prepared / "nnUNetPlans.json")
        split_by_hand(prepared, prepared / "gt_segmentations")

    def train(self, labelling: Labelling, configuration: str, fold: int | str, plans: str = "nnUNetPlans") -> Path:
        """One run, unless it is finished; returns its folder."""
        run = self.model(labelling, configuration, plans) / f"fold_{fold}"
        manifest = run / "ppgs" / "run.json"
        if manifest.is_file() and json.loads(manifest.read_text())["status"] == "finished":
            return run
        prepared = self.roots.preprocessed / labelling.dataset
        if not (prepared / f"{plans}.json").is_file():
            self.ppgs("prepare", labelling.dataset_id, "--plans", plans)
        parsed = load_plans(prepared / f"{plans}.json")
        facts = PlanFacts.of(parsed, parsed.configuration(configuration))
        self.ppgs(
            *("train", labelling.dataset_id, "--configuration", configuration, "--plans", plans, "--fold", fold),
            *("--schedule", SCHEDULE, "--epochs", len(grow("2025", facts.patch_size, facts.step))),
            *("--iterations", 1, "--batch-size", 2, "--device", "cpu", "--workers", 0),
            *("--no-energy", "--no-tui", "--npz", "--overwrite"),
        )
        return run

    def row(self, labelling: Labelling, run: Path) -> str:
        """A line of the table."""
        records = [json.loads(line) for line in (run / "ppgs" / "events.jsonl").read_text().splitlines()]
        started = next(r for r in records if r["type"] == "run_started")
        ended = next(r for r in records if r["type"] == "validation_finished")
        dice = ", ".join(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in ended["dice"].items())
        _, plans, configuration = run.parent.name.split("__")
        first, last = started["stages"][0]["patch_size"], started["stages"][-1]["patch_size"]
        patches = f"{'x'.join(map(str, first))} to {'x'.join(map(str, last))}"
        fold = run.name.removeprefix("fold_")
        return (
            f"| {labelling.name} | {configuration} | {plans} | {fold} | {len(started['stages'])} | {patches} | {dice} |"
        )

    def same_voxels(self, labelling: Labelling, configuration: str) -> str:
        """Return whether `ppgs predict` and stock nnU-Net segment the test images identically."""
        images = self.roots.raw / labelling.dataset / "imagesTs"
        out = self.work / "predictions" / labelling.dataset / configuration
        ours, theirs, first = out / "ppgs", out / "stock", out.parent / "3d_lowres" / "stock"
        model = self.model(labelling, configuration)
        self.ppgs("predict", model, "--fold", 0, "-i", images, "-o", ours, "--device", "cpu")
        cascade = ("-prev_stage_predictions", first) if "cascade" in configuration else ()
        self.stock(
            "nnUNetv2_predict",
            *("-d", labelling.dataset_id, "-c", configuration, "-tr", model.name.split("__")[0], "-f", 0),
            *("-i", images, "-o", theirs, "-device", "cpu", "-npp", 0, "-nps", 0, "--disable_progress_bar", *cascade),
        )
        pairs = [(p, theirs / p.name) for p in sorted(ours.glob("*.nii.gz"))]
        voxels = [tuple(sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in pair) for pair in pairs]
        return "same" if pairs and all((a == b).all() for a, b in voxels) else "DIFFERENT"

    def best(self, labelling: Labelling) -> str:
        """nnU-Net's choice among all configurations and their ensembles, postprocessed."""
        report = self.roots.results / labelling.dataset / "inference_information.json"
        if not report.is_file():
            self.stock(
                "nnUNetv2_find_best_configuration",
                *(labelling.dataset, "-tr", f"nnUNetTrainerPPGS_{SCHEDULE}", "-f", 0, "-np", 1),
            )
        found = json.loads(report.read_text())
        chosen = found["best_model_or_ensemble"]
        if not Path(chosen["postprocessing_file"]).is_file():
            raise SystemExit(f"no postprocessing for {labelling.dataset}")
        names = " + ".join(m["configuration"] for m in chosen["selected_model_or_models"])
        ensembles = sum(key.startswith("ensemble") for key in found["all_results"])
        dice = f"{chosen['result_on_crossval_pre_pp']:.3f} | {chosen['result_on_crossval_post_pp']:.3f}"
        return f"| {labelling.name} | {len(found['all_results']) - ensembles} + {ensembles} | {names} | {dice} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the Decathlon's Task04_Hippocampus")
    parser.add_argument("--root", type=Path, required=True, help="where to work; finished runs there are kept")
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--labelling", action="append", choices=[x.name for x in LABELLINGS])
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    matrix = Matrix(asked.root, asked.source, asked.cases)
    chosen = [x for x in LABELLINGS if asked.labelling is None or x.name in asked.labelling]
    trained, voxels, best = [], [], []
    for labelling in chosen:
        matrix.prepare(labelling)
        for configuration in CONFIGURATIONS:
            # Both folds of the first stage: together they segment every case that the second trains on.
            for fold in range(FOLDS if configuration == "3d_lowres" else 1):
                trained.append(matrix.row(labelling, matrix.train(labelling, configuration, fold)))
        same = [matrix.same_voxels(labelling, configuration) for configuration in CONFIGURATIONS]
        voxels.append(f"| {labelling.name} | {' | '.join(same)} |")
        best.append(matrix.best(labelling))
    plain = LABELLINGS[0]
    if plain in chosen:
        trained.append(matrix.row(plain, matrix.train(plain, "3d_lowres", "all")))
        for size in ("M", "L", "XL"):
            trained.append(matrix.row(plain, matrix.train(plain, "3d_fullres", 0, f"nnUNetResEncUNet{size}Plans")))
    text = "\n".join(
        (
            "# nnU-Net's integration scenario under ppgs",
            "",
            f"`benchmarks/matrix.py`, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU cores ({platform.machine()}), "
            f"{asked.cases} cases of Hippocampus in {FOLDS} folds by hand, schedule `{SCHEDULE}`: one epoch of one "
            "iteration a stage. Trainings this short learn next to nothing; the Dice only shows that something was "
            "validated.",
            "",
            "## Trained",
            "",
            "| labelling | configuration | plans | fold | stages | patch | validation Dice |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *trained,
            "",
            "nnU-Net plans the same network for the residual encoders M, L and XL where images are this small.",
            "",
            "## `ppgs predict` beside stock `nnUNetv2_predict`: voxels of a test image",
            "",
            f"| labelling | {' | '.join(CONFIGURATIONS)} |",
            f"| --- |{' --- |' * len(CONFIGURATIONS)}",
            *voxels,
            "",
            "## Stock `nnUNetv2_find_best_configuration`, ensembles and postprocessing on these results",
            "",
            "| labelling | models + ensembles | chosen | Dice | postprocessed |",
            "| --- | --- | --- | --- | --- |",
            *best,
            "",
        )
    )
    print(text)
    if asked.output is not None:
        asked.output.write_text(text)
    if "DIFFERENT" in text:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
