"""Files from untrusted sources: rejected with the right exit code, and never executed."""

from __future__ import annotations

import json
import pathlib
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import blosc2
import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from ppgs.errors import DamagedRun, PlansError, RunError, ScheduleError
from ppgs.nnunet.data.cases import check_properties, checked
from ppgs.nnunet.images.nifti import check_nifti
from ppgs.plans import parse_dataset, parse_plans
from ppgs.runs.cascade import read_splits
from ppgs.runs.events import read_events
from ppgs.schedule.files import load
from tests.conftest import SHORT, Ppgs

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
    ("key", "named"),
    [
        ("preprocessor_name", "load_pickle"),
        ("resampling_fn_data", "recursive_find_python_class"),
        ("resampling_fn_seg", "os"),
        ("resampling_fn_probabilities", ["resample_torch_simple"]),
        ("normalization_schemes", ["ZScoreNormalization", "ABC"]),
        ("normalization_schemes", "ZScoreNormalization.__init__"),
    ],
)
def test_plans_cannot_name_what_else_is_found_in_nnunets_modules(
    monkeypatch: pytest.MonkeyPatch, key: str, named: Any
) -> None:
    made = plans()
    made["configurations"]["2d"][key] = named
    with pytest.raises(PlansError, match=f"{key} names"):
        parse_plans(made)
    if isinstance(named, str):
        monkeypatch.setenv("PPGS_TRUSTED_MODULES", f"x,{named}")
        parse_plans(made)
        monkeypatch.delenv("PPGS_TRUSTED_MODULES")
    with pytest.raises(PlansError, match="image_reader_writer names"):
        parse_plans(plans() | {"image_reader_writer": "load_pickle"})
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    parse_dataset(dataset | {"overwrite_image_reader_writer": "NibabelIO"})
    with pytest.raises(PlansError, match="overwrite_image_reader_writer names"):
        parse_dataset(dataset | {"overwrite_image_reader_writer": "os"})


@pytest.mark.parametrize("name", ["../x", "/etc", "..", "a/b", "", "a\\b", "a\0b", 3])
def test_names_lead_nowhere_else(name: Any, tmp_path: Path) -> None:
    for key in ("plans_name", "dataset_name"):
        with pytest.raises(PlansError):
            parse_plans(plans() | {key: name})
    made = plans()
    made["configurations"]["2d"]["data_identifier"] = name
    with pytest.raises(PlansError):
        parse_plans(made)
    made = plans()
    made["configurations"][name] = made["configurations"]["2d"]
    with pytest.raises(PlansError):
        parse_plans(made)
    if name not in ("", 3):
        (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": [name]}]))
        with pytest.raises(PlansError):
            read_splits(tmp_path / "splits_final.json")


class Marker:
    """An object that leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return pathlib.Path.touch, (self.path,)


def test_properties_of_cases(demo_root: Path, tmp_path: Path) -> None:
    own = sorted(demo_root.glob("nnUNet_preprocessed/*/nnUNetPlans_3d_fullres/*.pkl"))[0]
    check_properties(own)
    properties = pickle.loads(own.read_bytes())
    for protocol in range(3, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "c.pkl").write_bytes(pickle.dumps(properties, protocol))
        check_properties(tmp_path / "c.pkl")
    marker = tmp_path / "ran"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        hidden = {**properties, "class_locations": {1: [Marker(marker)]}}
        (tmp_path / "c.pkl").write_bytes(pickle.dumps(hidden, protocol))
        with pytest.raises(RunError, match="would run") as refused:
            check_properties(tmp_path / "c.pkl")
        assert refused.value.exit_code == 4
    (tmp_path / "c.pkl").write_bytes(own.read_bytes()[:-20])
    with pytest.raises(DamagedRun):
        check_properties(tmp_path / "c.pkl")
    assert not marker.exists()


def test_prepared_data_that_would_run_code(
    demo_environ: dict[str, str], tmp_path: Path, ppgs: Ppgs, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = tmp_path / "nnUNet_preprocessed"
    shutil.copytree(demo_environ["nnUNet_preprocessed"], prepared)
    marker = tmp_path / "ran"
    for path in prepared.glob("*/nnUNetPlans_3d_fullres/*.pkl"):
        path.write_bytes(pickle.dumps({**pickle.loads(path.read_bytes()), "x": Marker(marker)}))
    for workers in ("0", "1"):
        options = (*SHORT, "--workers", workers, "--name", f"w{workers}")
        done = ppgs("train", "demo", *options, environ={**demo_environ, "nnUNet_preprocessed": str(prepared)})
        assert done.returncode == 4, done.stderr
        assert "would run" in done.stderr and ".pkl" in done.stderr
        assert "Traceback" not in done.stderr
    assert not marker.exists()


def test_arrays_that_would_run_code(tmp_path: Path) -> None:
    """Blosc2 files may hold recipes; nnU-Net opens them with the library's defaults."""
    one = blosc2.asarray(np.ones(8), urlpath=str(tmp_path / "operand.b2nd"), mode="w")
    blosc2.lazyexpr("a + 1", {"a": one}).save(urlpath=str(tmp_path / "case.b2nd"))
    shutil.copy(tmp_path / "operand.b2nd", tmp_path / "case_seg.b2nd")
    (tmp_path / "case.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(RunError, match="safe") as refused:
        checked(nnUNetDatasetBlosc2)(str(tmp_path), ["case"]).load_case("case")
    assert refused.value.exit_code == 4


def test_a_checkpoint_that_would_run_code(
    trained_demo: Path, demo_environ: dict[str, str], demo_root: Path, tmp_path: Path, ppgs: Ppgs
) -> None:
    results = Path(demo_environ["nnUNet_results"])
    shutil.copytree(trained_demo.parents[2], results)
    run = results / trained_demo.relative_to(trained_demo.parents[2])
    marker = tmp_path / "ran"
    content = torch.load(run / "checkpoint_final.pth", weights_only=True)
    for path in run.glob("checkpoint_*.pth"):
        torch.save({**content, "extra": Marker(marker)}, path)
    manifest = json.loads((run / "ppgs" / "run.json").read_text())
    images = demo_root / "nnUNet_raw" / "Dataset999_Demo" / "imagesTs"
    zipped = tmp_path / "model.zip"
    for command, status, code in (
        (("predict", run, "-i", images, "-o", tmp_path / "out", "--device", "cpu"), "finished", 4),
        (("export", run, "-o", zipped), "finished", 4),
        # Reads results and no weights.
        (("compare", run, trained_demo, "--no-surface", "--json"), "finished", 0),
        (("resume", run, "--no-tui"), "stopped", 4),
    ):
        (run / "ppgs" / "run.json").write_text(json.dumps(manifest | {"status": status}))
        done = ppgs(*command, environ=demo_environ)
        assert done.returncode == code, (command, done.stderr)
        assert "Traceback" not in done.stderr
        assert not marker.exists()
    assert not zipped.exists()
    assert not any((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


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
