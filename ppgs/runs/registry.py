"""Lookup of runs by name or folder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ppgs.errors import BadInput, DamagedRun, NoCheckpoint, NoSuchRun, PathUnusable, RunLocked, nearest
from ppgs.runs.events import read_events
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import is_held
from ppgs.runs.manifest import UNFINISHED, Manifest, read_manifest
from ppgs.runs.names import WORKING, run_folders
from ppgs.runs.queue import waits
from ppgs.tasks import Roots

# The remedy if there is no run at all.
FIRST_RUN = "start a first run with 'ppgs train demo', or give --root if your runs are elsewhere"


def find_runs(results: Path) -> Iterator[tuple[RunFolder, Manifest]]:
    """Yield all readable runs under nnUNet_results, oldest first; raises `PathUnusable` where that is no folder."""
    PathUnusable.check_folder(results)
    found = []
    for run in run_folders(results):
        try:
            found.append((run, read_manifest(run)))
        except (DamagedRun, NoSuchRun):
            continue
    yield from sorted(found, key=lambda pair: pair[1].created)


def unreadable(results: Path) -> list[Path]:
    """Return folders and files under nnUNet_results that may not be read, with whatever runs they belong to."""
    levels = ("Dataset*", "*__*__*", "fold_*", "ppgs", "run.json")
    found = (path for depth in range(1, len(levels) + 1) for path in results.glob("/".join(levels[:depth])))
    return sorted(path for path in found if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)))


def _without_runs(results: Path) -> str:
    """Return the remedy where no run can be found."""
    if closed := unreadable(results):
        return f"ask for permission to read {', '.join(map(str, closed[:3]))}"
    return FIRST_RUN


def is_interrupted(run: RunFolder, manifest: Manifest) -> bool:
    """Return whether a run's status says that it is working although no live process holds it."""
    return manifest.status in WORKING and is_held(run.lock) is None


def refuse_held(run: RunFolder, name: str) -> None:
    """Raise `RunLocked` if a live process has the run of this name."""
    if (owner := is_held(run.lock)) is not None:
        raise RunLocked(f"the run is held by process {owner.pid} on {owner.host}", run.path, f"ppgs monitor {name}")


def has_trained(run: RunFolder) -> bool:
    """Return whether a run has trained on its data."""
    saved = (run.checkpoint_final, run.checkpoint_latest, run.checkpoint_best)
    return any(path.is_file() for path in saved) or _has_saved(run)


def refuse_lost_checkpoint(run: RunFolder) -> None:
    """Raise `NoCheckpoint` if the run cannot be continued from the checkpoint that it had once."""
    if not run.checkpoint_final.is_file() and not run.checkpoint_latest.is_file() and _has_saved(run):
        raise NoCheckpoint("the run's checkpoint is gone", run.checkpoint_latest, "restore it from a backup")


def _has_saved(run: RunFolder) -> bool:
    return any(record["type"] == "checkpoint_saved" for record in read_events(run.events))


def as_linked(folder: Path, results: Path) -> Path:
    """Return a run's or a model's folder as nnUNet_results has it, where the dataset's folder may be a link.

    nnU-Net finds a dataset by the name of the link, so a run keeps that name. Any other folder has its links resolved.
    """
    resolved = folder.resolve()
    around = [parent for parent in folder.absolute().parents if parent.name == "nnUNet_results"]
    for place in (*around, results):
        for run in run_folders(place):
            for known in (run.path, run.own, run.model):
                if known.resolve() == resolved:
                    return known
    return resolved


