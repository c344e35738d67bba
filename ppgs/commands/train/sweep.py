"""Sweeps: tasks times configurations times schedules times folds, planned and checked as a whole before any starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppgs.commands.resume import change_options, check_resumable
from ppgs.commands.train.plan import create_run, plan_run
from ppgs.errors import DamagedRun, NoSuchRun, PlansError, PpgsError, Problems, RunExists
from ppgs.estimate.training_budget import parse_until
from ppgs.plans import load_plans_of
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import is_held
from ppgs.runs.manifest import Manifest, read_manifest
from ppgs.runs.queue import waits
from ppgs.runs.registry import command
from ppgs.runs.request import TrainingRequest
from ppgs.runs.sweep import Cell, Sweep
from ppgs.tasks import Roots, parse_folds

Standing = Literal["new", "continue", "finished", "held"]
# Where these differ, a run of the same name is another training, not this one interrupted.
_SAME = (
    *("schedule", "trainer", "epochs", "iterations", "budget", "batch_size"),
    *("mirroring", "fit", "seed", "previous_stage", "npz"),
    *("from_stage", "start_patch", "pretrained", "freeze", "gpu_memory", "patience", "deterministic", "channels_last"),
)
# Where these are given; else a training continues as it began.
_SAME_IF_GIVEN = ("precision", "augmentation", "geometry", "energy", "log")
# An interrupted training continues with the command's, where they are given.
_CHANGEABLE = {"gpus", "restarts", "workers", "loader_timeout", "skip_nonfinite", "until"}


def _differences(keys: Sequence[str], theirs: TrainingRequest, mine: TrainingRequest) -> str:
    def shown(value: object) -> str:
        return "not given" if value is None else str(value)

    return ", ".join(
        key
        if key == "schedule"
        else f"{key.replace('_', ' ')} {shown(getattr(theirs, key))}, now {shown(getattr(mine, key))}"
        for key in keys
    )


@dataclass(frozen=True)
class Planned:
    """One training of a sweep: the request and its folder."""

    asked: TrainingRequest
    fold: int | str
    run: RunFolder
    manifest: Manifest

    def standing(self) -> Standing:
        """Return what remains to be done. Raises `RunExists` if another training is in its place."""
        if not self.run.path.exists():
            return "new"
        if is_held(self.run.lock) is not None:
            return "held"
        try:
            there = read_manifest(self.run)
        except NoSuchRun:
            if self.asked.overwrite:
                return "new"
            raise RunExists("the folder contains a training of another tool", self.run.path, "use --name") from None
        except DamagedRun:
            if self.asked.overwrite:
                return "new"
            raise
        if waits(self.run, there):
            return "held"
        if self.asked.overwrite:
            return "new"
        mine, theirs = self.manifest.request, there.request
        given = self.asked.model_dump(include=set(_SAME_IF_GIVEN), exclude_defaults=True)
        differing = [key for key in (*_SAME, *given) if getattr(mine, key) != getattr(theirs, key)]
        lacks_npz = "npz" in differing and mine.npz and there.status == "finished"
        if lacks_npz and any(self.run.validation.glob("*.npz")):
            # `validate --npz` kept them since.
            differing.remove("npz")
        # A time to end at is another one every day.
        differing += ["until"] if (mine.until is None) != (theirs.until is None) else []
        if differing:
            validate = command("validate", self.run, there.name)
            keeps = f"'{validate} --npz' keeps the probabilities; " if lacks_npz and differing == ["npz"] else ""
            raise RunExists(
                f"'{there.name}' was trained with other options ({_differences(differing, theirs, mine)})",
                self.run.path,
                f"{keeps}--name starts another beside it, --overwrite replaces it",
            )
        return "finished" if there.status == "finished" else "continue"

    def claim(self, roots: Roots, *, first_stage_is_there: bool = True, again: bool = False) -> RunFolder:
        """Return the run, created or ready to be continued; raises as `create_run` and `check_resumable`.

        `again`: the command was started anew by torchrun, and its next seven o'clock may be another one by now.
        """
        if self.standing() == "new":
            return create_run(self.asked, self.fold, roots, first_stage_is_there=first_stage_is_there)
        check_resumable(self.run)
        changeable = _CHANGEABLE - {"until"} if again else _CHANGEABLE
        change_options(self.run, **self.asked.model_dump(include=changeable, exclude_defaults=True))
        return self.run

    def waits_for(self, others: Sequence[Planned], roots: Roots) -> bool:
        """Return whether one of the others must finish first: one that prepares the task, or a first stage."""
        try:
            return self.follows(others, roots)
        except PlansError:
            return bool(self._alike(others))

    def follows(self, others: Sequence[Planned], roots: Roots) -> bool:
        """Return whether one of the others is the first stage of this training; raises `PlansError` without plans."""
        plans = load_plans_of(roots.preprocessed / self.manifest.dataset, self.manifest.plans)
        stage = plans.configuration(self.manifest.configuration).previous_stage
        wanted = (self.manifest.trainer, self.manifest.plans, stage)
        return stage is not None and any(
            (o.manifest.trainer, o.manifest.plans, o.manifest.configuration) == wanted for o in self._alike(others)
        )

    def _alike(self, others: Sequence[Planned]) -> list[Planned]:
        return [o for o in others if o.manifest.dataset == self.manifest.dataset and o is not self]


def plan_sweep(
    tasks: Sequence[str],
    asked: TrainingRequest,
    folds: str,
    roots: Roots,
) -> list[Planned]:
    """Return all trainings of the options; `schedule` and `configuration` of `asked` may be lists (`a,b`).

    The folds of one schedule are adjacent, a cascade's stages in the given order. Raises all problems together.
    """
    if asked.until is not None:
        # Once for all of them: the next seven o'clock may be another one when the last begins.
        asked = asked.model_copy(update={"until": parse_until(asked.until)})
    problems = Problems()
    kind: type[PpgsError] | None = None
    planned: dict[Path, Planned] = {}
    configurations = _parts(asked.configuration)
    for task in dict.fromkeys(tasks):
        for configuration in configurations:
            for schedule in [asked.schedule] if Path(asked.schedule).is_file() else _parts(asked.schedule):
                for fold in parse_folds(folds):
                    one = asked.model_copy(update={"task": task, "configuration": configuration, "schedule": schedule})
                    try:
                        run, manifest = plan_run(one, fold, roots, first_stage_is_there=len(configurations) == 1)
                        planned.setdefault(run.path, Planned(one, fold, run, manifest)).standing()
                    except PpgsError as error:
                        kind = kind or type(error)
                        problems.found += [p for p in error.problems if p not in problems.found]
    if kind is not None:
        problems.raise_as(kind, f"{len(problems.found)} problems, nothing was started")
    return list(planned.values())


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip())) or [text]


def as_sweep(planned: Sequence[Planned], roots: Roots, command: str) -> Sweep:
    """Return the record of a sweep: models are rows, folds are columns."""
    cells = [
        Cell(
            name=p.manifest.name,
            place=str(p.run.path.relative_to(roots.results)),
            row=p.manifest.name.rsplit("-", 1)[0],
            column=p.run.path.name.replace("_", " "),
        )
        for p in planned
    ]
    return Sweep(cells=tuple(cells), command=command)
