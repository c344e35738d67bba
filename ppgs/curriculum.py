"""The curriculum for training loops other than nnU-Net's.

`Curriculum` gives the patch and batch size of every epoch; `Curriculum.loader` applies them to an existing PyTorch or
MONAI data loader of whole cases:

    >>> from ppgs import Curriculum
    >>> curriculum = Curriculum.for_network((32, 32, 32), batch_size=2, step=16, epochs=8, iterations=10)
    >>> [curriculum.patch_size(epoch) for epoch in (0, 2, 4, 6)]
    [(16, 16, 16), (32, 16, 16), (32, 32, 16), (32, 32, 32)]
    >>> curriculum.batch_size(0), curriculum.epochs, curriculum.iterations
    (2, 8, 10)

`docs/examples/monai_unet.py` trains a MONAI network with it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppgs.errors import BadInput
from ppgs.schedule import PlanFacts, Recipe, Schedule, Stage, parse, resolve
from ppgs.schedule.recipe import check
from ppgs.schedule.requests import read_schedule
from ppgs.schedule.shares import case_of, shows_foreground

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

Patch = tuple[int, ...]


class Curriculum:
    """Patch and batch size of every epoch, counted from 0. The last stage trains the full patch."""

    def __init__(self, schedule: Schedule, *, seed: int = 0) -> None:
        """Use a schedule, such as `ppgs.plan_schedule(...).schedule`. `seed` decides which crops are drawn."""
        self.schedule, self.seed = schedule, seed

    @classmethod
    def for_network(
        cls,
        patch_size: Sequence[int],
        batch_size: int,
        *,
        step: int | Sequence[int],
        epochs: int,
        iterations: int = 250,
        schedule: str = "efficiency",
        smallest_patch: Sequence[int] | None = None,
        seed: int = 0,
    ) -> Curriculum:
        """Make the curriculum of a network from its full patch (in voxels, 2D or 3D) and batch size.

        `step` is what the sides of a patch must be multiples of: 2 to the power of the downsamplings, for each axis.
        `schedule` names a shipped schedule or a YAML file with a recipe. `smallest_patch` is a limit of the network
        above its step. Raises `ScheduleError`, and `BadInput` for a patch that the network cannot process.
        """
        patch = tuple(patch_size)
        steps = (step,) * len(patch) if isinstance(step, int) else tuple(step)
        least = () if smallest_patch is None else tuple(smallest_patch)
        counts = {"batch_size": (batch_size,), "epochs": (epochs,), "iterations": (iterations,)}
        for argument, values in {"patch_size": patch, "step": steps, "smallest_patch": least, **counts}.items():
            if any(value < 1 for value in values):
                raise BadInput(f"{argument} is {' '.join(map(str, values))}", argument, "give positive numbers")
        if least and len(least) != len(patch):
            raise BadInput(f"the smallest patch has {len(least)} axes, the patch {len(patch)}", "smallest_patch")
        if len(steps) != len(patch) or any(size % one for size, one in zip(patch, steps, strict=True)):
            raise BadInput(f"the patch {patch} is no multiple of the step {steps}", "patch_size")
        facts = PlanFacts(
            dataset="none",
            plans="none",
            configuration="none",
            patch_size=patch,
            batch_size=batch_size,
            step=steps,
            smallest_patch=least or None,
        )
        name, text = read_schedule(schedule)
        content = parse(text, name)
        if isinstance(content, Recipe):
            content = resolve(content.model_copy(update={"epochs": epochs, "iterations_per_epoch": iterations}), facts)
        elif (content.epochs, content.iterations_per_epoch) != (epochs, iterations):
            raise BadInput(
                f"the schedule has {content.epochs} epochs of {content.iterations_per_epoch} iterations",
                schedule,
                "give the same numbers, or a recipe",
            )
        check(content, facts, name)
        return cls(content, seed=seed)

    @property
    def epochs(self) -> int:
        """Number of epochs of the whole training."""
        return self.schedule.epochs

    @property
    def iterations(self) -> int:
        """Iterations of each epoch."""
        return self.schedule.iterations_per_epoch

    def stage(self, epoch: int) -> Stage:
        """Return the stage that trains in this epoch."""
        return self.schedule.stage_at(epoch)

    def patch_size(self, epoch: int, iteration: int = 0) -> Patch:
        """Return the patch size of an epoch; only the mode `random` changes it from iteration to iteration."""
        return self.schedule.patch_at(self.seed, epoch, iteration)

    def batch_size(self, epoch: int) -> int:
        """Return the batch size of an epoch."""
        return self.stage(epoch).batch_size

    def loader(
        self,
        loader: DataLoader[Any],
        *,
        keys: Sequence[Hashable] = ("image", "label"),
        label: Hashable | None = "label",
        transform: Any = None,
    ) -> CurriculumLoader:
        """Wrap a loader of whole cases so that it yields batches of the curriculum's patch and batch size.

        The dataset, the sampler's order, workers, collation and pinning of the given loader are kept; its batch size is
        not used. A sample of the dataset is a dictionary (or a list or tuple) whose arrays at `keys` all have the same
        spatial axes, which come last, and are cropped together; smaller ones are padded with zeros. The curriculum's
        share of crops is centred on a voxel that is not zero at `label`, a label map (None: all crops are uniform).
        `transform` is applied to the cropped sample, for augmentation that should cost no more than the patch does.

        Raises `BadInput` for a loader over an iterable dataset or with a batch sampler.
        """
        from torch.utils.data import DataLoader, IterableDataset

        if isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
            raise BadInput(
                "the curriculum decides which samples form a batch",
                "loader",
                "give a DataLoader over a dataset with indices, with a batch size (or a sampler) and no batch sampler",
            )
        batches = _Batches(self, loader.sampler)
        extra: dict[str, Any] = {} if loader.num_workers == 0 else {"prefetch_factor": loader.prefetch_factor}
        crops: Any = _Crops(loader.dataset, tuple(keys), label, transform)
        inner: DataLoader[Any] = DataLoader(
            crops,
            batch_sampler=batches,  # its indices are keys of crops
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            persistent_workers=loader.num_workers > 0,
            **extra,
        )
        return CurriculumLoader(inner, batches)


class CurriculumLoader:
    """An epoch's batches. Call `set_epoch` before iterating, as with PyTorch's `DistributedSampler`."""

    def __init__(self, loader: DataLoader[Any], batches: _Batches) -> None:
        self._loader, self._batches = loader, batches

    def set_epoch(self, epoch: int) -> None:
        """Continue with the patch and batch size of this epoch, counted from 0."""
        self._batches.epoch = epoch
        if hasattr(self._batches.order, "set_epoch"):
            self._batches.order.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)


@dataclass(frozen=True)
class _Crop:
    """The case of a crop, its size, and the seed of its position."""

    case: int
    size: Patch
    foreground: bool
    seed: tuple[int, ...]


@dataclass
class _Batches:
    """The crops of an epoch's batches, in order."""

    curriculum: Curriculum
    order: Any
    epoch: int = 0

    def __len__(self) -> int:
        return self.curriculum.iterations

    def __iter__(self) -> Iterator[list[_Crop]]:
        stage, seed = self.curriculum.stage(self.epoch), self.curriculum.seed
        cases = self._cases()
        for iteration in range(len(self)):
            chosen = list(itertools.islice(cases, stage.cases_per_batch))
            patch = self.curriculum.patch_size(self.epoch, iteration)
            crops = []
            for slot in range(stage.batch_size):
                case = case_of(slot, stage.cases_per_batch, stage.batch_size)
                foreground = shows_foreground(case, stage.cases_per_batch, stage.foreground_share)
                crops.append(_Crop(chosen[case], patch, foreground, (seed, self.epoch, iteration, slot)))
            yield crops

    def _cases(self) -> Iterator[int]:
        """Yield the sampler's order, repeated as often as the epoch needs it."""
        while True:
            empty = True
            for case in self.order:
                empty = False
                yield case
            if empty:
                raise BadInput("the loader's sampler yields no sample", "loader")


