"""First use without any training: each command names the next step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_questions import ends_with, make_run, terminal
from tests.conftest import Ppgs

OWN = "ppgs prepare --images DIR --labels DIR --name NAME"
FIRST = "start a first run with 'ppgs train demo'"


@pytest.fixture
def empty(tmp_path: Path) -> dict[str, str]:
    """Environment without data and runs."""
    root = tmp_path / "root"
    return {name: str(root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}


def test_without_arguments_the_first_steps_are_shown(ppgs: Ppgs, empty: dict[str, str]) -> None:
    done = ppgs(environ=empty)
    assert done.returncode == 2
    assert "First steps:" in done.stderr
    assert "ppgs train demo" in done.stderr
    assert OWN in done.stderr
    assert done.stderr.count("\n\n\n") == 0


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        ("train", 2, "start with the demo: ppgs train demo"),
        ("train", 2, OWN),
        ("train mydata", 2, OWN),
        ("prepare", 2, OWN),
        ("prepare --images a", 2, "missing --labels and --name"),
        ("prepare demo --name a", 2, "both a task (demo) and folders of your own are given"),
        ("resume", 4, FIRST),
        ("resume demo", 4, FIRST),
        ("compare", 2, FIRST),
        ("compare a b", 4, FIRST),
        ("monitor", 4, FIRST),
        ("predict -i a -o b", 2, FIRST),
        ("predict demo -i a -o b", 4, FIRST),
        ("runs", 0, "start one with: ppgs train demo"),
    ],
)
def test_in_an_empty_folder(line: str, code: int, expected: str, ppgs: Ppgs, empty: dict[str, str]) -> None:
    done = ppgs(*line.split(), environ=empty)
    assert done.returncode == code
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(empty["nnUNet_raw"]).parent.exists()


def test_train_on_a_terminal_offers_the_demo_and_own_data(empty: dict[str, str], tmp_path: Path) -> None:
    with terminal("train", environ=empty, cwd=tmp_path) as child:
        child.expect_exact(OWN)
        child.expect("1 +demo")
        child.expect_exact("task to train")
        child.sendintr()
        assert ends_with(child) == 75


def test_a_folder_of_images_and_labels_is_no_task_yet(ppgs: Ppgs, empty: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine" / "images").mkdir(parents=True)
    done = ppgs("train", tmp_path / "mine", environ=empty)
    assert done.returncode == 2
    assert "ppgs prepare --images mine/IMAGES --labels mine/LABELS --name NAME" in done.stderr


def test_one_finished_run(ppgs: Ppgs, empty: dict[str, str]) -> None:
    results = Path(empty["nnUNet_results"])
    make_run(results, "demo-done-fold0", "finished", 0)
    done = ppgs("compare", "demo-done-fold0", environ=empty)
    assert done.returncode == 2
    assert "comparing needs two runs or more, found 1" in done.stderr
    assert "--schedule constant" in done.stderr
    done = ppgs("resume", environ=empty)
    assert done.returncode == 4
    assert "all are finished" in done.stderr
    with terminal("compare", environ=empty) as child:
        child.expect("1 finished run, comparing takes two")
        child.expect("--schedule constant")
        assert ends_with(child) == 4


def test_a_run_without_a_checkpoint_is_to_be_resumed(ppgs: Ppgs, empty: dict[str, str], tmp_path: Path) -> None:
    make_run(Path(empty["nnUNet_results"]), "demo-new-fold0", "stopped", 0, checkpoint=False)
    done = ppgs("predict", "demo-new-fold0", "-i", tmp_path, "-o", tmp_path / "out", environ=empty)
    assert done.returncode == 4
    assert "ppgs resume" in done.stderr
