"""Tasks that are not there, or under a name that nnU-Net cannot use, and paths that cannot be used."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ppgs.cli.output import out, tolerate_any_name
from ppgs.commands.train.plan import create_run, plan_run
from ppgs.errors import BadInput, DatasetError, PathUnusable
from ppgs.runs.request import TrainingRequest
from ppgs.tasks import Roots, Task, resolve_task, shortest_name


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
        ("Dataset1014-Foo", "1014", "Dataset1014_Foo"),
        ("Dataset0101_Foo", "101", "Dataset101_Foo"),
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


def test_folders_that_are_links(tmp_path: Path) -> None:
    roots = Roots.under(tmp_path / "root")
    elsewhere = tmp_path / "share" / "heart"
    (elsewhere / "imagesTr").mkdir(parents=True)
    roots.raw.mkdir(parents=True)
    linked = roots.raw / "Dataset042_Small"
    linked.symlink_to(elsewhere)
    shortcut = tmp_path / "Dataset042_Small"
    shortcut.symlink_to(linked)
    for given in (linked, shortcut):
        assert resolve_task(str(given), roots) == Task(str(given), "Dataset042_Small", "nnunet")
    named = tmp_path / "Task07_Heart"
    named.symlink_to(elsewhere)
    assert resolve_task(str(named), roots) == Task(str(named), "Dataset007_Heart", "decathlon", elsewhere.resolve())
    other = tmp_path / "heart"
    (tmp_path / "share" / "Task08_Heart").mkdir()
    other.symlink_to(tmp_path / "share" / "Task08_Heart")
    assert resolve_task(str(other), roots).dataset == "Dataset008_Heart"


def test_the_remedy_for_a_dataset_outside_nnunet_raw_works(tmp_path: Path) -> None:
    roots = Roots.under(tmp_path / "my root")
    dataset = tmp_path / "my share" / "Dataset042_Small"
    dataset.mkdir(parents=True)
    with pytest.raises(DatasetError, match="must lie in nnUNet_raw") as told:
        resolve_task(str(dataset), roots)
    subprocess.run(told.value.problems[0].remedy.removeprefix("link it: "), shell=True, check=True)
    assert resolve_task(str(dataset), roots) == Task(str(dataset), "Dataset042_Small", "nnunet")
    taken = roots.raw / "Dataset042_Small"
    taken.unlink()
    taken.symlink_to("nowhere")
    with pytest.raises(DatasetError) as told:
        resolve_task(str(dataset), roots)
    assert "rename one of them" in told.value.problems[0].remedy
    taken.unlink()
    taken.mkdir()
    with pytest.raises(DatasetError) as told:
        resolve_task(str(dataset), roots)
    assert "rename one of them" in told.value.problems[0].remedy


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


def test_numbers_of_more_than_three_digits(tmp_path: Path) -> None:
    roots = Roots.under(tmp_path)
    for name in ("Dataset1014_Foo", "Dataset101_Bar"):
        (roots.raw / name).mkdir(parents=True)
    for given in ("1014", "Foo", "Dataset1014_Foo", str(roots.raw / "Dataset1014_Foo")):
        assert (task := resolve_task(given, roots)).dataset == "Dataset1014_Foo"
        assert (task.dataset_id, task.short_name) == (1014, "Foo")
    assert resolve_task("101", roots).dataset == "Dataset101_Bar"
    (roots.raw / "Dataset0041_Foo").mkdir()
    assert roots.datasets() == ["Dataset1014_Foo", "Dataset101_Bar"]
    # The whole number counts, not its beginning.
    (roots.raw / "Dataset1041_Foo").mkdir()
    (tmp_path / "Task104_Liver").mkdir()
    assert resolve_task(str(tmp_path / "Task104_Liver"), roots).dataset == "Dataset104_Liver"


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


def test_a_dataset_goes_before_the_folder_that_it_was_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = Roots.under(tmp_path)
    (roots.raw / "Dataset101_Liver").mkdir(parents=True)
    (tmp_path / "Liver").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_task("Liver", roots).dataset == "Dataset101_Liver"


def test_a_folder_whose_name_is_not_text_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"x\xff")
    for given, roots in ((folder / "Task04_Foo", tmp_path), ("demo", folder)):
        with pytest.raises(BadInput, match="UTF-8"):
            create_run(TrainingRequest(task=str(given)), 0, Roots.choose(roots, {}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("fold", "name"), [(-1, None), ("x", None), (0, "../../x"), (0, "a b")])
def test_folds_and_names_that_cannot_be_are_refused_also_from_python(
    fold: int | str, name: str | None, tmp_path: Path
) -> None:
    with pytest.raises(BadInput):
        plan_run(TrainingRequest(task="demo", name=name), fold, Roots.under(tmp_path))


def test_the_shortest_name_of_a_dataset_is_no_other_task(tmp_path: Path) -> None:
    roots = Roots.under(tmp_path)
    names = ("Dataset004_Liver", "Dataset101_demo", "Dataset102_4", "Dataset103_Twice", "Dataset104_Twice")
    for name in names:
        (roots.raw / name).mkdir(parents=True)
    assert [shortest_name(name, roots) for name in names] == ["Liver", *names[1:]]
    assert all(resolve_task(shortest_name(name, roots), roots).dataset == name for name in names)
