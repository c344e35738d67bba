"""Segments images with one or several trained folds, through nnU-Net's own preprocessing, sliding window and export.

Preprocessing of the next image and export of the last run beside the network. A segmentation appears under its name
only when it is whole.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.dataset_conversion.convert_MSD_dataset import split_4d_nifti
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from ppgs.errors import BadInput, DamagedRun, DatasetError, Problem, Problems
from ppgs.nnunet.checkpoints import load_checkpoint
from ppgs.nnunet.devices import choose_device
from ppgs.nnunet.nifti import check_nifti
from ppgs.nnunet.trainer import set_threads
from ppgs.plans import parse_dataset, parse_plans, read_json

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Image:
    """One image to segment: its name without ending, its channel files in order, or one file that holds them all."""

    name: str
    files: tuple[Path, ...]


def find_images(source: Path, channels: int, ending: str) -> list[Image]:
    """The images of a folder, or one image file, in nnU-Net's naming (`name_0000`) or the Decathlon's (`name`).

    Raises `DatasetError` when there are none, or an image lacks channels.
    """
    if source.is_file():
        if not source.name.endswith(ending):
            raise DatasetError(f"the model reads {ending} files", source)
        files = [source]
        match = re.fullmatch(rf"(.+)_\d{{4}}{re.escape(ending)}", source.name)
        if match is not None and channels > 1:
            files = sorted(source.parent.glob(f"{match[1]}_????{ending}"))
    else:
        files = sorted(p for p in source.glob(f"*{ending}") if not p.name.startswith("."))
    if not files:
        raise DatasetError(f"there are no {ending} images", source)
    groups: dict[str, dict[int, Path]] = {}
    plain: list[Image] = []
    for file in files:
        match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", file.name)
        if match is not None:
            groups.setdefault(match[1], {})[int(match[2])] = file
        else:
            plain.append(Image(file.name.removesuffix(ending), (file,)))
    numbered = all(sorted(found) == list(range(len(found))) for found in groups.values())
    if not numbered and channels == 1:
        # Four digits at the end that are no channel number: part of the image's own name.
        return [Image(f.name.removesuffix(ending), (f,)) for f in files]
    problems = Problems()
    for name, found in groups.items():
        if sorted(found) != list(range(channels)):
            have = ", ".join(f"{c:04d}" for c in sorted(found))
            problems.add(f"{name} has channels {have}; the model takes {channels} (0000 to {channels - 1:04d})", source)
    problems.raise_as(DatasetError, f"{len(problems.found)} images do not have the model's channels")
    images = plain + [Image(n, tuple(found[c] for c in sorted(found))) for n, found in groups.items()]
    return sorted(images, key=lambda image: image.name)


class Segmenter:
    """A trained model, ready to segment."""

    def __init__(self, model: Path, checkpoints: list[Path], device: str, *, mirroring: bool, step_size: float) -> None:
        self._device = choose_device(device)
        set_threads(self._device)
        self._dataset_json = read_json(model / "dataset.json")
        plans = read_json(model / "plans.json")
        # Before nnU-Net imports what they name.
        parse_plans(plans, model / "plans.json")
        self._plans = PlansManager(plans)
        contents = [load_checkpoint(path) for path in checkpoints]
        first = contents[0]
        self._setup = self._plans.get_configuration(first["init_args"]["configuration"])
        if self._setup.previous_stage_name is not None:
            raise BadInput(
                "a cascade's second stage needs the first stage's segmentations", model, "use nnUNetv2_predict for it"
            )
        network = nnUNetTrainer.build_network_architecture(
            self._plans,
            self._setup,
            determine_num_input_channels(self._plans, self._setup, self._dataset_json),
            self._plans.get_label_manager(self._dataset_json).num_segmentation_heads,
            enable_deep_supervision=False,
        )
        weights = [content["network_weights"] for content in contents]
        for path, parameters in zip(checkpoints, weights, strict=True):
            try:
                network.load_state_dict(parameters)
            except RuntimeError:
                raise DamagedRun(
                    "the checkpoint's weights are not those of this model's network", path, "restore plans.json"
                ) from None
        self._predictor = nnUNetPredictor(
            tile_step_size=step_size, use_mirroring=mirroring, device=self._device, allow_tqdm=False
        )
        self._predictor.manual_initialization(
            network,
            self._plans,
            self._setup,
            weights,
            self._dataset_json,
            first["trainer_name"],
            first["inference_allowed_mirroring_axes"],
        )
        self._preprocessor = self._setup.preprocessor_class(verbose=False)
        self._info = parse_dataset(self._dataset_json)

    def run(self, source: Path, target: Path, *, overwrite: bool, report: Report) -> list[Path]:
        """Segment all images of `source` into `target` (a folder, or a file for a single image).

        Returns the files written. Raises `DatasetError` naming images that cannot be read or have other channels than
        the model, after all others are done.
        """
        ending = self._info.file_ending
        images = find_images(source, len(self._info.channels), ending)
        if target.name.endswith(ending):
            if len(images) > 1:
                raise BadInput("the output is one file, the input several images", target, "give a folder")
            outputs = {images[0]: target}
        else:
            outputs = {image: target / f"{image.name}{ending}" for image in images}
        if not overwrite:
            outputs = {image: path for image, path in outputs.items() if not path.is_file()}
        folder = target.parent if target.name.endswith(ending) else target
        try:
            folder.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".ppgs-part-", dir=folder))
        except OSError as problem:
            raise BadInput(f"the output folder cannot be written: {problem.strerror}", folder) from None
        try:
            return self._run(outputs, staging, report)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _run(self, outputs: dict[Image, Path], staging: Path, report: Report) -> list[Path]:
        problems, written, images = Problems(), [], list(outputs)
        with ThreadPoolExecutor(1) as before, ThreadPoolExecutor(1) as after:
            ready: list[Future[Any]] = [before.submit(self._load, image, staging) for image in images[:2]]
            exports: list[tuple[Path, Future[None]]] = []
            for number, image in enumerate(images):
                loaded = ready[number].result()
                if number + 2 < len(images):
                    ready.append(before.submit(self._load, images[number + 2], staging))
                ready[number] = None  # type: ignore[call-overload]  # the voxels are not needed any more
                if isinstance(loaded, Problem):
                    problems.found.append(loaded)
                else:
                    data, properties = loaded
                    logits = self._predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
                    exports.append(
                        (
                            outputs[image],
                            after.submit(self._export, logits, properties, staging / image.name, outputs[image]),
                        )
                    )
                    if len(exports) > 1:
                        exports[-2][1].result()
                report(number + 1, len(images))
            for path, export in exports:
                export.result()
                written.append(path)
        problems.raise_as(DatasetError, f"{len(problems.found)} images could not be segmented")
        return written

    def _load(self, image: Image, staging: Path) -> tuple[Any, dict[str, Any]] | Problem:
        reader = self._plans.image_reader_writer_class()
        expected = len(self._info.channels)
        for file in image.files:
            if (problem := check_nifti(file)) is not None:
                return problem
        try:
            files = image.files
            if len(files) == 1 and expected > 1:
                parts = staging / f"{image.name}-channels"
                parts.mkdir()
                split_4d_nifti(str(files[0]), str(parts))
                files = tuple(sorted(parts.iterdir()))
            voxels, properties = reader.read_images([str(f) for f in files])
        except Exception as error:  # every reader raises its own kinds
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            return Problem(f"cannot be read: {reason[-160:]}", str(image.files[0]), "truncated or damaged: get it anew")
        if len(voxels) != expected:
            return Problem(f"{len(voxels)} channels, the model takes {expected}", str(image.files[0]))
        if not np.isfinite(voxels).all():
            return Problem("NaN or infinite voxels", str(image.files[0]), "replace them by finite values")
        data, _, properties = self._preprocessor.run_case_npy(
            voxels, None, properties, self._plans, self._setup, self._dataset_json
        )
        return data, properties

    def _export(self, logits: torch.Tensor, properties: dict[str, Any], staged: Path, output: Path) -> None:
        export_prediction_from_logits(
            logits, properties, self._setup, self._plans, self._dataset_json, str(staged), False
        )
        staged.with_name(f"{staged.name}{self._info.file_ending}").replace(output)
