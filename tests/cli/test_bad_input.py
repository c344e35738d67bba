"""Every mistake in a user's input is reported by name, with exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.conftest import Ppgs


@pytest.fixture
def decathlon(tmp_path: Path) -> Path:
    """A small task in the Decathlon's layout: six cases of 24 cubed voxels."""
    task = tmp_path / "Task07_Small"
    rng = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (task / name).mkdir(parents=True)
    for number in range(6):
        labels = np.zeros((24, 24, 24), np.uint8)
        labels[6:16, 6:16, 6:16] = 1
        labels[8:12, 8:12, 8:12] = 2
        image = (labels * 50 + rng.normal(0, 10, labels.shape)).astype(np.float32)
        sitk.WriteImage(sitk.GetImageFromArray(image), str(task / "imagesTr" / f"case_{number}.nii.gz"))
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(task / "labelsTr" / f"case_{number}.nii.gz"))
    content = {
        "name": "Small",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "a", "2": "b"},
        "numTraining": 6,
        "training": [],
        "test": [],
    }
    (task / "dataset.json").write_text(json.dumps(content))
    return task


def voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def write(array: np.ndarray, path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def missing_label(task: Path) -> str:
    (task / "labelsTr" / "case_1.nii.gz").unlink()
    return "case_1"


def truncated_image(task: Path) -> str:
    path = task / "imagesTr" / "case_2.nii.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "imagesTr/case_2.nii.gz"


def other_shape(task: Path) -> str:
    write(voxels(task / "labelsTr" / "case_3.nii.gz")[:-2], task / "labelsTr" / "case_3.nii.gz")
    return "labelsTr/case_3.nii.gz"


def not_finite(value: float) -> Callable[[Path], str]:
    def spoil(task: Path) -> str:
        path = task / "imagesTr" / "case_4.nii.gz"
        array = voxels(path)
        array[3, 3, 3] = value
        write(array, path)
        return "imagesTr/case_4.nii.gz"

    return spoil


def strange_value(task: Path) -> str:
    path = task / "labelsTr" / "case_5.nii.gz"
    array = voxels(path)
    array[0, 0, 0] = 7
    write(array, path)
    return "label values 7"


def no_images(task: Path) -> str:
    for name in ("imagesTr", "labelsTr"):
        shutil.rmtree(task / name)
        (task / name).mkdir()
    return "no training images"


def no_dataset_json(task: Path) -> str:
    (task / "dataset.json").unlink()
    return "dataset.json"


def nothing(task: Path) -> str:
    shutil.rmtree(task)
    task.mkdir()
    return "dataset.json"


SPOILED = [
    missing_label,
    truncated_image,
    other_shape,
    not_finite(np.nan),
    not_finite(np.inf),
    strange_value,
    no_images,
    no_dataset_json,
    nothing,
]


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda f: f.__name__)
def test_spoiled_tasks(decathlon: Path, tmp_path: Path, ppgs: Ppgs, spoil: Callable[[Path], str]) -> None:
    named = spoil(decathlon)
    root = tmp_path / "root"
    done = ppgs("train", decathlon, "--root", root, "--epochs", "20", "--no-tui", "--device", "cpu")
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    left = [p for p in root.rglob("*") if p.is_file()]
    assert left == []


