"""The final validation writes what nnU-Net's own writes, voxel for voxel."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.context import BaseContext
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk

from ppgs import upstream
from ppgs.errors import DoesNotFit
from ppgs.nnunet.distributed.ranks import Ranks
from ppgs.nnunet.inference import validation
from ppgs.nnunet.inference.memory import Needs, Room
from ppgs.nnunet.inference.pending import Exports
from ppgs.nnunet.inference.window import Storage
from ppgs.nnunet.process.session import validate_together
from ppgs.plans import load_plans
from ppgs.runs.folder import RunFolder
from ppgs.schedule import PlanFacts, Recipe, resolve
from ppgs.tasks import DEMO_DATASET, Roots
from tests.helpers.made_runs import made

SHORT = Recipe(mode="constant", epochs=1, iterations_per_epoch=2)
# One pass a window.
UNMIRRORED = Recipe(mode="constant", epochs=1, iterations_per_epoch=2, mirroring=())


def regions(plans: dict[str, Any], dataset: dict[str, Any]) -> None:
    dataset |= {"labels": {"background": 0, "whole": [1, 2], "lesion": 2}, "regions_class_order": [1, 2]}


def flat(plans: dict[str, Any], dataset: dict[str, Any]) -> None:
    """The cases are cubes of one spacing: in 2D they are the same."""
    setups = plans["configurations"]
    setups["2d"]["data_identifier"] = setups["3d_fullres"]["data_identifier"]


def cascade(plans: dict[str, Any], dataset: dict[str, Any]) -> None:
    setups = plans["configurations"]
    setups["again"] = setups["3d_fullres"] | {"previous_stage": "3d_fullres"}
    setups["3d_fullres"]["next_stage"] = "again"


def unprepared(plans: dict[str, Any], dataset: dict[str, Any]) -> None:
    cascade(plans, dataset)
    plans["configurations"]["again"]["data_identifier"] = "nowhere"


@contextmanager
def in_threads() -> Iterator[None]:
    """Let nnU-Net's pools be threads, which need not import anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseContext, "Pool", lambda self, processes=None, *_, **__: ThreadPool(processes))
        yield


def contents(folder: Path) -> dict[str, Any]:
    """Return what the files of a folder say."""
    read = {
        ".gz": lambda path: sitk.GetArrayFromImage(sitk.ReadImage(str(path))),
        ".npz": lambda path: np.load(path)["probabilities"],
        ".pkl": lambda path: sorted(np.load(path, allow_pickle=True)),
        ".json": lambda path: path.read_text(),
        ".b2nd": lambda path: blosc2.open(str(path))[:],
    }
    return {path.name: read[path.suffix](path) for path in folder.iterdir()}


def compare(trainer: Any, *, probabilities: bool = False) -> None:
    """Validate in both ways and compare all that was written."""
    run = trainer.settings.run
    folders = (run.validation, run.model / upstream.NEXT_STAGE / "again")

    def taken() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for folder in filter(Path.is_dir, folders):
            found |= {f"{folder.name}/{name}": value for name, value in contents(folder).items()}
            shutil.rmtree(folder)
        return found

    validate_together(trainer, run, npz=probabilities)
    assert trainer.network.decoder.deep_supervision
    ours = taken()
    with in_threads():
        trainer.perform_actual_validation(probabilities)
    theirs = taken()
    assert ours.keys() == theirs.keys()
    assert len([name for name in ours if name.endswith(".nii.gz")]) == 5
    assert len([name for name in ours if name.endswith(".npz")]) == 5 * probabilities
    for name, value in ours.items():
        assert np.array_equal(value, theirs[name]), name
        assert not name.endswith(".nii.gz") or len(np.unique(value)) > 1, f"{name} compares nothing"


def test_after_a_training(build: Any) -> None:
    trainer = build(SHORT)
    trainer.run_training()
    compare(trainer)


@pytest.mark.parametrize("trainer", ["nnUNetTrainerBN", "nnUNetTrainerNoMirroring"])
def test_regions_with_probabilities(build: Any, trainer: str) -> None:
    schedule = SHORT if trainer == "nnUNetTrainerNoMirroring" else UNMIRRORED
    compare(build(schedule, name=trainer, edit=regions), probabilities=True)


