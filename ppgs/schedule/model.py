"""`Stage` and `Schedule`: a training's curriculum as frozen, validated data.

Patch sizes are in voxels, axis order (z, y, x) or (y, x), as in the plans.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from bisect import bisect_right
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ppgs import upstream
from ppgs.plans import Configuration, Plans

Positive = Annotated[int, Field(ge=1, le=10**9)]
PatchSize = Annotated[tuple[Positive, ...], Field(min_length=2, max_length=3)]


Axes = tuple[Annotated[int, Field(ge=0, le=2)], ...]
# None: not said, as "on": all axes that nnU-Net mirrors. A tuple: these axes of the patch alone, none of them: off.
Mirroring = Literal["on"] | Axes | None


def parse_mirroring(given: object) -> object:
    """Parse `on`, `off` (in YAML also true and false) or axes (`1`, `0,1`) as `Mirroring`; return others unchanged.

    Raises ValueError for text that is none of these.
    """
    if isinstance(given, bool):
        return "on" if given else ()
    if given == "off":
        return ()
    if isinstance(given, str) and given != "on":
        parts = given.split(",")
        if not all(part.strip() in ("0", "1", "2") for part in parts):
            raise ValueError("expected on, off, or axes of the patch such as 0,1 (0 is the slowest, z in 3D)")
        given = [int(part) for part in parts]
    if isinstance(given, int):
        given = [given]
    if isinstance(given, (list, tuple)) and all(isinstance(axis, int) for axis in given):
        return tuple(sorted(set(given)))
    return given


class Frozen(BaseModel):
    """Base of all schedule data: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def changed(self, **changes: Any) -> Self:
        """Return a validated copy with changes, without cached values."""
        return type(self).model_validate({**self.model_dump(), **changes})


class PlanFacts(Frozen):
    """Facts of the plans that a schedule depends on; a schedule made for other facts is refused."""

    dataset: str
    plans: str
    configuration: str
    patch_size: PatchSize
    batch_size: Positive
    step: PatchSize
    smallest_patch: PatchSize | None = None

    @classmethod
    def of(cls, plans: Plans, configuration: Configuration) -> Self:
        return cls(
            dataset=plans.dataset,
            plans=plans.name,
            configuration=configuration.name,
            patch_size=configuration.patch_size,
            batch_size=configuration.batch_size,
            step=configuration.step,
            smallest_patch=configuration.smallest_patch,
        )

    def first_difference(self, other: PlanFacts) -> tuple[str, object, object] | None:
        """Return name and both values of the first fact that differs, or None."""
        for name in type(self).model_fields:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return name, mine, theirs
        return None


class Stage(Frozen):
    """One patch size with its batch size and its number of epochs.

    `foreground_share` of a batch is sure to show foreground, rounded to whole samples as nnU-Net does
    (`nnUNetDataLoader._oversample_last_XX_percent`). A batch is drawn from `cases` cases (as many as samples unless
    given); where a case gives several crops, they are either all foreground or all random. With `patch_choices` every
    iteration draws one of them (random patch size sampling, 2407.07853); `patch_size` is then the largest.

    With `accumulation` n the batch is trained as n equal parts whose gradients are added up before one optimiser step.
    With instance norm this is exact where the loss is a mean over samples: not with nnU-Net's batch Dice, nor with an
    ignore label, whose voxels differ from part to part. With `checkpointing` activations inside a stage of the network
    are computed again for the backward pass: less memory, about a third more arithmetic, the same gradients.
    """

    patch_size: PatchSize
    batch_size: Positive
    epochs: Positive
    foreground_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    cases: Positive | None = None
    patch_choices: tuple[PatchSize, ...] = ()
    accumulation: Positive = 1
    checkpointing: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.cases is not None and self.cases > self.batch_size:
            raise ValueError(f"cases ({self.cases}) must not exceed batch_size ({self.batch_size})")
        if self.batch_size % self.accumulation:
            raise ValueError(f"accumulation ({self.accumulation}) must divide batch_size ({self.batch_size})")
        for choice in self.patch_choices:
            if len(choice) != len(self.patch_size) or any(c > p for c, p in zip(choice, self.patch_size, strict=True)):
                raise ValueError(f"patch_choices: {choice} does not lie within patch_size {self.patch_size}")
        return self

    def like(self, other: Stage) -> bool:
        """Return whether the stages differ only in their number of epochs."""
        return self.model_copy(update={"epochs": other.epochs}) == other

    @property
    def voxels(self) -> int:
        """The voxels of one patch; the mean over the choices if it is drawn."""
        if self.patch_choices:
            return round(sum(math.prod(c) for c in self.patch_choices) / len(self.patch_choices))
        return math.prod(self.patch_size)

    @property
    def trained_voxels(self) -> int:
        """Voxels per iteration summed over the epochs of the stage."""
        return self.epochs * self.batch_size * self.voxels

    @property
    def cases_per_batch(self) -> int:
        return self.cases or self.batch_size


