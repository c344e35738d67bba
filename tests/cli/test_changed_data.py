"""Training, correcting the data, and training again: the messages that users see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest, write_manifest
from tests.conftest import Ppgs
from tests.helpers.small_dataset import NAME, write_case, write_dataset, write_label

SHORT = ("--schedule", "constant", "--epochs", "1", "--iterations", "1", "--batch-size", "2", "--workers", "0")
QUICK = ("--device", "cpu", "--no-tui", "--no-energy")


@pytest.mark.timeout(1200)
def test_runs_on_older_data_say_so_everywhere(tmp_path: Path, ppgs: Ppgs) -> None:
    root = tmp_path / "root"
    raw = write_dataset(root / "nnUNet_raw" / NAME)
    done = ppgs("train", "321", *SHORT, *QUICK, "--name", "a", "--root", root)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(ppgs("runs", "--json", "--root", root).stdout)}
    (a,) = rows
    assert rows[a]["older_data"] is False
    run = RunFolder(Path(rows[a]["path"]))
    write_label(raw, "case_03", 3, merged=True)
    write_case(raw, "case_09", 9)
    again = ppgs("train", "321", *SHORT, *QUICK, "--name", "a", "--root", root)
    assert again.returncode == 4
    assert "data that have changed since (changed: case_03; new: case_09)" in " ".join(again.stderr.split())

    # What it was trained with is still there: a finished run is validated with it.
    done = ppgs("validate", a, "--root", root)
    assert done.returncode == 0, done.stderr
    assert "as they were prepared; changed since: case_03" in " ".join(done.stderr.split())

    # As if it had been stopped: it is not continued on other cases, neither before nor after they are prepared.
    manifest = read_manifest(run)
    manifest.status = "stopped"
    write_manifest(run, manifest)
    refused = ppgs("resume", a, "--no-tui", "--root", root)
    assert refused.returncode == 4, refused.stderr
    assert "case_03" in refused.stderr
    assert "--as-prepared" in refused.stderr
    done = ppgs("train", "321", *SHORT, *QUICK, "--name", "b", "--root", root)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stderr.split())
    assert f"cannot be resumed now: {a}" in told
    assert "case_09" in told
    refused = ppgs("resume", a, "--no-tui", "--root", root)
    assert refused.returncode == 4, refused.stderr
    assert "changed: case_03; new: case_09" in " ".join(refused.stderr.split())

    manifest.status = "finished"
    manifest.error = None
    write_manifest(run, manifest)
    rows = {row["name"]: row for row in json.loads(ppgs("runs", "--json", "--root", root).stdout)}
    (b,) = rows.keys() - {a}
    assert (rows[a]["older_data"], rows[b]["older_data"]) == (True, False)
    assert "older data" in ppgs("runs", "--root", root).stdout
    compared = ppgs("compare", a, b, "--json", "--no-surface", "--root", root)
    assert compared.returncode == 0, compared.stderr
    notes = "\n".join(json.loads(compared.stdout)["notes"])
    assert "trained on older data" in notes
    assert "changed: case_03; new: case_09" in notes
