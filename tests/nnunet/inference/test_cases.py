"""One image before and after the network: files as nnU-Net's readers need them, and what is written."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from ppgs.errors import Problem
from ppgs.nnunet.images.find import Image
from ppgs.nnunet.inference.cases import Cases
from ppgs.nnunet.inference.window import Stored
from tests.helpers.datasets import MIRRORED, write
from tests.nnunet.inference.test_export import plans_of

SHAPE = (5, 6, 7)


def cases(reader: str, ending: str, channels: int = 1, classes: int = 1, previous: str | None = None) -> Cases:
    """Cases that are not resampled: their preprocessing leaves an image as it was read."""
    plans = plans_of([1.0, 1.0, 1.0], image_reader_writer=reader)
    description = {
        "channel_names": {str(n): "MR" for n in range(channels)},
        "labels": {"background": 0, **{f"c{n}": n for n in range(1, classes + 1)}},
        "file_ending": ending,
    }
    setup: Any = plans.get_configuration("c")
    untouched = SimpleNamespace(run_case_npy=lambda voxels, seg, properties, *_: (voxels, seg, properties))
    reading = SimpleNamespace(
        preprocessor_class=lambda verbose: untouched,
        spacing=setup.spacing,
        patch_size=setup.patch_size,
        resampling_fn_probabilities=setup.resampling_fn_probabilities,
        previous_stage_name=previous,
    )
    return Cases(plans, reading, description)


def prepared(made: Cases, name: str, *files: Path) -> tuple[np.ndarray, dict[str, Any]]:
    staging = files[0].parent.parent / "staging"
    staging.mkdir(exist_ok=True)
    found = made.prepare(Image(name, files), staging, None)
    assert isinstance(found, tuple), found
    assert list(staging.iterdir()) == []
    return found


@pytest.mark.parametrize(
    ("file", "beside"),
    [
        ("case12.tiff", "case12.json"),
        ("case12_0000.tiff", "case12.json"),
        ("case12_0000.tiff", "case12_0000.json"),
        ("case12.tiff", None),
    ],
)
def test_a_tiff_volume_has_the_spacing_that_its_training_images_have(
    tmp_path: Path, file: str, beside: str | None
) -> None:
    """`prepare --images` takes both names of it; nnU-Net's reader knows one, and cuts five letters off any name."""
    images = tmp_path / "images"
    images.mkdir()
    tifffile.imwrite(images / file, np.zeros(SHAPE, np.uint16))
    if beside is not None:
        (images / beside).write_text(json.dumps({"spacing": [2.0, 0.4, 0.4]}))
    made = cases("Tiff3DIO", ".tiff")
    voxels, properties = prepared(made, "below/case12", images / file)
    assert voxels.shape == (1, *SHAPE)
    assert list(properties["spacing"]) == ([1, 1, 1] if beside is None else [2.0, 0.4, 0.4])


def test_the_room_for_a_tiff_volume_is_by_the_spacing_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the resolution in its header, which nnU-Net never reads."""
    seen: list[list[float]] = []
    monkeypatch.setattr(
        "ppgs.nnunet.inference.cases.needs_of", lambda shape, spacing, *_, **__: seen.append([shape, spacing])
    )
    monkeypatch.setattr("ppgs.nnunet.inference.cases.streams", lambda *_: True)
    tifffile.imwrite(tmp_path / "a_0000.tiff", np.zeros(SHAPE, np.uint16), resolution=(300, 300))
    made, image = cases("Tiff3DIO", ".tiff"), Image("a", (tmp_path / "a_0000.tiff",))
    made.needs(image, 1)
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [0.005, 0.001, 0.001]}))
    made.needs(image, 1)
    assert seen == [[list(SHAPE), [1.0, 1.0, 1.0]], [list(SHAPE), [0.005, 0.001, 0.001]]]


def test_the_memory_of_a_second_stage_counts_the_labels_of_the_first(tmp_path: Path) -> None:
    """Each of them is a channel: with 15 classes the network's input is 16 times as large as without."""
    made = cases("SimpleITKIO", ".nii.gz", classes=15, previous="first")
    shape = (64, 65, 66)
    image = Image("a", (write(np.zeros(shape, np.float32), tmp_path / "a.nii.gz"),))
    previous = tmp_path / "previous"
    previous.mkdir()
    write(np.ones(shape, np.uint8), previous / "a.nii.gz")
    needs = made.needs(image, 1)
    tracemalloc.start()
    try:
        found = made.prepare(image, tmp_path, previous)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(found, tuple) and needs is not None
    # It is there twice: in the process that made it, and where the network is.
    assert needs.data == 2 * found[0].nbytes
    assert peak < needs.preparing


