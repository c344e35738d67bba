"""Data that trackers received, read back with their own readers: in one go, and before and after a resume."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ppgs.commands.trackers import export_logs
from ppgs.errors import BadInput, PpgsError, RunError, RunLocked
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import Lock
from tests.helpers.made_runs import made
from tests.trackers.conftest import finish


def export(run: RunFolder, tracker: str, output: Path | None = None) -> Path:
    """Export, then export again, which must send nothing."""
    for _ in range(2):
        _, folder = export_logs(str(run.path), tracker, output, None)
    return folder / tracker


def test_tensorboard(begun_run: RunFolder) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    export(begun_run, "tensorboard")
    finish(begun_run)
    reader = EventAccumulator(str(export(begun_run, "tensorboard") / "a-fold0"))
    reader.Reload()
    steps = {
        axis: [event.step for event in reader.Scalars(f"{axis}/train_loss")]
        for axis in ("by_epoch", "by_iteration", "by_second", "by_mWh")
    }
    assert steps == {
        "by_epoch": [1, 2, 3],
        "by_iteration": [10, 20, 30],
        "by_second": [1800, 3600, 5400],
        "by_mWh": [500_000, 1_000_000, 1_500_000],
    }
    assert [event.value for event in reader.Scalars("by_epoch/train_loss")] == [1, 0.75, 0.5]
    assert [event.value for event in reader.Scalars("by_epoch/batch_size")] == [4, 2, 2]
    assert [event.value for event in reader.Scalars("by_epoch/patch_size/axis_0")] == [8, 16, 16]
    assert [event.value for event in reader.Scalars("final_dice/organ (left)+")] == [0.75]
    pictures = reader.Images("slices")
    assert [picture.step for picture in pictures] == [10, 20, 30]
    # Two panels of slices that are twice as wide in mm as they are high.
    assert (pictures[0].width, pictures[0].height) == (768, 192)
    start = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"learning" not in start and b"last_patch_size" in start and b"16x16x8" in start
    assert reader.SummaryMetadata("_hparams_/session_end_info")


def test_mlflow(begun_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(export(begun_run, "mlflow").as_uri())
    (experiment,) = [e for e in client.search_experiments() if e.name == "ppgs"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("a-fold0", "KILLED")
    finish(begun_run)
    export(begun_run, "mlflow")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.metrics["final_dice/organ _left__"] == found.data.metrics["final_dice/mean"] == 0.75
    assert found.data.params["schedule"] == "efficiency" and found.data.params["last_patch_size"] == "16x16x8"
    for axis, steps in (("by_iteration", [10, 20, 30]), ("by_second", [1800, 3600, 5400])):
        history = client.get_metric_history(found.info.run_id, f"{axis}/train_loss")
        assert [(m.step, m.value) for m in history] == list(zip(steps, (1, 0.75, 0.5), strict=True))
    pictures = [file.path for file in client.list_artifacts(found.info.run_id, "slices")]
    assert pictures == [f"slices/iteration_{i:07d}.png" for i in (10, 20, 30)]


def records_of(file: Path) -> Iterator[bytes]:
    """The records of a W&B file, which is a log of LevelDB's: blocks of 32 KiB, records in one or more parts."""
    content, at, record = file.read_bytes(), 7, b""
    while at < len(content):
        left_in_block = 2**15 - at % 2**15
        if left_in_block < 7:
            at += left_in_block
            continue
        size, kind = struct.unpack("<4xHB", content[at : at + 7])
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield record
            record = b""


def offline_rows(folder: Path) -> dict[str, Any]:
    """Read the files of offline runs with W&B's own messages: rows by step, configuration, summary, identities."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, Any] = {"rows": {}, "config": {}, "summary": {}, "runs": set()}
    for file in sorted(folder.glob("offline-run-*/run-*.wandb")):
        for data in records_of(file):
            record = Record()
            record.ParseFromString(data)
            items = [(item, "history") for item in record.history.item]
            items += [(item, "summary") for item in record.summary.update]
            values: dict[str, dict[str, Any]] = {"history": {}, "summary": {}}
            for item, kind in items:
                values[kind]["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
            if row := values["history"]:
                assert row["_step"] not in found["rows"], "a step was sent twice"
                found["rows"][row["_step"]] = row
            found["summary"] |= values["summary"]
            if record.HasField("run"):
                found["runs"].add(record.run.run_id)
                found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    return found


def test_wandb_offline(begun_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("nnUNet_wandb_mode", "offline")
    export(begun_run, "wandb")
    finish(begun_run)
    folder = export(begun_run, "wandb")
    found = offline_rows(folder)
    assert len(found["runs"]) == 1
    # An export that has nothing to send begins none.
    assert len(list(folder.glob("offline-run-*"))) == 2
    assert list(found["rows"]) == [10, 20, 30]
    assert [row["train_loss"] for row in found["rows"].values()] == [1, 0.75, 0.5]
    last = found["rows"][30]
    assert (last["epoch"], last["iteration"], last["hours"], last["kWh"]) == (3, 30, 1.5, 1.5)
    assert (last["stage"], last["batch_size"], last["patch_size/axis_0"]) == (1, 2, 16)
    assert all(row["slices/_type"] == "image-file" for row in found["rows"].values()), last
    assert found["config"]["last_patch_size"] == "16x16x8"
    assert found["summary"]["final_dice/mean"] == 0.75
    assert len(list(folder.glob("offline-run-*/files/media/images/slices_*.png"))) == 3


def test_one_folder_takes_several_runs(finished_run: RunFolder, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    other = made(RunFolder(tmp_path / "fold_1"), "a-fold1", "finished")
    other.events.write_bytes(finished_run.events.read_bytes())
    for run in (finished_run, other):
        export(run, "tensorboard", tmp_path / "logs")
    assert {p.parent.name for p in (tmp_path / "logs").rglob("events.out.*")} == {"a-fold0", "a-fold1"}
    namesake = made(RunFolder(tmp_path / "elsewhere" / "fold_1"), "a-fold1", "finished")
    with pytest.raises(BadInput, match="another run of this name"):
        export(namesake, "tensorboard", tmp_path / "logs")


def test_what_cannot_be_exported_says_why(begun_run: RunFolder, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (begun_run.own / "trackers").mkdir()
    with (
        Lock(begun_run.trackers / "tensorboard-a-fold0.lock"),
        pytest.raises(RunLocked, match="held by process"),
    ):
        export(begun_run, "tensorboard")
    begun_run.events.unlink()
    with pytest.raises(RunError, match="nothing was trained yet"):
        export(begun_run, "tensorboard")


def test_a_tracker_that_fails_is_named_with_its_reason(
    begun_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fakes").mkdir()
    (tmp_path / "fakes" / "wandb.py").write_text("raise RuntimeError('no network here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fakes"))
    monkeypatch.syspath_prepend(str(tmp_path / "fakes"))
    with pytest.raises(PpgsError) as failed:
        export(begun_run, "wandb")
    assert failed.value.problems[0].what == "wandb: RuntimeError: no network here"
    assert failed.value.problems[0].where == str(begun_run.trackers / "wandb.log")
