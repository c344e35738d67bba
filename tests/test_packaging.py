"""Wheel and sdist: they contain what they must, and the wheel works outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import ppgs

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was made from it; made without network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    # Without what the suite's own environment adds: the build must find everything in the checkout.
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def in_checkout(pattern: str) -> set[str]:
    return {str(p.relative_to(ROOT)) for p in ROOT.glob(pattern) if p.is_file() and "__pycache__" not in p.parts}


def test_the_wheel_holds_the_package_its_data_schedules_and_license(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert in_checkout("ppgs/**/*") <= names
    assert {n.replace("schedules/", "ppgs/shipped_schedules/", 1) for n in in_checkout("schedules/**/*")} <= names
    assert {"ppgs/py.typed", f"ppgs-{ppgs.__version__}.dist-info/licenses/LICENSE"} <= names
    assert not [n for n in names if not n.startswith(("ppgs/", "ppgs-"))]


def test_the_sdist_holds_all_that_is_needed_to_build_and_test(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    prefix = f"ppgs-{ppgs.__version__}/"
    with tarfile.open(sdist) as archive:
        names = {n.removeprefix(prefix) for n in archive.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff"} <= names
    assert {"constraints.txt", "constraints-gpu.txt"} <= names
    for pattern in ("tests/**/*.py", "schedules/**/*", ".ci/*.py", "completions/*", "docs/*"):
        assert in_checkout(pattern) <= names


def test_the_wheel_works_outside_the_checkout(built: Path, tmp_path: Path) -> None:
    """Unpacked as pip does it, in its own folder, under the dependencies of this environment."""
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PPGS_CACHE": str(tmp_path / "cache")}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environ, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(run("-c", "import ppgs; print(ppgs.__file__)").strip()).is_relative_to(tmp_path)
    assert run("-m", "ppgs", "--version").split() == ["ppgs", ppgs.__version__]
    planned = run("-m", "ppgs", "plan-schedule", "Task04_Hippocampus", "--schedule", "performance", "--json")
    assert len(json.loads(planned)["stages"]) == 15
    # Its laws were in the wheel: nothing was traced.
    assert not (tmp_path / "cache" / "laws").exists()
    assert "complete" in run("-m", "ppgs", "completion", "show", "bash")


def test_versions_agree() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {ppgs.__version__}" in changelog
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == ppgs.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == citation["license"]


def test_both_papers_and_nnunet_are_to_be_cited() -> None:
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    found = " ".join(f"{r['title']} {r.get('doi', '')} {r.get('url', '')}" for r in references)
    for wanted in ("2407.07853", "2510.23241", "10.1038/s41592-020-01008-z"):
        assert wanted in found
