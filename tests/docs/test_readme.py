"""Every command of the README's recipes runs as written, on small data and with a short training."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.helpers.commands import run_ppgs
from tests.helpers.datasets import dataset, decathlon

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = [block.splitlines() for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)]
RECIPES = [lines for lines in BLOCKS if all(line.startswith("ppgs ") for line in lines)]

LENGTH = ("--epochs", "13", "--iterations", "1")
SHORTENED = {
    "plan-schedule": LENGTH,
    "train": ("--device", "cpu", "--no-tui", "--no-energy", *LENGTH),
    "resume": ("--no-tui",),
    "predict": ("--device", "cpu"),
}


def run(line: str, environ: dict[str, str]) -> None:
    verb, *rest = shlex.split(line)[1:]
    added = SHORTENED.get(verb, ())
    if verb == "train" and any(word.endswith(".yaml") for word in rest):
        # The file says how long.
        added = added[: -len(LENGTH)]
    done = run_ppgs(verb, *rest, *added, environ=environ)
    assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with own images and labels, Decathlon tasks, and a Slurm that takes jobs."""
    raw = dataset(tmp_path / "source")
    for made, source in (("scans", "imagesTr"), ("masks", "labelsTr"), ("new_scans", "imagesTr")):
        (tmp_path / made).mkdir()
        for file in (raw / source).iterdir():
            name = file.name if made == "new_scans" else file.name.replace("_0000", "")
            shutil.copy(file, tmp_path / made / name)
    for task in ("Task04_Hippocampus", "Task09_Spleen", "Task10_Colon"):
        decathlon(tmp_path, task)
    programs = tmp_path / "bin"
    programs.mkdir()
    # submitit takes a machine for a cluster where it finds srun.
    for name in ("sbatch", "srun"):
        (programs / name).write_text("#!/bin/sh\necho 'Submitted batch job 7'\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "lines", [r for r in RECIPES if "demo" not in r[0] and r[0] != "ppgs resume"], ids=lambda r: r[0]
)
def test_recipes_with_data(lines: list[str], folder: Path) -> None:
    if "Task10_Colon" in lines[0]:
        # Prepared first: the schedule is to fit the plans of this small task, not those of the real one.
        run("ppgs prepare Task10_Colon", {})
    for line in lines:
        run(line, {})
    if "predict" in lines[-1]:
        assert len(list((folder / "segmentations").glob("*.nii.gz"))) == 6


def test_recipes_with_the_demo(folder: Path, trained_demo: Path, demo_environ: dict[str, str]) -> None:
    model = trained_demo.parent
    shutil.copytree(model, Path(demo_environ["nnUNet_results"]) / model.parent.name / model.name)
    (lines,) = [r for r in RECIPES if "demo" in r[0]]
    for line in lines:
        run(line, demo_environ)
    assert (folder / "report.html").stat().st_size > 100_000


@pytest.mark.usefixtures("folder")
def test_stop_and_continue(stopped_run: Path, demo_environ: dict[str, str]) -> None:
    (lines,) = [r for r in RECIPES if r[0] == "ppgs resume"]
    for line in lines:
        run(line, demo_environ)
    assert (stopped_run / "checkpoint_final.pth").is_file()


@pytest.mark.usefixtures("folder")
def test_the_python_example(demo_environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in demo_environ.items():
        monkeypatch.setenv(name, value)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    short = code.replace('name="python")', 'name="python", epochs=13, iterations=1, device="cpu")')
    assert short != code
    space: dict[str, object] = {}
    exec(short, space)  # the example itself
    assert getattr(space["run"], "status", None) == "finished"