def test_2d(build: Any, demo_roots: Roots) -> None:
    plans = load_plans(demo_roots.preprocessed / DEMO_DATASET / "nnUNetPlans.json")
    schedule = resolve(UNMIRRORED, PlanFacts.of(plans, plans.configuration("2d")))
    compare(build(schedule, configuration="2d", edit=flat))


def test_both_stages_of_a_cascade(build: Any) -> None:
    compare(build(UNMIRRORED, edit=cascade))
    first = build(UNMIRRORED, edit=cascade)
    validate_together(first, first.settings.run, npz=False)
    second = build(UNMIRRORED, configuration="again", edit=cascade)
    second.folder_with_segs_from_previous_stage = str(first.settings.run.model / upstream.NEXT_STAGE / "again")
    compare(second)


def test_what_is_not_prepared_for_the_next_stage_is_passed_over(build: Any) -> None:
    trainer = build(SHORT, edit=unprepared)
    assert validation._following(trainer, trainer.settings.run, ["a"]) == {"a": []}
    trainer = build(SHORT, edit=cascade)
    _, (known, *_) = trainer.do_split()
    found = validation._following(trainer, trainer.settings.run, ["a", known])
    assert found["a"] == [] and [one.shape for one in found[known]] == [(32, 32, 32)]


def test_fold_all_replaces_nothing_that_a_fold_which_did_not_train_on_it_has_segmented(build: Any) -> None:
    trainer = build(SHORT, edit=cascade)
    _, (known, other, *_) = trainer.do_split()
    run = trainer.settings.run
    there = run.model / upstream.NEXT_STAGE / "again" / f"{known}.b2nd"
    there.parent.mkdir(parents=True)
    there.touch()
    assert validation._following(trainer, run, [known])[known] != []
    of_all = RunFolder(run.model / "fold_all")
    # Of a fold that is not finished, it may be torn.
    assert validation._following(trainer, of_all, [known])[known] != []
    made(run, "a-fold0", "finished")
    run.checkpoint_final.touch()
    found = validation._following(trainer, of_all, [known, other])
    assert found[known] == [] and found[other] != []


class OneOfTwo(Ranks):
    count = 2

    def __init__(self, rank: int) -> None:
        self.rank = rank


def test_every_rank_has_its_share(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build(SHORT)
    _, every = trainer.do_split()
    begun: list[str] = []
    monkeypatch.setattr(validation._Segmentation, "begin", lambda self, case, *_: begun.append(case))
    for rank in (0, 1):
        before = len(begun)
        trainer.settings = replace(trainer.settings, ranks=OneOfTwo(rank))
        validation.segment(trainer, trainer.settings.run, probabilities=False)
        assert begun[before:] == sorted(every[rank::2])
    assert sorted(begun) == sorted(every)


GIB = 1 << 30
NEEDS = Needs(preparing=0, data=0, logits=GIB, exporting=2 * GIB)


@pytest.mark.parametrize(
    ("memory", "pending", "left", "place"),
    [(100, 3, 3, "memory"), (8, 3, 2, "memory"), (3.5, 3, 0, "file"), (2, 1, 0, None)],
)
def test_exports_in_progress_count(
    build: Any, monkeypatch: pytest.MonkeyPatch, memory: float, pending: int, left: int, place: str | None
) -> None:
    """A case waits for others that are exported until there is memory for it."""
    trainer = build(SHORT)
    segmentation = validation._Segmentation(trainer, trainer.settings.run, [], probabilities=False)
    room = Room(None, int(memory * GIB), 100 * GIB)
    monkeypatch.setattr(Room, "now", lambda *_: room)
    exports: Exports[Needs] = Exports()
    done: Any = SimpleNamespace(ready=lambda: False, get=lambda: None)
    for _ in range(pending):
        exports.add(NEEDS, Storage(None), done)
    if place is None:
        with pytest.raises(DoesNotFit) as refused:
            segmentation._place("demo_0", NEEDS, exports)
        assert refused.value.problems[0].where == "demo_0"
    else:
        assert segmentation._place("demo_0", NEEDS, exports) == place
    assert len(exports.pending) == left
