"""The folder of a run: made with its manifest, replaced on request, removed if the training never started."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ppgs import upstream
from ppgs.commands.changes import changes_since
from ppgs.commands.pretrained import keep_weights
from ppgs.errors import BadInput, PathUnusable, PpgsError, RunExists
from ppgs.runs.atomic import is_leftover
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import Manifest, read_manifest, write_manifest
from ppgs.runs.registry import refuse_held
from ppgs.tasks import Roots


def _what_next(run: RunFolder, name: str) -> str:
    try:
        finished = read_manifest(run).status == "finished"
    except PpgsError:
        finished = False
    return f"it is finished: 'ppgs predict {name}' uses it" if finished else f"'ppgs resume {name}' continues it"


def claim_folder(run: RunFolder, manifest: Manifest, roots: Roots, *, overwrite: bool) -> None:
    """Make a run's folder with its manifest, in place of an older run with `overwrite`.

    Raises `RunLocked` for a run that is being trained, `RunExists` for any other (and, with `overwrite`, for a folder
    that holds more than a run), `BadInput` where nothing can be written. Leaves nothing behind then.
    """
    if run.path.exists():
        refuse_held(run, manifest.name)
        if not overwrite:
            changes = changes_since(run, roots)
            raise RunExists(
                f"there is a run '{manifest.name}' already"
                + (f", trained on data that have changed since ({changes.text})" if changes else ""),
                run.path,
                f"{_what_next(run, manifest.name)}; --name starts another beside it, --overwrite replaces it",
            )
        _check_only_a_run(run)
        shutil.rmtree(run.path)
        # Made by what is replaced; made again when a second stage asks for them.
        shutil.rmtree(run.model / upstream.NEXT_STAGE, ignore_errors=True)
    try:
        run.own.mkdir(parents=True)
    except OSError as problem:
        if run.own.is_dir():
            raise RunExists(
                f"another command has just begun a run '{manifest.name}'",
                run.path,
                f"'ppgs monitor {manifest.name}' shows it; --name starts another beside it",
            ) from None
        discard(run)
        raise _unwritable(run, problem) from None
    try:
        if manifest.request.pretrained is not None:
            keep_weights(Path(manifest.request.pretrained), run)
        write_manifest(run, manifest)
    except OSError as problem:
        discard(run)
        raise _unwritable(run, problem) from None
    except BaseException:
        discard(run)
        raise


def _unwritable(run: RunFolder, problem: OSError) -> PpgsError:
    unusable = PathUnusable.as_folder(run.path)
    what = f"the results folder cannot be written: {problem.strerror}"
    return unusable or BadInput(what, run.own, "choose another --root")


# What nnU-Net and ppgs write into a fold's folder.
_OF_A_RUN = re.compile(
    r"ppgs|validation(_raw|_best|_latest)?|checkpoint_\w+\.pth|progress\.(png|csv)|debug\.json|emissions\.csv"
    r"|training_log_[\d_]+\.txt|network_architecture.*|postprocessing\.(json|pkl)"
)


def _check_only_a_run(run: RunFolder) -> None:
    """Raise `RunExists` if the run's folder holds files that are not the run's."""
    if run.path.is_symlink():
        raise RunExists("the run's folder is a link", run.path, "remove the link yourself, or use --name")
    others = sorted(p.name for p in run.path.iterdir() if not (_OF_A_RUN.fullmatch(p.name) or is_leftover(p)))
    if others or not run.manifest.is_file():
        what = (
            f"the folder contains more than the run: {', '.join(others[:5])}"
            if others
            else "the folder contains no run"
        )
        raise RunExists(f"{what}; --overwrite would delete it", run.path, "move that elsewhere, or use --name")


def discard(run: RunFolder) -> None:
    """Remove a run that never started, and the folders made only for it."""
    shutil.rmtree(run.path, ignore_errors=True)
    for folder in (run.model, run.model.parent):
        try:
            folder.rmdir()
        except OSError:
            return


def never_began(run: RunFolder) -> bool:
    """Return whether a run has no checkpoint yet, so that nothing of it is worth keeping."""
    return not any(path.exists() for path in (run.checkpoint_latest, run.checkpoint_final, run.checkpoint_best))