def test_all_problems_are_told_at_once(decathlon: Path, tmp_path: Path, ppgs: Ppgs) -> None:
    named = [spoil(decathlon) for spoil in (missing_label, truncated_image, other_shape, strange_value)]
    done = ppgs("prepare", decathlon, "--root", tmp_path / "root")
    assert done.returncode == 2
    assert all(name in done.stderr for name in named)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--fold", "7"), "no fold 7"),
        (("--fold", "x"), "list of folds"),
        (("--device", "tpu"), "no device 'tpu'"),
        (("--schedule", "eficiency"), "did you mean 'efficiency'?"),
        (("--schedule", "missing.yaml"), "missing.yaml"),
        (("--epochs", "9"), "fewer than the 10 stages"),
        (("--epochs", "0"), "--epochs"),
        (("--configuration", "3d"), "no configuration '3d'"),
        (("--plans", "nonsense"), "no plans 'nonsense'"),
        (("--plans", "nonsense"), "nnUNetv2_plan_experiment -d ID -overwrite_plans_name nonsense"),
        (("--batch-size", "two"), "--batch-size"),
        (("--frobnicate",), "--frobnicate"),
        (("--workers", "-1"), "--workers"),
    ],
)
def test_wrong_options(demo_environ: dict[str, str], ppgs: Ppgs, options: tuple[str, ...], said: str) -> None:
    done = ppgs("train", "demo", "--no-tui", *options, environ=demo_environ)
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not Path(demo_environ["nnUNet_results"]).exists() or not any(Path(demo_environ["nnUNet_results"]).rglob("*"))


def test_a_device_that_this_machine_lacks(demo_environ: dict[str, str], ppgs: Ppgs) -> None:
    import torch

    lacking = next(
        d for d, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if not there
    )
    done = ppgs("train", "demo", "--no-tui", "--device", lacking, environ=demo_environ)
    assert done.returncode == 2
    assert f"no {lacking} device" in done.stderr
    assert not any(Path(demo_environ["nnUNet_results"]).rglob("*"))


def test_a_schedule_made_for_other_plans(demo_environ: dict[str, str], tmp_path: Path, ppgs: Ppgs) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(
        "made_for: {dataset: Dataset999_Demo, plans: nnUNetPlans, configuration: 3d_fullres,"
        " patch_size: [32, 32, 32], batch_size: 3, step: [8, 8, 8]}\n"
        "stages: [{patch_size: [32, 32, 32], batch_size: 3, epochs: 4}]\n"
    )
    done = ppgs("train", "demo", "--no-tui", "--schedule", path, environ=demo_environ)
    assert done.returncode == 2
    assert "batch_size is 3 there and 2 here" in done.stderr


def test_unknown_tasks_and_runs(tmp_path: Path, ppgs: Ppgs) -> None:
    assert ppgs("train", "demoo", "--root", tmp_path).returncode == 2
    assert ppgs("train", tmp_path / "Task01_X", "--root", tmp_path).returncode == 2
    assert ppgs("resume", "--root", tmp_path).returncode == 4
    assert ppgs("resume", "nothing", "--root", tmp_path).returncode == 4


def test_a_results_folder_that_cannot_be_written(demo_environ: dict[str, str], tmp_path: Path, ppgs: Ppgs) -> None:
    (tmp_path / "file").write_text("")
    done = ppgs("train", "demo", environ={**demo_environ, "nnUNet_results": str(tmp_path / "file" / "x")})
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_small_task_itself_is_fine(decathlon: Path, tmp_path: Path, ppgs: Ppgs) -> None:
    """The unspoiled reference task works; two processes prepare it at the same time and must not collide."""
    import threading

    results = []
    threads = [
        threading.Thread(target=lambda: results.append(ppgs("prepare", decathlon, "--root", tmp_path / "r", "--json")))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r.returncode for r in results] == [0, 0], [r.stderr for r in results]
    assert json.loads(results[0].stdout) == json.loads(results[1].stdout)
    folder = tmp_path / "r" / "nnUNet_preprocessed" / "Dataset007_Small" / "nnUNetPlans_3d_fullres"
    assert len(list(folder.glob("*.pkl"))) == 6
    # The folder has changed since, and what has changed is looked at as it was at first.
    wrong = strange_value(decathlon)
    done = ppgs("prepare", decathlon, "--root", tmp_path / "r")
    assert done.returncode == 2
    assert wrong in done.stderr


def test_a_schedule_that_does_not_fit_the_memory_given(demo_environ: dict[str, str], ppgs: Ppgs) -> None:
    done = ppgs("train", "demo", "--no-tui", "--device", "cpu", "--gpu-memory", "1MiB", environ=demo_environ)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert not any(Path(demo_environ["nnUNet_results"]).rglob("*"))
