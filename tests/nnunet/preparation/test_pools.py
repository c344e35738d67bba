"""nnU-Net's pools, and ours, when a worker is killed: an immediate error that names the case."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from ppgs.errors import WorkerLost
from ppgs.nnunet.preparation.pipeline import Preparation
from ppgs.nnunet.process.session import validate_together
from ppgs.processes.pool import watched_pools
from ppgs.tasks import Roots, Task
from tests.nnunet.trainer.test_faults import SHORT

CASES = [f"case_{n}" for n in range(6)]
NAMED = r"was killed by SIGKILL while it worked on .*case_\d"


@contextmanager
def killing(since: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Kill the first worker process that is started within, as the system does when memory is short."""
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.002):
            if since() and (children := multiprocessing.active_children()) and not over.is_set():
                children[0].kill()
                return

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not multiprocessing.active_children()


def write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(path))


@pytest.fixture
def decathlon(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "Task07_Tiny", np.random.default_rng(0)
    for name in CASES:
        label = np.zeros((12, 12, 12), np.uint8)
        label[3:8, 3:8, 3:8] = 1
        write(folder / "labelsTr" / f"{name}.nii.gz", label)
        write(folder / "imagesTr" / f"{name}.nii.gz", rng.normal(size=label.shape).astype(np.float32))
    (folder / "imagesTs").mkdir()
    pairs = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in CASES]
    dataset = {"name": "Tiny", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "a"}, "training": pairs,
               "test": [], "numTraining": len(CASES), "numTest": 0, "tensorImageSize": "3D"}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


@pytest.fixture
def preparation(decathlon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Preparation:
    roots = Roots.under(tmp_path / "root")
    for name, value in roots.environment.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setattr(f"nnunetv2.paths.{name}", value)
    task = Task("Task07_Tiny", "Dataset007_Tiny", "decathlon", decathlon)
    roots.preprocessed.mkdir(parents=True)
    return Preparation(task, roots, "nnUNetPlans", "3d_fullres", lambda *_: None)


def test_a_worker_killed_in_any_step_of_a_preparation(preparation: Preparation) -> None:
    with pytest.raises(WorkerLost, match=NAMED), killing():
        preparation.run()
    assert not preparation.raw.exists()
    with pytest.raises(WorkerLost, match=NAMED), killing(preparation.raw.exists):
        preparation.run()
    fingerprint = preparation.preprocessed / "dataset_fingerprint.json"
    assert preparation.raw.exists() and not fingerprint.exists()
    with pytest.raises(WorkerLost, match=NAMED) as lost, killing(preparation.plans_file.exists):
        preparation.run()
    assert "the same command continues" in lost.value.problems[0].remedy
    # The same again does what is left.
    preparation.run()


def test_a_worker_killed_while_metrics_are_computed(decathlon: Path) -> None:
    labels = str(decathlon / "labelsTr")
    with watched_pools(), pytest.raises(WorkerLost, match=NAMED), killing():
        compute_metrics_on_folder(labels, labels, None, SimpleITKIO(), ".nii.gz", [1], num_processes=2)


def test_a_worker_killed_while_segmentations_are_exported(build: Any) -> None:
    trainer = build(SHORT)
    with watched_pools(), pytest.raises(WorkerLost, match=r"while it worked on demo_\d"), killing():
        validate_together(trainer, trainer.settings.run, npz=False)
