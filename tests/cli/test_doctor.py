"""`ppgs doctor` through the real command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from ppgs.cli import doctor
from ppgs.commands.doctor import Diagnosis
from tests.cli.test_bad_input import decathlon  # noqa: F401  (a fixture)
from tests.cli.test_counter import terminal
from tests.conftest import Ppgs


def test_a_task_with_everything_wrong(decathlon: Path, tmp_path: Path, ppgs: Ppgs) -> None:  # noqa: F811
    done = ppgs("doctor", decathlon, "--root", tmp_path / "root", "--json")
    clean = json.loads(done.stdout)
    # The machine may have faults of its own, such as a container's 64 MiB of shared memory.
    of_machine = sum(f["level"] == "error" for f in clean["machine"])
    assert (clean["errors"], {f["level"] for f in clean["task"]}) == (of_machine, {"ok"})
    assert done.returncode == (2 if of_machine else 0), done.stderr
    images, labels = decathlon / "imagesTr", decathlon / "labelsTr"
    shutil.copy(images / "case_0.nii.gz", decathlon / "imagesTs" / "new.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(images / "case_1.nii.gz")), str(images / "case_2.nii.gz"))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((24, 24, 24), np.uint8)), str(labels / "case_3.nii.gz"))
    turned = sitk.ReadImage(str(labels / "case_4.nii.gz"))
    turned.SetOrigin((50, 0, 0))
    sitk.WriteImage(turned, str(labels / "case_4.nii.gz"))
    (images / "case_5.nii.gz").write_bytes((images / "case_5.nii.gz").read_bytes()[:500])
    content = json.loads((decathlon / "dataset.json").read_text())
    content["labels"] = {"0": "background", "1": "left ear", "2": "right ear", "4": "nose"}
    (decathlon / "dataset.json").write_text(json.dumps(content))
    done = ppgs("doctor", decathlon, "--root", tmp_path / "root", "--json")
    assert done.returncode == 2, done.stderr
    found = {f["check"]: f for f in json.loads(done.stdout)["task"] if f["level"] != "ok"}
    said = {check: (f["level"], f["what"]) for check, f in found.items()}
    assert said["labels"] == ("error", "label values are not consecutive: 3 missing")
    assert said["sides"][0] == "warning" and "left ear / right ear" in said["sides"][1]
    assert said["cases"][0] == "error" and "case_5" in found["cases"]["where"]
    assert "case_4" in said["places"][1]
    assert found["empty cases"]["data"]["cases"] == ["case_3"]
    assert "never labelled: nose" in said["classes"][1]
    assert "case_1 = case_2" in said["duplicates"][1]
    assert said["test images"] == ("error", "are training images too: new = case_0")
    assert all(f["remedy"] for f in found.values())


@pytest.mark.slow
def test_the_machine_in_words(tmp_path: Path, ppgs: Ppgs) -> None:
    errors = json.loads(ppgs("doctor", "--root", tmp_path, "--json").stdout)["errors"]
    done = ppgs("doctor", "--root", tmp_path)
    assert done.returncode == (2 if errors else 0), done.stdout
    count = "1 error" if errors == 1 else f"{errors} errors"
    assert all(word in done.stdout for word in ("versions", "compiler", "shared memory", "write speed", count))
    assert ppgs("doctor", "no-such-task", "--root", tmp_path).returncode == 2


def test_a_terminal_shows_that_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)

    def diagnose(*_: object, **__: object) -> Diagnosis:
        assert "checking" in shown.getvalue()
        return Diagnosis((), None)

    monkeypatch.setattr(doctor, "diagnose", diagnose)
    assert doctor.doctor("demo", root=tmp_path) == 0
