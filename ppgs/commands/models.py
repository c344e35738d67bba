"""Find the folds of one model that a RUN argument means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ppgs.errors import NoCheckpoint, NoSuchRun
from ppgs.runs.folder import Checkpoint, RunFolder
from ppgs.runs.registry import find_run_or_model
from ppgs.tasks import parse_folds

# Checkpoints to segment with, the first that exists.
USUAL: tuple[Checkpoint, ...] = ("final", "latest")


def find_folds(
    given: str,
    folds: str | None,
    results: Path,
    choose: Callable[[list[RunFolder]], list[RunFolder]] = list,
    *,
    stock: bool = False,
) -> list[RunFolder]:
    """Return the folds of one model: one run's, all in a model's folder, or all of a name without its fold.

    `folds` chooses among the model's (`0,2`, `0-4`). Without it, fold `all` is used only if there is no
    other that `choose` leaves: it was trained on the others' validation cases. With `stock`, a model's
    folder may be nnU-Net's own. Raises `NoSuchRun`.
    """
    path = Path(given)
    folder = path.resolve()
    runs = (folds_of(folder) or (stock_folds(folder) if stock else [])) if path.is_dir() else []
    if not runs:
        found = find_run_or_model(given, results)
        runs = [found] if isinstance(found, RunFolder) else folds_of(found)
    if folds is not None:
        wanted = [RunFolder(runs[0].model / f"fold_{fold}") for fold in parse_folds(folds)]
        missing = [r.path.name for r in wanted if r not in runs and not r.own.is_dir()]
        if missing:
            raise NoSuchRun(f"{', '.join(missing)} of this model has not been trained", runs[0].model)
        return wanted
    runs = choose(runs)
    return [run for run in runs if run.fold != "all"] or runs


def most_trained(runs: list[RunFolder], say: Callable[[str], object] = lambda _: None) -> list[RunFolder]:
    """Return the finished folds, else those with a checkpoint, else all; call `say` with those that are left out."""
    final, latest = ([run for run in runs if run.checkpoint(which).is_file()] for which in USUAL)
    chosen = final or latest or runs
    if left := [run for run in runs if run not in chosen and run.fold != "all"]:
        text = f"fold {', '.join(run.fold for run in left)}: not finished, left out"
        if begun := [run.fold for run in left if run in latest]:
            both = ",".join(run.fold for run in runs if run.fold != "all" and (run in chosen or run in latest))
            text += f" (--fold {both} uses the latest checkpoint of fold {', '.join(begun)})"
        say(text)
    return chosen


def folds_of(model: Path) -> list[RunFolder]:
    """Return all runs of a model's folder, in the order of their folds."""
    runs = (RunFolder(p.parent) for p in model.glob("fold_*/ppgs"))
    return sort_folds([run for run in runs if run.fold == "all" or run.fold.isdecimal()])


def stock_folds(model: Path) -> list[RunFolder]:
    """Return the finished folds in a model's folder of nnU-Net itself, such as an installed one; none of others."""
    if not all((model / name).is_file() for name in ("plans.json", "dataset.json")):
        return []
    return sort_folds([RunFolder(p.parent) for p in model.glob("fold_*/checkpoint_final.pth")])


def sort_folds(runs: list[RunFolder]) -> list[RunFolder]:
    """Return the runs sorted by fold number, `all` last."""
    return sorted(runs, key=lambda run: (run.fold == "all", run.fold.zfill(4)))


def finished(run: RunFolder) -> Path:
    """Return the final checkpoint of a run; raises `NoCheckpoint`."""
    if not run.checkpoint_final.is_file():
        raise NoCheckpoint("the run has not been trained to its end", run.path, "'ppgs resume' continues it")
    return run.checkpoint_final
