"""No command writes over its inputs, raw data or files that ppgs did not make, however their paths are written."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from ppgs import outputs
from ppgs.commands import export as export_command
from ppgs.commands.folders import check_folders
from ppgs.commands.predict import Predicted
from ppgs.commands.predict_children import speed_of
from ppgs.commands.predict_plan import PlannedPrediction, PredictRequest, plan_prediction
from ppgs.commands.train.folder import _check_only_a_run
from ppgs.errors import BadInput, DatasetError, RunExists
from ppgs.plans import Plans, parse_plans
from ppgs.runs.atomic import leftovers, staged_folder, temporary_name, write_text
from ppgs.runs.folder import RunFolder
from ppgs.tasks import Roots, resolve_task
from tests.helpers import result_folders
from tests.helpers.commands import in_process
from tests.helpers.facts import TASK, raw_plans
from tests.helpers.made_runs import made

MADE = b"what the command makes"
SCHEDULE = "images/s.yaml"
PLANS = "nnUNet_preprocessed/Dataset001_A/nnUNetPlans.json"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PPGS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def world(root: Path) -> Path:
    """Images, an expert's labels, a raw dataset, a run, a Decathlon folder and other files of a user."""
    files = (
        *("images/a_0000.nii.gz", "images/b_0000.nii.gz", "images/b.nii.gz", "images/c.nii.gz", "images/d.nii"),
        *("labels/a.nii.gz", "labels/c.nii.gz", "labels/report.html", "labels/x.yaml", "labels/m.zip"),
        *("nnUNet_raw/Dataset001_A/dataset.json", "nnUNet_raw/Dataset001_A/imagesTr/a_0000.nii.gz"),
        *("nnUNet_raw/Dataset001_A/labelsTr/a.nii.gz", "nnUNet_preprocessed/Dataset001_A/dataset.json"),
        *("nnUNet_preprocessed/Dataset001_A/gt_segmentations/a.nii.gz", "Task07_A/imagesTr/a.nii.gz"),
        *("Task07_A/labelsTr/a.nii.gz", "labels/plot.svg", "notes.txt"),
    )
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"a user's {name}")
    model = root / FOLDERS[-2]
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}
    model.mkdir(parents=True)
    for folder in (model, root / "nnUNet_preprocessed/Dataset001_A"):
        (folder / "dataset.json").write_text(json.dumps(content))
    content = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "a"}, "numTraining": 1}
    (root / "Task07_A/dataset.json").write_text(json.dumps(content))
    for path in (model / "plans.json", root / PLANS):
        path.write_text(json.dumps(raw_plans()))
    (root / SCHEDULE).write_text("mode: constant")
    run = made(RunFolder(model / "fold_0"), "a", "finished")
    run.checkpoint_final.write_text("weights")
    (root / "out").mkdir()
    (root / "link").symlink_to(root / "images", target_is_directory=True)
    (root / "labels/link.nii.gz").symlink_to(root / "images/c.nii.gz")
    (root / "labels/dangling.html").symlink_to(root / "nowhere")
    os.link(root / "images/c.nii.gz", root / "out/c.nii.gz")
    # What ignores the case of names looks so.
    (root / "IMAGES").symlink_to(root / "images", target_is_directory=True)
    os.link(root / SCHEDULE, root / SCHEDULE.replace("s.yaml", "S.YAML"))
    return root


