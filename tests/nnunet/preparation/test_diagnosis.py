"""`doctor` on data that were prepared before."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch

from ppgs.doctor.description import read_description
from ppgs.doctor.files import find_cases
from ppgs.doctor.findings import Finding
from ppgs.nnunet.preparation.conversion import Conversion
from ppgs.nnunet.preparation.diagnosis import _check_plans, check_task, check_torch
from ppgs.runs.prepared import Record, Section, digests_of, look_at, write_record
from tests.helpers.datasets import describe
from tests.helpers.small_dataset import NAME, remove_case, write_case, write_dataset, write_decathlon, write_label


def preparation(raw: Path, root: Path, *, decathlon: bool = False) -> list[Finding]:
    converted = root / "nnUNet_raw" / NAME
    found = check_task(
        raw, root / "preprocessed", converted, decathlon=decathlon, geometry="header", report=lambda *_: None
    )
    return [finding for finding in found if finding.check == "preparation"]


def record(raw: Path, root: Path) -> None:
    """Write down the raw files as a preparation does."""
    images = sorted((raw / "imagesTr").iterdir())
    names = [path.name.removesuffix(".nii.gz").removesuffix("_0000") for path in images]
    files = {n: (path, raw / "labelsTr" / f"{n}.nii.gz") for n, path in zip(names, images, strict=True)}
    states = look_at(files, {})
    section = Section(settings="", cases=digests_of(states))
    (root / "preprocessed").mkdir()
    write_record(root / "preprocessed", Record(cases=states, prepared={"nnUNetPlans_3d_fullres": section}))


def test_outdated_cases_are_named(tmp_path: Path) -> None:
    raw = write_dataset(tmp_path / NAME)
    assert preparation(raw, tmp_path) == []
    record(raw, tmp_path)
    assert [finding.level for finding in preparation(raw, tmp_path)] == ["ok"]
    write_label(raw, "case_03", 3, merged=True)
    write_case(raw, "case_09", 9)
    remove_case(raw, "case_00")
    (outdated,) = preparation(raw, tmp_path)
    assert outdated.level == "warning"
    assert "changed: case_03; new: case_09; gone: case_00" in outdated.what
    assert "ppgs prepare" in outdated.remedy


def test_spacing_files_of_tiff_volumes_are_compared(tmp_path: Path) -> None:
    raw = tmp_path / NAME
    for number, name in enumerate("abc"):
        for part, file in (("imagesTr", f"{name}_0000.tiff"), ("labelsTr", f"{name}.tiff")):
            (raw / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(raw / part / file, np.full((4, 8, 8), number + 1, np.uint8))
    describe(raw, channel_names={"0": "M"}, labels={"background": 0, "x": 1}, numTraining=3, file_ending=".tiff")
    image, label = raw / "imagesTr" / "a.json", raw / "labelsTr" / "a.json"
    for spacing in (image, label):
        spacing.write_text('{"spacing": [2, 1, 1]}')
    cases = find_cases(raw, read_description(raw, decathlon=False), decathlon=False)[0]
    assert cases[0].files[-1] == cases[0].label and {len(case.files) for case in cases} == {4}
    states = look_at({case.name: case.files for case in cases}, {})
    (tmp_path / "preprocessed").mkdir()
    sections = {"x": Section(settings="", cases=digests_of(states))}
    write_record(tmp_path / "preprocessed", Record(cases=states, prepared=sections))
    assert [finding.level for finding in preparation(raw, tmp_path)] == ["ok"]
    image.write_text('{"spacing": [3, 1, 1]}')
    assert "changed: a" in preparation(raw, tmp_path)[0].what
    image.write_text('{"spacing": [2.0, 1, 1], "by": "hand"}')
    assert preparation(raw, tmp_path)[0].level == "ok"
    label.rename(raw / "labelsTr" / "b.json")
    assert "changed: a, b" in preparation(raw, tmp_path)[0].what


def test_plans_that_no_training_takes_are_named(tmp_path: Path) -> None:
    plans = {"plans_name": "nnUNetPlans", "dataset_name": tmp_path.name, "configurations": {}}
    for name in ("nnUNetPlans", "bigPlans"):
        (tmp_path / f"{name}.json").write_text(json.dumps(plans))
    (finding,) = _check_plans(tmp_path)
    assert finding.level == "warning" and finding.where == f"{tmp_path / 'bigPlans.json'}: plans_name"
    assert finding.remedy == 'write: "plans_name": "bigPlans"'


def test_a_decathlon_folder_is_compared_with_what_was_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "Task07_Small"
    write_decathlon(source)
    record(source, tmp_path)
    # Never converted: nothing is outdated.
    assert preparation(source, tmp_path, decathlon=True) == []
    monkeypatch.setattr(Conversion, "_convert_into", lambda _, staging, __: (staging / "dataset.json").write_text("{}"))
    raw = tmp_path / "nnUNet_raw" / NAME
    raw.parent.mkdir()
    Conversion(source, raw, lambda *_: None, processes=1, checked="header").convert()
    assert [finding.level for finding in preparation(source, tmp_path, decathlon=True)] == ["ok"]
    write_label(source, "case_02", 2, merged=True)
    (outdated,) = preparation(source, tmp_path, decathlon=True)
    assert "changed: case_02" in outdated.what


def test_test_images_are_reported_as_they_are_read(tmp_path: Path) -> None:
    raw = write_dataset(tmp_path / NAME)
    images = sorted((raw / "imagesTr").iterdir())
    (raw / "imagesTs").mkdir(exist_ok=True)
    (raw / "imagesTs" / "new_0000.nii.gz").write_bytes(images[0].read_bytes())
    (raw / "imagesTs" / "odd_0000.nii.gz").write_bytes(b"no image")
    told: list[tuple[int, int]] = []
    list(
        check_task(
            raw, tmp_path / "p", raw, decathlon=False, geometry="header", report=lambda *counts: told.append(counts)
        )
    )
    cases = len(images)
    assert told[-3:] == [(cases, cases), (cases + 1, cases + 2), (cases + 2, cases + 2)]


@pytest.mark.parametrize(("capability", "level"), [((6, 1), "warning"), ((9, 0), "ok")])
def test_a_gpu_that_is_too_old_to_compile_for(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], level: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GeForce")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_61", "sm_90"])
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(8))
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="3.7"))
    found, compiler = check_torch()
    assert (found.level, compiler.level) == ("ok", level)
    assert ("too old to compile for" in compiler.what) is (level == "warning")