def find_run(given: str, results: Path) -> RunFolder:
    """Return the run of that name or in that folder; raises `NoSuchRun` with the nearest name."""
    path = Path(given)
    if path.is_dir():
        run = RunFolder(as_linked(path, results))
        if run.own.is_dir():
            return run
        if run.path.name == "ppgs":
            return RunFolder(run.path.parent)
        folds = sorted(p.parent for p in run.path.glob("fold_*/ppgs"))
        if len(folds) == 1:
            return RunFolder(folds[0])
        if folds:
            raise NoSuchRun(
                "this folder contains several folds", given, f"choose one: {', '.join(f.name for f in folds)}"
            )
    known = list(find_runs(results))
    called = [run for run, m in known if m.name == given]
    if path.is_dir() and not called:
        raise NoSuchRun(
            "this folder contains no run of ppgs", given, "give a fold's folder, or a name from 'ppgs runs'"
        )
    if len(called) > 1:
        raise _several(given, [run.path for run in called])
    if called:
        return called[0]
    inside = RunFolder(results / given)
    if inside.own.is_dir():
        return inside
    hint = nearest(given, [m.name for _, m in known])
    raise NoSuchRun(f"there is no run '{given}'", results, hint or _without_runs(results))


def find_run_or_model(given: str, results: Path) -> RunFolder | Path:
    """Find a run as `find_run`, or the folder of the model whose folds are the runs GIVEN-foldK or GIVEN-all.

    Raises `NoSuchRun` if there is neither, or several models of that name.
    """
    try:
        return find_run(given, results)
    except NoSuchRun:
        model = _find_model(given, results)
        if model is None:
            raise
        return model


def _find_model(given: str, results: Path) -> Path | None:
    models = {
        run.model for run, m in find_runs(results) if m.name in (f"{given}-fold{run.fold}", f"{given}-{run.fold}")
    }
    if len(models) > 1:
        raise _several(given, sorted(models))
    return next(iter(models), None)


def _several(given: str, folders: Sequence[Path]) -> NoSuchRun:
    """Return the error for an ambiguous name: it contains a dataset's short name, which two may share."""
    return NoSuchRun(f"several are called '{given}'", ", ".join(map(str, folders)), "give the folder of one of them")


def command(verb: str, run: RunFolder, name: str) -> str:
    """Return `ppgs VERB NAME`, with `--root` unless it is the default one from here."""
    results = run.results.absolute()
    option = root_option(run)
    if option or _is_default(results):
        return f"ppgs {verb} {name}{option}"
    return f"ppgs {verb} {shlex.quote(str(run.path.absolute()))}"


def root_option(run: RunFolder) -> str:
    """Return ` --root DIR` for commands on a run; empty where it is the default from here, or there is no such DIR."""
    results = run.results.absolute()
    if _is_default(results) or results != Roots.under(results.parent).results:
        return ""
    return f" --root {shlex.quote(str(results.parent))}"


def _is_default(results: Path) -> bool:
    # Where the environment names some of nnU-Net's folders only, every command needs --root.
    # Without a working folder, which was removed, there is no default one.
    with suppress(BadInput, FileNotFoundError):
        return results == Roots.choose(None, os.environ).results
    return False


def newest_unfinished(results: Path) -> RunFolder:
    """Return the most recent unfinished run that no process is training; raises `NoSuchRun`."""
    runs = [
        (run, manifest)
        for run, manifest in find_runs(results)
        # One whose job was cancelled waits no more.
        if (manifest.status in UNFINISHED or (manifest.status == "queued" and not waits(run, manifest)))
        and is_held(run.lock) is None
    ]
    if not runs:
        known = list(find_runs(results))
        if not known:
            remedy = _without_runs(results)
            why = "nothing has been trained yet" if remedy == FIRST_RUN else "none can be read"
            raise NoSuchRun(f"there is no run to resume: {why}", results, remedy)
        if all(manifest.status == "finished" for _, manifest in known):
            remedy = "'ppgs runs' lists them; 'ppgs predict' uses one, 'ppgs train TASK' starts another"
            raise NoSuchRun("there is no unfinished run: all are finished", results, remedy)
        raise NoSuchRun(
            "there is no run to resume: the unfinished ones are being trained or wait in a queue",
            results,
            "'ppgs runs' lists them, 'ppgs monitor' shows one",
        )
    return max(runs, key=lambda pair: pair[1].updated)[0]
