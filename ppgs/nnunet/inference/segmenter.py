"""Segments images with one or several trained folds, through nnU-Net's own preprocessing, sliding window and export.

Preprocessing of the next image and export of the last run beside the network. A segmentation appears under its name
only when it is whole.
"""

from __future__ import annotations

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
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from ppgs import upstream
from ppgs.errors import BadInput, DamagedRun, DatasetError, DiskFull, Problem, Problems
from ppgs.nnunet.checkpoints.files import load_checkpoint
from ppgs.nnunet.host.devices import choose_device, set_threads
from ppgs.nnunet.host.environment import cpu_count
from ppgs.nnunet.images.find import Image
from ppgs.nnunet.images.geometry import check_channels
from ppgs.nnunet.images.nifti import check_nifti, check_written
from ppgs.nnunet.inference.export import export
from ppgs.nnunet.network.precision import has_bfloat16, inference
from ppgs.nnunet.trainer.trainer import PpgsTrainer
from ppgs.outputs import remember
from ppgs.plans import parse_dataset, parse_plans, read_json
from ppgs.runs.disk_space import telling_full_disk

Report = Callable[[int, int], None]
_GO_ON = "make room, then the same command with --continue goes on"
_GET_ANEW = "truncated or damaged: get it anew"


@dataclass(frozen=True)
class Model:
    """A trained network with all that its inference depends on."""

    predictor: nnUNetPredictor
    plans: PlansManager
    setup: Any
    dataset_json: dict[str, Any]
    # Whether all of its weights were trained in bfloat16, in which they then predict on a GPU.
    bfloat16: bool = False


