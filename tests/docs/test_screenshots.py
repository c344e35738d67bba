"""The documentation's pictures of the monitor show it as it looks now."""

from __future__ import annotations

import json

import pytest

from tests.docs.test_reference import DOCS, script

screenshots = script("screenshots")


@pytest.mark.parametrize("name", screenshots.PICTURES)
def test_the_picture_is_not_stale(name: str) -> None:
    assert (DOCS / name).is_file()
    recorded = json.loads(screenshots.RECORD.read_text(encoding="utf-8"))
    assert recorded[name] == screenshots.digests()[name], "train the demo, then: python .ci/screenshots.py RUN_FOLDER"
