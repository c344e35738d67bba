"""`train --pretrained`: a fine-tuning from a checkpoint as stock nnU-Net writes it, to its end and through a stop."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from ppgs import upstream
from ppgs.nnunet.checkpoints.files import load_checkpoint
from ppgs.tasks import DEMO_DATASET
from tests.helpers.commands import Ppgs, start, wait_for
from tests.helpers.runs import manifest, only_run

FINE = ("--from-stage", "8", "--epochs", "4", "--iterations", "2", "--batch-size", "2", "--freeze", "encoder.*")
QUIET = ("--device", "cpu", "--no-energy", "--no-tui")


def stock(environ: dict[str, str], path: Path, *, channels: int = 1) -> Path:
    """A checkpoint of the demo's network with stock nnU-Net's keys; the numbers in its log are NumPy's."""
    plans = json.loads(Path(environ["nnUNet_preprocessed"], DEMO_DATASET, "nnUNetPlans.json").read_text())
    named = plans["configurations"]["3d_fullres"]["architecture"]
    torch.manual_seed(7)
    network = get_network_from_plans(
        named["network_class_name"], named["arch_kwargs"], named["_kw_requires_import"], channels, 3
    )
    content: dict[str, Any] = {
        **dict.fromkeys(upstream.CHECKPOINT_KEYS),
        "network_weights": network.state_dict(),
        "logging": {"mean_fg_dice": [np.float64(0.5)]},
        "_best_ema": np.float64(0.5),
        "init_args": {"plans": plans, "configuration": "3d_fullres", "fold": 0, "device": torch.device("cpu")},
    }
    torch.save(content, path)
    return path


def test_a_fine_tuning_and_its_resume_without_the_source(
    demo_environ: dict[str, str], tmp_path: Path, ppgs: Ppgs
) -> None:
    source = stock(demo_environ, tmp_path / "checkpoint_final.pth")
    before = torch.load(source, weights_only=False)["network_weights"]
    done = ppgs("train", "demo", "--pretrained", source, *FINE, *QUIET, environ=demo_environ)
    assert done.returncode == 0, done.stderr
    whole = only_run(demo_environ)
    weights = load_checkpoint(whole / "checkpoint_final.pth")["network_weights"]
    moved = {name for name, value in weights.items() if not torch.equal(value, before[name])}
    assert moved and all(".encoder." not in f".{name}" for name in moved)
    said = manifest(whole)["pretrained"]
    assert (said["source"], said["dataset"], said["plans"]) == (str(source), DEMO_DATASET, "nnUNetPlans")
    assert not (whole / "ppgs" / "pretrained.pth").exists()

    other = {**demo_environ, "nnUNet_results": str(tmp_path / "other")}
    process = start(other, "train", "demo", "--pretrained", str(source), *FINE, *QUIET)
    wait_for(tmp_path / "other", "checkpoint_saved", 1)
    source.unlink()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 75
    resumed = ppgs("resume", "--no-tui", environ=other)
    assert resumed.returncode == 0, resumed.stderr
    again = load_checkpoint(only_run(other) / "checkpoint_final.pth")
    assert all(torch.equal(value, weights[name]) for name, value in again["network_weights"].items())


def test_a_mismatch_lists_both_shapes_and_leaves_no_run(
    demo_environ: dict[str, str], tmp_path: Path, ppgs: Ppgs
) -> None:
    source = stock(demo_environ, tmp_path / "other.pth", channels=2)
    done = ppgs("train", "demo", "--pretrained", source, *QUIET, environ=demo_environ)
    assert done.returncode == 2, done.stderr
    assert "encoder.stages.0.0.convs.0.conv.weight" in done.stderr and "in the network" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path(demo_environ["nnUNet_results"]).glob("*/*/fold_*"))
