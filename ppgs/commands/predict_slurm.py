"""Predictions as Slurm jobs: an array with one job per part, requeued until its part is done."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppgs.commands.predict_children import Child, as_record, of_record, share_of
from ppgs.commands.predict_parts import Part, parse_part, part_of
from ppgs.commands.predict_plan import PlannedPrediction, PredictRequest, choose_folds, plan_prediction
from ppgs.commands.slurm import array_script, executor, gpus_of, parse_options, submit_array
from ppgs.commands.slurm_job import MAX_IDLE
from ppgs.errors import BadInput, ExitCode, PpgsError, from_record
from ppgs.runs.atomic import write_text
from ppgs.runs.queue import jobs_known
from ppgs.tasks import Roots

# In the output folder: which job segments which part.
JOBS = ".ppgs-slurm.json"
_MOST_PARTS = 8


@dataclass(frozen=True)
class PlannedJobs:
    """The parts that still have images to segment: those to submit, and those whose job (its id) Slurm still has."""

    submit: list[Part]
    queued: dict[Part, str]


def parameters_of(slurm: Sequence[str], asked: PredictRequest) -> dict[str, Any]:
    """Return submitit's parameters of `--slurm`; raises `BadInput`, also for jobs of several GPUs."""
    if asked.gpus is not None:
        raise BadInput(
            "--gpus cannot be combined with --slurm: each job has one GPU",
            "--gpus",
            "give --parts, which says how many jobs there are",
        )
    if asked.overwrite:
        raise BadInput(
            "--no-continue cannot be combined with --slurm: jobs only do what is left",
            "--no-continue",
            "delete the segmentations first",
        )
    parameters = parse_options(slurm, device=asked.device, workers=None)
    if gpus_of(parameters) > 1:
        raise BadInput("each job uses one GPU", "--slurm gpus=", "give --parts, which says how many jobs there are")
    return parameters


def plan_jobs(asked: PredictRequest, planned: PlannedPrediction, parts: int | None) -> PlannedJobs:
    """Split all images into `parts` parts and find those with images left.

    Raises `BadInput` where Slurm still has jobs of another number of parts, which would segment the same images.
    """
    count = parts or max(1, min(_MOST_PARTS, len(planned.cases)))
    chosen = parse_part(asked.part).split(count)
    left = [
        part
        for number, part in enumerate(chosen)
        if part_of(planned.cases, Part(number + 1, count)).keys() & planned.outputs.keys()
    ]
    jobs = _read_jobs(planned.folder)
    known = (jobs_known(jobs.values()) or frozenset()) if jobs else frozenset()
    waiting = {text: job for text, job in jobs.items() if job in known}
    if others := [text for text in waiting if parse_part(text).count != chosen[0].count]:
        raise BadInput(
            f"Slurm still has jobs of other parts of these images: {', '.join(others)}",
            planned.folder,
            f"give --parts as before, wait, or cancel them: scancel {' '.join(waiting[text] for text in others)}",
        )
    queued = {part: waiting[str(part)] for part in left if str(part) in waiting}
    return PlannedJobs([part for part in left if part not in queued], queued)


def script(jobs: PlannedJobs, parameters: dict[str, Any], roots: Roots) -> str:
    """Return the text that `submit` would hand to sbatch; empty if nothing is left."""
    return array_script(len(jobs.submit), _named(parameters), roots) if jobs.submit else ""


def submit(
    asked: PredictRequest, planned: PlannedPrediction, jobs: PlannedJobs, parameters: dict[str, Any], roots: Roots
) -> dict[Part, str]:
    """Submit a job for each part and note the ids in the output folder; raises `BadInput`."""
    chosen = executor(roots)
    made = [PredictionJob(as_record(share_of(asked, part)), roots) for part in jobs.submit]
    ids = dict(zip(jobs.submit, submit_array(chosen, made, _named(parameters)), strict=True))
    planned.folder.mkdir(parents=True, exist_ok=True)
    noted = _read_jobs(planned.folder) | {str(part): job for part, job in ids.items()}
    write_text(planned.folder / JOBS, json.dumps(noted, indent=2) + "\n")
    return ids


def _named(parameters: dict[str, Any]) -> dict[str, Any]:
    return parameters | {"job_name": "ppgs-predict"}


def _read_jobs(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / JOBS).read_text(encoding="utf-8"))
        return {str(parse_part(part)): str(job) for part, job in found.items()}
    except (OSError, ValueError, AttributeError, BadInput):
        return {}


class PredictionJob:
    """Callable that segments one part in a Slurm job. It is pickled: keep its fields few and plain."""

    def __init__(self, record: dict[str, Any], roots: Roots, idle: int = 0) -> None:
        self.record = record
        self.folders = tuple(roots.environment.values())
        self.idle = idle
        self._child: Child | None = None
        self._result: dict[str, Any] | None = None
        self._ended = threading.Event()
        self._left = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"record": self.record, "folders": self.folders, "idle": self.idle}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["record"], Roots(*map(Path, state["folders"])), state["idle"])  # type: ignore[misc]

    def __call__(self) -> int:
        """Segment the rest of the part; raise errors so that Slurm marks the job as failed."""
        self._left = self._to_do()
        asked = dataclasses.replace(of_record(self.record), overwrite=False)
        # submitit ignores SIGTERM, which is all that a cancelled job gets.
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        self._child = Child(asked, self._roots(), self._told)
        # Not one long wait: the handler of Slurm's signals interrupts it and waits too.
        while not self._ended.is_set():
            time.sleep(0.2)
        if self._result is None:
            raise self._child.death()
        if self._result["error"] is not None:
            error: PpgsError = from_record(self._result["error"])
            for problem in error.problems:
                sys.stderr.write(f"{problem.what}: {problem.where}\n")
            raise error
        return int(ExitCode.DONE)

    def checkpoint(self) -> Any:
        """Stop and return the requeued job; None if it makes no progress."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        while self._child is not None and not self._ended.is_set():
            time.sleep(0.2)
        idle = self.idle + 1 if self._to_do() >= self._left else 0
        return None if idle >= MAX_IDLE else DelayedSubmission(PredictionJob(self.record, self._roots(), idle))

    def _roots(self) -> Roots:
        return Roots(*map(Path, self.folders))

    def _to_do(self) -> int:
        """Return how many images of the part have no segmentation."""
        asked = dataclasses.replace(of_record(self.record), overwrite=False)
        with suppress(PpgsError):
            asked, runs = choose_folds(asked, self._roots())
            return len(plan_prediction(asked, runs, self._roots()).outputs)
        return 0

    def _told(self, _: Child, message: dict[str, Any] | None) -> None:
        if message is None:
            self._ended.set()
        elif "done" in message or "say" in message:
            sys.stdout.write(f"{message.get('say') or 'segmented {done}/{total}'.format(**message)}\n")
            sys.stdout.flush()
        elif "speed" in message:
            self._result = message

    def _stop(self) -> None:
        if self._child is not None and not self._ended.is_set():
            self._child.stop()
