"""Files that a dataset is made from: the state of images whose voxels are in files of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppgs.nnunet.preparation.own_files import source_state


def test_slices_that_a_header_lists_or_numbers(tmp_path: Path) -> None:
    for name in ("s1.raw", "s2.raw", "other.raw"):
        (tmp_path / name).write_bytes(b"12")
    lists = "ElementDataFile = LIST\ns1.raw\r\ns2.raw\n", "datafile: LIST\ns1.raw\ns2.raw"
    for text in (*lists, "data file: s%d.raw 1 2 1\n", f"ElementDataFile = {tmp_path}/s%03d.raw 1 2 1\n"):
        header = tmp_path / ("a.mhd" if "Element" in text else "a.nhdr")
        header.write_text(text)
        state = source_state(header)
        assert state is not None and len(state) == 6
        (tmp_path / "s2.raw").write_bytes(b"1" * len(text))
        assert source_state(header) != state


@pytest.mark.parametrize("name", ["lister.raw", "Dose 50%.raw", "[a].raw"])
def test_voxels_with_a_name_that_looks_like_more(tmp_path: Path, name: str) -> None:
    header, voxels = tmp_path / "a.mhd", tmp_path / name
    header.write_text(f"ElementDataFile = {name}\n")
    voxels.write_bytes(b"12")
    state = source_state(header)
    assert state is not None and len(state) == 4
    voxels.write_bytes(b"123")
    assert source_state(header) != state


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "/%d" * 200])
def test_a_damaged_header_has_no_voxels(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.mhd").write_text(f"ElementDataFile = {name}\n")
    state = source_state(tmp_path / "a.mhd")
    assert state is not None and len(state) == 2