@pytest.mark.parametrize("said", ["{}", "[]", '{"spacing": [1, 1]}', '{"spacing": [1, 0, 1]}', "no json"])
def test_a_spacing_that_cannot_be_is_a_problem_of_its_image_alone(tmp_path: Path, said: str) -> None:
    tifffile.imwrite(tmp_path / "a.tiff", np.zeros(SHAPE, np.uint16))
    (tmp_path / "a.json").write_text(said)
    made, image = cases("Tiff3DIO", ".tiff"), Image("a", (tmp_path / "a.tiff",))
    assert made.needs(image, 1) is None
    found = made.prepare(image, tmp_path, None)
    assert isinstance(found, list)
    (problem,) = found
    assert problem.what.startswith("cannot be read") and problem.where == str(tmp_path / "a.tiff")


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_one_file_of_a_model_with_two_channels(tmp_path: Path, ending: str) -> None:
    made = cases("SimpleITKIO", ending, channels=2)
    both = tmp_path / "images" / f"both{ending}"
    both.parent.mkdir()
    whole = sitk.JoinSeries([sitk.GetImageFromArray(np.full(SHAPE, n, np.float32)) for n in (1, 2)])
    sitk.WriteImage(whole, str(both))
    voxels, _ = prepared(made, "both", both)
    assert voxels.shape == (2, *SHAPE) and voxels[1].min() == 2
    alone = write(np.zeros(SHAPE, np.float32), both.with_name(f"alone{ending}"))
    assert made.prepare(Image("alone", (alone,)), tmp_path, None) == [
        Problem("1 channels, the model takes 2", str(alone))
    ]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_the_segmentation_of_an_image_with_a_fourth_axis_lies_where_the_image_does(tmp_path: Path, ending: str) -> None:
    """As in a dataset whose images hold all their channels: the properties of training cases have four axes too."""
    space = {"spacing": (0.5, 0.6, 2.0), "origin": (3.0, 4.0, 5.0), "direction": MIRRORED}
    parts = [sitk.GetImageFromArray(np.full(SHAPE, n, np.float32)) for n in (1, 2)]
    for part in parts:
        for name, value in space.items():
            getattr(part, f"Set{name.title()}")(value)
    file = tmp_path / f"both{ending}"
    sitk.WriteImage(sitk.JoinSeries(parts), str(file))
    plans = plans_of([2.0, 0.6, 0.5])
    _, properties = plans.image_reader_writer_class().read_images([str(file)])
    properties |= {
        "shape_before_cropping": SHAPE,
        "bbox_used_for_cropping": [[0, n] for n in SHAPE],
        "shape_after_cropping_and_before_resampling": SHAPE,
    }
    logits = np.zeros((2, *SHAPE), np.float16)
    logits[1, 2:] = 1
    logits.tofile(tmp_path / "logits")
    stored = Stored(str(tmp_path / "logits"), logits.shape, logits.strides, 0)
    description = {"channel_names": {"0": "a", "1": "b"}, "labels": {"background": 0, "a": 1}, "file_ending": ending}
    (made,) = Cases(plans, plans.get_configuration("c"), description).export(stored, properties, tmp_path / "found")
    found = sitk.ReadImage(str(made))
    for name, value in space.items():
        assert getattr(found, f"Get{name.title()}")() == pytest.approx(value), name
    assert np.array_equal(sitk.GetArrayFromImage(found), logits[1].astype(np.uint8))


def test_what_nnunet_writes_beside_a_tiff_volume_is_kept(tmp_path: Path) -> None:
    plans = plans_of([1.0, 1.0, 1.0], image_reader_writer="Tiff3DIO")
    properties = {
        "spacing": [2.0, 0.4, 0.4],
        "shape_before_cropping": SHAPE,
        "bbox_used_for_cropping": [[0, n] for n in SHAPE],
        "shape_after_cropping_and_before_resampling": SHAPE,
    }
    np.zeros((2, *SHAPE), np.float16).tofile(tmp_path / "logits")
    stored = Stored(str(tmp_path / "logits"), (2, *SHAPE), np.zeros((2, *SHAPE), np.float16).strides, 0)
    description = {"channel_names": {"0": "a"}, "labels": {"background": 0, "a": 1}, "file_ending": ".tiff"}
    made = Cases(plans, plans.get_configuration("c"), description)
    made.write(Image("a", (tmp_path / "a.tiff",)), stored, properties, tmp_path, tmp_path / "out" / "a.tiff")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "a.tiff"]
    assert json.loads((tmp_path / "out" / "a.json").read_text())["spacing"] == [2.0, 0.4, 0.4]
