"""The Python API: its documentation runs as written, and `import ppgs` costs nothing."""

from __future__ import annotations

import ast
import doctest
import pickle
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import ppgs
from ppgs import api
from ppgs.errors import BadInput, NoSuchRun, StoppedEarly

PACKAGE = Path(ppgs.__file__).parent


def test_the_documentation_runs_as_it_stands(
    demo_root: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its own folder, with the demo prepared so that it takes no minutes."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "ppgs_data").mkdir()
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        (tmp_path / "ppgs_data" / name).symlink_to(demo_root / name)
    (tmp_path / "images").mkdir()
    (image,) = (demo_root / "nnUNet_raw" / "Dataset999_Demo" / "imagesTs").glob("demo_024_*")
    shutil.copy(image, tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(api)
    assert (failed, tried > 8) == (0, True)

    run = ppgs.find_run("demo-constant-fold0")
    epochs = [event for event in ppgs.read_events(run) if event["type"] == "epoch_finished"]
    assert epochs and all(event["energy_wh"] > 0 for event in epochs)
    assert (run.path / "emissions.csv").is_file()
    assert run == ppgs.find_runs()[0] == ppgs.find_run(run.path)
    assert ppgs.read_events(run) == ppgs.read_events(str(run.path)) == ppgs.read_events(run.path / "ppgs/events.jsonl")
    with pytest.raises(NoSuchRun, match="nothing"):
        ppgs.find_run("nothing")
    with pytest.raises(ppgs.PpgsError, match="already"):
        ppgs.train("demo", schedule="constant", epochs=2, iterations=1)

    # What `on_event` raises stops the training with a checkpoint; it is not left to itself.
    def stop(event: dict[str, object]) -> None:
        if event["type"] == "epoch_finished":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ppgs.train("demo", "constant", name="x", epochs=3, iterations=1, device="cpu", energy=False, on_event=stop)
    stopped = ppgs.find_run("demo-constant-x-fold0")
    assert stopped.status == "stopped"
    with pytest.raises(ppgs.PpgsError, match="finished"):
        ppgs.resume(run)


@pytest.fixture
def shared_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PPGS_CACHE", str(cache))
    return cache


def test_wrong_arguments_are_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        ppgs.train("demo", device="tpu", root=tmp_path)
    with pytest.raises(BadInput):
        ppgs.plan_schedule("demoo", root=tmp_path)
    with pytest.raises(TypeError):
        ppgs.train("demo", frobnicate=1, root=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert issubclass(StoppedEarly, ppgs.PpgsError)


def test_a_traceback_says_where_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        ppgs.plan_schedule("Task04_Hippocampsu", root=tmp_path)
    shown = "".join(traceback.format_exception(refused.value))
    assert "    where: Task04_Hippocampsu\n    remedy: did you mean 'Task04_Hippocampus'?" in shown
    again = pickle.loads(pickle.dumps(refused.value))
    assert again.__notes__ == refused.value.__notes__


def test_importing_imports_nothing_else() -> None:
    code = (
        "import sys, ppgs; assert ppgs.__version__; "
        "heavy = [m for m in sys.modules if m.split('.')[0] in ('pydantic', 'torch', 'numpy', 'typer', 'yaml')]; "
        "assert not heavy, heavy; assert 'train' in dir(ppgs); "
        "from ppgs import Schedule, train; "
        "heavy = [m for m in sys.modules if m.split('.')[0] in ('torch', 'nnunetv2', 'numpy', 'typer', 'textual')]; "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="trian"):
        ppgs.trian  # type: ignore[attr-defined]  # noqa: B018


def test_all_lists_of_names_agree() -> None:
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    named = [alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    public: list[str] = vars(ppgs)["__all__"]
    # The loops of others need none of what `ppgs.api` imports.
    assert sorted(named) == sorted(set(public) - {"__version__"}) == sorted([*api.__all__, "Curriculum"])
    for name in named:
        thing = getattr(ppgs, name)
        assert thing.__doc__, name


def test_plans_take_the_options_of_the_command_and_make_the_demo(tmp_path: Path) -> None:
    half = ppgs.plan_schedule("Task04_Hippocampus", budget="10%", root=tmp_path)
    assert half.schedule.epochs < 1000
    with pytest.raises(NoSuchRun):
        ppgs.plan_schedule("Task04_Hippocampus", against=tmp_path / "run", root=tmp_path)
    later = ppgs.plan_schedule("Task04_Hippocampus", from_stage=3, root=tmp_path)
    assert len(later.schedule.stages) == len(half.schedule.stages) - 2
    with pytest.raises(TypeError, match="budgets"):
        ppgs.plan_schedule("Task04_Hippocampus", budgets="10%")
    assert not (tmp_path / "nnUNet_preprocessed").exists()
    plan = ppgs.plan_schedule("demo", root=tmp_path)
    assert plan.schedule.stages[-1].patch_size == plan.subject.facts.patch_size
    assert (tmp_path / "nnUNet_preprocessed" / "Dataset999_Demo" / "nnUNetPlans.json").is_file()
