"""The trainer's additions to nnU-Net's arithmetic."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from ppgs.errors import ScheduleError
from ppgs.nnunet.network.activation_checkpointing import checkpoint_activations
from ppgs.schedule import PlanFacts, Recipe, Schedule, resolve
from tests.helpers.trainers import one_stage


def trained(build: Any, schedule: Schedule) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """Losses of training and validation, pseudo Dice, and weights."""
    trainer = build(schedule)
    trainer.run_training()
    log = trainer.logger.get_checkpoint()
    return log["train_losses"] + log["val_losses"], log["mean_fg_dice"], trainer.network.state_dict()


@pytest.mark.parametrize("changes", [{"accumulation": 2}, {"accumulation": 4}, {"checkpointing": True}])
def test_accumulation_and_checkpointing_train_the_same(
    build: Any, demo_facts: PlanFacts, changes: dict[str, Any]
) -> None:
    losses, dice, weights = trained(build, one_stage(demo_facts))
    others, other_dice, changed = trained(build, one_stage(demo_facts, **changes))
    assert losses == pytest.approx(others, rel=1e-4)
    # A voxel may lie on either side of a rounding.
    assert dice == pytest.approx(other_dice, abs=1e-3)
    assert weights.keys() == changed.keys()
    for name in weights:
        # Rounding differs between one sum and a sum of sums.
        assert torch.allclose(weights[name], changed[name], atol=1e-4), name


def test_every_stage_trains_and_validation_is_at_the_plans_patch(build: Any, demo_facts: PlanFacts) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    trainer = build(Recipe(epochs=10, iterations_per_epoch=1), emit=lambda kind, **fields: told.append((kind, fields)))
    shapes: list[tuple[int, ...]] = []
    trainer.network.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape[2:])))
    trainer.run_training()
    stages = resolve(Recipe(epochs=10, iterations_per_epoch=1), demo_facts).stages
    # Trained at the stage's patch, validated and drawn at the plan's.
    assert shapes == [p for s in stages for p in (s.patch_size, demo_facts.patch_size, demo_facts.patch_size)]
    assert [f["patch_size"] for k, f in told if k == "stage_started"] == [s.patch_size for s in stages]
    assert trainer.configuration_manager.patch_size == list(demo_facts.patch_size)


def test_an_epoch_that_is_not_validated_keeps_the_figures_before(build: Any, demo_facts: PlanFacts) -> None:
    told: list[dict[str, Any]] = []
    recipe = Recipe(epochs=20, iterations_per_epoch=1)
    trainer = build(recipe, emit=lambda kind, **fields: told.append(fields) if kind == "epoch_finished" else None)
    trainer.run_training()
    schedule = resolve(recipe, demo_facts)
    validated = [schedule.validation_iterations_at(epoch) > 0 for epoch in range(20)]
    assert validated[:4] == [True, False, True, False] and all(validated[18:])
    log = trainer.logger.get_checkpoint()
    assert {len(values) for values in log.values()} == {20}
    for epoch, (fields, is_validated) in enumerate(zip(told, validated, strict=True)):
        assert (fields["validation_seconds"] > 0) == is_validated
        assert fields["ema_dice"] == log["ema_fg_dice"][epoch]
        if is_validated:
            assert fields["val_loss"] == log["val_losses"][epoch]
            continue
        assert fields["val_loss"] is None and fields["pseudo_dice"] == [None, None]
        for name in ("val_losses", "dice_per_class_or_region", "mean_fg_dice", "ema_fg_dice"):
            assert log[name][epoch] == log[name][epoch - 1]


def test_the_mirroring_of_inference_is_nnunets(build: Any) -> None:
    trainer = build(Recipe(epochs=10, iterations_per_epoch=1))
    trainer.get_dataloaders()
    assert trainer.inference_allowed_mirroring_axes == (0, 1, 2)


@pytest.mark.parametrize(("given", "axes"), [("off", ()), ("1,2", (1, 2)), ("on", (0, 1, 2))])
def test_mirroring_is_the_schedules_in_training_and_inference(
    build: Any, monkeypatch: pytest.MonkeyPatch, given: str, axes: tuple[int, ...]
) -> None:
    trainer = build(Recipe(mode="constant", epochs=1, iterations_per_epoch=1, mirroring=given))  # type: ignore[arg-type]
    seen: list[Any] = []
    build_transforms = nnUNetTrainer.get_training_transforms
    watched = staticmethod(lambda *a, **k: seen.append(build_transforms(*a, **k)) or seen[-1])
    monkeypatch.setattr(nnUNetTrainer, "get_training_transforms", watched)
    batches, _ = trainer.get_dataloaders()
    next(batches)
    mirrors = [part.allowed_axes for part in seen[0].transforms if type(part).__name__ == "MirrorTransform"]
    assert mirrors == ([axes] if axes else [])
    # nnU-Net's predictor takes None for no axis.
    assert trainer._content(1, 0)["inference_allowed_mirroring_axes"] == (axes or None)


def test_patches_without_foreground_do_not_end_the_moving_average(build: Any) -> None:
    trainer = build(Recipe(mode="constant", epochs=5, iterations_per_epoch=1))
    none, half, whole = (0, 0), (1, 2), (1, 0)
    for epoch, (hits, misses) in enumerate((none, half, none, whole)):
        trainer.current_epoch = epoch
        hard = {"tp_hard": hits, "fp_hard": 0, "fn_hard": misses}
        trainer.on_validation_epoch_end([{"loss": np.float32(1.0)} | {k: np.full(2, v) for k, v in hard.items()}])
    first, *others = trainer.logger.get_checkpoint()["ema_fg_dice"]
    assert math.isnan(first)
    assert others == pytest.approx([0.5, 0.5, 0.55])


def test_the_best_checkpoint_is_not_that_of_an_epoch_without_foreground(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build(Recipe(mode="constant", epochs=2, iterations_per_epoch=1))
    validation_step, epochs = type(trainer).validation_step, []

    def without_foreground_at_first(batch: dict[str, Any]) -> dict[str, Any]:
        result = validation_step(trainer, batch)
        epochs.append(trainer.current_epoch)
        return result if trainer.current_epoch else {k: v if k == "loss" else v * 0 for k, v in result.items()}

    monkeypatch.setattr(trainer, "validation_step", without_foreground_at_first)
    trainer.run_training()
    assert set(epochs) == {0, 1}
    assert trainer._best_ema == trainer.logger.get_checkpoint()["ema_fg_dice"][-1] >= 0


@pytest.mark.parametrize("factor", [1.0, 1000.0])
def test_gradients_are_clipped_as_nnunet_clips_them(build: Any, factor: float) -> None:
    trainer = build(Recipe(mode="constant", epochs=1, iterations_per_epoch=1))
    trainer.on_train_start()
    loss, parameters = trainer.loss, list(trainer.network.parameters())
    seen: list[torch.Tensor] = []
    trainer.loss = lambda *given: loss(*given) * factor
    # A bottleneck of few voxels leaves some outputs of deep supervision without a weight, and them without gradients.
    trainer.optimizer.step = lambda: seen.extend(p.grad.clone() for p in parameters if p.grad is not None)
    batch = next(trainer.dataloader_train)
    trainer.train_step(batch)
    # The last of the batches: nnU-Net's own way leaves its gradients where they are.
    trainer.optimizer.step = lambda: None
    nnunet: Any = type(trainer).__mro__[2]
    nnunet.train_step(trainer, batch)
    expected = [p.grad for p in parameters if p.grad is not None]
    norm = float(torch.linalg.vector_norm(torch.stack([g.norm() for g in seen])))
    assert norm == pytest.approx(12) if factor > 1 else norm < 12
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


def test_checkpointing_compiles() -> None:
    """With PyTorch's own backend for checks: nnU-Net compiles its networks on a GPU."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    network = PlainConvUNet(
        1, 2, (4, 8), nn.Conv2d, 3, ((1, 1), (2, 2)), (1, 1), 2, (1,), norm_op=nn.InstanceNorm2d, nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )  # fmt: skip
    image = torch.randn(1, 1, 8, 8)
    network(image).square().sum().backward()
    expected = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    assert checkpoint_activations(network) == 3
    torch.compile(network, backend="aot_eager_decomp_partition")(image).square().sum().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(gradients, expected, strict=True))


def test_what_spawned_loader_processes_are_given_can_be_pickled(build: Any) -> None:
    trainer = build(Recipe(mode="constant", epochs=1, iterations_per_epoch=1))
    trainer.get_dataloaders()
    assert len(pickle.dumps(trainer._dataset)) > 0


def test_checkpointing_is_refused_at_the_start_for_a_network_without_stages(build: Any, demo_facts: PlanFacts) -> None:
    whole = resolve(Recipe(epochs=20, iterations_per_epoch=1), demo_facts)
    *first, last = whole.stages
    lean = whole.model_copy(update={"stages": (*first, last.model_copy(update={"checkpointing": True}))})
    trainer = build(lean)
    trainer.network = nn.Conv3d(1, 3, 1)
    with pytest.raises(ScheduleError, match="Conv3d has no encoder"):
        trainer._steps.prepare()
