"""Checks before a training starts: whether its schedule fits, and the cost of every stage."""

from __future__ import annotations

from contextlib import suppress

from ppgs.errors import BadInput, StoppedEarly
from ppgs.estimate.arrival import Arrivals
from ppgs.estimate.calibration import calibrate, keep
from ppgs.estimate.cost import Costs, Estimate
from ppgs.estimate.machine import choose_machine, runs_on_gpu
from ppgs.estimate.network import Network
from ppgs.estimate.remedies import fit, refusal
from ppgs.estimate.scaling import Patch
from ppgs.estimate.tracer import Tracer
from ppgs.estimate.training_budget import Guess
from ppgs.plans import Configuration, Dataset, Plans
from ppgs.schedule import PlanFacts, Schedule

# Seconds of real steps that a training with a budget may begin with.
_LEAST, _MOST = 5.0, 40.0


def costs_of(
    plans: Plans,
    configuration: Configuration,
    dataset: Dataset,
    *,
    device: str = "auto",
    gpus: int = 1,
    gpu_memory: str | None = None,
    augmented: bool | None = True,
) -> Costs:
    """Return the costs of a training on this machine; without `gpu_memory` those of the GPU present.

    `augmented`: batches are augmented by the GPU (see `Arrivals`; a cascade's are only copied); None: memory is the
    step's alone. Raises `BadInput` for a `gpu_memory` that is no memory.
    """
    network, arrivals = Network.of(configuration, dataset), None
    if augmented is not None:
        arrivals = arrivals_on(
            device,
            network,
            configuration.patch_size,
            configuration.median_image_size,
            augmented=augmented and configuration.previous_stage is None,
        )
    tracer, machine = Tracer(network, mixed=runs_on_gpu(device)), choose_machine(device, gpu_memory)
    return Costs(tracer, PlanFacts.of(plans, configuration), machine, gpus=gpus, arrivals=arrivals)


def arrivals_on(
    device: str, network: Network, plan_patch: Patch, image: tuple[float, ...] | None, *, augmented: bool
) -> Arrivals | None:
    """Return how batches arrive beside the step of a training on this device: on CUDA alone."""
    return Arrivals(network, plan_patch, image, augmented) if runs_on_gpu(device) else None


def guess_costs(schedule: Schedule, costs: Costs, *, device: str, most_seconds: float) -> Guess:
    """Return seconds of iterations on this machine as calibrated; if it is not, take real steps first.

    They take about `most_seconds`, within bounds. Where they fail on a card whose published figures are known, those
    serve. Raises whatever else keeps the network from being traced or run.
    """
    if costs.machine.calibration is None:
        points = [(s.patch_size, s.batch_size // s.accumulation) for s in schedule.stages]
        budget = min(max(most_seconds, _LEAST), _MOST)
        try:
            fresh = calibrate(costs.tracer, points, device.split(":")[0], budget=budget)
        except StoppedEarly:
            raise
        except Exception as problem:  # whatever it is, the published figures do not depend on it
            if costs.machine.rough is None:
                raise
            return _uncalibrated(costs.estimate(schedule), problem)
        # It serves this run at least.
        with suppress(BadInput):
            keep(fresh)
        costs = costs.on(choose_machine(device, None, fresh))
    stages = costs.estimate(schedule).stages
    iterations, last = [s.seconds for s in stages], stages[-1]
    if last.epoch_seconds is None or last.seconds is None:
        raise BadInput("the calibration of this device cannot be read", "", "see 'ppgs doctor'")
    validations = schedule.validation_iterations_at(last.first_epoch)
    validation = (last.epoch_seconds - schedule.iterations_per_epoch * last.seconds) / validations
    return Guess(tuple(s or last.seconds for s in iterations), validation)


def _uncalibrated(estimate: Estimate, problem: Exception) -> Guess:
    """Return the middle of the range from the card's published figures."""
    schedule, stages = estimate.schedule, estimate.stages
    last = stages[-1]
    assert last.rough is not None and last.rough_epoch is not None
    trained = schedule.iterations_per_epoch * last.rough.middle
    validation = (last.rough_epoch.middle - trained) / schedule.validation_iterations_at(last.first_epoch)
    return Guess(tuple(s.rough.middle for s in stages if s.rough is not None), validation, str(problem))


def check_memory(
    schedule: Schedule, costs: Costs, *, apply_remedies: bool = False
) -> tuple[Schedule, Estimate, list[str]]:
    """Return the schedule as it may train in the machine's memory, its cost, and the changes in words.

    `apply_remedies` lets stages be changed as `plan-schedule --fit` does; without it the schedule comes back as it is.
    Takes seconds (a trace in a separate process) and nothing where the trace is cached. Raises `DoesNotFit` (exit 3)
    with stages, amounts and remedies.
    """
    changes: list[str] = []
    if apply_remedies:
        schedule, changes = fit(schedule, costs)
    estimate = costs.estimate(schedule)
    if not estimate.fits:
        raise refusal(estimate, costs)
    return schedule, estimate, changes
