"""The facts in plans and dataset that determine the network and its training step."""

from __future__ import annotations

import hashlib
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from ppgs.errors import PlansError
from ppgs.plans import Configuration, Dataset


class Network(BaseModel):
    """The facts from which the nnU-Net process builds network, loss and batch.

    `kwargs` are the arguments of the network's class, `imports` those among them that name classes. `heads` is the
    number of output channels; `regions` says that targets are overlapping regions (sigmoid and BCE) instead of labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    class_name: str
    kwargs: dict[str, Any]
    imports: tuple[str, ...]
    strides: tuple[tuple[int, ...], ...]
    channels: int
    heads: int
    regions: bool = False
    ignore_label: int | None = None
    batch_dice: bool = False

    @classmethod
    def of(cls, configuration: Configuration, dataset: Dataset) -> Self:
        """Return the facts; raises `PlansError` if the plans do not describe one of nnU-Net's networks."""
        if configuration.architecture and not configuration.is_unet:
            raise PlansError(
                f"costs of {configuration.architecture} cannot be estimated",
                f"configuration '{configuration.name}'",
                "'ppgs train' trains it anyway, and reports the memory that each stage took",
            )
        if "features_per_stage" not in configuration.architecture_kwargs:
            raise PlansError(
                "the plans do not describe the network",
                f"configuration '{configuration.name}'",
                "plan the task again with nnU-Net 2.2 or later",
            )
        # A cascade's second stage also sees the first one's segmentation, one channel a foreground label.
        cascade = len(dataset.foreground_labels) if configuration.previous_stage else 0
        return cls(
            class_name=configuration.architecture,
            kwargs=configuration.architecture_kwargs,
            imports=configuration.architecture_imports,
            strides=configuration.strides,
            channels=len(dataset.channels) + cascade,
            heads=dataset.segmentation_heads,
            regions=any(isinstance(v, tuple) and len(v) > 1 for v in dataset.labels.values()),
            ignore_label=dataset.ignore_label,
            batch_dice=configuration.batch_dice,
        )

    @property
    def accumulation_is_exact(self) -> bool:
        """True if the gradients of equal parts of a batch add up to those of the whole batch.

        The loss must be a mean over samples (no batch Dice, no ignore label) and the norm must look at one sample.
        """
        per_sample = "InstanceNorm" in str(self.kwargs.get("norm_op"))
        return per_sample and not self.batch_dice and self.ignore_label is None

    @property
    def digest(self) -> str:
        """A hash of all facts."""
        return hashlib.blake2b(self.model_dump_json().encode(), digest_size=12).hexdigest()
