"""Builds result folders as nnU-Net and ppgs leave them, with figures that a test chooses."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppgs.commands.compare import CompareRequest, compare
from ppgs.compare.results import Comparison
from ppgs.runs.events import EventLog
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import Manifest, write_manifest
from ppgs.runs.request import TrainingRequest
from ppgs.schedule import Schedule, Stage, dump
from ppgs.tasks import Roots

Cases = Mapping[str, Mapping[str, float]]
TASK = "Dataset777_Synthetic"
PLAIN = "nnUNetTrainer__nnUNetPlans__3d_fullres"
SPACING = (3.0, 1.0, 1.0)
OTHER = "nnUNetTrainer__nnUNetResEncUNetMPlans__3d_fullres"


def compared(root: Path, *given: Path | str, **options: Any) -> Comparison:
    """Compare these runs, models or folders below a root, as `ppgs compare` does."""
    return compare(CompareRequest(tuple(map(str, given)), Roots.under(root), **options))


def random_cases(seed: int, count: int = 12, classes: Sequence[str] = ("1", "2"), shift: float = 0.0) -> dict[str, Any]:
    """Cases `case_000`... with a Dice per class; the same cases are hard under every seed."""
    hard = np.random.default_rng(0).uniform(0.5, 0.9, (count, len(classes)))
    noise = np.random.default_rng(seed).normal(shift, 0.02, (count, len(classes)))
    dice = np.clip(hard + noise, 0, 1)
    return {f"case_{i:03d}": dict(zip(classes, map(float, row), strict=True)) for i, row in enumerate(dice)}


def write_summary(
    folder: Path, cases: Cases, *, reference_voxels: int = 100, references: Path = Path("/gone/labelsTr")
) -> Path:
    """`folder/validation/summary.json`."""
    entries = [
        {
            "metrics": {key: {"Dice": dice, "n_ref": reference_voxels} for key, dice in classes.items()},
            "prediction_file": f"/gone/validation/{case}.nii.gz",
            "reference_file": str(references / f"{case}.nii.gz"),
        }
        for case, classes in cases.items()
    ]
    path = folder / "validation" / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"foreground_mean": {}, "mean": {}, "metric_per_case": entries}))
    return path


def write_emissions(folder: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """CodeCarbon's `emissions.csv` with these rows; columns that a row lacks get plausible figures."""
    standard: dict[str, object] = {
        "run_id": "a", "duration": 3600.0, "emissions": 0.4, "energy_consumed": 1.0, "gpu_energy": 0.7,
        "cpu_energy": 0.2, "ram_energy": 0.1, "country_iso_code": "DEU", "gpu_count": 1, "gpu_model": "1 x NVIDIA H100",
        "python_version": "3.12", "codecarbon_version": "3.0",
    }  # fmt: skip
    path = folder / "emissions.csv"
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*standard])
        writer.writeheader()
        writer.writerows({**standard, **row} for row in rows)
    return path


def write_dataset(folder: Path, labels: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, **labels}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))


def write_model(
    results: Path, model: str, folds: Mapping[str, Cases], *, task: str = TASK, emissions: bool = False
) -> Path:
    """A model's folder `TRAINER__PLANS__CONFIGURATION` with validated folds."""
    path = results / task / model
    for name, cases in folds.items():
        write_summary(path / f"fold_{name}", cases)
        if emissions:
            write_emissions(path / f"fold_{name}", [{}])
    write_dataset(results / task, {"organ": 1, "lesion": 2})
    return path


def write_own_run(
    results: Path,
    schedule: str,
    cases: Cases,
    *,
    seed: int = 0,
    seconds: float = 10.0,
    energy_wh: float | None = 2.0,
    ema_dice: Sequence[float] = (0.2, 0.4, 0.6, 0.7),
    task: str = TASK,
) -> RunFolder:
    """A finished run of ours: two stages of two epochs, with manifest, schedule and events."""
    label = schedule if seed == 0 else f"{schedule}_seed{seed}"
    run = RunFolder.place(results, task, label, "nnUNetPlans", "3d_fullres", 0)
    write_summary(run.path, cases)
    write_dataset(results / task, {"organ": 1, "lesion": 2})
    run.own.mkdir(parents=True)
    stages = (
        Stage(patch_size=(8, 8, 8), batch_size=2, epochs=2),
        Stage(patch_size=(16, 16, 16), batch_size=2, epochs=2),
    )
    run.schedule.write_text(dump(Schedule(name=schedule, iterations_per_epoch=3, stages=stages)))
    request = TrainingRequest(task=task, kind="nnunet", schedule="", schedule_name=schedule, seed=seed)
    manifest = Manifest(
        name=f"{label}-fold0", task=task, dataset=task, plans="nnUNetPlans", configuration="3d_fullres", fold=0,
        trainer=f"nnUNetTrainerPPGS_{label}", schedule=schedule, schedule_hash=f"hash-{schedule}", seed=seed,
        device="cuda", versions={"ppgs": "0.1.0"}, status="finished", request=request,
    )  # fmt: skip
    write_manifest(run, manifest)
    with EventLog(run.events) as log:
        facts = [
            {"patch_size": s.patch_size, "batch_size": 2, "epochs": 2, "voxels": s.voxels, "flops_per_iteration": 1000}
            for s in stages
        ]
        log.append("run_started", epoch=0, epochs=4, iterations_per_epoch=3, gpus=1, stages=facts)
        for epoch, dice in enumerate(ema_dice):
            log.append(
                "epoch_finished", epoch=epoch, stage=epoch // 2, ema_dice=dice, seconds=seconds, energy_wh=energy_wh,
                peak_memory_bytes=(1 + epoch // 2) * 2**30,
            )  # fmt: skip
        log.append("run_finished")
    return run


def write_image(path: Path, values: np.ndarray[Any, Any], spacing: Sequence[float]) -> Path:
    """A NIfTI image; spacing in mm in the order of the array's axes."""
    import SimpleITK

    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing([float(s) for s in reversed(spacing)])
    SimpleITK.WriteImage(image, str(path))
    return path


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float, spacing: tuple[float, ...]) -> Any:
    """A mask with a ball; centre in voxels, radius and spacing in mm."""
    grid = np.indices(shape).astype(float)
    distance = sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, spacing, strict=True))
    return distance <= radius**2


def write_predictions(folder: Path) -> Path:
    """References, images and two folders of predictions of 7 cases: a shifted by one voxel, b by two."""
    for n in range(7):
        reference = ball((10, 32, 40), (5, 15, 18), 6 + n, SPACING).astype(np.uint8)
        reference[:, :4, :4] = 2
        write_image(folder / "labels" / f"case{n}.nii.gz", reference, SPACING)
        for name, shift in (("a", 1), ("b", 2)):
            write_image(folder / name / f"case{n}.nii.gz", np.roll(reference, shift, axis=2), SPACING)
        write_image(folder / "images" / f"case{n}_0000.nii.gz", reference * 100.0 + 5, SPACING)
    return folder
