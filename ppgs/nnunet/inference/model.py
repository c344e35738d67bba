"""A trained model with everything its inference depends on, from its folder and checkpoints of its folds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from ppgs.errors import BadInput, DamagedRun, RunError
from ppgs.nnunet.checkpoints.files import load_checkpoint
from ppgs.nnunet.host.devices import choose_device, set_threads
from ppgs.nnunet.inference.window import Predictor
from ppgs.nnunet.network.precision import has_bfloat16
from ppgs.nnunet.trainer.compose import builder, find_trainer
from ppgs.plans import parse_plans, read_json
from ppgs.trainers import EXTERNAL


@dataclass(frozen=True)
class Model:
    """A trained network with everything its inference depends on."""

    predictor: Predictor
    plans: PlansManager
    setup: Any
    dataset_json: dict[str, Any]
    # Whether all of its weights were trained in bfloat16, in which they then predict on a GPU.
    bfloat16: bool = False


def load_model(
    folder: Path, checkpoints: list[Path], device: str, *, mirroring: bool, step_size: float, processes: int = 1
) -> Model:
    """Load the model of a folder with the weights of one or several folds, whose outputs are averaged.

    `processes` is how many share the CPUs. Raises `DeviceError`, and `RunError` for a model that cannot be
    used.
    """
    chosen = choose_device(device)
    set_threads(chosen, processes)
    dataset_json = read_json(folder / "dataset.json")
    raw = read_json(folder / "plans.json")
    # Before nnU-Net imports what they name.
    parse_plans(raw, folder / "plans.json")
    plans = PlansManager(raw)
    contents = [load_checkpoint(path) for path in checkpoints]
    first = contents[0]
    setup = plans.get_configuration(first["init_args"]["configuration"])
    network = builder(_trainer(first, checkpoints[0]))(
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
    predictor = Predictor(tile_step_size=step_size, use_mirroring=mirroring, device=chosen, allow_tqdm=False)
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
    """Return ppgs's part of a checkpoint, which nnU-Net's own lack."""
    found = content.get("ppgs")
    return found if isinstance(found, dict) else {}


def _trainer(content: dict[str, Any], checkpoint: Path) -> Any:
    """Return the class that builds the network: nnU-Net's plain one if a lab's class is missing that builds the same.

    Raises `RunError` if the missing class builds, or may build, another network from the same weights.
    """
    name = str(content["trainer_name"])
    try:
        return find_trainer(name)
    except BadInput as error:
        if _own(content).get("own_network") is False:
            return nnUNetTrainer
        problem, built = error.problems[0], "is" if "own_network" in _own(content) else "may be"
        remedy = f"set the environment variable {EXTERNAL} to the folder of the class, as in the training"
        if problem.where != "--trainer":  # the class is there, but cannot be used
            remedy = f"{problem.where}: {problem.remedy}"
        raise RunError(
            f"this model's network {built} built by its trainer class {name}: {problem.what}", checkpoint, remedy
        ) from None
