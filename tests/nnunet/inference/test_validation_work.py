"""Amount of work of the final validation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from ppgs.nnunet.inference.validation_work import final_validation, pass_seconds, windows_of
from ppgs.schedule import Recipe


@pytest.mark.parametrize(
    ("image", "patch"),
    [((32, 32, 32), (32, 32, 32)), ((20, 40, 33), (32, 32, 32)), ((36, 51, 90), (40, 56, 40)), ((7, 80, 61), (48, 40))],
)
def test_windows_are_those_of_nnunets_predictor(image: tuple[int, ...], patch: tuple[int, ...]) -> None:
    predictor = nnUNetPredictor(tile_step_size=0.5)
    predictor.configuration_manager = SimpleNamespace(patch_size=patch)
    # nnU-Net pads what is smaller than the patch before it asks.
    edges = (0,) * (len(image) - len(patch)) + patch
    padded = tuple(map(max, image, edges))
    assert windows_of(image, patch) == len(predictor._internal_get_sliding_window_slicers(padded))


@pytest.mark.parametrize(("mirroring", "passes"), [(None, 8), ("0", 2), ("off", 1)])
def test_the_work_of_the_final_validation(build: Any, mirroring: str | None, passes: int) -> None:
    trainer = build(Recipe(mode="constant", epochs=1, iterations_per_epoch=1, mirroring=mirroring))  # type: ignore[arg-type]
    # Five cases of 32 x 32 x 32, which is the patch.
    assert final_validation(trainer) == {"cases": 5, "windows": 5, "passes": passes}


@pytest.mark.parametrize("trains", [True, False])
def test_a_pass_is_timed_on_one_window_and_leaves_the_network_as_it_was(build: Any, trains: bool) -> None:
    trainer = build(Recipe(mode="constant", epochs=1, iterations_per_epoch=1))
    trainer._module.train(trains)
    before = {name: value.clone() for name, value in trainer._module.state_dict().items()}
    random = torch.random.get_rng_state()
    seen: list[tuple[tuple[int, ...], bool]] = []
    hook = trainer._module.register_forward_pre_hook(
        lambda module, inputs: seen.append((tuple(inputs[0].shape), module.training))
    )
    seconds = pass_seconds(trainer)
    hook.remove()
    assert seconds is not None and seconds > 0
    assert set(seen) == {((1, 1, 32, 32, 32), False)}
    assert trainer._module.training is trains
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in trainer._module.state_dict().items())


def test_a_pass_that_fails_is_not_known(build: Any) -> None:
    trainer = build(Recipe(mode="constant", epochs=1, iterations_per_epoch=1))

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer._module.register_forward_pre_hook(fail)
    assert pass_seconds(trainer) is None and trainer._module.training
