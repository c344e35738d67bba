"""nnU-Net's plans and `dataset.json` as typed, frozen values.

Axis order is nnU-Net's own after its transposition: (z, y, x) in 3D, (y, x) in 2D. Spacings are in millimetres.
"""

from __future__ import annotations

import math
import re
from typing import Any

from pydantic import BaseModel, ConfigDict

from ppgs.errors import PlansError, nearest


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Configuration(_Frozen):
    """One configuration of the plans (`3d_fullres`, `2d`, ...), inheritance resolved.

    `strides` has one tuple per encoder stage, in axis order (z, y, x); their product is the `step`. A network that is
    not nnU-Net's names its step itself, and its `smallest_patch` where that is larger (`ppgs.nnunet.other_networks`).
    """

    name: str
    patch_size: tuple[int, ...]
    batch_size: int
    strides: tuple[tuple[int, ...], ...]
    spacing: tuple[float, ...]
    data_identifier: str
    architecture: str
    architecture_kwargs: dict[str, Any]
    architecture_imports: tuple[str, ...] = ()
    batch_dice: bool = False
    median_image_size: tuple[float, ...] | None = None
    previous_stage: str | None = None
    smallest_patch: tuple[int, ...] | None = None

    @property
    def is_unet(self) -> bool:
        """True for nnU-Net's own networks, whose arguments determine their cost."""
        return "features_per_stage" in self.architecture_kwargs

    @property
    def step(self) -> tuple[int, ...]:
        """Product of the strides on each axis: the smallest patch and the smallest growth (method, `step_a`)."""
        return tuple(math.prod(s[axis] for s in self.strides) for axis in range(len(self.patch_size)))


class Plans(_Frozen):
    """The part of an `nnUNetPlans.json` that ppgs uses."""

    name: str
    dataset: str
    configurations: dict[str, Configuration]

    def configuration(self, name: str) -> Configuration:
        """Return the configuration of that name; raises `PlansError` naming the available ones."""
        try:
            return self.configurations[name]
        except KeyError:
            raise PlansError(
                f"the plans have no configuration '{name}'",
                f"{self.name} of {self.dataset}",
                nearest(name, self.configurations),
            ) from None


_SIDES = {"left": "right", "l": "r", "lt": "rt", "lh": "rh", "sin": "dex", "links": "rechts"}


def _words(name: str) -> list[str]:
    """Split `kidney_left`, `LeftKidney`, `LKidney` and `kidney-L1` into lower-case words."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)", " ", name)
    return [word.lower() for word in re.split(r"[\W_]+", spaced) if word]


class Dataset(_Frozen):
    """The part of a `dataset.json` that ppgs uses: channels, labels (regions are tuples) and file ending."""

    channels: tuple[str, ...]
    labels: dict[str, int | tuple[int, ...]]
    file_ending: str
    regions_class_order: tuple[int, ...] | None = None

    @property
    def ignore_label(self) -> int | None:
        value = self.labels.get("ignore")
        return value if isinstance(value, int) else None

    @property
    def foreground(self) -> dict[str, int | tuple[int, ...]]:
        """Foreground classes or regions by name, in the order of nnU-Net's `LabelManager`."""
        return {k: v for k, v in self.labels.items() if k != "ignore" and v != 0}

    @property
    def foreground_labels(self) -> tuple[int, ...]:
        """Values of foreground voxels, those of regions too, rising (nnU-Net's `LabelManager.foreground_labels`)."""
        return tuple(sorted(self.values - {0, self.ignore_label}))

    @property
    def values(self) -> frozenset[int]:
        """Every value that a label image may hold."""
        flat: set[int] = {0}
        for value in self.labels.values():
            flat.update(value if isinstance(value, tuple) else (value,))
        return frozenset(flat)

    @property
    def sides(self) -> list[tuple[str, str]]:
        """Pairs of foreground classes whose names differ only in left and right, in the order of the labels."""
        names = {tuple(_words(name)): name for name in self.foreground}
        return [
            (name, other)
            for words, name in names.items()
            for index, word in enumerate(words)
            if word in _SIDES and (other := names.get((*words[:index], _SIDES[word], *words[index + 1 :])))
        ]

    @property
    def segmentation_heads(self) -> int:
        """Number of output channels of the network (nnU-Net's `LabelManager.num_segmentation_heads`)."""
        has_regions = any(isinstance(v, tuple) and len(v) > 1 for v in self.labels.values())
        return len(self.foreground) + (0 if has_regions else 1)
