"""The cost of a whole schedule: every stage's memory, FLOPs, time and energy, and that against constant patch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ppgs.estimate.arrival import Arrivals
from ppgs.estimate.machine import Machine
from ppgs.estimate.memory import Memory, Verdict, inference_memory, step_memory, with_arrivals
from ppgs.estimate.scaling import Patch
from ppgs.estimate.speed import Speed
from ppgs.estimate.tracer import Tracer
from ppgs.runs.time_left import Span
from ppgs.schedule import PlanFacts, Schedule, Stage
from ppgs.schedule.shares import Cut

# Relative error of calibrated times, as a standard deviation: what loading data and other users add is not in them.
_OF_CALIBRATED = 0.15


@dataclass(frozen=True)
class StageCost:
    """Cost of one stage: `flops` and `seconds` per training iteration, `epoch_seconds` with validation.

    Times are None where the device has not been calibrated. `energy_wh` is that of all the stage's epochs. `rough` and
    `rough_epoch` are the same times as ranges from the card's published figures, None unless nothing better is known.
    """

    stage: Stage
    first_epoch: int
    memory: Memory
    verdict: Verdict
    flops: int
    seconds: float | None
    epoch_seconds: float | None
    energy_wh: float | None
    rough: Span | None = None
    rough_epoch: Span | None = None

    @property
    def epoch_span(self) -> Span | None:
        """An epoch's seconds as a range, calibrated or not."""
        return self.rough_epoch if self.epoch_seconds is None else Span.around(self.epoch_seconds, _OF_CALIBRATED)

    @property
    def total_seconds(self) -> float | None:
        return None if self.epoch_seconds is None else self.epoch_seconds * self.stage.epochs


@dataclass(frozen=True)
class Relative:
    """Relative to as many epochs of constant patch size: voxels and FLOPs trained on, and time with validation."""

    voxels: float
    flops: float
    time: float | None
    rough_time: Span | None = None


@dataclass(frozen=True)
class Estimate:
    """A schedule's cost; memory in bytes, energy in watt-hours. Data loading and the final validation are left out."""

    schedule: Schedule
    machine: Machine
    stages: tuple[StageCost, ...]
    relative: Relative
    validation_memory: int
    inference_memory: int | None

    @property
    def peak_memory(self) -> int:
        return max(s.memory.expected for s in self.stages)

    @property
    def verdict(self) -> Verdict:
        order = list(Verdict)
        return max((s.verdict for s in self.stages), key=order.index)

    @property
    def fits(self) -> bool:
        return self.verdict is not Verdict.NOT

    @property
    def total_flops(self) -> int:
        return sum(s.flops * s.stage.epochs for s in self.stages) * self.schedule.iterations_per_epoch

    @property
    def seconds(self) -> float | None:
        times = [s.total_seconds for s in self.stages]
        return None if any(t is None for t in times) else sum(t for t in times if t is not None)

    @property
    def rough_seconds(self) -> Span | None:
        """The time of all epochs as an uncalibrated range."""
        total = Span(0.0, 0.0, 0.0)
        for cost in self.stages:
            if cost.rough_epoch is None:
                return None
            total += cost.rough_epoch.times(cost.stage.epochs)
        return total

    @property
    def energy_wh(self) -> float | None:
        parts = [s.energy_wh for s in self.stages]
        return None if any(p is None for p in parts) else sum(p for p in parts if p is not None)


