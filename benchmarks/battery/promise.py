"""Part 6: the method's promise: validation Dice, seconds and energy at equal epochs and at equal time.

Needs real cases, prepared below `--root` for the tasks named in `TASKS` (those absent are skipped), and SimpleITK for
validation. Trainings are continued where an earlier call stopped them, so that a long one may be spread over calls.
`kwh` is the machine's energy as CodeCarbon measures it, where that is installed; `gpu_kwh` is the GPU's own count, with
the validation.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import Any

from battery.data import TINY, write_task
from battery.record import Part, Skip
from battery.training import use_roots

TASKS = ("Dataset004_Hippocampus", "Dataset027_ACDC")
_EPOCHS, _ITERATIONS = 100, 250


def take(part: Part) -> None:
    for task in ("Dataset998_Tiny",) if part.dry else TASKS:
        whole: dict[str, Any] = {}
        for schedule in ("efficiency",) if part.dry else ("efficiency", "constant", "performance"):
            take_one = partial(trained, part, task, schedule, 10 if part.dry else _EPOCHS)
            found = part.item(f"{task} {schedule} equal epochs", 240, take_one)
            whole[schedule] = found
        quick, slow = whole.get("efficiency"), whole.get("constant")
        if quick and slow:
            epochs = max(1, round(_EPOCHS * quick["seconds"] / slow["seconds"]))
            part.item(f"{task} constant equal time", 240, partial(trained, part, task, "constant", epochs))


def trained(part: Part, task: str, schedule: str, epochs: int) -> dict[str, Any]:
    """One training by the command itself, with its validation on whole images."""
    roots = use_roots(part.root)
    if part.dry:
        write_task(TINY, roots)
    if not (roots.preprocessed / task / "splits_final.json").is_file():
        raise Skip("the task is not prepared below --root")
    name = f"promise-{epochs}"
    pattern = f"{task}/*PPGS_{schedule}_*{name}__*/fold_0"
    known = list(roots.results.glob(pattern))
    if not part.dry and known:
        command = [sys.executable, "-m", "ppgs", "resume", str(known[0])]
    else:
        iterations = 1 if part.dry else _ITERATIONS
        command = [
            sys.executable, "-m", "ppgs", "train", task, "--root", str(part.root), "--schedule", schedule, "--epochs",
            str(epochs), "--iterations", str(iterations), "--device", part.device, "--name", name, "--overwrite",
            "--no-tui", *(("--workers", "0", "--no-energy") if part.dry else ()),
        ]  # fmt: skip
    spent = part.root / f"{task}-{schedule}-{name}.joules"
    used = float(spent.read_text()) if known and spent.is_file() else 0.0
    if not (known and (known[0] / "validation" / "summary.json").is_file()):
        # SIGTERM has it save and stop; the next call resumes.
        limit = [] if part.dry else ["timeout", "--signal=TERM", str(max(1, int(part.left - 20)))]
        begun = joules(part.device)
        done = subprocess.run([*limit, *command], capture_output=True, text=True)
        if begun is not None:
            used += joules(part.device) - begun
            spent.write_text(str(used))
        # The tiny task has no reference segmentations to be validated with.
        if done.returncode and not part.dry:
            raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-3000:]}")
    (fold,) = roots.results.glob(pattern)
    records = [json.loads(line) for line in (fold / "ppgs" / "events.jsonl").read_text().splitlines()]
    ended = [r for r in records if r["type"] == "epoch_finished"]
    if len(ended) < epochs:
        raise RuntimeError(f"{len(ended)} of {epochs} epochs were trained")
    summary = fold / "validation" / "summary.json"
    energy = [r.get("energy_wh") for r in ended]
    return {
        "dice": json.loads(summary.read_text())["foreground_mean"]["Dice"] if summary.is_file() else None,
        "seconds": sum(r["seconds"] for r in ended),
        "kwh": sum(energy) / 1000 if all(e is not None for e in energy) else None,
        "gpu_kwh": used / 3.6e6 if spent.is_file() else None,
        "epochs": epochs,
        "pseudo_dice": ended[-1]["ema_dice"],
    }


def joules(device: str) -> Any:
    """Joules that the GPU has used since its driver was loaded; None without a GPU that counts them."""
    if device != "cuda":
        return None
    import torch

    from ppgs.nnunet.probing.timing import _Energy

    return _Energy(torch.device(device))._read()
