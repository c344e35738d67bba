"""Names of channels and label values."""

from __future__ import annotations

import pytest
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import (
    channel_name_to_normalization_mapping,
)

from ppgs.errors import Problem
from ppgs.own_data.naming import NORMALISING, default_channel, name_channels, name_labels, parse_names


def test_options() -> None:
    problems: list[Problem] = []
    assert parse_names(["1=liver", " T1 = T1w "], "--label", problems) == {"1": "liver", "t1": "T1w"}
    assert not problems


@pytest.mark.parametrize("given", [["liver"], ["1="], ["=liver"], ["1=a", "1=b"], ["1=a", "2=a"]])
def test_options_that_are_wrong(given: list[str]) -> None:
    problems: list[Problem] = []
    parse_names(given, "--label", problems)
    assert problems


def test_no_channel_is_ct_unless_somebody_says_so() -> None:
    problems: list[Problem] = []
    assert name_channels([""], 1, {}, problems) == ("image",)
    assert name_channels(["ct", "pet"], 2, {}, problems) == ("image_ct", "pet")
    assert name_channels(["ct", "pet"], 2, {"ct": "CT", "1": "PET"}, problems) == ("CT", "PET")
    # Suffixes that are numbers are not the channels' own numbers.
    assert name_channels(["0001", "0002"], 2, {"0001": "CT", "0002": "MR"}, problems) == ("CT", "MR")
    assert name_channels(["1", "2"], 2, {"1": "T1", "2": "T2"}, problems) == ("T1", "T2")
    assert name_channels(["0001", "0002"], 2, {"0": "CT"}, problems) == ("CT", "channel_1")
    assert name_channels(["0000"], 3, {}, problems, colours=True) == ("red", "green", "blue")
    assert not problems
    for name in channel_name_to_normalization_mapping:
        assert name in NORMALISING
        assert default_channel(name, 0, 2) not in channel_name_to_normalization_mapping


def test_unknown_channels_are_named() -> None:
    problems: list[Problem] = []
    name_channels(["t1", "t2"], 2, {"2": "x", "flair": "y"}, problems)
    assert [p.what for p in problems] == ["there is no channel '2'", "there is no channel 'flair'"]
    assert problems[0].remedy == "channels: 0 (t1), 1 (t2)"


def test_labels_are_numbered_without_gaps_and_ignore_is_last() -> None:
    problems: list[Problem] = []
    found = name_labels({0, 1, 4, 255}, {"4": "tumour", "1": "Ignore"}, problems)
    assert not problems
    assert found.names == {"background": 0, "tumour": 1, "label_255": 2, "ignore": 3}
    assert found.values == {0: 0, 4: 1, 255: 2, 1: 3}
    assert found.is_renumbered
    assert not name_labels({1, 2}, {}, problems).is_renumbered


@pytest.mark.parametrize("given", [{"3": "x"}, {"a": "x"}, {"0": "air"}, {"1": "background"}, {"1": "label_2"}])
def test_labels_that_are_wrong(given: dict[str, str]) -> None:
    problems: list[Problem] = []
    name_labels({0, 1, 2}, given, problems)
    assert len(problems) == 1
