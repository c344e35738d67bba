"""One image before and after the network: nnU-Net's preprocessing, and its export. Runs in worker processes."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.dataset_conversion.convert_MSD_dataset import split_4d_nifti
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from ppgs import upstream
from ppgs.errors import DiskFull, PpgsError, Problem
from ppgs.formatting import last_line
from ppgs.nnunet.host.devices import keep_to_one_thread
from ppgs.nnunet.images.find import Image, kinds_beside
from ppgs.nnunet.images.geometry import check_channels, itk_header
from ppgs.nnunet.images.nifti import check_nifti, check_written
from ppgs.nnunet.inference.export import export, streams
from ppgs.nnunet.inference.memory import Needs, needs_of
from ppgs.nnunet.inference.window import Stored
from ppgs.outputs import remember
from ppgs.plans import parse_dataset
from ppgs.runs.disk_space import telling_full_disk
from ppgs.tiff import read_spacing

GO_ON = "make room, then run the same command with --continue"
_GET_ANEW = "truncated or damaged: get it again"


@dataclass
class Cases:
    """Reads, preprocesses and writes images as a model requires; `threads` and `abreast` are those of `export`."""

    plans: PlansManager
    setup: Any
    dataset_json: dict[str, Any]
    in_voxel_order: bool = False
    probabilities: bool = False
    threads: int = 1
    abreast: int = 1

    def __post_init__(self) -> None:
        self.info = parse_dataset(self.dataset_json)

    def needs(self, image: Image, folds: int) -> Needs | None:
        """Return what an image needs by its header; None if the header is unreadable or the need always small."""
        if self.info.file_ending in upstream.PICTURES:
            return None
        try:
            header = itk_header(image.files[0])
        except RuntimeError:
            return None
        shape, spacing = list(header.GetSize()[:3]), [abs(s) or 1.0 for s in header.GetSpacing()[:3]]
        shape, spacing = [1] * (3 - len(shape)) + shape[::-1], [1.0] * (3 - len(spacing)) + spacing[::-1]
        if self._reader == "Tiff3DIO":
            try:
                spacing = _tiff_spacing(image)
            except (OSError, ValueError):
                return None
        labels = self.plans.get_label_manager(self.dataset_json)
        return needs_of(
            shape,
            spacing,
            self.plans,
            self.setup,
            heads=labels.num_segmentation_heads,
            channels=len(self.info.channels),
            folds=folds,
            together=self.probabilities or not streams(self.plans, self.setup, self.dataset_json),
            labels=len(labels.foreground_labels) if self.setup.previous_stage_name is not None else 0,
        )

    def prepare(self, image: Image, staging: Path, previous: Path | None) -> tuple[Any, dict[str, Any]] | list[Problem]:
        """Return the preprocessed voxels and nnU-Net's properties of an image, or its problem."""
        plans = self.plans
        reader = plans.image_reader_writer_class()
        expected = len(self.info.channels)
        if damaged := [problem for file in image.files if (problem := check_nifti(file)) is not None]:
            return damaged
        if misplaced := check_channels(image.files, self._reader, in_voxel_order=self.in_voxel_order):
            return misplaced
        try:
            with self._as_read(image, staging) as files:
                voxels, properties = reader.read_images([str(f) for f in files])
            if self._reader == "Tiff3DIO":
                properties["spacing"] = _tiff_spacing(image)
        except DiskFull:
            raise
        except Exception as error:  # every reader raises its own kinds
            return [Problem(f"cannot be read: {last_line(error)}", str(image.files[0]), _GET_ANEW)]
        if len(voxels) != expected:
            return [Problem(f"{len(voxels)} channels, the model takes {expected}", str(image.files[0]))]
        if not np.isfinite(voxels).all():
            return [Problem("NaN or infinite voxels", str(image.files[0]), "replace them by finite values")]
        first_stage = None
        if previous is not None:
            path = previous / f"{image.name}{self.info.file_ending}"
            if not path.is_file():
                return [
                    Problem("the previous stage's segmentation is missing", str(path), "segment this image with it")
                ]
            try:
                first_stage, _ = reader.read_seg(str(path))
            except Exception as error:
                return [Problem(f"cannot be read: {last_line(error)}", str(path), _GET_ANEW)]
            if first_stage.shape[1:] != voxels.shape[1:]:
                return [Problem("the previous stage's segmentation has another shape than the image", str(path))]
        try:
            data, labels, properties = self.setup.preprocessor_class(verbose=False).run_case_npy(
                voxels, first_stage, properties, plans, self.setup, self.dataset_json
            )
        except MemoryError:
            raise
        except Exception as error:  # nnU-Net's preprocessing was written for images that are as they should be
            return [Problem(f"cannot be preprocessed: {last_line(error)}", str(image.files[0]), "look at the image")]
        if first_stage is not None:
            foreground = plans.get_label_manager(self.dataset_json).foreground_labels
            data = np.vstack((data, convert_labelmap_to_one_hot(labels[0], foreground, data.dtype)))
        return data, properties

    @property
    def _reader(self) -> str:
        return str(self.plans.image_reader_writer_class.__name__)

    @contextmanager
    def _as_read(self, image: Image, staging: Path) -> Iterator[list[Path]]:
        """Give the files of an image as the model's reader needs them; what is made of them is gone afterwards."""
        is_alone = len(image.files) == 1 and len(self.info.channels) > 1
        if not is_alone or self.info.file_ending in upstream.PICTURES or _axes(image.files[0]) != 4:
            yield list(image.files)
            return
        with tempfile.TemporaryDirectory(dir=staging) as parts, telling_full_disk(staging, GO_ON):
            split_4d_nifti(str(image.files[0]), parts)
            files = sorted(Path(parts).iterdir())
            check_written(*files)
            yield files

    def write(self, image: Image, logits: Stored, properties: dict[str, Any], staging: Path, output: Path) -> None:
        """Write an image's segmentation; it appears under its name only when complete."""
        staged, ending = staging / image.name, self.info.file_ending
        staged.parent.mkdir(parents=True, exist_ok=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        with telling_full_disk(staging, GO_ON):
            made = self.export(logits, properties, staged)
        name = output.name.removesuffix(ending)
        written = [output.with_name(f"{name}{file.name.removeprefix(staged.name)}") for file in made]
        for staged_file, path in zip(made, written, strict=True):
            staged_file.replace(path)
        remember(*written)

    def export(self, logits: Stored, properties: dict[str, Any], truncated: Path) -> list[Path]:
        """Write a segmentation to `truncated` plus endings; return all files, which are complete."""
        export(
            logits,
            _in_space(properties),
            self.plans,
            self.setup,
            self.dataset_json,
            str(truncated),
            probabilities=self.probabilities,
            threads=self.threads,
            abreast=self.abreast,
        )
        # The segmentation comes last: where it is, the probabilities and their properties are too.
        kinds = (*kinds_beside(self._reader, probabilities=self.probabilities), self.info.file_ending)
        made = [truncated.with_name(f"{truncated.name}{kind}") for kind in kinds]
        check_written(*made)
        return made


def _in_space(properties: dict[str, Any]) -> dict[str, Any]:
    """Return nnU-Net's properties with the three axes of space, where the image's file had its channels as a fourth."""
    known = properties.get("sitk_stuff")
    if known is None or len(known["spacing"]) <= 3:
        return properties
    axes = len(known["spacing"])
    turn = np.reshape(known["direction"], (axes, axes))[:3, :3]
    told = {"spacing": known["spacing"][:3], "origin": known["origin"][:3], "direction": tuple(turn.ravel().tolist())}
    return {**properties, "sitk_stuff": {**known, **told}}


def _axes(file: Path) -> int:
    """Return the number of axes that a file's header names; 0 if it cannot be read."""
    try:
        return int(itk_header(file).GetDimension())
    except RuntimeError:
        return 0


def _tiff_spacing(image: Image) -> list[float]:
    """Return the spacing (z, y, x) of a TIFF volume: that of the file beside it, as in training, else 1.

    nnU-Net's reader knows the file under one name only, where training data may have it under the volume's or the
    image's. Raises OSError and ValueError.
    """
    first = image.files[0]
    named = (first.with_name(f"{name}.json") for name in (first.stem, Path(image.name).name))
    file = next((path for path in named if path.is_file()), None)
    return [1.0] * 3 if file is None else list(read_spacing(file))


# State of a worker's process.
_cases: Cases | None = None


def start_worker(cases: Cases) -> None:
    """Set up a worker's process."""
    global _cases
    _cases = cases
    be_quiet_worker()


def be_quiet_worker() -> None:
    """Use one PyTorch thread and silence nnU-Net's prints."""
    keep_to_one_thread()
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123


def prepare(image: Image, staging: Path, previous: Path | None) -> tuple[Any, float]:
    """Run `Cases.prepare` in a worker; return its result and the seconds taken."""
    assert _cases is not None
    begun = time.monotonic()
    return _cases.prepare(image, staging, previous), time.monotonic() - begun


def write(
    image: Image, logits: Stored, properties: dict[str, Any], staging: Path, output: Path
) -> tuple[float, Problem | None]:
    """Run `Cases.write` in a worker; return the seconds taken and the image's problems."""
    assert _cases is not None
    begun, problem = time.monotonic(), None
    try:
        _cases.write(image, logits, properties, staging, output)
    except (PpgsError, MemoryError, OSError):
        raise
    except Exception as error:  # every library raises its own kinds
        problem = Problem(f"its segmentation cannot be written: {last_line(error)}", str(image.files[0]))
    return time.monotonic() - begun, problem
