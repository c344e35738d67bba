"""Pictures of one validation case during training, for the monitor: image, reference and prediction.

Each is one slice through one patch of the plan's size in `ppgs/slices/epoch_00099.npz`:

- `image`: uint8 (y, x), the first channel as the network sees it, its 1st to 99th percentile spread over 0 to 255
- `reference`, `prediction`: uint8 (y, x), labels (uint16 if there are more than 256)
- `spacing`: float64 (2,), mm of (y, x)
- `epoch`, `stage`: int, from 0 as in the event log; `case`: its name; `index`: int, the slice in the preprocessed case
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

from ppgs.nnunet.network import precision
from ppgs.nnunet.network.evaluation import evaluating
from ppgs.runs.atomic import write_atomically
from ppgs.schedule import Schedule

# The resolution of a terminal; a finer slice is thinned.
_MOST_PIXELS = 512
_MOST_CASES = 20
_IN_ALL = 10


def is_due(schedule: Schedule, epoch: int) -> bool:
    """Return whether a picture is due: after the first epoch, each stage's last, and every tenth of a training."""
    last = epoch + 1 == schedule.epochs or schedule.stage_index_at(epoch + 1) != schedule.stage_index_at(epoch)
    return epoch == 0 or last or (epoch + 1) % -(-schedule.epochs // _IN_ALL) == 0


class SliceWriter:
    """Predicts and writes a slice of the validation case that shows the most.

    The training does not notice: no generator of random numbers, no weight and no statistic changes, and what goes
    wrong is reported once as a warning.
    """

    def __init__(self, trainer: Any, validation: Any) -> None:
        """`validation` is nnU-Net's dataset of the fold's validation cases."""
        self._trainer, self._dataset = trainer, validation
        self._chosen: tuple[str, tuple[int, int, int]] | None = None
        self._has_failed = False

    def write(self, epoch: int) -> None:
        """Write the picture after this epoch (from 0) if one is due, and the event `slice_written`."""
        settings = self._trainer.settings
        if settings.ranks.rank or self._has_failed or not is_due(settings.schedule, epoch):
            return
        try:
            told = self._write(epoch, settings.schedule.stage_index_at(epoch))
        except Exception as problem:
            self._has_failed = True
            settings.emit("warning", message=f"the slice view gets no more pictures: {problem}")
        else:
            settings.emit("slice_written", **told)

    def _write(self, epoch: int, stage: int) -> dict[str, Any]:
        run, labels = self._trainer.settings.run, self._trainer.label_manager
        self._chosen = self._chosen or _choose(self._dataset)
        case, (index, *_) = self._chosen
        patch, reference, depth = self._crop(*self._chosen)
        prediction = self._predict(patch, depth)
        if labels.has_ignore_label:
            prediction[reference == labels.ignore_label] = 0
            reference[reference == labels.ignore_label] = 0
        image = patch[0] if depth is None else patch[0, depth]
        step = -(-max(image.shape) // _MOST_PIXELS)
        thin = np.s_[::step, ::step]
        content = {
            "image": _grey(image)[thin],
            "reference": _small(reference)[thin],
            "prediction": _small(prediction)[thin],
            "spacing": np.array(self._trainer.configuration_manager.spacing[-2:], float) * step,
            "epoch": epoch,
            "stage": stage,
            "case": case,
            "index": index,
        }
        # Without parents: a folder that was moved away must not be created again.
        for folder in (run.own, run.slices):
            folder.mkdir(exist_ok=True)
        name = f"epoch_{epoch:05d}.npz"
        write_atomically(run.slices / name, lambda file: np.savez_compressed(file, **content))
        classes = labels.foreground_regions if labels.has_regions else labels.foreground_labels
        dice = [_dice(np.isin(reference, one), np.isin(prediction, one)) for one in classes]
        return {"epoch": epoch, "stage": stage, "file": name, "case": case, "slice_dice": dice}

    def _crop(self, case: str, centre: tuple[int, int, int]) -> tuple[Any, Any, int | None]:
        """Return the patch (c, z, y, x) or (c, y, x), the reference's slice (y, x), and its position in the patch."""
        image, reference, previous, _ = self._dataset.load_case(case)
        size = tuple(self._trainer.configuration_manager.patch_size)
        flat = len(size) == 2
        box = [
            _window(middle, wide, whole)
            for middle, wide, whole in zip(centre, (1, *size) if flat else size, image.shape[1:], strict=True)
        ]
        patch = crop_and_pad_nd(image, [[0, image.shape[0]], *box], 0).astype(np.float32)
        labels = crop_and_pad_nd(reference, [[0, reference.shape[0]], *box], 0)
        if previous is not None and self._trainer.is_cascaded:
            before = crop_and_pad_nd(previous, box, 0)
            one_hot = [before == label for label in self._trainer.label_manager.foreground_labels]
            patch = np.concatenate([patch, np.array(one_hot, np.float32)])
        depth = centre[0] - box[0][0]
        # nnU-Net's labels are -1 outside the non-zero region.
        plane = np.maximum(labels[0, depth], 0)
        return (patch[:, 0], plane, None) if flat else (patch, plane, depth)

    def _predict(self, patch: Any, depth: int | None) -> Any:
        """Return the predicted labels (y, x), without the compiler, which would compile for this size only."""
        trainer = self._trainer
        network, device = trainer._module, trainer.device
        with evaluating(network, device), precision.autocast(device, bfloat16=trainer.settings.bfloat16):
            output = network(torch.from_numpy(patch)[None].to(device))
        logits = (output[0] if isinstance(output, (list, tuple)) else output)[0]
        plane = logits if depth is None else logits[:, depth]
        return trainer.label_manager.convert_logits_to_segmentation(plane.float().cpu()).numpy()


def _choose(dataset: Any) -> tuple[str, tuple[int, int, int]]:
    """Choose the case that shows most classes and most foreground, and the centre to look at (z, y, x).

    Counts the voxels that nnU-Net has sampled of every class at preprocessing, so that no image is read.
    """

    def seen(case: str) -> tuple[int, int]:
        counts = [len(where) for where in _foreground(dataset.load_case(case)[3])]
        return sum(map(bool, counts)), sum(counts)

    case = max(sorted(dataset.identifiers)[:_MOST_CASES], key=seen)
    image, *_, properties = dataset.load_case(case)
    where = [np.asarray(one)[:, -3:] for one in _foreground(properties) if len(one)]
    if not where:
        z, y, x = (side // 2 for side in image.shape[1:])
        return case, (z, y, x)
    # Every class counts the same, however small it is.
    profiles = [np.bincount(one[:, 0], minlength=image.shape[1]) for one in where]
    z = int(np.argmax(sum(profile / profile.max() for profile in profiles)))
    plane = np.concatenate([one[one[:, 0] == z, 1:] for one in where])
    y, x = (plane.min(0) + plane.max(0)) // 2
    return case, (z, int(y), int(x))


def _foreground(properties: dict[str, Any]) -> list[Any]:
    """Return sampled voxels of every class or region, without nnU-Net's entry for all annotated voxels (with -1)."""
    return [v for k, v in properties["class_locations"].items() if not (isinstance(k, (tuple, list)) and -1 in k)]


def _window(middle: int, wide: int, whole: int) -> list[int]:
    """Return start and end on one axis: around the middle within the image, or around a smaller image."""
    first = min(max(middle - wide // 2, 0), whole - wide) if whole >= wide else -((wide - whole) // 2)
    return [first, first + wide]


def _grey(image: Any) -> Any:
    low, high = np.nanpercentile(image, (1, 99))
    return (255 * np.nan_to_num((image - low) / max(high - low, 1e-6)).clip(0, 1)).astype(np.uint8)


def _small(labels: Any) -> Any:
    return labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)


def _dice(reference: Any, prediction: Any) -> float | None:
    """Return the Dice, or None if neither mask has the class."""
    both = int(reference.sum()) + int(prediction.sum())
    return 2 * int((reference & prediction).sum()) / both if both else None
