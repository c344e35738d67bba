"""Tasks that are not there, or under a name that nnU-Net cannot use, and paths that cannot be used."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from ppgs.cli.output import out, tolerate_any_name
from ppgs.errors import BadInput, DatasetError, PathUnusable
from ppgs.tasks import Roots, resolve_task


@pytest.mark.parametrize(
    ("folder", "given", "renamed"),
    [
        ("Dataset42_Small", "42", "Dataset042_Small"),
        ("Dataset42_Small", "Dataset42_Small", "Dataset042_Small"),
        ("dataset042_small", "dataset042_small", "Dataset042_small"),
        ("Dataset042_My Data", "42", "Dataset042_My_Data"),
        ("Dataset042_My Data", "Dataset042_My Data", "Dataset042_My_Data"),
        ("Dataset042", "042", "Dataset042_Name"),
        ("Dataset042-Small", "42", "Dataset042_Small"),
    ],
)
def test_a_folder_that_nnunet_cannot_name(tmp_path: Path, folder: str, given: str, renamed: str) -> None:
    roots = Roots.under(tmp_path)
    (roots.raw / folder).mkdir(parents=True)
    with pytest.raises(DatasetError) as told:
        resolve_task(given, roots)
    assert f"rename it to {renamed}" in told.value.problems[0].remedy


@pytest.mark.parametrize("given", ["42", "Dataset042_Small"])
def test_a_dataset_that_is_no_folder(tmp_path: Path, given: str) -> None:
    roots = Roots.under(tmp_path)
    roots.raw.mkdir()
    dataset = roots.raw / "Dataset042_Small"
    dataset.symlink_to("nowhere")
    with pytest.raises(DatasetError) as told:
        resolve_task(given, roots)
    assert "a link that leads nowhere" in told.value.problems[0].remedy
    dataset.unlink()
    dataset.touch()
    with pytest.raises(DatasetError) as told:
        resolve_task(given, roots)
    assert "a file, not a folder" in told.value.problems[0].remedy


@pytest.mark.parametrize("given", ["²", "9" * 5000, "", "Task", "Dataset", "x" * 200])
def test_strange_tasks_are_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises((DatasetError, OSError)) as told:
        resolve_task(given, Roots.under(tmp_path))
    assert not isinstance(told.value, OSError) or PathUnusable.of(told.value) is not None


def test_paths_in_the_way_are_no_bugs(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    for use in (file.mkdir, (file / "x").mkdir, tmp_path.read_bytes, loop.read_bytes, (tmp_path / ("x" * 300)).touch):
        with pytest.raises(OSError) as told:
            use()
        error = PathUnusable.of(told.value)
        assert error is not None and error.exit_code == 2
        assert error.problems[0].remedy and str(tmp_path) in error.problems[0].where
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "missing").read_bytes()
    assert PathUnusable.of(missing.value) is None
    assert PathUnusable.of(ValueError()) is None


def test_names_that_cannot_be_encoded_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="utf-8"))
    tolerate_any_name()
    out.print("caf\udce9")
    sys.stdout.flush()
    assert written.getvalue() == b"caf\\udce9\n"


def test_a_name_with_a_dot(tmp_path: Path) -> None:
    (tmp_path / "nnUNet_raw" / "Dataset043_With.Dot").mkdir(parents=True)
    for given in ("43", "With.Dot", "Dataset043_With.Dot"):
        assert resolve_task(given, Roots.under(tmp_path)).dataset == "Dataset043_With.Dot"


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("")
    with pytest.raises(BadInput, match="--root is a file"):
        Roots.choose(tmp_path / "root", {})


def test_raw_data_that_are_a_dataset_themselves(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "Dataset005_Prostate"
    (raw / "imagesTr").mkdir(parents=True)
    with pytest.raises(DatasetError) as refused:
        resolve_task("5", Roots(raw, tmp_path / "preprocessed", tmp_path / "results"))
    assert str(raw.parent) in refused.value.problems[0].remedy