@dataclass
class _Crops:
    """A dataset of crops over a dataset of whole cases."""

    dataset: Any
    keys: tuple[Hashable, ...]
    label: Hashable | None
    transform: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, crop: _Crop) -> Any:
        return self.__getitems__([crop])[0]

    def __getitems__(self, crops: Sequence[_Crop]) -> list[Any]:
        """Return a batch's samples, as PyTorch's loader asks for them; each case is read once."""
        samples: list[Any] = []
        for case, alike in itertools.groupby(crops, lambda crop: crop.case):
            samples += self._cropped(self.dataset[case], list(alike))
        return samples

    def _cropped(self, sample: Any, crops: Sequence[_Crop]) -> Iterator[Any]:
        """Yield crops of one case."""
        given = sample if isinstance(sample, dict) else dict(enumerate(sample))
        axes = len(crops[0].size)
        shapes = {key: tuple(given[key].shape[-axes:]) for key in self.keys if key in given}
        shows = self.label is not None and any(crop.foreground for crop in crops)
        labels = (self.label,) if shows else ()
        if missing := [key for key in (*self.keys, *labels) if key not in given]:
            argument = "keys" if missing[0] in self.keys else "label"
            raise BadInput(f"a sample has no '{missing[0]}'", argument, f"it has {', '.join(map(str, given))}")
        if len(set(shapes.values())) != 1:
            raise BadInput(
                f"the spatial shapes of a sample differ: {shapes}", "keys", "crop and resample them the same way"
            )
        shape = next(iter(shapes.values()))
        foreground = self._foreground(given[self.label], axes) if shows else ()
        for crop in crops:
            starts = self._starts(crop, shape, foreground)
            cropped = given | {key: _cut(given[key], starts, crop.size) for key in self.keys}
            if len(crops) > 1 or self.transform is not None:
                # What changes one crop in place must change no other, nor the dataset's own case.
                cropped = copy.deepcopy(cropped)
            result = cropped if isinstance(sample, dict) else type(sample)(cropped[i] for i in range(len(sample)))
            yield result if self.transform is None else self.transform(result)

    @staticmethod
    def _starts(crop: _Crop, shape: Patch, foreground: Any) -> list[int]:
        """Return the first voxel of the crop on each axis; negative if the case is smaller than the patch."""
        rng = np.random.default_rng(crop.seed)
        if crop.foreground and len(foreground):
            centre = np.unravel_index(foreground[rng.integers(len(foreground))], shape)
            return [
                -((size - whole) // 2) if size >= whole else int(min(max(at - size // 2, 0), whole - size))
                for at, size, whole in zip(centre, crop.size, shape, strict=True)
            ]
        return [
            -((size - whole) // 2) if size >= whole else int(rng.integers(whole - size + 1))
            for size, whole in zip(crop.size, shape, strict=True)
        ]

    @staticmethod
    def _foreground(label: Any, axes: int) -> Any:
        """Return flat indices of the voxels that are not background."""
        array = np.asarray(label)
        return np.flatnonzero((array != 0).reshape(-1, *array.shape[-axes:]).any(0))


def _cut(array: Any, starts: Sequence[int], size: Patch) -> Any:
    """Cut a patch out of the last axes of an array or tensor, padded with zeros where it reaches beyond."""
    axes = len(size)
    shape = array.shape[-axes:]
    inside = tuple(slice(max(s, 0), min(s + n, w)) for s, n, w in zip(starts, size, shape, strict=True))
    cut = array[(..., *inside)]
    before = [max(-s, 0) for s in starts]
    after = [n - b - c for n, b, c in zip(size, before, cut.shape[-axes:], strict=True)]
    if not any(before) and not any(after):
        return cut
    if isinstance(cut, np.ndarray):
        return np.pad(cut, [(0, 0)] * (cut.ndim - axes) + list(zip(before, after, strict=True)))
    from torch.nn.functional import pad

    return pad(cut, [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair])
