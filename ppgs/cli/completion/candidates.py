"""The values that TAB offers: tasks, runs, schedules and what else has names.

The completion scripts ask for them by `ppgs completion values KINDS WORD LINE...`, which is answered without Typer,
Pydantic or anything else that takes time to import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ppgs import shipped
from ppgs.errors import BadInput
from ppgs.runs.names import WORKING, run_names
from ppgs.tasks import DEMO, Roots
from ppgs.trainers import Trainers

Named = Mapping[str, str]


def offer(kinds: str, word: str, line: Sequence[str]) -> Named:
    """Return the values of these kinds (separated by commas) that begin with `word`, each with a short description.

    `line` is the command line so far without the program: its `--root` and its command are heeded.
    """
    roots = Roots.choose(_root(line), os.environ)
    found: dict[str, str] = {}
    for kind in kinds.split(","):
        if kind not in KINDS:
            continue
        # Values that may be listed are completed one after the other.
        before, comma, _ = word.rpartition(",") if kind in _LISTS else ("", "", "")
        found |= {before + comma + name: note for name, note in KINDS[kind](roots, line).items()}
    return {name: note for name, note in found.items() if name.startswith(word)}


def _root(line: Sequence[str]) -> Path | None:
    given = None
    for i, word in enumerate(line):
        if word == "--root" and i + 1 < len(line):
            # bash takes `--root=DIR` apart.
            given = line[i + 2] if line[i + 1] == "=" and i + 2 < len(line) else line[i + 1]
        elif word.startswith("--root="):
            given = word.removeprefix("--root=")
    return Path(given).expanduser() if given else None


def _command(line: Sequence[str]) -> str:
    return next((word for word in line if not word.startswith("-")), "")


def _tasks(roots: Roots, line: Sequence[str]) -> Named:
    here = sorted(p.name for pattern in ("Task*_*", "Dataset*_*") for p in Path().glob(pattern) if p.is_dir())
    known = {DEMO: "built-in"} | dict.fromkeys(roots.datasets(), "dataset") | dict.fromkeys(here, "folder")
    if _command(line) == "plan-schedule":
        known |= dict.fromkeys(shipped.tasks(), "default plans")
    elif "--download" in line:
        known |= dict.fromkeys(shipped.tasks(), "to download")
    return known


def _runs(roots: Roots, line: Sequence[str]) -> Named:
    runs = run_names(roots.results)
    if _command(line) == "resume":
        return {name: status for name, status in runs.items() if status != "finished"}
    if _command(line) == "stop":
        return {name: status for name, status in runs.items() if status in WORKING}
    if _command(line) in ("predict", "export", "compare"):
        models = [name.rsplit("-fold", 1)[0] for name in runs]
        runs |= {name: "all folds" for name in models if models.count(name) > 1}
    return runs


def _schedules(_: Roots, __: Sequence[str]) -> Named:
    files = sorted(p.name for pattern in ("*.yaml", "*.yml") for p in Path().glob(pattern))
    return dict.fromkeys(shipped.schedules(), "shipped") | dict.fromkeys(files, "file")


def _configurations(_: Roots, __: Sequence[str]) -> Named:
    return dict.fromkeys(("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"), "")


def _plans(roots: Roots, _: Sequence[str]) -> Named:
    there = roots.preprocessed.glob("Dataset*/*Plans*.json") if roots.preprocessed.is_dir() else ()
    return dict.fromkeys(sorted({"nnUNetPlans", *(p.stem for p in there)}), "")


def _trainers(_: Roots, __: Sequence[str]) -> Named:
    return {name: "" for name, one in Trainers.of(os.environ).classes.items() if not one.refused}


def _cards(_: Roots, __: Sequence[str]) -> Named:
    from ppgs.estimate.cards import CARDS

    return {name: f"{mib / 1024:.0f} GiB" for name, mib in CARDS.items()}


KINDS: dict[str, Callable[[Roots, Sequence[str]], Named]] = {
    "TASK": _tasks,
    "RUN": _runs,
    "SCHEDULE": _schedules,
    "CONFIGURATION": _configurations,
    "PLANS": _plans,
    "CARD": _cards,
    "TRAINER": _trainers,
}
"""What the metavars of the command line name; the completion scripts are made from those."""

_LISTS = ("SCHEDULE", "CONFIGURATION")


def main(arguments: Sequence[str]) -> None:
    """Print one value and its description per line; print nothing on any error, since TAB cannot show it."""
    try:
        kinds, word, *line = arguments
        for name, note in offer(kinds, word, line).items():
            sys.stdout.write(f"{name}\t{note}\n")
    except (OSError, ValueError, BadInput):
        return