class Costs:
    """Estimates the cost of each stage for one network on one machine."""

    def __init__(
        self,
        tracer: Tracer,
        facts: PlanFacts,
        machine: Machine,
        image_size: tuple[float, ...] | None = None,
        *,
        gpus: int = 1,
        arrivals: Arrivals | None = None,
    ) -> None:
        """If `gpus` share every batch, memory and time are those of the GPU with the largest share.

        `arrivals` are batches that arrive beside the step, as in trainings on CUDA; None: memory is the step's alone.
        """
        self.tracer, self.facts, self.machine = tracer, facts, machine
        network = tracer.network
        self._cut = Cut(0, gpus, together=network.batch_dice or network.ignore_label is not None)
        self._image_size, self._arrivals = image_size, arrivals
        self._memory: dict[tuple[Patch, int, int, bool, bool], Memory] = {}

    def on(self, machine: Machine) -> Costs:
        """Return the same costs on another machine."""
        gpus = self._cut.ranks
        return Costs(self.tracer, self.facts, machine, self._image_size, gpus=gpus, arrivals=self._arrivals)

    def memory(self, stage: Stage, *, exact_floor: bool = True) -> Memory:
        """Return the memory of one training step of a stage, for its largest patch if patches are drawn."""
        batch = self._at_once(stage)
        key = (stage.patch_size, stage.batch_size, stage.accumulation, stage.checkpointing, exact_floor)
        if key not in self._memory:
            law = self.tracer.law("train", stage.patch_size, batch, checkpointing=stage.checkpointing)
            # Gradients of earlier parts exist while the next part runs, and several ranks keep room for a message.
            held = 4 * self.tracer.parameters * ((stage.accumulation > 1) + (self._cut.ranks > 1))
            step = step_memory(
                law,
                stage.patch_size,
                batch,
                self.machine.surroundings,
                held_gradients=held,
                exact_floor=exact_floor,
            )
            self._memory[key] = self._with_arrivals(stage, step)
        return self._memory[key]

    def _with_arrivals(self, stage: Stage, step: Memory) -> Memory:
        """Add the batches that arrive beside a step: whole ones, whatever parts they are trained in."""
        if self._arrivals is None:
            return step
        patch, slots = stage.patch_size, len(self._cut.slots(stage.batch_size, stage.accumulation))
        own = self._arrivals.bytes_of(patch, self._at_once(stage))
        weights = 4 * self.tracer.parameters * (2 + (self._cut.ranks > 1))
        pool = self._arrivals.pool(patch, stage.batch_size, slots)
        return with_arrivals(step, pool, own, weights, self.machine.surroundings.context)

    def verdict(self, stage: Stage, *, exact_floor: bool = True) -> Verdict:
        return self.memory(stage, exact_floor=exact_floor).verdict(self.machine.limit, self.machine.surroundings)

    def flops(self, stage: Stage) -> int:
        """Return the floating-point operations of one training iteration; the mean if patches are drawn."""
        return round(self._mean(stage, self._iteration_flops))

    def seconds(self, stage: Stage) -> float | None:
        """Return the seconds of one training iteration, or None if the device is not calibrated."""
        calibration = self.machine.calibration
        return None if calibration is None else self._seconds_at(calibration.speed, stage)

    def _seconds_at(self, speed: Speed, stage: Stage) -> float:
        digest = self.tracer.network.digest

        def one(stage: Stage, patch: Patch) -> float:
            batch = self._at_once(stage)
            law = self.tracer.law("train", patch, batch, checkpointing=stage.checkpointing)
            passes = len(self._cut.pieces(stage.batch_size, stage.accumulation))
            return passes * speed.seconds(law.flops_at(patch, batch), digest)

        return self._mean(stage, one)

    def _at_once(self, stage: Stage) -> int:
        """Return how many samples pass through the network together on one GPU."""
        return self._cut.largest(stage.batch_size, stage.accumulation)

    def _iteration_flops(self, stage: Stage, patch: Patch) -> float:
        batch = stage.batch_size // stage.accumulation
        law = self.tracer.law("train", patch, batch, checkpointing=stage.checkpointing)
        return stage.accumulation * law.flops_at(patch, batch)

    @staticmethod
    def _mean(stage: Stage, of: Callable[[Stage, Patch], float]) -> float:
        patches = stage.patch_choices or (stage.patch_size,)
        return sum(of(stage, patch) for patch in patches) / len(patches)

    def _validation_seconds(self, batch: int) -> float | None:
        """Return the seconds of one validation iteration, always at the plan's patch."""
        calibration = self.machine.calibration
        return None if calibration is None else calibration.validation * self._validation_at(calibration.speed, batch)

    def _validation_at(self, speed: Speed, batch: int) -> float:
        patch, batch = self.facts.patch_size, self._cut.largest(batch, 1)
        flops = self.tracer.law("validate", patch, batch).flops_at(patch, batch)
        return speed.seconds(flops, self.tracer.network.digest)

    def _rough(self, of: Callable[[Speed], float]) -> Span | None:
        """Return a time range at the speeds suggested by the card's published figures."""
        rough = self.machine.rough
        return None if rough is None else Span(of(rough.fast), of(rough.middle), of(rough.slow), uncalibrated=True)

    def _rough_epoch(self, schedule: Schedule, stage: Stage, validations: float, batch: int) -> Span | None:
        """Return the time range of an epoch of a stage with this many validation batches."""
        return self._rough(
            lambda speed: (
                schedule.iterations_per_epoch * self._seconds_at(speed, stage)
                + validations * self._validation_at(speed, batch)
            )
        )

    def estimate(self, schedule: Schedule, constant_batch: int | None = None) -> Estimate:
        """Estimate the cost of a schedule; constant patch size is taken with `constant_batch` (the last stage's)."""
        last = schedule.stages[-1]
        reference = constant_batch or last.batch_size
        self._prepare(schedule, reference)
        validation = self._validation_seconds(last.batch_size)
        watts = self.machine.calibration.watts if self.machine.calibration else None
        stages = []
        for i, stage in enumerate(schedule.stages):
            validations = schedule.mean_validation_iterations(i)
            seconds = self.seconds(stage)
            epoch = None
            if seconds is not None and validation is not None:
                epoch = schedule.iterations_per_epoch * seconds + validations * validation
            stages.append(
                StageCost(
                    stage=stage,
                    first_epoch=schedule.first_epoch(i),
                    memory=self.memory(stage),
                    verdict=self.verdict(stage),
                    flops=self.flops(stage),
                    seconds=seconds,
                    epoch_seconds=epoch,
                    energy_wh=None if epoch is None or watts is None else epoch * stage.epochs * watts / 3600,
                    rough=self._rough(partial(self._seconds_at, stage=stage)),
                    rough_epoch=self._rough_epoch(schedule, stage, validations, last.batch_size),
                )
            )
        return Estimate(
            schedule=schedule,
            machine=self.machine,
            stages=tuple(stages),
            relative=self._relative(schedule, stages, reference),
            validation_memory=self._validation_memory(last),
            inference_memory=self._inference_memory(),
        )

    def _prepare(self, schedule: Schedule, reference: int) -> None:
        points: list[tuple[Patch, int]] = [(self.facts.patch_size, reference)]
        for stage in schedule.stages:
            patches = (stage.patch_size, *stage.patch_choices)
            points += [(patch, stage.batch_size // stage.accumulation) for patch in patches]
            points += [(patch, self._at_once(stage)) for patch in patches]
        self.tracer.prepare(points)

    def _relative(self, schedule: Schedule, stages: list[StageCost], batch: int) -> Relative:
        whole = Stage(patch_size=self.facts.patch_size, batch_size=batch, epochs=schedule.epochs)
        seconds, validation = self.seconds(whole), self._validation_seconds(batch)
        time = None
        if seconds is not None and validation is not None:
            constant = schedule.iterations_per_epoch * seconds + schedule.validation.iterations * validation
            time = sum((s.epoch_seconds or 0) * s.stage.epochs for s in stages) / (constant * schedule.epochs)
        rough = self._rough_epoch(schedule, whole, schedule.validation.iterations, batch)
        return Relative(
            voxels=schedule.voxels_relative_to(whole.patch_size, batch),
            flops=sum(s.flops * s.stage.epochs for s in stages) / (self.flops(whole) * schedule.epochs),
            time=time,
            rough_time=None if rough is None else self._ratio(stages, rough.times(schedule.epochs)),
        )

    @staticmethod
    def _ratio(stages: list[StageCost], constant: Span) -> Span:
        """Return the time relative to constant patch size at each of the three speeds, in order."""
        totals = [s.rough_epoch.times(s.stage.epochs) for s in stages if s.rough_epoch is not None]
        ratios = sorted(
            sum(getattr(total, name) for total in totals) / getattr(constant, name)
            for name in ("low", "middle", "high")
        )
        return Span(ratios[0], ratios[1], ratios[2], uncalibrated=True)

    def _validation_memory(self, last: Stage) -> int:
        parts = self._cut.validation_parts(last.accumulation)
        patch, batch = self.facts.patch_size, self._cut.largest(last.batch_size, parts)
        law = self.tracer.law("validate", patch, batch)
        return step_memory(law, patch, batch, self.machine.surroundings, exact_floor=False).expected

    def _inference_memory(self) -> int | None:
        image, patch, network = self._image_size, self.facts.patch_size, self.tracer.network
        if image is None:
            return None
        # 2D plans describe a slice; inference goes through all of them, but the plans do not say how many.
        law = self.tracer.law("infer", patch, 1)
        return inference_memory(
            law, patch, image[-len(patch) :], network.heads, network.channels, self.machine.surroundings
        )


def as_json(estimate: Estimate) -> dict[str, Any]:
    """Return the estimate's part of `plan-schedule --json`; memory in bytes, time in seconds."""
    schedule, relative, machine = estimate.schedule, estimate.relative, estimate.machine
    return {
        "stages": [
            _stage_json(s) | {"relative_learning_rate": schedule.learning_rate_at(s.first_epoch)}
            for s in estimate.stages
        ],
        "epochs": schedule.epochs,
        "learning_rate": schedule.learning_rate.model_dump(),
        "iterations_per_epoch": schedule.iterations_per_epoch,
        "peak_memory_bytes": estimate.peak_memory,
        "memory_limit_bytes": machine.limit,
        "fits": estimate.fits,
        "relative_to_constant": {"voxels": relative.voxels, "flops": relative.flops, "time": relative.time}
        | {"uncalibrated_time": _range(relative.rough_time)},
        "verdict": str(estimate.verdict),
        "device": machine.name,
        "calibrated_on": machine.calibration.device if machine.calibration else None,
        "total_flops": estimate.total_flops,
        "seconds": estimate.seconds,
        "uncalibrated_seconds": _range(estimate.rough_seconds),
        "energy_wh": estimate.energy_wh,
        "validation_memory_bytes": estimate.validation_memory,
        "inference_memory_bytes": estimate.inference_memory,
    }


def _stage_json(cost: StageCost) -> dict[str, Any]:
    stage = cost.stage
    return {
        "patch_size": list(stage.patch_size),
        "batch_size": stage.batch_size,
        "epochs": stage.epochs,
        "first_epoch": cost.first_epoch,
        "foreground_share": stage.foreground_share,
        "memory_bytes": cost.memory.expected,
        "memory_live_bytes": cost.memory.live,
        "memory_floor_bytes": cost.memory.floor,
        "verdict": str(cost.verdict),
        "flops_per_iteration": cost.flops,
        "seconds_per_iteration": cost.seconds,
        "seconds_per_epoch": cost.epoch_seconds,
        "uncalibrated_seconds_per_iteration": _range(cost.rough),
        "uncalibrated_seconds_per_epoch": _range(cost.rough_epoch),
        "energy_wh": cost.energy_wh,
        "accumulation": stage.accumulation,
        "checkpointing": stage.checkpointing,
    }


def _range(span: Span | None) -> dict[str, float] | None:
    return None if span is None else {"low": span.low, "middle": span.middle, "high": span.high}
