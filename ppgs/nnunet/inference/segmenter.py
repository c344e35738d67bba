"""Segments images with one or several trained folds, through nnU-Net's own preprocessing, sliding window and export.

A cascade's second stage follows its first one. Segmentations appear under their names only when they are whole.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ppgs.errors import BadInput, DiskFull, Problems
from ppgs.nnunet.images.find import Image
from ppgs.nnunet.inference.cases import GO_ON, Cases
from ppgs.nnunet.inference.model import Model
from ppgs.nnunet.inference.pipeline import Outcome, Pipeline, Workers
from ppgs.runs.disk_space import telling_full_disk

# Hidden: no image's name is one of these.
_STAGING, _LOCK, _PREVIOUS = ".ppgs-part-", ".lock", ".previous"
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

    def run(self, outputs: dict[Image, Path], folder: Path, *, report: Report) -> Outcome:
        """Segment every image into its file in `folder`, which is created if missing.

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
                return self._run(outputs, staging, report)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _run(self, outputs: dict[Image, Path], staging: Path, report: Report) -> Outcome:
        previous, problems = self._previous, Problems()
        self._pipeline.require_room(list(outputs), staging)
        if isinstance(previous, Segmenter):
            previous._pipeline.require_room(list(outputs), staging)
            first = staging / _PREVIOUS
            first.mkdir()
            total = 2 * len(outputs)
            between = {image: first / f"{image.name}{self._ending}" for image in outputs}
            problems = previous._pipeline.run(between, staging, None, lambda done, _: report(done, total)).problems
            previous, whole = first, report
            outputs = {image: path for image, path in outputs.items() if between[image].is_file()}

            def report(done: int, of: int) -> None:
                whole(total - of + done, total)

        outcome = self._pipeline.run(outputs, staging, previous, report)
        outcome.problems.found[:0] = problems.found
        return outcome


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