def content(root: Path) -> dict[str, bytes]:
    found = {str(p): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    return found | {str(p): os.fsencode(p.readlink()) for p in root.rglob("*") if p.is_symlink()}


FOLDERS = (
    *("images", "labels", "out", "link", "new", "nnUNet_raw/Dataset001_A", "nnUNet_raw/Dataset001_A/imagesTr"),
    *("nnUNet_raw/Dataset001_A/labelsTr", "nnUNet_preprocessed/Dataset001_A", "Task07_A", "Task07_A/imagesTr", "."),
    *("nnUNet_preprocessed/Dataset001_A/gt_segmentations", "nnUNet_results/Dataset001_A"),
    "nnUNet_results/Dataset001_A/T__nnUNetPlans__3d_fullres",
    "nnUNet_results/Dataset001_A/T__nnUNetPlans__3d_fullres/fold_0",
)
NAMES = (
    *("a.nii.gz", "b.nii.gz", "c.nii.gz", "A.NII.GZ", "link.nii.gz", "new.nii.gz", "report.html", "dangling.html"),
    *("x.yaml", "s.yaml", "m.zip", "notes.txt", "dataset.json", "nnUNetPlans.json", "plans.json"),
    *("checkpoint_final.pth", "new"),
)
DETOURS: tuple[Callable[[str], str], ...] = (str, lambda t: f"./{t}", lambda t: f"out/../{t}", str.swapcase)
ANYWHERE = st.sampled_from(FOLDERS) | st.builds("{}/{}".format, st.sampled_from(FOLDERS), st.sampled_from(NAMES))
# What each command reads, or, of `compare`, its second output.
READ = {
    "predict": ("images", "link", "images/a_0000.nii.gz", "images/c.nii.gz", "labels/link.nii.gz"),
    "export": ("images",),
    "compare": ("new", "out", "labels", "link", "new/a.nii.gz"),
    "plan-schedule": (SCHEDULE, "link/s.yaml", PLANS, "new/plot.svg", "labels/plot.svg"),
    "prepare": ("Task07_A",),
}


def paths(command: str) -> st.SearchStrategy[str]:
    return st.builds(
        lambda path, detour: detour(path), ANYWHERE | st.sampled_from(READ[command]), st.sampled_from(DETOURS)
    )


def compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the expensive work of each command by writing its outputs."""
    from ppgs.nnunet.preparation.pipeline import Preparation

    def segment(_: PredictRequest, planned: PlannedPrediction, *__: object) -> Predicted:
        planned.folder.mkdir(parents=True, exist_ok=True)
        for path in planned.outputs.values():
            write_text(path, MADE.decode())
            outputs.remember(path)
        return Predicted(list(planned.outputs.values()), speed_of(0, 0.0, {}))

    def prepare(self: Preparation) -> Plans:
        if not self.raw.is_dir():
            with staged_folder(self.raw) as folder:
                (folder / "dataset.json").write_bytes(MADE)
        self.preprocessed.mkdir(exist_ok=True)
        write_text(self.plans_file, MADE.decode())
        return parse_plans(raw_plans())

    monkeypatch.setattr("ppgs.cli.predict.segment", segment)
    monkeypatch.setattr(Preparation, "_make", prepare)
    monkeypatch.setattr(export_command, "_write", lambda _, file: file.write(MADE))
    # Only the picture is replaced: `draw` itself makes the folder and writes the file.
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda _, path, **__: Path(path).write_bytes(MADE))
    monkeypatch.setattr("ppgs.compare.reporting.drawing._figure", lambda *_: Figure(figsize=(0.1, 0.1)))
    monkeypatch.setattr("ppgs.compare.reporting.report.render", lambda *_: MADE.decode())


def command_line(command: str, root: Path, source: Path, target: Path) -> list[object]:
    """A command that reads `source` where it can, and writes `target`."""
    if command == "predict":
        return ["predict", "a", "-i", source, "-o", target, "--device", "cpu", "--root", root]
    if command == "export":
        return ["export", "a", "-o", target, "--overwrite", "--root", root]
    if command == "compare":
        folder = result_folders.TASK
        runs = [root / "nnUNet_results" / folder / f"T_{name}__nnUNetPlans__3d_fullres" for name in ("a", "b")]
        return ["compare", *runs, "--html", target, "--figures", source, "--no-surface", "--root", root]
    if command == "prepare":
        return ["prepare", root / "Task07_A", "--root", target]
    task = source if source.suffix == ".json" and source.is_file() else TASK
    given = {".yaml": "--schedule", ".YAML": "--schedule", ".svg": "--plot"}.get(source.suffix)
    return ["plan-schedule", task, "-o", target, *([given, source] if given else []), "--root", root]


@pytest.mark.parametrize("command", ["predict", "export", "compare", "plan-schedule", "prepare"])
@given(data=st.data(), again=st.booleans())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_byte_of_foreign_files_survives(
    monkeypatch: pytest.MonkeyPatch, command: str, data: st.DataObject, again: bool
) -> None:
    source, target = data.draw(st.sampled_from(READ[command]) | paths(command)), data.draw(paths(command))
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as patch:
        root = world(Path(folder).resolve() / "world")
        for name, seed in (("a", 0), ("b", 1)):
            model = f"T_{name}__nnUNetPlans__3d_fullres"
            result_folders.write_model(root / "nnUNet_results", model, {"0": result_folders.random_cases(seed)})
        compute(patch)
        patch.setenv("PPGS_CACHE", str(root.parent / "cache"))
        patch.chdir(root)
        before = content(root)
        for _ in range(1 + again):
            done = in_process(*command_line(command, root, root / source, root / target))
            assert done.returncode in (0, 2), done.stderr
        after = content(root)
        assert {path: after.get(path) for path in before} == before


def planned(root: Path, source: str, target: str, **options: Any) -> list[str]:
    asked = PredictRequest("a", root / source, root / target, **options)
    found = plan_prediction(asked, [RunFolder(root / FOLDERS[-1])], Roots.under(root))
    return sorted(str(path.relative_to(root)) for path in found.outputs.values())


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("images", "images"),
        ("images", "link"),
        ("link", "images"),
        ("images", "out/../images"),
        ("images/c.nii.gz", "images"),
        ("images/c.nii.gz", "images/c.nii.gz"),
        ("images/c.nii.gz", "link/c.nii.gz"),
        ("images/c.nii.gz", "labels/link.nii.gz"),
        ("images/c.nii.gz", "out/c.nii.gz"),
        ("images/b_0000.nii.gz", "images/b.nii.gz"),
        ("images", "labels"),
        ("images", "nnUNet_raw/Dataset001_A"),
        ("images", "nnUNet_raw/Dataset001_A/imagesTr"),
        ("images", "nnUNet_raw/Dataset001_A/predictions"),
        ("images", "nnUNet_preprocessed/Dataset001_A/gt_segmentations"),
        ("images", "nnUNet_results/Dataset001_A/T__nnUNetPlans__3d_fullres/fold_0/validation"),
        ("images/c.nii.gz", "one.nii"),
    ],
)
def test_what_predict_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str) -> None:
    root = world(tmp_path / "world")
    before = content(root)
    with pytest.raises(BadInput) as caught:
        planned(root, source, target)
    assert all(p.where and p.remedy for p in caught.value.problems)
    assert content(root) == before and not (root / target).with_suffix(".nii").is_dir()


@pytest.mark.parametrize(
    ("given", "target"),
    [
        (("--schedule", SCHEDULE), SCHEDULE),
        (("--schedule", SCHEDULE), "link/s.yaml"),
        (("--schedule", "link/s.yaml"), SCHEDULE),
        (("--schedule", SCHEDULE), "out/../images/s.yaml"),
        (("--schedule", SCHEDULE), SCHEDULE.swapcase()),
        (("--schedule", SCHEDULE), "images/S.YAML"),
        (("--pretrained", "model.zip"), "model.zip"),
        (("--plot", "new.svg"), "new.svg"),
        (("--plot", "IMAGES/new.svg"), "images/new.svg"),
        ((), f"{FOLDERS[-1]}/new.yaml"),
        ((), "nnUNet_raw/Dataset001_A/imagesTr/new.yaml"),
        ((), "labels/x.yaml"),
        ((), "out"),
    ],
)
def test_what_plan_schedule_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], target: str
) -> None:
    root = world(tmp_path / "world")
    # Even where ppgs wrote them, and might replace them.
    (root / "model.zip").write_bytes(MADE)
    outputs.remember(root / SCHEDULE, root / "model.zip")
    monkeypatch.chdir(root)
    before = content(root)
    done = in_process("plan-schedule", TASK, *given, "-o", target, "--root", root)
    assert done.returncode == 2 and "remedy" in done.stderr, done.stderr
    assert content(root) == before


@pytest.mark.parametrize("target", ["circle", "circle/new", "dead", "dead/new", "notes.txt", "notes.txt/new"])
def test_outputs_where_no_folder_can_be(tmp_path: Path, target: str) -> None:
    root = world(tmp_path / "world")
    (root / "circle").symlink_to("circle")
    (root / "dead").symlink_to("unmounted")
    before = content(root)
    for line in (
        ["predict", "a", "-i", root / "images", "-o", root / target, "--device", "cpu", "--root", root],
        ["plan-schedule", TASK, "-o", root / target / "new.yaml", "--plot", root / target / "new.svg"],
        ["export", "a", "-o", root / target / "new.zip", "--root", root],
    ):
        done = in_process(*line)
        assert done.returncode == 2 and str(root / target.split("/")[0]) in done.stderr, done.stderr
    assert content(root) == before


def test_folders_below_and_lists_are_no_place_for_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = world(tmp_path / "world")
    (root / "images/deep").mkdir()
    (root / "images/deep/e.nii.gz").write_text("an image")
    (root / "list.csv").write_text("image,output\nimages/c.nii.gz,deep/c\n")
    everything = ["new/a.nii.gz", "new/b.nii.gz", "new/c.nii.gz", "new/deep/e.nii.gz"]
    assert planned(root, "images", "new", recursive=True) == everything
    assert planned(root, "images", "new", recursive=True, part="2/2") == everything[1::2]
    assert planned(root, "list.csv", "new") == ["new/deep/c.nii.gz"]
    for source, target, recursive in (
        ("images", "images/new", True),
        ("images", "images/deep", True),
        ("images/**/*.nii.gz", "images/new", False),
        ("images/*/*.nii.gz", "images", False),
        ("list.csv", "images", False),
    ):
        with pytest.raises(BadInput, match="output"):
            planned(root, source, target, recursive=recursive)


def test_probabilities_that_are_missing_are_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = world(tmp_path / "world")
    (root / "new").mkdir()
    for name in ("a.nii.gz", "b.nii.gz", "b.npz", "b.pkl"):
        (root / "new" / name).write_bytes(MADE)
        outputs.remember(root / "new" / name)
    left = ["new/a.nii.gz", "new/c.nii.gz"]
    assert planned(root, "images", "new", overwrite=False, probabilities=True) == left


def test_the_models_files_beside_probabilities(tmp_path: Path) -> None:
    root = world(tmp_path / "world")
    asked = PredictRequest("a", root / "images", root / "new", probabilities=True)
    runs, roots = [RunFolder(root / FOLDERS[-1])], Roots.under(root)

    def copied(request: PredictRequest = asked) -> list[str]:
        return sorted(path.name for path in plan_prediction(request, runs, roots).copied)

    assert copied() == ["dataset.json", "plans.json"]
    assert copied(replace(asked, probabilities=False)) == []
    assert copied(replace(asked, source=root / "images/c.nii.gz", target=root / "new.nii.gz")) == []
    # As another part has made it, perhaps on another machine.
    (root / "new").mkdir()
    shutil.copy(runs[0].model / "plans.json", root / "new")
    assert copied() == ["dataset.json"]
    (root / "new/dataset.json").write_text("of another dataset")
    with pytest.raises(BadInput, match="not what ppgs last wrote") as caught:
        copied()
    assert [Path(p.where) for p in caught.value.problems] == [root / "new/dataset.json"]
    assert copied(replace(asked, replace_foreign=True)) == ["dataset.json"]


def test_results_are_made_again_where_the_record_of_outputs_is_lost(tmp_path: Path) -> None:
    root = world(tmp_path / "world")
    wanted: dict[str, Any] = {"statistics": True, "overlay": True}
    left = ["new/b.nii.gz", "new/c.nii.gz"]
    picture, table = root / "new/overlays/a.png", root / "new/statistics.csv"
    picture.parent.mkdir(parents=True)
    # Nothing is remembered, as in a container whose cache folder went with it.
    for path in (root / "new/a.nii.gz", picture):
        path.write_bytes(MADE)
    table.write_text("case,class,labels,voxels,volume_ml,area_mm2\na,a,1,5,0.1,\n")

    def refused(**options: Any) -> list[Path]:
        with pytest.raises(BadInput, match=r"not what ppgs last wrote|outputs cannot be written") as caught:
            planned(root, "images", "new", **wanted, **options)
        return [Path(p.where) for p in caught.value.problems]

    assert planned(root, "images", "new", overwrite=False, **wanted) == left
    assert refused() == [root / "new/a.nii.gz", table, picture]
    # It would be drawn again.
    os.utime(picture, (0, 0))
    assert refused(overwrite=False) == [picture]
    os.utime(picture)
    table.write_text("case,score\na,5\n")
    assert refused(overwrite=False) == [table]


def test_a_table_that_was_edited_since_is_refused(tmp_path: Path) -> None:
    root = world(tmp_path / "world")
    written, table = root / "new/a.nii.gz", root / "new/statistics.csv"
    written.parent.mkdir()
    written.write_bytes(MADE)
    table.write_text("case,class,labels,voxels,volume_ml,area_mm2\na,a,1,5,0.1,\n")
    outputs.remember(written, table)
    again: dict[str, Any] = {"statistics": True, "overwrite": False}
    assert planned(root, "images", "new", **again) == ["new/b.nii.gz", "new/c.nii.gz"]
    with table.open("a") as file:
        file.write("my own row\n")
    with pytest.raises(BadInput, match="not what ppgs last wrote") as caught:
        planned(root, "images", "new", **again)
    assert [Path(p.where) for p in caught.value.problems] == [table]


def test_inputs_are_kept_even_with_overwrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = world(tmp_path / "world")
    for source, target in (
        ("images/c.nii.gz", "labels/link.nii.gz"),
        ("images/c.nii.gz", "out/c.nii.gz"),
        ("images/b_0000.nii.gz", "images/b.nii.gz"),
        ("images", "nnUNet_raw/Dataset001_A/labelsTr"),
    ):
        with pytest.raises(BadInput):
            planned(root, source, target, replace_foreign=True)
    assert planned(root, "images/a_0000.nii.gz", "labels", replace_foreign=True) == ["labels/a.nii.gz"]


def test_own_results_are_replaced_until_somebody_changes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = world(tmp_path / "world")
    wanted = ["new/a.nii.gz", "new/b.nii.gz", "new/c.nii.gz"]
    assert planned(root, "images", "new") == wanted
    (root / "new").mkdir()
    for name in wanted:
        (root / name).write_bytes(MADE)
        outputs.remember(root / name)
    assert planned(root, "images", "new") == wanted
    (root / "new/b.nii.gz").write_bytes(b"corrected by hand")
    with pytest.raises(BadInput) as caught:
        planned(root, "images", "new")
    assert [Path(p.where).name for p in caught.value.problems] == ["b.nii.gz"]
    assert planned(root, "images", "new", overwrite=False) == []
    assert planned(root, "images", "new", replace_foreign=True) == wanted


def test_two_images_of_one_name_are_refused_where_case_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = world(tmp_path / "world")
    (root / "images/A.nii.gz").write_text("another image")
    assert len(planned(root, "images", "new")) == 4
    monkeypatch.setattr(outputs, "ignores_case", lambda _: True)
    with pytest.raises(BadInput, match=r"A\.nii\.gz and a\.nii\.gz"):
        planned(root, "images", "new")


def test_each_folder_is_asked_once_for_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(outputs, "ignores_case", lambda folder: asked.append(folder) or False)
    outputs.check_names([tmp_path / part / f"{n}.nii.gz" for part in ("a", "b") for n in range(50)])
    assert asked == [tmp_path / "a", tmp_path / "b"]


def test_a_prediction_with_the_models_files_is_no_raw_dataset(tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "dataset.json").touch()
    assert outputs.data_around(tmp_path / "imagesTr/a.nii.gz") == f"the raw dataset {tmp_path}"
    (tmp_path / "plans.json").touch()
    assert outputs.data_around(tmp_path / "imagesTr/a.nii.gz") is None


def test_export_replaces_only_an_exported_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = world(tmp_path / "world")
    model = export_command.Model((RunFolder(root / FOLDERS[-1]),), "Dataset001_A", "nnUNetPlans", "2d", "nnUNetTrainer")
    monkeypatch.setattr(export_command, "_write", lambda _, file: file.write(MADE))
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("thesis.tex", "years of work")
    for target in (other, root / "notes.txt", root / FOLDERS[-2] / "plans.json", root / "out"):
        with pytest.raises(BadInput):
            export_command.export([model], target, overwrite=True)
    with zipfile.ZipFile(other, "w") as archive:
        for name in ("plans.json", "dataset.json"):
            archive.writestr(f"{model.place}/{name}", "{}")
    with pytest.raises(BadInput, match="exists"):
        export_command.export([model], other, overwrite=False)
    export_command.export([model], other, overwrite=True)
    assert other.read_bytes() == MADE


def test_prepare_keeps_away_from_its_source(tmp_path: Path) -> None:
    root = world(tmp_path / "world")
    task = resolve_task(str(root / "Task07_A"), Roots.under(root / "new"))
    check_folders(Roots.under(root / "new"), task)
    check_folders(Roots.under(root), task)
    for place in ("Task07_A", "Task07_A/imagesTr", "Task07_A/deeper/still", "nnUNet_raw/Dataset001_A"):
        with pytest.raises(BadInput):
            check_folders(Roots.under(root / place), task)
    same = root / "same"
    same.mkdir()
    (root / "alias").symlink_to(same)
    for roots in (Roots(same, root / "alias", root / "r"), Roots(same, root / "p", same)):
        with pytest.raises(BadInput, match="one folder"):
            check_folders(roots, task)


def test_overwrite_deletes_no_more_than_a_run(tmp_path: Path) -> None:
    run = RunFolder(world(tmp_path / "world") / FOLDERS[-1])
    for name in ("validation", "training_log_2026_1_2_03_04_05.txt", "checkpoint_best.pth", "progress.png"):
        (run.path / name).touch()
    temporary_name(run.checkpoint_latest).touch()
    _check_only_a_run(run)
    for name in ("my_predictions", "scans.part-1.zip"):
        (run.path / name).mkdir()
        with pytest.raises(RunExists, match=name):
            _check_only_a_run(run)
        (run.path / name).rmdir()
    run.manifest.unlink()
    with pytest.raises(RunExists, match="no run"):
        _check_only_a_run(run)


def test_only_files_of_an_interrupted_write_are_leftovers(tmp_path: Path) -> None:
    ours = [tmp_path / "run.json.part-123-0123abcd", temporary_name(tmp_path / "run.json")]
    for path in (*ours, tmp_path / "scan.part-1.zip", tmp_path / "a.part-1-2.nii.gz"):
        path.touch()
    assert sorted(leftovers(tmp_path)) == sorted(ours)


@pytest.fixture
def case_folding(tmp_path: Path) -> Iterator[Path]:
    """A file system that ignores case (vfat on a loop device)."""
    import shutil
    import subprocess

    image, folder = tmp_path / "image", tmp_path / "vfat"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    commands = (["mkfs.vfat", str(image)], ["mount", "-o", "loop", str(image), str(folder)])
    if not all(shutil.which(c[0]) and subprocess.run(c, capture_output=True).returncode == 0 for c in commands):
        pytest.skip("making and mounting a file system that ignores case is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_case_makes_no_difference_where_the_file_system_ignores_it(case_folding: Path) -> None:
    scan = case_folding / "Scan.nii.gz"
    scan.write_text("an image")
    assert outputs.ignores_case(case_folding / "new")
    with pytest.raises(BadInput):
        outputs.check_outputs([case_folding / "sCAN.nii.gz"], [outputs.Kept(scan, "the image")], overwrite=True)
    with pytest.raises(BadInput):
        outputs.check_names([case_folding / "a.nii.gz", case_folding / "A.nii.gz"])


def test_no_image_at_all_is_no_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = world(tmp_path / "world")
    (root / "empty").mkdir()
    with pytest.raises(DatasetError):
        planned(root, "empty", "new")
    assert not (root / "new").exists()
