"""Fuzzing of all readers of files: schedules, event logs, manifests, plans, dataset.json, NIfTI headers.

    python benchmarks/fuzz.py [--inputs 100000] [--seed 0]

Inputs are whole files with bits flipped, pieces cut, doubled or exchanged for hostile ones, in equal shares per kind.
Every one is either read or refused with a `PpgsError`. Exit code 1, with the first input of every kind of crash,
otherwise.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

from ppgs.errors import PpgsError, Problem
from ppgs.nnunet.images.nifti import check_nifti
from ppgs.plans import load_dataset, load_plans
from ppgs.runs.events import read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import Manifest, read_manifest
from ppgs.runs.request import TrainingRequest
from ppgs.runs.state import RunState
from ppgs.schedule.files import load
from ppgs.shipped import schedules

_HOSTILE = [
    *(b"\x00", b"\xff\xfe", b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 400, b"[" * 2000, b'{"a":' * 500),
    *(b"!!python/object/apply:os.system [id]", b"&a [*a, *a]", b"\n", b'"', b"{}", b"[]", b'"x"', b"0", b"0.5"),
]
_ARCHITECTURE = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {"strides": [[1, 1, 1], [2, 2, 2]], "conv_op": "torch.nn.modules.conv.Conv3d"},
    "_kw_requires_import": ["conv_op"],
}
_PLANS = {
    "plans_name": "nnUNetPlans",
    "dataset_name": "Dataset001_A",
    "configurations": {
        "3d_fullres": {
            "patch_size": [32, 32, 32],
            "batch_size": 2,
            "spacing": [1.0, 1.0, 1.0],
            "data_identifier": "x",
            "architecture": _ARCHITECTURE,
        },
        "other": {"inherits_from": "3d_fullres", "batch_size": 3},
    },
}
_DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": [1, 2], "b": 2}, "file_ending": ".nii.gz"}
_STAGE = {"patch_size": [8, 8, 8], "batch_size": 2, "epochs": 2, "voxels": 512}
_EVENTS: list[dict[str, object]] = [
    {"type": "run_started", "epoch": 0, "iteration": 0, "epochs": 2, "iterations_per_epoch": 3, "stages": [_STAGE]},
    {"type": "stage_started", "stage": 0, "epoch": 0, "patch_size": [8, 8, 8], "batch_size": 2},
    {"type": "iterations", "epoch": 0, "stage": 0, "iteration": 1, "iterations": 3, "phase": "train", "loss": 0.5},
    {"type": "epoch_finished", "epoch": 0, "stage": 0, "seconds": 1.5, "train_loss": 0.1, "pseudo_dice": [0.1]},
    {"type": "checkpoint_saved", "epoch": 1, "iteration": 0, "seconds": 0.1},
    {"type": "validation_finished", "dice": {"a": 0.5}, "mean": 0.5},
    {"type": "run_stopped", "reason": "SIGTERM"},
]


def seeds() -> dict[str, tuple[str, list[bytes]]]:
    """By kind: the file's name and whole contents to start from."""
    request = TrainingRequest(task="demo", kind="demo", schedule="mode: efficiency", schedule_name="efficiency")
    manifest = Manifest(
        name="a",
        task="demo",
        dataset="D",
        plans="p",
        configuration="c",
        fold=0,
        trainer="t",
        schedule="s",
        request=request,
    )
    lines = [json.dumps({"v": 1, "seq": i, "time": 1.0, **e}).encode() for i, e in enumerate(_EVENTS)]
    image = nibabel.Nifti1Image(np.zeros((6, 5, 4), np.float32), np.eye(4)).to_bytes()
    return {
        "schedule": ("s.yaml", [p.read_bytes()[:2000] for p in schedules().values()]),
        "events": ("events.jsonl", [b"\n".join(lines) + b"\n"]),
        "manifest": ("run.json", [manifest.model_dump_json().encode()]),
        "plans": ("plans.json", [json.dumps(_PLANS).encode()]),
        "dataset": ("dataset.json", [json.dumps(_DATASET).encode()]),
        "nifti": ("i.nii", [image]),
        "nifti.gz": ("i.nii.gz", [gzip.compress(image)]),
    }


def _read_log(path: Path) -> object:
    state = RunState().apply_all(read_events(path))
    return state.seconds_left, state.last_epoch


def readers(folder: Path) -> dict[str, Callable[[Path], object]]:
    run = RunFolder(folder)
    run.own.mkdir()
    return {
        "schedule": load,
        "events": _read_log,
        "manifest": lambda path: read_manifest(run) if path.replace(run.manifest) else None,
        "plans": load_plans,
        "dataset": load_dataset,
        "nifti": check_nifti,
        "nifti.gz": check_nifti,
    }


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one to four changes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1) if data else 0
        length = rng.choice((1, 1, 2, 4, 16, 64))
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = rng.choice(_HOSTILE)
            case 3:
                data[at : at + length] = rng.choice(_HOSTILE)
            case 4:
                data[at:at] = data[at : at + length] * rng.randint(1, 20)
            case _:
                data[at : at + length] = rng.randbytes(length)
    # Values exchanged whole reach deeper than bytes do.
    if rng.random() < 0.5 and data.count(b":"):
        parts = bytes(data).split(b",")
        index = rng.randrange(len(parts))
        key, colon, _ = parts[index].partition(b":")
        parts[index] = key + colon + rng.choice(_HOSTILE) if colon else rng.choice(_HOSTILE)
        return b",".join(parts)
    return bytes(data)


def fuzz(inputs: int, seed: int) -> tuple[Counter[str], dict[str, bytes]]:
    """Outcomes by kind, and the first input of every crash."""
    rng, counts, crashes = random.Random(seed), Counter[str](), dict[str, bytes]()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        read = readers(Path(name))
        kinds = list(seeds().items())
        for number in range(inputs):
            kind, (file, starts) = kinds[number % len(kinds)]
            content = mutated(rng.choice(starts), rng)
            path = Path(name) / file
            path.write_bytes(content)
            try:
                refused = isinstance(read[kind](path), Problem)
                counts[f"{kind}: {'refused' if refused else 'read'}"] += 1
            except PpgsError:
                counts[f"{kind}: refused"] += 1
            except Exception as error:
                counts[f"{kind}: CRASH"] += 1
                crashes.setdefault(f"{kind} {type(error).__name__}: {str(error)[:80]}", content)
    return counts, crashes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    counts, crashes = fuzz(given.inputs, given.seed)
    for outcome, number in sorted(counts.items()):
        print(f"{outcome}: {number}")
    for crash, content in crashes.items():
        print(f"{crash}\n    {content[:300]!r}")
    sys.exit(1 if crashes else 0)


if __name__ == "__main__":
    main()
