"""`--trainer`: from the command line to a model that predicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.commands import Ppgs

SHORT = ("--schedule", "constant", "--epochs", "1", "--iterations", "1", "--device", "cpu", "--no-energy", "--no-tui")


def test_a_run_of_another_trainer_predicts_with_its_network(
    demo_environ: dict[str, str], demo_root: Path, tmp_path: Path, ppgs: Ppgs
) -> None:
    done = ppgs("train", "demo", "--trainer", "nnUNetTrainerBN", *SHORT, "--json", environ=demo_environ)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "demo-constant-BN-fold0"
    (run,) = Path(demo_environ["nnUNet_results"]).glob("*/*/fold_0")
    assert run.parent.name == "nnUNetTrainerPPGS_constant_BN__nnUNetPlans__3d_fullres"
    assert json.loads((run / "ppgs" / "run.json").read_text())["request"]["trainer"] == "nnUNetTrainerBN"
    (image, *_) = sorted((demo_root / "nnUNet_raw" / "Dataset999_Demo" / "imagesTs").iterdir())
    done = ppgs("predict", run, "-i", image, "-o", tmp_path / "out", "--device", "cpu", environ=demo_environ)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 1


def test_what_cannot_be_trained_is_refused_before_anything_is_made(tmp_path: Path, ppgs: Ppgs) -> None:
    lab, root = tmp_path / "lab", tmp_path / "root"
    lab.mkdir()
    root.mkdir()
    (lab / "old.py").write_text(
        "class Old(nnUNetTrainer):\n"
        "    def __init__(self, plans, configuration, fold, dataset_json, unpack_dataset=True, device=None):\n"
        "        super().__init__(plans, configuration, fold, dataset_json, unpack_dataset, device)\n"
    )
    for name, said in {
        "nnUNetTrainer_warmup": "has its own checkpoints",
        "nnUNetTrainerDicLoss": "did you mean 'nnUNetTrainerDiceLoss'?",
        "Old": "unpack_dataset is gone since nnU-Net 2.6",
    }.items():
        environ = {"nnUNet_extTrainer": str(lab)}
        done = ppgs("train", "demo", "--trainer", name, "--root", root, *SHORT, environ=environ)
        assert done.returncode == 2
        assert said in " ".join(done.stderr.split())
        assert not list(root.iterdir())


@pytest.mark.parametrize("value", ["abc", ""])
def test_a_number_of_workers_that_is_none_is_refused_before_anything_is_made(
    value: str, tmp_path: Path, ppgs: Ppgs
) -> None:
    done = ppgs("train", "demo", "--root", tmp_path, *SHORT, environ={"nnUNet_n_proc_DA": value})
    assert done.returncode == 2
    assert f"nnUNet_n_proc_DA is '{value}'" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", ["demo", "Dataset999_Demo"])
def test_a_trainers_number_of_epochs_is_the_default(task: str, tmp_path: Path, ppgs: Ppgs) -> None:
    """Too few for the schedule's stages, as the class says."""
    done = ppgs("train", task, "--trainer", "nnUNetTrainer_1epoch", "--schedule", "efficiency", "--root", tmp_path)
    assert done.returncode == 2
    assert "1 epoch" in done.stderr
    assert not list(tmp_path.glob("*/*/*/fold_*"))