def load_model(folder: Path, checkpoints: list[Path], device: str, *, mirroring: bool, step_size: float) -> Model:
    """The model of a folder with the weights of one or several folds, whose outputs are averaged.

    Raises `NoCheckpoint`, `DamagedRun`, `DeviceError`.
    """
    chosen = choose_device(device)
    set_threads(chosen)
    dataset_json = read_json(folder / "dataset.json")
    raw = read_json(folder / "plans.json")
    # Before nnU-Net imports what they name.
    parse_plans(raw, folder / "plans.json")
    plans = PlansManager(raw)
    contents = [load_checkpoint(path) for path in checkpoints]
    first = contents[0]
    setup = plans.get_configuration(first["init_args"]["configuration"])
    network = PpgsTrainer.build_network_architecture(
        plans,
        setup,
        determine_num_input_channels(plans, setup, dataset_json),
        plans.get_label_manager(dataset_json).num_segmentation_heads,
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
    predictor = nnUNetPredictor(tile_step_size=step_size, use_mirroring=mirroring, device=chosen, allow_tqdm=False)
    predictor.manual_initialization(
        network,
        plans,
        setup,
        weights,
        dataset_json,
        first["trainer_name"],
        first["inference_allowed_mirroring_axes"],
    )
    bfloat16 = has_bfloat16(chosen) and all(_own(content).get("bfloat16", False) for content in contents)
    return Model(predictor, plans, setup, dataset_json, bfloat16)


def _own(content: dict[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint that nnU-Net's own do not have."""
    found = content.get("ppgs")
    return found if isinstance(found, dict) else {}


class Segmenter:
    """Segments images with a model; a cascade's second stage after its first one, or beside a folder of its results."""

    def __init__(
        self,
        model: Model,
        *,
        previous: Segmenter | Path | None = None,
        probabilities: bool = False,
        in_voxel_order: bool = False,
    ) -> None:
        """`previous` is a cascade's first stage; `probabilities` writes them too (`.npz`), as ensembling needs them.

        `in_voxel_order` accepts channels that lie apart, as a training with `--geometry voxel` does.
        """
        self._in_voxel_order = in_voxel_order
        self._model = model
        self._previous = previous
        self._probabilities = probabilities
        self._preprocessor = model.setup.preprocessor_class(verbose=False)
        self._info = parse_dataset(model.dataset_json)

    def run(self, outputs: dict[Image, Path], folder: Path, *, report: Report) -> list[Path]:
        """Segment every image into its file in `folder`, which is made where it is missing; return the files written.

        Existing files are replaced: what may be is the caller's business (`ppgs.outputs`). Raises `DatasetError` naming
        images that cannot be read, lie apart from their other channels or have other channels than the model, after
        all others are done.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".ppgs-part-", dir=folder))
        except OSError as problem:
            if (full := DiskFull.of(problem, folder)) is not None:
                raise full.with_remedy(_GO_ON) from None
            raise BadInput(f"the output folder cannot be written: {problem.strerror}", folder) from None
        try:
            with telling_full_disk(folder, _GO_ON):
                return self._run(outputs, staging, report)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _run(self, outputs: dict[Image, Path], staging: Path, report: Report) -> list[Path]:
        previous, problems = self._previous, Problems()
        if isinstance(previous, Segmenter):
            first = staging / "previous"
            first.mkdir()
            total = 2 * len(outputs)
            between = {image: first / f"{image.name}{self._info.file_ending}" for image in outputs}
            problems = previous._segment(between, staging, None, lambda done, _: report(done, total))
            previous, whole = first, report
            outputs = {image: path for image, path in outputs.items() if between[image].is_file()}

            def report(done: int, of: int) -> None:
                whole(total - of + done, total)

        problems.found += self._segment(outputs, staging, previous, report).found
        problems.raise_as(DatasetError, f"{len(problems.found)} images could not be segmented")
        return list(outputs.values())

    def _segment(self, outputs: dict[Image, Path], staging: Path, previous: Path | None, report: Report) -> Problems:
        """Segment what can be; returns what could not."""
        problems, images, predictor = Problems(), list(outputs), self._model.predictor
        with ThreadPoolExecutor(1) as before, ThreadPoolExecutor(1) as after:
            ready: list[Future[Any]] = [before.submit(self._load, image, staging, previous) for image in images[:2]]
            exports: list[Future[None]] = []
            for number, image in enumerate(images):
                loaded = ready[number].result()
                if number + 2 < len(images):
                    ready.append(before.submit(self._load, images[number + 2], staging, previous))
                ready[number] = None  # type: ignore[call-overload]  # the voxels are not needed any more
                if isinstance(loaded, list):
                    problems.found += loaded
                else:
                    data, properties = loaded
                    with inference(predictor.device, bfloat16=self._model.bfloat16):
                        logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
                    exports.append(after.submit(self._export, logits, properties, staging / image.name, outputs[image]))
                    if len(exports) > 1:
                        exports[-2].result()
                report(number + 1, len(images))
            for export in exports:
                export.result()
        return problems

    def _load(self, image: Image, staging: Path, previous: Path | None) -> tuple[Any, dict[str, Any]] | list[Problem]:
        """The preprocessed voxels and nnU-Net's properties of an image, or what is wrong with it."""
        plans = self._model.plans
        reader = plans.image_reader_writer_class()
        expected = len(self._info.channels)
        if damaged := [problem for file in image.files if (problem := check_nifti(file)) is not None]:
            return damaged
        if misplaced := check_channels(image.files, type(reader).__name__, in_voxel_order=self._in_voxel_order):
            return misplaced
        try:
            if len(image.files) == 1 and expected > 1 and self._info.file_ending not in upstream.PICTURES:
                with tempfile.TemporaryDirectory(dir=staging) as parts, telling_full_disk(staging, _GO_ON):
                    split_4d_nifti(str(image.files[0]), parts)
                    files = sorted(Path(parts).iterdir())
                    check_written(*files)
                    voxels, properties = reader.read_images([str(f) for f in files])
            else:
                voxels, properties = reader.read_images([str(f) for f in image.files])
        except DiskFull:
            raise
        except Exception as error:  # every reader raises its own kinds
            return [Problem(f"cannot be read: {_reason(error)}", str(image.files[0]), _GET_ANEW)]
        if len(voxels) != expected:
            return [Problem(f"{len(voxels)} channels, the model takes {expected}", str(image.files[0]))]
        if not np.isfinite(voxels).all():
            return [Problem("NaN or infinite voxels", str(image.files[0]), "replace them by finite values")]
        first_stage = None
        if previous is not None:
            path = previous / f"{image.name}{self._info.file_ending}"
            if not path.is_file():
                return [
                    Problem("the previous stage's segmentation is missing", str(path), "segment this image with it")
                ]
            try:
                first_stage, _ = reader.read_seg(str(path))
            except Exception as error:
                return [Problem(f"cannot be read: {_reason(error)}", str(path), _GET_ANEW)]
            if first_stage.shape[1:] != voxels.shape[1:]:
                return [Problem("the previous stage's segmentation has another shape than the image", str(path))]
        data, labels, properties = self._preprocessor.run_case_npy(
            voxels, first_stage, properties, plans, self._model.setup, self._model.dataset_json
        )
        if first_stage is not None:
            foreground = plans.get_label_manager(self._model.dataset_json).foreground_labels
            data = np.vstack((data, convert_labelmap_to_one_hot(labels[0], foreground, data.dtype)))
        return data, properties

    def _export(self, logits: torch.Tensor, properties: dict[str, Any], staged: Path, output: Path) -> None:
        model, ending = self._model, self._info.file_ending
        export(
            logits,
            properties,
            model.plans,
            model.setup,
            model.dataset_json,
            str(staged),
            probabilities=self._probabilities,
            threads=cpu_count(),
        )
        # The segmentation comes last: where it is, the probabilities and their properties are too.
        kinds = (*((".npz", ".pkl") if self._probabilities else ()), ending)
        made = [staged.with_name(f"{staged.name}{kind}") for kind in kinds]
        check_written(*made)
        written = [output.with_name(f"{output.name.removesuffix(ending)}{kind}") for kind in kinds]
        for staged_file, path in zip(made, written, strict=True):
            staged_file.replace(path)
        remember(*written)


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[-1][-160:] if text else type(error).__name__
