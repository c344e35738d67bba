"""Parts of the images: all together are the images, and no image depends on what is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.commands.predict_parts import Part, parse_part, part_of
from ppgs.errors import BadInput
from ppgs.nnunet.images.find import Image

IMAGES = {Image(name, ()): Path(name) for name in ("d", "a", "p/c", "b", "p/a")}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_every_image_is_in_one_part(count: int) -> None:
    parts = [part_of(IMAGES, Part(number + 1, count)) for number in range(count)]
    assert sorted(i.name for part in parts for i in part) == sorted(i.name for i in IMAGES)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert parts[0] == part_of(dict(reversed(IMAGES.items())), Part(1, count))


def test_parts_of_parts() -> None:
    for part in (Part(), Part(2, 3)):
        together = [image for p in part.split(4) for image in part_of(IMAGES, p)]
        assert sorted(i.name for i in together) == sorted(i.name for i in part_of(IMAGES, part))


@pytest.mark.parametrize("text", ["0/8", "9/8", "2", "2/", "-1/8", "1/0", "a/b", "1.0/2", "", "2/8/1"])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_part(text)
    assert caught.value.exit_code == 2


def test_parse() -> None:
    assert (parse_part("2/8"), parse_part(None), str(Part(2, 8))) == (Part(2, 8), Part(1, 1), "2/8")