# Epochs from one that is validated to the next, at most: figures should show the way of short stages too.
_LONGEST_INTERVAL = 5


class Validation(Frozen):
    """Amount of validation during training, always at the plan's patch and batch so that figures stay comparable.

    `iterations` are those of the last stage (nnU-Net: 50, a fifth of the training iterations). `proportional` scales
    them by what a stage trains on in an iteration relative to the last stage, and takes at least one. `sparse` (the
    default) takes a quarter of that before the last stage, where figures only show the way; where it is less than one
    an epoch, only some epochs are validated, with one: the first of a stage, and from there every second to fifth.
    `every-epoch` keeps all of them in every stage, as nnU-Net and the authors do.
    """

    iterations: Positive = upstream.VALIDATION_ITERATIONS
    rule: Literal["sparse", "proportional", "every-epoch"] = "sparse"


class LearningRate(Frozen):
    """Decay of the learning rate from its initial value to zero: nnU-Net's polynomial, `(1 - done) ** 0.9`.

    `done` is the share of the epochs that are over, as in nnU-Net and both papers, or with `decay: work` the share of
    the work (voxels times batch size): small patches are little work, so most of the decay is left for large ones.
    The first `warmup` epochs rise in equal steps to the value that the decay gives. With `restart_at_stage` every
    stage decays from the initial value to zero on its own.
    """

    decay: Literal["epoch", "work"] = "epoch"
    warmup: Annotated[int, Field(ge=0, le=10**6)] = 0
    restart_at_stage: bool = False

    @property
    def text(self) -> str | None:
        """Describe the difference from nnU-Net's; None if there is none."""
        said = ["decays over the work done" if self.decay == "work" else "decays over epochs"]
        if self.restart_at_stage:
            said = ["decays again in every stage"]
        if self.warmup:
            said.append(f"after a warm-up of {self.warmup} epochs")
        return None if self == LearningRate() else ", ".join(said)

    def problem(self, epochs: int) -> str | None:
        """Return why a training of this many epochs cannot use it, or None."""
        if self.warmup < epochs:
            return None
        return f"a warm-up of {self.warmup} epochs leaves none of {epochs}"


