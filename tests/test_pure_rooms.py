"""Errors, plans, tasks, and import rules."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ppgs import errors
from ppgs.errors import BadInput, DatasetError, PlansError, PpgsError, Problems, from_record, nearest
from ppgs.plans import load_dataset, load_plans, load_plans_of, parse_dataset, parse_plans
from ppgs.tasks import Roots, parse_folds, resolve_task


def tree(base: type[PpgsError]) -> list[type[PpgsError]]:
    return [base, *(c for child in base.__subclasses__() for c in tree(child))]


class TestErrors:
    @pytest.mark.parametrize("kind", [k for k in tree(PpgsError) if k.__module__ == errors.__name__])
    def test_every_error_survives_the_event_log(self, kind: type[PpgsError]) -> None:
        error = kind("what", "where", "remedy")
        back = from_record(json.loads(json.dumps(error.to_record())))
        assert type(back) is kind
        assert back.problems == error.problems
        assert back.exit_code == error.exit_code

    def test_an_unknown_kind_keeps_its_exit_code(self) -> None:
        class Later(errors.StoppedEarly):
            """An error type of another version."""

        record = json.loads(json.dumps(Later("what").to_record()))
        del Later
        record["kind"] = "LaterStill"
        assert type(from_record(record)) is errors.StoppedEarly
        assert type(from_record({"kind": "Old", "what": "of a version without exit codes"})) is PpgsError

    def test_exit_codes_are_those_of_the_surface(self) -> None:
        assert {k.__name__: int(k.exit_code) for k in tree(PpgsError) if k.__module__ == errors.__name__} == {
            "PpgsError": 1,
            "BadInput": 2,
            "PathUnusable": 2,
            "ScheduleError": 2,
            "PlansError": 2,
            "DatasetError": 2,
            "DeviceError": 2,
            "Untranslatable": 2,
            "DoesNotFit": 3,
            "RunError": 4,
            "NoSuchRun": 4,
            "NoCheckpoint": 4,
            "DamagedRun": 4,
            "RunExists": 4,
            "RunLocked": 4,
            "NonFiniteLoss": 75,
            "WorkerLost": 75,
            "StoppedEarly": 75,
            "DiskFull": 75,
            "StorageFailed": 75,
            "DownloadFailed": 75,
            "LoaderFailed": 75,
            "RankLost": 75,
        }

    def test_problems_are_raised_together(self) -> None:
        problems = Problems()
        problems.raise_as(BadInput, "none")
        problems.add("a")
        problems.add("b", "here", "do")
        with pytest.raises(BadInput, match="both") as raised:
            problems.raise_as(BadInput, "both")
        assert [p.what for p in raised.value.problems] == ["a", "b"]

    def test_hints(self) -> None:
        assert nearest("efficency", ["efficiency", "random"]) == "did you mean 'efficiency'?"
        assert nearest("zzz", ["a", "b"]) == "known: a, b"


class TestPlans:
    def test_the_decathlons_plans_and_labels(self, shared: Path) -> None:
        folders = sorted((shared / "msd").glob("Dataset*"))
        assert len(folders) == 10
        for folder in folders:
            for name in ("nnUNetPlans", "nnUNetResEncUNetMPlans"):
                plans = load_plans(folder / f"{name}.json")
                raw = json.loads((folder / f"{name}.json").read_text())
                for key, configuration in plans.configurations.items():
                    if "patch_size" in raw["configurations"][key]:
                        assert list(configuration.patch_size) == raw["configurations"][key]["patch_size"]
                    assert all(p % s == 0 for p, s in zip(configuration.patch_size, configuration.step, strict=True))
            assert load_dataset(folder / "dataset.json").segmentation_heads >= 2

    def test_inheritance_and_the_old_format(self) -> None:
        plans = parse_plans(
            {
                "plans_name": "p",
                "dataset_name": "d",
                "configurations": {
                    "base": {
                        "patch_size": [16, 16],
                        "batch_size": 3,
                        "spacing": [1.0, 1.0],
                        "data_identifier": "x",
                        "UNet_class_name": "PlainConvUNet",
                        "pool_op_kernel_sizes": [[1, 1], [2, 4]],
                    },
                    "child": {"inherits_from": "base", "batch_size": 5, "previous_stage": "base"},
                },
            }
        )
        child = plans.configuration("child")
        assert (child.patch_size, child.batch_size, child.step, child.previous_stage) == ((16, 16), 5, (2, 4), "base")
        with pytest.raises(PlansError, match="no configuration 'chld'") as raised:
            plans.configuration("chld")
        assert "child" in raised.value.problems[0].remedy

    @pytest.mark.parametrize(
        "raw",
        [
            {},
            {"plans_name": "p", "dataset_name": "d", "configurations": {"a": {"inherits_from": "a"}}},
            {"plans_name": "p", "dataset_name": "d", "configurations": {"a": {"patch_size": [0, 1, 2]}}},
            {"plans_name": "p", "dataset_name": "d", "configurations": 3},
            {"plans_name": "p", "dataset_name": "d", "configurations": {"a": 3}},
        ],
    )
    def test_wrong_plans_are_told(self, raw: dict) -> None:  # type: ignore[type-arg]
        with pytest.raises(PlansError):
            parse_plans(raw)

    @pytest.mark.parametrize(("folder", "name"), [("Dataset001_A", "bigPlans"), ("Dataset002_B", "nnUNetPlans")])
    def test_plans_copied_under_another_name_are_refused(self, tmp_path: Path, folder: str, name: str) -> None:
        preprocessed = tmp_path / folder
        preprocessed.mkdir()
        plans = {"plans_name": "nnUNetPlans", "dataset_name": "Dataset001_A", "configurations": {}}
        file = preprocessed / f"{name}.json"
        file.write_text(json.dumps(plans))
        with pytest.raises(PlansError) as raised:
            load_plans_of(preprocessed, name)
        key, expected = ("plans_name", name) if name == "bigPlans" else ("dataset_name", folder)
        problem = raised.value.problems[0]
        assert (problem.where, problem.remedy) == (f"{file}: {key}", f'write: "{key}": "{expected}"')
        file.write_text(json.dumps(plans | {key: expected}))
        assert load_plans_of(preprocessed, name).configurations == {}

    def test_unreadable_files_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text("{")
        for name in ("x.json", "missing.json"):
            with pytest.raises(PlansError) as raised:
                load_plans(tmp_path / name)
            assert name in raised.value.problems[0].where

    def test_labels_regions_and_the_ignore_label(self) -> None:
        dataset = parse_dataset(
            {
                "channel_names": {"0": "a", "1": "b"},
                "labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
                "regions_class_order": [1, 2],
            }
        )
        assert dataset.ignore_label == 3
        assert dataset.segmentation_heads == 2
        assert dataset.values == {0, 1, 2, 3}
        assert list(dataset.foreground) == ["whole", "core"]

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (("kidney_left", "kidney_right"), [("kidney_left", "kidney_right")]),
            (("spleen", "RightLung", "LeftLung"), [("LeftLung", "RightLung")]),
            (("Hippocampus-L", "Hippocampus-R"), [("Hippocampus-L", "Hippocampus-R")]),
            (("lh cortex", "rh cortex"), [("lh cortex", "rh cortex")]),
            (("Niere links", "Niere rechts"), [("Niere links", "Niere rechts")]),
            (("RKidney", "LKidney"), [("LKidney", "RKidney")]),
            (("Größe_l", "Größe_r", "Grube_r"), [("Größe_l", "Größe_r")]),
            (("lung-r", "lung-l", "L ear", "R ear", "upright"), [("lung-l", "lung-r"), ("L ear", "R ear")]),
            (
                ("LeftKidney", "RightKidney", "L ear", "R ear", "lung-l", "lung-r", "liver", "upright", "cleft"),
                [("LeftKidney", "RightKidney"), ("L ear", "R ear"), ("lung-l", "lung-r")],
            ),
            (("left_atrium", "aorta"), []),
            (("anterior", "posterior"), []),
            (("leftover", "rightover"), []),
        ],
    )
    def test_labels_that_differ_by_side(self, names: tuple[str, ...], expected: object) -> None:
        labels = {"background": 0} | {name: number for number, name in enumerate(names, 1)}
        dataset = parse_dataset({"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"})
        assert dataset.sides == expected


class TestTasks:
    def test_demo_decathlon_and_nnunet_names(self, tmp_path: Path) -> None:
        roots = Roots.under(tmp_path / "root")
        assert resolve_task("demo", roots).kind == "demo"
        source = tmp_path / "Task04_Hippocampus"
        source.mkdir()
        task = resolve_task(str(source), roots)
        assert (task.dataset, task.kind, task.source) == ("Dataset004_Hippocampus", "decathlon", source)
        (roots.raw / "Dataset004_Hippocampus").mkdir(parents=True)
        for given in (
            "4",
            "004",
            "Task04_Hippocampus",
            "Dataset004_Hippocampus",
            str(roots.raw / "Dataset004_Hippocampus"),
        ):
            assert resolve_task(given, roots).dataset == "Dataset004_Hippocampus"

    def test_unknown_and_misplaced_tasks(self, tmp_path: Path) -> None:
        roots = Roots.under(tmp_path)
        (roots.raw / "Dataset004_Hippocampus").mkdir(parents=True)
        (tmp_path / "Task04_Other").mkdir()
        (tmp_path / "data").mkdir()
        for given, said in (
            ("Dataset004_Hipocampus", "Dataset004_Hippocampus"),
            ("7", "Dataset004_Hippocampus"),
            ("demoo", "demo"),
            (str(tmp_path / "Task05_X"), "dataset.json"),
            (str(tmp_path / "Task04_Other"), "another number"),
            (str(tmp_path / "data"), "TaskNN_Name"),
        ):
            with pytest.raises(DatasetError) as raised:
                resolve_task(given, roots)
            assert said in raised.value.problems[0].remedy

    def test_folds(self) -> None:
        assert parse_folds("0") == [0]
        assert parse_folds("0,2") == [0, 2]
        assert parse_folds("0-4") == [0, 1, 2, 3, 4]
        assert parse_folds("all") == ["all"]
        for wrong in ("", "a", "3-1", "-1", "0;1"):
            with pytest.raises(BadInput):
                parse_folds(wrong)

    def test_roots(self, tmp_path: Path) -> None:
        environ = {name: str(tmp_path / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        assert Roots.choose(None, environ).raw == tmp_path / "nnUNet_raw"
        assert Roots.choose(tmp_path, environ) == Roots.under(tmp_path)
        del environ["nnUNet_raw"]
        with pytest.raises(BadInput, match="nnUNet_raw is not"):
            Roots.choose(None, environ)
        assert Roots.choose(None, {}) == Roots.under(Path("ppgs_data"))


_RUN = "\nfrom ppgs.cli.app import main\ntry: main()\nexcept SystemExit: pass"
HEAVY = {"torch", "nnunetv2", "numpy", "batchgenerators", "textual", "matplotlib", "pandas", "scipy"}


@pytest.mark.parametrize(
    "code",
    [
        "import ppgs.schedule, ppgs.plans, ppgs.tasks, ppgs.runs.registry, ppgs.runs.state, ppgs.runs.events",
        "import typer, ppgs.cli.app as a; list(typer.main.get_command(a.app).commands.values())",
        "import sys; sys.argv = ['ppgs', '--help']" + _RUN,
        "import sys; sys.argv = ['ppgs', 'runs']" + _RUN,
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    script = f"{code}\nimport sys; print('LOADED', *sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1].strip() == "LOADED"
