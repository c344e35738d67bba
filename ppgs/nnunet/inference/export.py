"""Export of predicted logits class by class, so that its memory does not grow with the number of classes.

nnU-Net resamples all classes to the image's size before it decides between them: 117 classes of a whole-body CT take
more than 100 GiB. Here its own resampling function is called for one class at a time, and a running maximum (labels)
or thresholds written in nnU-Net's order (regions) decide. Everything else of the export is nnU-Net's own code.

A class that cannot be found anywhere is not resampled: one that exceeds the background nowhere, or a region nowhere
above the threshold. Linear interpolation keeps that order, as its weights are not negative. Many classes of a
whole-body model are absent from an image of one organ.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.no_resampling import no_resampling_hack
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from ppgs.nnunet.inference.window import Stored

# These loop over channels. PyTorch's interpolation rounds differently when it is given other numbers of channels.
_BY_CHANNEL = (resample_data_or_seg_to_shape, no_resampling_hack)


def export(
    logits: torch.Tensor | np.ndarray | Stored,
    properties: dict[str, Any],
    plans: PlansManager,
    setup: Any,
    dataset_json: dict[str, Any],
    truncated: str,
    *,
    probabilities: bool = False,
    threads: int = 1,
    abreast: int = 1,
) -> None:
    """Write the segmentation to `truncated` plus the file ending, as nnU-Net does, voxel for voxel.

    `threads` are PyTorch's, `abreast` is how many classes are resampled at a time. With `probabilities`, and for plans
    whose resampling or labels are not nnU-Net's own, all classes are resampled together.
    """
    if not probabilities and streams(plans, setup, dataset_json):
        plans, setup = deciding(plans, setup, dataset_json, abreast)
    elif isinstance(logits, Stored):
        logits = logits[:]
    export_prediction_from_logits(
        logits, properties, setup, plans, dataset_json, truncated, probabilities, num_threads_torch=threads
    )


def deciding(plans: PlansManager, setup: Any, dataset_json: dict[str, Any], abreast: int = 1) -> tuple[Any, Any]:
    """Return plans and configuration with which nnU-Net's exports decide class by class, if that is possible."""
    if not streams(plans, setup, dataset_json):
        return plans, setup
    return _Plans(plans), _Setup(setup, plans.get_label_manager(dataset_json), abreast)


def streams(plans: PlansManager, setup: Any, dataset_json: dict[str, Any]) -> bool:
    """Return whether segmentations of this model can be decided class by class."""
    labels = plans.get_label_manager(dataset_json)
    decides = ("convert_logits_to_segmentation", "convert_probabilities_to_segmentation", "apply_inference_nonlin")
    own = all(getattr(type(labels), name) is getattr(LabelManager, name) for name in decides)
    return own and getattr(setup.resampling_fn_probabilities, "func", None) in _BY_CHANNEL


class _Stand:
    """Wrapper of an nnU-Net object that passes on what a subclass does not define."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Plans(_Stand):
    def get_label_manager(self, dataset_json: dict[str, Any]) -> Any:
        return _Decided(self._real.get_label_manager(dataset_json))


class _Decided(_Stand):
    """A label manager that receives segmentations in place of logits."""

    def convert_logits_to_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation


class _Setup(_Stand):
    """A configuration whose resampling decides the classes too."""

    def __init__(self, real: Any, labels: LabelManager, abreast: int) -> None:
        super().__init__(real)
        self._labels, self._abreast = labels, abreast

    def resampling_fn_probabilities(self, logits: Any, *where: Any) -> np.ndarray:
        resample = self._real.resampling_fn_probabilities
        decision = _Thresholds(self._labels) if self._labels.has_regions else _RunningMaximum()
        parts = ((number, logits[number : number + 1]) for number in range(len(logits)))
        if _keeps_order(resample):
            background = None if self._labels.has_regions else np.asarray(logits[:1])
            parts = ((number, part) for number, part in parts if number == 0 or _can_be(part, background))
        for number, resampled in _abreast(lambda part: resample(part, *where), parts, self._abreast):
            decision.add(number, torch.as_tensor(resampled[0]))
        assert decision.segmentation is not None
        return decision.segmentation.numpy()


def _keeps_order(resample: Any) -> bool:
    """Return whether the resampling of one class is nowhere above another's if the class is nowhere above it."""
    return resample.func is no_resampling_hack or (
        resample.keywords.get("order", 3) <= 1 and resample.keywords.get("order_z", 0) <= 1
    )


def _can_be(logits: Any, background: np.ndarray | None) -> bool:
    """Return whether a class may be found: it exceeds the background, or 0 as a region, or has NaN."""
    return not (np.asarray(logits) <= (0 if background is None else background)).all()


def _abreast(function: Callable[[Any], Any], parts: Iterable[tuple[int, Any]], most: int) -> Iterator[tuple[int, Any]]:
    """Yield each number with the function's result for its part, in order; `most` calls run or wait at a time."""
    if most == 1:
        yield from ((number, function(part)) for number, part in parts)
        return
    waiting: deque[tuple[int, Future[Any]]] = deque()
    with ThreadPoolExecutor(most) as threads:
        for number, part in parts:
            waiting.append((number, threads.submit(function, part)))
            if len(waiting) == most:
                first, future = waiting.popleft()
                yield first, future.result()
        yield from ((number, future.result()) for number, future in waiting)


class _RunningMaximum:
    """`argmax` over classes that come one after another: of equal values the first, NaN above all, as NumPy has it."""

    def __init__(self) -> None:
        self.segmentation: torch.Tensor | None = None
        self._best = torch.empty(0)

    def add(self, number: int, logits: torch.Tensor) -> None:
        if self.segmentation is None:
            # A copy: without resampling these are the logits themselves.
            self._best = logits.clone()
            self.segmentation = torch.zeros(logits.shape, dtype=torch.int16)
            return
        # Slice by slice, so that intermediate arrays stay small.
        for new, best, found in zip(logits, self._best, self.segmentation, strict=True):
            higher = (new > best) | (new.isnan() & ~best.isnan())
            found[higher] = number
            torch.maximum(best, new, out=best)


class _Thresholds:
    """Regions in the order of `regions_class_order`, later ones over earlier ones."""

    def __init__(self, labels: LabelManager) -> None:
        self.segmentation: torch.Tensor | None = None
        self._labels = labels

    def add(self, number: int, logits: torch.Tensor) -> None:
        if self.segmentation is None:
            self.segmentation = torch.zeros(logits.shape, dtype=torch.int16)
        for new, found in zip(logits, self.segmentation, strict=True):
            found[self._labels.apply_inference_nonlin(new) > 0.5] = self._labels.regions_class_order[number]
