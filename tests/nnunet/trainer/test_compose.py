"""The curriculum on top of other trainer classes: their parts are kept, exactness is too."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.optim.lr_scheduler import CosineAnnealingLR

from ppgs.errors import BadInput
from ppgs.imports import BrokenInstallation
from ppgs.nnunet.data.keys import BatchKey, Oversampling
from ppgs.nnunet.trainer.compose import compose, find_trainer
from ppgs.nnunet.trainer.loading import oversampling_of, pipeline_of
from ppgs.nnunet.trainer.trainer import PpgsTrainer
from ppgs.schedule import Recipe
from ppgs.trainers import EXTERNAL, REFUSED
from tests.helpers.trainers import equal, weights

TWO = Recipe(mode="constant", epochs=2, iterations_per_epoch=2, validation={"iterations": 1})  # type: ignore[arg-type]


def dice_alone(trainer: Any) -> bool:
    return isinstance(trainer.loss.loss, MemoryEfficientSoftDiceLoss)


def transforms_of(trainer: Any) -> list[str]:
    pipeline = pipeline_of(trainer, batchwise=True)
    return [type(part).__name__ for part in pipeline.training_transforms((16, 16, 16)).transforms]


# What is to be found in the trainer that is built, where it is one of this class.
KEPT = {
    "nnUNetTrainerDiceLoss": dice_alone,
    "nnUNetTrainerAdam3en4": lambda t: isinstance(t.optimizer, torch.optim.AdamW) and t.initial_lr == 3e-4,
    "nnUNetTrainerCosAnneal": lambda t: isinstance(t.lr_scheduler._scheduler, CosineAnnealingLR),
    "nnUNetTrainerNoDeepSupervision": lambda t: (
        not t.enable_deep_supervision and t._get_deep_supervision_scales() is None
    ),
    "nnUNetTrainerBN": lambda t: any(isinstance(m, torch.nn.BatchNorm3d) for m in t.network.modules()),
    "nnUNetTrainerNoMirroring": lambda t: (
        t.inference_allowed_mirroring_axes is None and "MirrorTransform" not in transforms_of(t)
    ),
    "nnUNetTrainerNoDA": lambda t: (
        "SpatialTransform" not in transforms_of(t) or pipeline_of(t, batchwise=True).rotation is None
    ),
    "nnUNetTrainerDA5": lambda t: not t._batchwise,
    "nnUNetTrainer_probabilisticOversampling_010": lambda t: oversampling_of(t) == Oversampling(0.1, random=True),
    "nnUNetTrainer_2000epochs_NoMirroring": lambda t: t.num_epochs == 2,
}


@pytest.mark.parametrize("name", KEPT)
def test_it_trains_and_keeps_what_is_the_trainers(build: Any, name: str) -> None:
    said: list[str] = []
    trainer = build(TWO, name=name, emit=lambda kind, **fields: said.append(fields.get("message", kind)))
    assert isinstance(trainer, PpgsTrainer)
    assert KEPT[name](trainer)
    assert any("sample by sample" in message for message in said) == (not trainer._batchwise)
    before = weights(trainer)
    trainer.run_training()
    assert said.count("epoch_finished") == 2
    assert not equal(weights(trainer), before)
    assert trainer._content(2, 0)["trainer_name"] == name


@pytest.mark.parametrize(
    ("name", "final", "small"),
    [
        # Nothing is rotated or scaled.
        ("nnUNetTrainerNoDA", (32, 32, 32), (8, 8, 8)),
        # Scaled more than by nnU-Net's plain trainer.
        ("nnUNetTrainerDA5", None, None),
        ("nnUNetTrainerNoMirroring", "plain", "plain"),
    ],
)
def test_as_much_is_cropped_as_the_trainer_does(build: Any, name: str, final: Any, small: Any) -> None:
    pipeline, plain = (pipeline_of(build(TWO, name=n), batchwise=True) for n in (name, "nnUNetTrainer"))
    for patch, expected in (((32, 32, 32), final), ((8, 8, 8), small)):
        found, usual = pipeline.crop_size(patch), plain.crop_size(patch)
        assert (found == (usual if expected == "plain" else expected)) if expected else (np.array(found) > usual).all()


def test_a_method_that_the_curriculum_would_hide_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hiding.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class Hiding(nnUNetTrainer):\n    def close(self):\n        pass\n"
    )
    monkeypatch.setenv(EXTERNAL, str(tmp_path))
    with pytest.raises(BadInput) as refused:
        compose("label", PpgsTrainer, "Hiding")
    assert refused.value.problems[0].where == "Hiding.close"


def test_an_annotated_attribute_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "annotated.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class Annotated(nnUNetTrainer):\n    alpha: float = 0.5\n"
    )
    monkeypatch.setenv(EXTERNAL, str(tmp_path))
    assert compose("label", PpgsTrainer, "Annotated").alpha == 0.5


def test_a_network_that_is_built_by_nnunets_former_signature(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "former.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "from nnunetv2.utilities.get_network_from_plans import get_network_from_plans\n"
        "class Former(nnUNetTrainer):\n"
        "    @staticmethod\n"
        "    def build_network_architecture(architecture_class_name, arch_init_kwargs, arch_init_kwargs_req_import,\n"
        "                                   num_input_channels, num_output_channels, enable_deep_supervision=True):\n"
        "        kwargs = {**arch_init_kwargs, 'n_conv_per_stage': [1] * len(arch_init_kwargs['n_conv_per_stage'])}\n"
        "        return get_network_from_plans(architecture_class_name, kwargs, arch_init_kwargs_req_import,\n"
        "            num_input_channels, num_output_channels, True, enable_deep_supervision)\n"
    )
    monkeypatch.setenv(EXTERNAL, str(tmp_path))
    ours, plain = build(TWO, name="Former"), build(TWO)
    assert len(weights(ours)) < len(weights(plain))
    ours.run_training()


@pytest.mark.parametrize("failure", ["", "AssertionError", "torch.OutOfMemoryError"])
def test_a_network_that_needs_larger_patches_than_the_first_stages(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    raised = f"if x.shape[-1] < 16:\n            raise {failure}()\n        " if failure else ""
    (tmp_path / f"larger{len(failure)}.py").write_text(
        "import torch\n"
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class Coarse(torch.nn.Conv3d):\n"
        "    def __init__(self, channels):\n        super().__init__(channels, channels, 16, stride=16)\n"
        f"    def forward(self, x):\n        {raised}return x + super().forward(x).mean()\n"
        f"class Larger{len(failure)}(nnUNetTrainer):\n"
        "    @staticmethod\n"
        "    def build_network_architecture(plans_manager, configuration_manager, num_input_channels, *rest):\n"
        "        network = nnUNetTrainer.build_network_architecture(\n"
        "            plans_manager, configuration_manager, num_input_channels, *rest)\n"
        "        network.encoder.stages[0].insert(0, Coarse(num_input_channels))\n"
        "        return network\n"
    )
    monkeypatch.setenv(EXTERNAL, str(tmp_path))
    name = f"Larger{len(failure)}"
    growing = Recipe(epochs=10, iterations_per_epoch=1)
    if failure == "torch.OutOfMemoryError":
        with pytest.raises(torch.OutOfMemoryError):
            build(growing, name=name)
        return
    with pytest.raises(BadInput, match=f"the network of {name} fails on the patch 8x8x8 of stage 1: ") as refused:
        build(growing, name=name)
    assert "--schedule constant" in refused.value.problems[0].remedy
    build(TWO, name=name).run_training()


def test_the_check_of_the_patches_leaves_no_trace(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    forward = torch.nn.BatchNorm3d.forward

    def seeing(self: Any, x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape)
        return forward(self, x)

    monkeypatch.setattr(torch.nn.BatchNorm3d, "forward", seeing)
    trainer = build(Recipe(epochs=10, iterations_per_epoch=1), name="nnUNetTrainerBN")
    norms = [m for m in trainer.network.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    means = [norm.running_mean for norm in norms if norm.running_mean is not None]
    assert seen and means and not any(mean.any() for mean in means)
    assert all(module.training for module in trainer.network.modules())


@pytest.mark.parametrize("axes", [(), (0,)])
def test_mirroring_is_chosen_for_a_trainer_that_mirrors_nothing(build: Any, axes: tuple[int, ...]) -> None:
    trainer = build(TWO.model_copy(update={"mirroring": axes}), name="nnUNetTrainerNoMirroring")
    assert trainer.inference_allowed_mirroring_axes is None
    assert not pipeline_of(trainer, batchwise=True).mirror_axes


def test_validation_draws_foreground_as_the_trainer_does(build: Any) -> None:
    for name, share, random in (
        ("nnUNetTrainer", 0.33, False),
        ("nnUNetTrainer_probabilisticOversampling_010", 0.1, True),
    ):
        trainer = build(TWO, name=name)
        trainer.get_dataloaders()
        key = trainer._keys.validation_key(0, 0)
        assert (key.foreground_share, key.random_foreground) == (share, random)
        trainer.close()


@pytest.mark.parametrize(
    "name", ["nnUNetTrainerAdam", "nnUNetTrainerDA5", "nnUNetTrainer_probabilisticOversampling_033"]
)
def test_a_stop_within_an_epoch_changes_no_bit(build: Any, name: str) -> None:
    whole = build(TWO, name=name, seed=3)
    whole.run_training()
    first = build(TWO, name=name, seed=3)
    first.on_train_start()
    first.on_epoch_start()
    first.on_train_epoch_start()
    first.train_step(next(first.dataloader_train))
    content = first._content(first.current_epoch, len(first._losses))
    second = build(TWO, name=name, seed=3)
    second.restore(content, Path("checkpoint"))
    second.run_training()
    assert equal(weights(second), weights(whole))


def test_a_labs_own_trainer(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "ours.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerDiceLoss import nnUNetTrainerDiceLoss\n"
        "class OurTrainer(nnUNetTrainerDiceLoss):\n"
        "    def __init__(self, plans, configuration, fold, dataset_json, device):\n"
        "        super().__init__(plans, configuration, fold, dataset_json, device)\n"
        "        self.initial_lr = 0.5\n"
    )
    monkeypatch.setenv(EXTERNAL, str(tmp_path))
    trainer = build(TWO, name="OurTrainer")
    assert trainer.optimizer.param_groups[0]["lr"] == 0.5
    assert dice_alone(trainer)
    trainer.run_training()


def test_a_constructor_that_fails_is_named_with_its_file(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "passing.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class Passing(nnUNetTrainer):\n"
        "    def __init__(self, plans, configuration, fold, dataset_json, device):\n"
        "        super().__init__(plans, configuration, fold, dataset_json, True, device)\n"
    )
    monkeypatch.setenv(EXTERNAL, str(tmp_path))
    with pytest.raises(BadInput, match="the constructor of Passing fails: TypeError") as failed:
        build(TWO, name="Passing")
    assert failed.value.problems[0].where == str(tmp_path / "passing.py")


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ("import a_package_that_nobody_has\n", BrokenInstallation, "a_package_that_nobody_has is missing"),
        ("raise ValueError('not today')\n", BadInput, "ValueError: not today"),
    ],
)
def test_a_trainer_that_cannot_be_imported_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, kind: type[BadInput], said: str
) -> None:
    module = f"broken_{len(source)}"
    (tmp_path / f"{module}.py").write_text(f"{source}class Lab{len(source)}(nnUNetTrainer):\n    pass\n")
    monkeypatch.setenv(EXTERNAL, str(tmp_path))
    with pytest.raises(kind, match=said):
        find_trainer(f"Lab{len(source)}")


def test_all_that_the_curriculum_replaces_is_refused_or_known() -> None:
    """A method that does not ask the class below it would leave out silently what a trainer has in its place."""
    replaced = {
        name
        for name, value in vars(PpgsTrainer).items()
        if callable(getattr(nnUNetTrainer, name, None)) and inspect.isfunction(value)
        if "super()" not in inspect.getsource(value)
    }
    known = {
        # Done by `compose`.
        "build_network_architecture",
        # Weights start from the run's seed.
        "deterministic_setup",
        # Looks for the decoder beneath the compiler's wrapping, else the same.
        "set_deep_supervision_enabled",
        # A picture that needs a package that is not installed.
        "plot_network_architecture",
    }
    assert replaced <= known | REFUSED.keys()


def test_foreground_is_drawn_for_every_sample_with_that_share() -> None:
    def keys(random: bool) -> np.ndarray[Any, Any]:
        made = [BatchKey("train", 1, 0, i, (8, 8, 8), 4, 4, 0.25, random_foreground=random) for i in range(500)]
        return np.array([[key.is_foreground(slot) for slot in range(4)] for key in made])

    assert (keys(False) == [False, False, False, True]).all()
    drawn = keys(True)
    assert (drawn == keys(True)).all()
    assert abs(drawn.mean() - 0.25) < 0.04
    assert np.abs(drawn.mean(axis=0) - 0.25).max() < 0.08
