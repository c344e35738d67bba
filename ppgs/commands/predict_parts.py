"""Parts of a prediction's images, for processes or machines that share the work."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ppgs.errors import BadInput
from ppgs.nnunet.images.find import Image


@dataclass(frozen=True)
class Part:
    """Part `number` of `count`, 1-based; written `2/8`."""

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def split(self, count: int) -> list[Part]:
        """Split this part into smaller parts."""
        return [Part(self.number + self.count * step, self.count * count) for step in range(count)]


def parse_part(text: str | None) -> Part:
    """Parse `2/8` as a part; an empty text means all images. Raises `BadInput`."""
    if text is None:
        return Part()
    match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text, re.ASCII)
    part = Part(int(match[1]), int(match[2])) if match is not None else Part(0, 0)
    if not 1 <= part.number <= part.count:
        raise BadInput(
            f"'{text}' is no part of the images", "--part", "give 1/8, 2/8, ... or 8/8 for one of eight parts"
        )
    return part


def part_of(outputs: dict[Image, Path], part: Part) -> dict[Image, Path]:
    """Return every `count`-th image in the order of names from the `number`-th on: always the same selection."""
    chosen = sorted(outputs, key=lambda image: image.name)[part.number - 1 :: part.count]
    return {image: outputs[image] for image in chosen}
