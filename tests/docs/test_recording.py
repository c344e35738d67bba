"""The documentation's recording of a training shows the output as it looks now."""

from __future__ import annotations

import json

from tests.docs.test_reference import script

recording = script("recording")


def test_the_recording_is_not_stale() -> None:
    assert recording.PICTURE.is_file()
    recorded = json.loads(recording.DIGEST.read_text(encoding="utf-8"))
    assert recorded[recording.PICTURE.name] == recording.digest(), "train as .ci/recording.py says, then run it"


def test_each_line_appears_when_it_was_printed() -> None:
    svg = recording.draw([(1.0, "a"), (20.0, "b" * 150)])
    assert 'train-line-0)"]{animation-delay:0.10s}' in svg
    assert 'train-line-2)"]{animation-delay:2.00s}' in svg
