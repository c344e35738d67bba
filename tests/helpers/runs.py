"""The content of a run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def only_run(environ: dict[str, str]) -> Path:
    """The fold's folder of the only run below nnUNet_results."""
    (run,) = Path(environ["nnUNet_results"]).glob("*/*/fold_*")
    return run


def manifest(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "ppgs" / "run.json").read_text())
    return found


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "ppgs" / "events.jsonl").read_text().splitlines()]


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(run / "checkpoint_final.pth", weights_only=True)["network_weights"]
    return found


def leftovers(run: Path) -> list[str]:
    """Names of partly written files and of a lock that was not released."""
    return [p.name for p in run.rglob("*") if ".part-" in p.name or p.name == "lock"]
