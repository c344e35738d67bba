"""Whether a schedule may start at all."""

from __future__ import annotations

from ppgs.estimate.cost import Costs, Estimate
from ppgs.estimate.machine import choose_machine, runs_on_gpu
from ppgs.estimate.network import Network
from ppgs.estimate.probe import Tracer
from ppgs.estimate.remedies import fit, refusal
from ppgs.plans import Configuration, Dataset, Plans
from ppgs.schedule import PlanFacts, Schedule


def check_memory(
    schedule: Schedule,
    plans: Plans,
    configuration: Configuration,
    dataset: Dataset,
    *,
    gpu_memory: str,
    device: str = "auto",
    apply_remedies: bool = False,
) -> tuple[Schedule, Estimate, list[str]]:
    """The schedule as it may train under `--gpu-memory`, its cost, and what was changed, in words.

    `apply_remedies` lets stages be changed as `plan-schedule --fit` does; without it the schedule comes back as it is.
    Takes seconds (a trace in a process of its own) and nothing where the trace is cached. Raises `DoesNotFit` (exit 3)
    with stages, amounts and remedies, and `BadInput` for a `gpu_memory` that is no memory.
    """
    tracer = Tracer(Network.of(configuration, dataset), mixed=runs_on_gpu(device))
    costs = Costs(tracer, PlanFacts.of(plans, configuration), choose_machine(device, gpu_memory))
    changes: list[str] = []
    if apply_remedies:
        schedule, changes = fit(schedule, costs)
    estimate = costs.estimate(schedule)
    if not estimate.fits:
        raise refusal(estimate, costs)
    return schedule, estimate, changes
