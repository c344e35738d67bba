"""Files from strangers: refused with the right exit code, and nothing in them run."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from ppgs.errors import PlansError, ScheduleError
from ppgs.nnunet.nifti import check_nifti
from ppgs.plans import parse_plans
from ppgs.runs.events import read_events
from ppgs.schedule.files import load
from tests.conftest import Ppgs

ROOT = Path(__file__).resolve().parents[1]


def plans(**architecture: Any) -> dict[str, Any]:
    made = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {"strides": [[1, 1], [2, 2]], "conv_op": "torch.nn.modules.conv.Conv2d", "dropout_op": None},
        "_kw_requires_import": ["conv_op", "dropout_op"],
    }
    section = {"patch_size": [8, 8], "batch_size": 2, "spacing": [1, 1], "data_identifier": "x"}
    section["architecture"] = {**made, **architecture}
    return {"plans_name": "p", "dataset_name": "d", "configurations": {"2d": section}}


@pytest.mark.parametrize(
    "named",
    [
        "os.system",
        "subprocess.Popen",
        "evil_module.Network",
        "torch.hub.load",
        "torch.nn.modules.conv.torch.hub.load",
        "dynamic_network_architectures.architectures.unet.torch.utils.cpp_extension.load",
        "dynamic_network_architectures.architectures.unet.nn.Module.subprocess.Popen",
        "",
        7,
        None,
    ],
)
def test_plans_cannot_name_what_is_imported(named: Any) -> None:
    parse_plans(plans())
    with pytest.raises(PlansError, match="to be imported"):
        parse_plans(plans(network_class_name=named))
    if named is not None:
        arguments = {"strides": [[1, 1], [2, 2]], "conv_op": named}
        with pytest.raises(PlansError, match="to be imported"):
            parse_plans(plans(arch_kwargs=arguments, _kw_requires_import=["conv_op"]))


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {marker}']",
        "stages: !!python/object/new:subprocess.Popen [[touch, {marker}]]",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "[" * 5000,
        "x: " + "9" * 900_000,
        "y" * 1_100_000,
    ],
)
def test_yaml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text.replace("{marker}", str(tmp_path / "ran")))
    with pytest.raises(ScheduleError):
        load(path)
    assert not (tmp_path / "ran").exists()


def test_archives_are_not_unpacked(tmp_path: Path, ppgs: Ppgs) -> None:
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../outside", "x")
    before = sorted(tmp_path.rglob("*"))
    for command, code in (
        (("train", archive), 2),
        (("predict", archive, "-i", tmp_path, "-o", tmp_path / "out"), 4),
        (("resume", archive), 4),
    ):
        refused = ppgs(*command, "--root", tmp_path / "root")
        assert refused.returncode == code, refused.stderr
        assert "Traceback" not in refused.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_headers_that_promise_too_much_cost_nothing(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4))
    for name in ("a.nii", "a.nii.gz"):
        nibabel.save(image, tmp_path / name)
        assert check_nifti(tmp_path / name) is None
    header = bytearray((tmp_path / "a.nii").read_bytes())
    header[42:48] = np.array([10_000] * 3, "<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(header)
    import gzip

    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(header)))
    for name in ("a.nii", "a.nii.gz"):
        problem = check_nifti(tmp_path / name)
        assert problem is not None and "4000000000" in problem.what
    # A sparse file can hold what no memory can.
    with (tmp_path / "a.nii").open("r+b") as file:
        file.truncate(352 + 4 * 10**12)
    problem = check_nifti(tmp_path / "a.nii")
    assert problem is not None and "memory" in problem.what


def test_event_lines_without_end_and_of_wrong_kinds_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    good = {"v": 1, "seq": 0, "time": 1.0, "type": "warning", "message": "x"}
    lines = [
        json.dumps(good),
        '{"x": "' + "y" * 9_000_000 + '"}',
        "[" * 100_000,
        json.dumps({**good, "epoch": "three"}),
        json.dumps({**good, "time": []}),
        json.dumps({**good, "stages": [{}]}),
        '{"seq": 1e999, "type": "warning"}',
        json.dumps({**good, "seq": 1}),
    ]
    path.write_text("\n".join(lines) + "\n")
    assert [r["seq"] for r in read_events(path)] == [0, 1]


def test_fuzzed_files_are_read_or_refused() -> None:
    script = str(ROOT / "benchmarks" / "fuzz.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, "--inputs", "2000", "--seed", "5"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
