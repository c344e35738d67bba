"""The final validation: reported, watched while it runs, and its Dice read from the summary that nnU-Net wrote."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from ppgs.nnunet.data.cases import check_properties
from ppgs.nnunet.images.nifti import check_written
from ppgs.nnunet.process.session import Session
from ppgs.plans import Dataset, read_json
from ppgs.runs.disk_space import telling_full_disk
from ppgs.runs.folder import RunFolder


def validate(session: Session, run: RunFolder, dataset: Dataset, preprocessed: Path, emit: Callable[..., None]) -> None:
    """Validate with all processes of a session; events tell of the cases that are done, and at the end of the Dice."""
    trainer = session.trainer
    _, cases = trainer.do_split()
    # nnU-Net opens a next stage's cases itself.
    for stage in trainer.configuration_manager.next_stage_names or ():
        folder = preprocessed / trainer.plans_manager.get_configuration(stage).data_identifier
        for properties in (folder / f"{case}.pkl" for case in cases):
            if properties.is_file():
                check_properties(properties)
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
        with telling_full_disk(run.path, "make room, then 'ppgs resume' validates again"):
            session.validate()
            check_written(*run.validation.glob(f"*{dataset.file_ending}"))
    except BaseException:
        # Its figures may be of segmentations that were cut off.
        run.summary.unlink(missing_ok=True)
        raise
    finally:
        ended.set()
        # A file server that does not answer may keep it.
        thread.join(10)
    summary = read_json(run.summary)
    names = {_key(value): name for name, value in dataset.foreground.items()}
    dice = {names.get(key, key): float(values["Dice"]) for key, values in summary["mean"].items()}
    emit("validation_finished", dice=dice, mean=float(summary["foreground_mean"]["Dice"]), durable=True)


def _key(label: int | tuple[int, ...]) -> str:
    """How nnU-Net's summary.json writes a label or region."""
    return str(label if isinstance(label, int) or len(label) > 1 else label[0])
