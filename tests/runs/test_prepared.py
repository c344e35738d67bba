"""The record of prepared data: what counts as a change, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppgs.plans import parse_dataset
from ppgs.runs.prepared import (
    CaseStates,
    Record,
    Section,
    definition_of,
    difference,
    digests_of,
    find_changes,
    look_at,
    read_record,
    settings_of,
    write_record,
)
from ppgs.runs.splits import followed

CASES = ("a", "b", "c")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for name in CASES:
        for part in ("image", "label"):
            (tmp_path / f"{name}.{part}").write_text(f"{part} of {name}")
    return tmp_path


def files(raw: Path) -> dict[str, list[Path]]:
    names = sorted(p.stem for p in raw.glob("*.image"))
    return {name: [raw / f"{name}.image", raw / f"{name}.label"] for name in names}


def recorded(states: CaseStates, settings: str = "s") -> Record:
    return Record(cases=states, prepared={"3d": Section(settings=settings, cases=digests_of(states))})


def found(raw: Path, record: Record | None, made: dict[str, int] | None = None, settings: str = "s"):  # type: ignore[no-untyped-def]
    states = look_at(files(raw), {} if record is None else record.cases)
    made = dict.fromkeys(CASES, 2**62) if made is None else made
    return find_changes(record, "3d", settings, states, made)


def test_nothing_changed(raw: Path) -> None:
    assert not found(raw, recorded(look_at(files(raw), {})))


def test_a_file_that_was_only_touched_is_no_change_and_its_new_time_is_recorded(raw: Path) -> None:
    before = look_at(files(raw), {})
    os.utime(raw / "b.label", ns=(0, before["b"][1].modified + 10**9))
    after = look_at(files(raw), before)
    assert not find_changes(recorded(before), "3d", "s", after, dict.fromkeys(CASES, 0))
    assert after["b"][1].modified != before["b"][1].modified
    assert after["b"][1].digest == before["b"][1].digest


@pytest.mark.parametrize("seconds", [-(10**6), 10**6])
def test_other_content_of_the_same_size_is_a_change_whichever_way_the_clock_went(raw: Path, seconds: int) -> None:
    record = recorded(look_at(files(raw), {}))
    (raw / "b.label").write_text("label of x")
    os.utime(raw / "b.label", ns=(0, record.cases["b"][1].modified + seconds * 10**9))
    changes = found(raw, record)
    assert (changes.changed, changes.dated) == (("b",), ())


def test_only_files_that_look_different_are_read(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = look_at(files(raw), {})
    (raw / "c.image").write_text("another image of c")
    read: list[Path] = []
    monkeypatch.setattr("ppgs.runs.prepared.digest_of_file", lambda path: read.append(path) or "new")
    look_at(files(raw), before)
    assert read == [raw / "c.image"]


def test_a_renamed_case_is_a_removed_and_a_new_one(raw: Path) -> None:
    record = recorded(look_at(files(raw), {}))
    for part in ("image", "label"):
        (raw / f"a.{part}").rename(raw / f"z.{part}")
    changes = found(raw, record)
    assert (changes.changed, changes.added, changes.removed) == ((), ("z",), ("a",))


def test_another_number_of_channels_is_a_change(raw: Path) -> None:
    record = recorded(look_at(files(raw), {}))
    (raw / "a.image2").write_text("x")
    more = files(raw) | {"a": [raw / "a.image", raw / "a.image2", raw / "a.label"]}
    changes = find_changes(record, "3d", "s", look_at(more, record.cases), dict.fromkeys(CASES, 0))
    assert changes.changed == ("a",)


def test_other_settings_redo_all_that_is_made(raw: Path) -> None:
    record = recorded(look_at(files(raw), {}))
    assert found(raw, record, settings="other").redone
    assert not found(raw, record, made={}, settings="other")


def test_without_a_record_only_newer_raw_files_are_a_change(raw: Path) -> None:
    states = look_at(files(raw), {})
    newest = max(state.modified for case in states.values() for state in case)
    assert not found(raw, None, dict.fromkeys(CASES, newest))
    changes = found(raw, None, {"a": newest - 10**12, "b": newest, "c": newest})
    assert changes.changed == changes.dated == ("a",)
    # Nothing is new where nothing was prepared.
    assert not found(raw, None, {})
    gone = find_changes(None, "3d", "s", states, dict.fromkeys((*CASES, "gone"), newest))
    assert gone.removed == ("gone",)


def test_a_case_that_is_being_made_again_is_a_change_no_more_but_changes_again_if_its_file_does(raw: Path) -> None:
    record = recorded(look_at(files(raw), {}))
    (raw / "a.label").write_text("corrected")
    # As after a kill between the record and the case: recorded, removed, not yet made.
    record = recorded(look_at(files(raw), record.cases))
    left = {"b": 0, "c": 0}
    assert not found(raw, record, left)
    (raw / "a.label").write_text("corrected again")
    assert found(raw, record, left).changed == ("a",)


def test_a_folder_that_follows_later_has_its_own_changes(raw: Path) -> None:
    before = look_at(files(raw), {})
    (raw / "a.label").write_text("corrected")
    after = look_at(files(raw), before)
    record = Record(
        cases=after,
        prepared={
            "3d": Section(settings="s", cases=digests_of(after)),
            "2d": Section(settings="s", cases=digests_of(before)),
        },
    )
    made = dict.fromkeys(CASES, 0)
    assert not find_changes(record, "3d", "s", after, made)
    assert find_changes(record, "2d", "s", after, made).changed == ("a",)


def test_a_record_is_read_as_written_and_a_damaged_one_is_none(raw: Path) -> None:
    record = recorded(look_at(files(raw), {}))
    write_record(raw, record)
    assert read_record(raw) == record
    written = (raw / "ppgs_prepared.json").stat()
    write_record(raw, record)
    assert (raw / "ppgs_prepared.json").stat().st_ino == written.st_ino
    for damaged in ("", "{", "[]", '{"cases": 3}'):
        (raw / "ppgs_prepared.json").write_text(damaged)
        assert read_record(raw) is None


def test_names_of_labels_change_nothing_but_values_and_channels_do() -> None:
    def digest(**changes: object) -> str:
        content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1, "b": 2}, **changes}
        return definition_of(parse_dataset(content))

    assert digest() == digest(labels={"background": 0, "organ": 1, "core": 2}, numTraining=9)
    others = [
        digest(labels={"background": 0, "a": 1, "b": 2, "c": 3}),
        digest(labels={"background": 0, "a": 1, "ignore": 2}),
        digest(labels={"background": 0, "b": 2, "a": 1}),
        digest(channel_names={"0": "MR", "1": "MR"}),
    ]
    assert len({digest(), *others}) == 5


def test_settings_are_what_the_preprocessor_reads() -> None:
    dataset = parse_dataset({"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1}})
    plain = settings_of({}, {"spacing": [1, 1, 1], "patch_size": [8, 8, 8]}, dataset)
    assert plain == settings_of({}, {"spacing": [1, 1, 1], "patch_size": [16, 8, 8], "batch_size": 4}, dataset)
    assert plain != settings_of({}, {"spacing": [2, 1, 1], "patch_size": [8, 8, 8]}, dataset)


_names = st.sets(st.text("abcdefghij", min_size=1, max_size=2), min_size=5, max_size=30)


@given(_names, _names)
def test_splits_follow_and_no_old_case_moves(before: set[str], now: set[str]) -> None:
    old = followed([{"train": [], "val": []} for _ in range(5)], before)
    new = followed(old, now)
    for fold in new:
        assert not set(fold["train"]) & set(fold["val"])
        assert set(fold["train"]) | set(fold["val"]) == now
    validated = [case for fold in new for case in fold["val"]]
    assert sorted(validated) == sorted(now)
    for was, is_ in zip(old, new, strict=True):
        assert set(was["val"]) & now <= set(is_["val"])


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xy")),
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xy")),
)
def test_differences(before: dict[str, str], now: dict[str, str]) -> None:
    told = difference(before, now)
    assert bool(told) == (before != now)
    assert {*told.changed, *told.added, *told.removed} == dict(before.items() ^ now.items()).keys()


class TestSpacingFiles:
    @pytest.fixture
    def volumes(self, raw: Path) -> dict[str, list[Path]]:
        """The cases of `raw` with the place of a spacing file, which `a` alone has."""
        (raw / "a.json").write_text('{"spacing": [3, 1, 1]}')
        return {name: [paths[0], raw / f"{name}.json", paths[1]] for name, paths in files(raw).items()}

    def changes(self, record: Record, volumes: dict[str, list[Path]]) -> tuple[str, ...]:
        states = look_at(volumes, record.cases)
        return find_changes(record, "3d", "s", states, dict.fromkeys(CASES, 2**62)).changed

    def test_another_spacing_or_a_new_file_is_a_change(self, raw: Path, volumes: dict[str, list[Path]]) -> None:
        record = recorded(look_at(volumes, {}))
        assert self.changes(record, volumes) == ()
        (raw / "a.json").write_text('{"spacing": [4, 1, 1]}')
        (raw / "b.json").write_text('{"spacing": [1, 1, 1]}')
        assert self.changes(record, volumes) == ("a", "b")

    def test_nothing_but_the_spacing_counts(self, raw: Path, volumes: dict[str, list[Path]]) -> None:
        record = recorded(look_at(volumes, {}))
        (raw / "a.json").write_text('{"by": "hand", "spacing": [3.0, 1, 1]}')
        # An annotation tool's own file beside a picture.
        (raw / "b.json").write_text('{"shapes": []}')
        assert self.changes(record, volumes) == ()

    def test_cases_recorded_without_them_are_not_taken_for_changed(
        self, raw: Path, volumes: dict[str, list[Path]]
    ) -> None:
        record = recorded(look_at(files(raw), {}))
        assert self.changes(record, volumes) == ()
        (raw / "c.image").write_text("another image of c")
        assert self.changes(record, volumes) == ("c",)
