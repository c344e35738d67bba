"""`ppgs predict --slurm`: submits the parts of the images that are left, and says what is in the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ppgs.cli.output import note, out, print_json
from ppgs.commands.predict_plan import PlannedPrediction, PredictRequest
from ppgs.commands.predict_slurm import PlannedJobs, parameters_of, plan_jobs, script, submit
from ppgs.tasks import Roots


@dataclass(frozen=True)
class Jobs:
    """The jobs of one command."""

    asked: PredictRequest
    planned: PlannedPrediction
    jobs: PlannedJobs
    parameters: dict[str, Any]

    @classmethod
    def plan(cls, asked: PredictRequest, planned: PlannedPrediction, slurm: Sequence[str], parts: int | None) -> Jobs:
        """Return the jobs; raises `BadInput` for options that Slurm or a prediction does not support."""
        parameters = parameters_of(slurm, asked)
        return cls(asked, planned, plan_jobs(asked, planned, parts), parameters)

    def script(self, roots: Roots) -> str:
        """Return the script that would be submitted."""
        return script(self.jobs, self.parameters, roots)

    def submit(self, roots: Roots, *, as_json: bool) -> bool:
        """Submit what is neither done nor queued and say so; return False where everything is segmented."""
        made = submit(self.asked, self.planned, self.jobs, self.parameters, roots) if self.jobs.submit else {}
        if not made and not self.jobs.queued:
            return False
        if as_json:
            all_jobs = [(part, job, part not in made) for part, job in (made | self.jobs.queued).items()]
            print_json([{"part": str(part), "job": job, "queued_before": old} for part, job, old in all_jobs])
        for part, job in made.items() if not as_json else ():
            out.print(f"part {part}: Slurm job {job}")
        if self.jobs.queued:
            note(f"queued already: {', '.join(f'part {part}' for part in self.jobs.queued)}")
        later = "; when everything is segmented it also writes the results" if self.planned.results.wanted else ""
        note(f"'squeue' shows how the jobs go; the same command submits again what is left{later}")
        return True