class Schedule(Frozen):
    """The whole curriculum: which patch and batch size every epoch trains with.

    `mirroring` limits the axes that augmentation and inference mirror: small patches cannot tell sides (2510.23241).

    With `decayed` the schedule is planned while it trains (see `ppgs.schedule.replan`): its first `len(decayed)` stages
    are settled, and the learning rate has passed these shares of its decay when they end. Planning again changes only
    later stages, so that all versions of a schedule agree on every epoch that any of them has trained.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$", max_length=64)] = "custom"
    mode: str = "custom"
    iterations_per_epoch: Positive = upstream.ITERATIONS
    validation: Validation = Validation()
    made_for: PlanFacts | None = None
    mirroring: Annotated[Mirroring, BeforeValidator(parse_mirroring)] = None
    learning_rate: LearningRate = LearningRate()
    decayed: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len({len(s.patch_size) for s in self.stages}) > 1:
            raise ValueError("stages: all patch sizes must have the same number of axes")
        # Not by `epochs`, whose cached parts a copy with other stages would take along. What is planned while it trains
        # is told before it begins (`ppgs.estimate.training_budget`), and goes on whatever the plan becomes.
        problem = self.learning_rate.problem(sum(s.epochs for s in self.stages))
        if problem is not None and self.decayed is None:
            raise ValueError(f"learning_rate: {problem}")
        shares = self.decayed or ()
        if len(shares) > len(self.stages) or any(a > b for a, b in itertools.pairwise(shares)):
            raise ValueError("decayed: expected rising shares, at most one a stage")
        return self

    @property
    def settled(self) -> int:
        """The number of stages whose epochs no longer change."""
        return len(self.stages) if self.decayed is None else len(self.decayed)

    @property
    def decision_epoch(self) -> int:
        """The epoch before which unsettled stages are planned; the end if all are settled."""
        return self.epochs if self.settled == len(self.stages) else self.first_epoch(self.settled)

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(itertools.accumulate(s.epochs for s in self.stages))

    @property
    def epochs(self) -> int:
        return self._ends[-1]

    def first_epoch(self, stage: int) -> int:
        """Return the epoch (from 0) at which the stage with this index begins."""
        return self._ends[stage] - self.stages[stage].epochs

    def stage_index_at(self, epoch: int) -> int:
        """Return the index of the stage that trains in this epoch (from 0); the last stage beyond the end.

        Raises ValueError for a negative epoch.
        """
        if epoch < 0:
            raise ValueError(f"epoch must not be negative, got {epoch}")
        return min(bisect_right(self._ends, epoch), len(self.stages) - 1)

    def stage_at(self, epoch: int) -> Stage:
        """Return the stage that trains in this epoch: a pure function, defined for all epochs from 0."""
        return self.stages[self.stage_index_at(epoch)]

    def patch_at(self, seed: int, epoch: int, iteration: int) -> tuple[int, ...]:
        """Return the patch size of one training iteration: the stage's, or a draw among its choices by the key."""
        stage = self.stage_at(epoch)
        if not stage.patch_choices:
            return stage.patch_size
        key = hashlib.blake2b(f"patch {seed} {epoch} {iteration}".encode(), digest_size=8).digest()
        return stage.patch_choices[int.from_bytes(key, "big") % len(stage.patch_choices)]

    def validation_iterations_at(self, epoch: int) -> int:
        """Return the number of validation iterations after this epoch, 0 where its figures are those before."""
        index = self.stage_index_at(epoch)
        if (epoch - self.first_epoch(index)) % self.validation_interval(index):
            return 0
        return max(1, round(self._validation_iterations(index)))

    def validation_interval(self, stage: int) -> int:
        """Return the epochs from one that is validated to the next in the stage with this index."""
        if self.validation.rule != "sparse":
            return 1
        return min(_LONGEST_INTERVAL, max(1, round(1 / self._validation_iterations(stage))))

    def mean_validation_iterations(self, stage: int) -> float:
        """Return the validation iterations of a stage over its epochs."""
        first, epochs = self.first_epoch(stage), self.stages[stage].epochs
        return self.validation_iterations_at(first) * math.ceil(epochs / self.validation_interval(stage)) / epochs

    def _validation_iterations(self, index: int) -> float:
        """Return what the rule gives an epoch of this stage."""
        if self.validation.rule == "every-epoch":
            return self.validation.iterations
        stage, last = self.stages[index], self.stages[-1]
        share = min(1.0, stage.voxels * stage.batch_size / (last.voxels * last.batch_size))
        # What is planned on the way trains the last patch in several stages (`ppgs.schedule.replan`).
        as_last = stage is last or (self.decayed is not None and stage.like(last))
        if self.validation.rule == "sparse" and not as_last:
            share /= 4
        return self.validation.iterations * share

    def decay_epoch_at(self, epoch: int) -> float:
        """Return the position in nnU-Net's learning-rate schedule in this epoch, in units of decay per epoch.

        A pure function of the epoch, never falling except at a stage that restarts the decay.
        """
        rate, at = self.learning_rate, min(epoch, self.epochs)
        index = self.stage_index_at(at)
        stage, within = self.stages[index], at - self.first_epoch(index)
        if rate.restart_at_stage:
            return self.epochs * (within / stage.epochs)
        if self.decayed is not None:
            return self.epochs * self._decay_share(index, within)
        if rate.decay == "epoch":
            return float(at)
        done = sum(s.trained_voxels for s in self.stages[:index]) + within * stage.batch_size * stage.voxels
        return self.epochs * (done / self.trained_voxels)

    def decay_share_at(self, epoch: int) -> float:
        """Return the share of the learning rate's decay that is over when an epoch begins.

        In a schedule with `decayed` it depends on nothing that planning may still change.
        """
        at = min(epoch, self.epochs)
        index = self.stage_index_at(at)
        within = at - self.first_epoch(index)
        if self.learning_rate.restart_at_stage:
            return within / self.stages[index].epochs
        return self.decay_epoch_at(at) / self.epochs if self.decayed is None else self._decay_share(index, within)

    def _decay_share(self, index: int, within: int) -> float:
        before = self._decay_ends[index - 1] if index else 0.0
        return before + (self._decay_ends[index] - before) * (within / self.stages[index].epochs)

    @cached_property
    def _decay_ends(self) -> tuple[float, ...]:
        """Shares of the decay at the ends of the stages; unsettled stages share the rest."""
        settled = self.decayed or ()
        weights = [s.epochs if self.learning_rate.decay == "epoch" else s.trained_voxels for s in self.stages]
        rest, begun, done = sum(weights[len(settled) :]), settled[-1] if settled else 0.0, 0
        ends = list(settled)
        for weight in weights[len(settled) :]:
            done += weight
            ends.append(begun + (1.0 - begun) * (done / rest) if done < rest else 1.0)
        return tuple(ends)

    def with_next_settled(self) -> Self:
        """Return the schedule with its next stage settled as planned."""
        settled = self.decayed or ()
        return self.changed(decayed=(*settled, self._decay_ends[len(settled)]))

    def warmup_at(self, epoch: int) -> float:
        """Return the factor of the learning rate during warm-up; 1 after it."""
        return min(1.0, (epoch + 1) / (self.learning_rate.warmup + 1))

    def learning_rate_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch relative to the initial one, with nnU-Net's polynomial decay."""
        return float(self.warmup_at(epoch) * (1 - self.decay_epoch_at(epoch) / self.epochs) ** upstream.POLY_EXPONENT)

    @property
    def trained_voxels(self) -> int:
        """Voxels per iteration summed over all epochs."""
        return sum(s.trained_voxels for s in self.stages)

    def voxels_relative_to(self, patch_size: tuple[int, ...], batch_size: int) -> float:
        """Return voxels trained on, relative to as many epochs of constant patch and batch size."""
        return self.trained_voxels / (self.epochs * batch_size * math.prod(patch_size))

    @property
    def digest(self) -> str:
        """A short hash of the content, for the manifest."""
        # What is not said does not count, so that schedules from before there was this key keep their hash.
        unsaid: dict[str, Any] = {} if self.mirroring is not None else {"mirroring": True}
        if self.learning_rate == LearningRate():
            unsaid["learning_rate"] = True
        if self.decayed is None:
            unsaid["decayed"] = True
        if self.made_for is not None and self.made_for.smallest_patch is None:
            unsaid["made_for"] = {"smallest_patch"}
        return hashlib.blake2b(self.model_dump_json(exclude=unsaid).encode(), digest_size=8).hexdigest()
