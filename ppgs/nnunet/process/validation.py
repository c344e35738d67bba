"""The final validation: reported, watched while it runs, and its Dice read from nnU-Net's summary."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from typing import Any

from ppgs.nnunet.process.session import Session
from ppgs.plans import Dataset, read_json
from ppgs.runs.disk_space import telling_full_disk
from ppgs.runs.folder import RunFolder


def validate(session: Session, run: RunFolder, dataset: Dataset, emit: Callable[..., None]) -> None:
    """Validate with all ranks of a session; events report finished cases, and the Dice at the end."""
    result = segment_and_score(session, run, dataset, emit, "ppgs resume")
    emit("validation_finished", **result, durable=True)


def segment_and_score(
    session: Session, run: RunFolder, dataset: Dataset, emit: Callable[..., None], again: str
) -> dict[str, Any]:
    """Validate into `run` and return the Dice; `again` is the command to repeat it after a full disk."""
    trainer = session.trainer
    _, cases = trainer.do_split()
    emit("validation_started", cases=len(cases))
    shutil.rmtree(run.validation, ignore_errors=True)
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(1.0):
            done = len(list(run.validation.glob(f"*{dataset.file_ending}")))
            emit("validation_progress", done=done, total=len(cases))

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        with telling_full_disk(run.path, f"make room, then '{again}' validates again"):
            session.validate(run)
    except BaseException:
        # Its figures may not be those of all segmentations.
        run.summary.unlink(missing_ok=True)
        raise
    finally:
        ended.set()
        # An unresponsive file server may block it.
        thread.join(10)
    summary = read_json(run.summary)
    # Labels and regions are written there as text (`label_or_region_to_key`).
    names = {str(value): name for name, value in dataset.foreground.items()}
    dice = {names.get(key, key): float(values["Dice"]) for key, values in summary["mean"].items()}
    return {"dice": dice, "mean": float(summary["foreground_mean"]["Dice"])}
