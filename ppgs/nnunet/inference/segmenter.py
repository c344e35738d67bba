"""Segments images with one or several trained folds, through nnU-Net's own preprocessing, sliding window and export.

A cascade's second stage follows its first one. Segmentations appear under their names only when they are whole.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from ppgs.errors import BadInput, DiskFull, Problems
from ppgs.nnunet.images.find import Image
from ppgs.nnunet.inference.cases import GO_ON, Cases
from ppgs.nnunet.inference.model import Model
from ppgs.nnunet.inference.pipeline import Outcome, Pipeline, Timing, Workers
from ppgs.runs.disk_space import telling_full_disk

# Hidden: no image's name is one of these.
_STAGING, _LOCK, _PREVIOUS = ".ppgs-part-", ".lock", ".previous"
# Images that pass both stages of a cascade before the next ones: an interruption loses the first stage of these alone.
_GROUP = 16
Report = Callable[[int, int], None]


class Segmenter:
    """Segments images with a model; a cascade's second stage runs after its first, or on a folder of its results."""

    def __init__(
        self,
        model: Model,
        *,
        previous: Segmenter | Path | None = None,
        probabilities: bool = False,
        in_voxel_order: bool = False,
        workers: Workers | None = None,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        """`previous` is a cascade's first stage; `probabilities` writes them too (`.npz`), as ensembling needs them.

        `in_voxel_order` accepts channels that lie apart, as a training with `--geometry voxel` does. `say` is called
        with where the logits are put.
        """
        cases = Cases(model.plans, model.setup, model.dataset_json, in_voxel_order, probabilities)
        self._pipeline = Pipeline(model, cases, workers or Workers(), say)
        self._ending = cases.info.file_ending
        self._previous = previous

    def run(
        self,
        outputs: dict[Image, Path],
        folder: Path,
        *,
        report: Report,
        wrote: Callable[[Path], object] = lambda _: None,
    ) -> Outcome:
        """Segment every image into its file in `folder`, which is created if missing; call `wrote(file)` after each.

        Existing files are replaced: what may be is the caller's business (`ppgs.outputs`). Raises `DoesNotFit` before
        the work begins. Images that cannot be read or segmented, or that a worker process died of, are named in the
        outcome after all others are done.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(folder)
            staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder))
        except OSError as problem:
            if (full := DiskFull.of(problem, folder)) is not None:
                raise full.with_remedy(GO_ON) from None
            raise BadInput(f"the output folder cannot be written: {problem.strerror}", folder) from None
        try:
            with telling_full_disk(folder, GO_ON), _held(staging):
                return self._run(outputs, staging, report, wrote)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _run(
        self, outputs: dict[Image, Path], staging: Path, report: Report, wrote: Callable[[Path], object]
    ) -> Outcome:
        self._pipeline.require_room(list(outputs), staging)
        if not isinstance(self._previous, Segmenter):
            return self._pipeline.run(outputs, staging, self._previous, report, wrote)
        first, images = self._previous._pipeline, list(outputs)
        first.require_room(images, staging)
        previous, total = staging / _PREVIOUS, 2 * len(images)
        whole = Outcome([], Problems(), Timing())
        for start in range(0, len(images), _GROUP):
            group = images[start : start + _GROUP]
            between = {image: previous / f"{image.name}{self._ending}" for image in group}
            previous.mkdir()
            passed = partial(_report_from, report, 2 * start, total)
            whole.add(replace(first.run(between, staging, None, passed), written=[]))
            left = {image: outputs[image] for image in group if between[image].is_file()}
            passed = partial(_report_from, report, 2 * (start + len(group)) - len(left), total)
            whole.add(self._pipeline.run(left, staging, previous, passed, wrote))
            shutil.rmtree(previous)
        return whole


def _report_from(report: Report, before: int, total: int, done: int, _: int) -> None:
    report(before + done, total)


@contextmanager
def _held(staging: Path) -> Iterator[None]:
    """Within the block, show other processes that this one uses the folder."""
    unnamed = staging / ".lock-new"
    with unnamed.open("wb") as lock:
        with suppress(OSError):  # some network folders have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        # Only now, so that no other process takes it first.
        unnamed.replace(staging / _LOCK)
        yield


def _remove_leftovers(folder: Path) -> None:
    """Delete leftovers of killed predictions; running ones hold the lock on theirs."""
    for other in folder.glob(f"{_STAGING}*"):
        with suppress(OSError), (other / _LOCK).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(other, ignore_errors=True)
