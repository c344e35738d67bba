"""`prepare --plans-from`: nnU-Net's transfer of plans from another dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ppgs.tasks import DEMO_DATASET
from tests.helpers.commands import Ppgs


def test_plans_of_another_dataset_are_transferred_and_prepared(demo_root: Path, tmp_path: Path, ppgs: Ppgs) -> None:
    root = tmp_path / "root"
    shutil.copytree(demo_root / "nnUNet_raw", root / "nnUNet_raw")
    prepared = root / "nnUNet_preprocessed" / DEMO_DATASET
    plans = json.loads((demo_root / "nnUNet_preprocessed" / DEMO_DATASET / "nnUNetPlans.json").read_text())
    plans["dataset_name"] = "Dataset004_Other"
    plans["configurations"]["3d_fullres"]["batch_size"] = 3
    source = tmp_path / "plans.json"
    source.write_text(json.dumps(plans))
    for _ in range(2):
        done = ppgs("prepare", "demo", "--plans-from", source, "--root", root, "--json")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["plans"], said["batch_size"]) == ("nnUNetPlansFrom004_Other", 3)
    again = ppgs("prepare", "demo", "--plans-from", source, "--root", root, "--geometry", "voxel")
    command = f"ppgs train demo --plans nnUNetPlansFrom004_Other --geometry voxel --root {root} --pretrained CHECKPOINT"
    assert command in " ".join(again.stderr.split())
    made = json.loads((prepared / "nnUNetPlansFrom004_Other.json").read_text())
    assert made["dataset_name"] == DEMO_DATASET
    assert made["configurations"]["3d_fullres"]["data_identifier"] == "nnUNetPlansFrom004_Other_3d_fullres"
    assert list((prepared / "nnUNetPlansFrom004_Other_3d_fullres").glob("*.pkl"))
    assert (prepared / "dataset_fingerprint.json").is_file() and not (prepared / "nnUNetPlans.json").exists()

    plans["configurations"]["3d_fullres"]["batch_size"] = 4
    source.write_text(json.dumps(plans))
    other = ppgs("prepare", "demo", "--plans-from", source, "--root", root)
    assert other.returncode == 2 and "other plans" in other.stderr
    # What a file from elsewhere names is not imported.
    plans["configurations"]["3d_fullres"]["preprocessor_name"] = "os.system"
    source.write_text(json.dumps(plans))
    refused = ppgs("prepare", "demo", "--plans-from", source, "--root", root)
    assert refused.returncode == 2 and "os.system" in refused.stderr
