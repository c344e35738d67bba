"""`ppgs compare` as a command: formats, exit codes, output streams."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import result_folders as rf


def ppgs(*arguments: object, columns: int = 80) -> subprocess.CompletedProcess[str]:
    import os

    environment = {k: v for k, v in os.environ.items() if not k.startswith("nnUNet_")}
    return subprocess.run(
        [sys.executable, "-m", "ppgs", "compare", *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**environment, "COLUMNS": str(columns)},
    )  # fmt: skip


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    return (
        rf.write_model(tmp_path, rf.PLAIN, {"0": rf.random_cases(0)}, emissions=True),
        rf.write_model(tmp_path, rf.OTHER, {"0": rf.random_cases(1)}, emissions=True),
    )


def test_json_on_stdout_is_all_there_is(models: tuple[Path, Path]) -> None:
    done = ppgs(*models, "--json")
    assert done.returncode == 0
    content = json.loads(done.stdout)
    assert [r["name"] for r in content["runs"]] == [rf.PLAIN, rf.OTHER]
    assert content["baseline"] == rf.PLAIN
    assert content["pairs"][0]["run"] == rf.OTHER


def test_baseline_option(models: tuple[Path, Path]) -> None:
    content = json.loads(ppgs(*models, "--json", "--baseline", "nnUNetResEncUNetMPlans").stdout)
    assert content["baseline"] == content["pairs"][0]["baseline"] == rf.OTHER


@pytest.mark.parametrize("columns", [80, 200])
def test_table_fits_the_terminal(models: tuple[Path, Path], columns: int) -> None:
    done = ppgs(*models, columns=columns)
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= columns
    assert "Verdict" in done.stdout
    assert "caveat: one training per fold" in " ".join(done.stdout.split())
    # More room, more columns.
    assert ("Effect r" in done.stdout) == (columns == 200)


def test_other_formats_and_files(models: tuple[Path, Path], tmp_path: Path) -> None:
    report, folder = tmp_path / "report.html", tmp_path / "figures"
    done = ppgs(*models, "--csv", "--html", report, "--figures", folder)
    assert done.returncode == 0
    assert len(list(csv.DictReader(io.StringIO(done.stdout)))) == 2
    assert report.read_text().startswith("<!doctype html>")
    assert (folder / "differences.pdf").stat().st_size > 1000
    assert str(report) in done.stderr
    assert ppgs(*models, "--markdown").stdout.startswith("| Task |")
    assert "\\toprule" in ppgs(*models, "--latex").stdout


def test_fewer_than_two_runs(models: tuple[Path, Path]) -> None:
    for arguments in ((), (models[0],)):
        done = ppgs(*arguments, "--json")
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr


def test_bad_input_is_told_with_file_and_remedy_and_no_traceback(models: tuple[Path, Path]) -> None:
    summary = models[1] / "fold_0" / "validation" / "summary.json"
    summary.write_text(summary.read_text()[:50])
    done = ppgs(*models)
    assert done.returncode == 2
    assert str(summary) in done.stderr
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_formats_at_once_and_unknown_runs(models: tuple[Path, Path], tmp_path: Path) -> None:
    assert ppgs(*models, "--json", "--csv").returncode == 2
    done = ppgs(models[0], "no-such-run", "--root", tmp_path)
    assert done.returncode == 4
    assert "no-such-run" in done.stderr


def test_warnings_go_to_stderr(models: tuple[Path, Path]) -> None:
    rf.write_summary(models[0] / "fold_3", {f"x{c}": d for c, d in rf.random_cases(3).items()})
    done = ppgs(*models, "--json")
    assert done.returncode == 0
    assert "folds 1, 2, 4 are missing" in " ".join(done.stderr.split())
    json.loads(done.stdout)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['ppgs', 'compare', '--help']\n"
        "from ppgs.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'nnunetv2', 'numpy', 'scipy', 'matplotlib', 'SimpleITK', 'codecarbon', 'jinja2'}\n"
        "found = heavy & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_comparing_imports_neither_torch_nor_nnunet(models: tuple[Path, Path], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from ppgs.commands.compare import CompareRequest, compare\nfrom ppgs.tasks import Roots\n"
        f"request = CompareRequest({tuple(map(str, models))!r}, Roots.under(Path({str(tmp_path)!r})), "
        f"html=Path({str(tmp_path / 'r.html')!r}))\ncompare(request)\n"
        "found = {'torch', 'nnunetv2', 'batchgenerators'} & set(sys.modules)\nassert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
