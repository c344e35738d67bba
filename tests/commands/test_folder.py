"""The folder of a run, made by one command alone."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from ppgs.commands.train import folder
from ppgs.commands.train.plan import plan_run
from ppgs.errors import RunExists
from ppgs.runs.folder import Checkpoint
from ppgs.runs.manifest import write_manifest
from ppgs.runs.request import TrainingRequest
from ppgs.tasks import Roots


def test_a_run_that_another_command_has_just_begun_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = Roots.under(tmp_path)
    run, manifest = plan_run(TrainingRequest(task="demo"), 0, roots)
    mkdir = Path.mkdir

    def late(path: Path, *arguments: object, **options: object) -> None:
        if path == run.own and not path.exists():
            mkdir(path, parents=True)
            write_manifest(run, manifest)
        mkdir(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", late)
    with pytest.raises(RunExists, match="another command has just begun"):
        folder.claim_folder(run, manifest, roots, overwrite=False)
    assert run.manifest.is_file()


def test_what_validate_writes_is_the_runs(tmp_path: Path) -> None:
    roots = Roots.under(tmp_path)
    run, manifest = plan_run(TrainingRequest(task="demo"), 0, roots)
    folder.claim_folder(run, manifest, roots, overwrite=False)
    for which in get_args(Checkpoint):
        run.validation_by(which).mkdir()
    folder.claim_folder(run, manifest, roots, overwrite=True)
    assert [path.name for path in run.path.iterdir()] == ["ppgs"]
    (run.path / "validation_notes").mkdir()
    with pytest.raises(RunExists, match="validation_notes"):
        folder.claim_folder(run, manifest, roots, overwrite=True)
