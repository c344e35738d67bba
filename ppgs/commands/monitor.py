"""`monitor`: chooses the runs to watch, and stops or resumes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ppgs.commands.models import folds_of
from ppgs.commands.resume import check_resumable, roots_of
from ppgs.commands.stop import ask_to_stop
from ppgs.commands.train.child import TrainingChild
from ppgs.errors import NoSuchRun, RunError
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import is_held
from ppgs.runs.registry import FIRST_RUN, as_linked, find_run, find_runs
from ppgs.tasks import Roots


def choose_runs(given: Sequence[str], root: Path | None, environ: Mapping[str, str]) -> tuple[list[RunFolder], Roots]:
    """Return the runs to watch: those given, all folds of a model's folder, or the newest if none are given.

    Raises `NoSuchRun` when there is none.
    """
    roots = Roots.choose(root, environ)
    if given:
        chosen = [run for one in given for run in _folds(one, roots.results) or [find_run(one, roots.results)]]
        return list(dict.fromkeys(chosen)), roots
    known = list(find_runs(roots.results))
    if not known:
        raise NoSuchRun("there is no run to watch", roots.results, FIRST_RUN)
    # One that is being worked on now comes before one that was changed later.
    return [max(known, key=lambda pair: (is_held(pair[0].lock) is not None, pair[1].updated))[0]], roots


def _folds(given: str, results: Path) -> list[RunFolder]:
    path = Path(given)
    return folds_of(as_linked(path, results)) if path.is_dir() and not (path / "ppgs").is_dir() else []


class RunControl:
    """Stops and resumes runs on this machine; a process that it starts outlives it."""

    def __init__(self, roots: Roots, child: TrainingChild | None = None) -> None:
        self._roots = roots
        self.children: dict[RunFolder, TrainingChild] = {} if child is None else {child.run: child}

    def stop(self, run: RunFolder) -> None:
        """Ask the run's process to stop with a checkpoint; raises `RunError` if that is not possible from here."""
        if self.works_on(run):
            self.children[run].stop()
        else:
            ask_to_stop(run)

    def resume(self, run: RunFolder) -> None:
        """Continue the run in a separate process; raises `RunError` when it cannot be continued."""
        if self.works_on(run):
            raise RunError("the run is being worked on", run.path)
        check_resumable(run)
        self.children[run] = TrainingChild(run, roots_of(run, self._roots), detached=True)

    def works_on(self, run: RunFolder) -> bool:
        """Return whether a process that was started here still works on the run."""
        child = self.children.get(run)
        return child is not None and child.process.poll() is None
