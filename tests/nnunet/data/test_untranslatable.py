"""A transform that has no batch-wise form is bad input, and found before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from ppgs.errors import Untranslatable, from_record
from ppgs.nnunet.trainer.loading import pipeline_of
from tests.nnunet.trainer.test_faults import SHORT


class Unknown(BasicTransform):  # type: ignore[misc]
    """A user's own transform."""


@pytest.mark.parametrize("kind", ["training", "validation"])
@pytest.mark.parametrize("only_small", [False, True])
def test_an_unknown_transform_is_found_when_the_trainer_is_set_up(
    build: Any, monkeypatch: pytest.MonkeyPatch, kind: str, only_small: bool
) -> None:
    if kind == "validation" and only_small:
        pytest.skip("validation's transforms are the same for all patch sizes")
    stock = getattr(nnUNetTrainer, f"get_{kind}_transforms")

    def changed(*arguments: Any, **options: Any) -> BasicTransform:
        made = stock(*arguments, **options)
        if only_small and min(arguments[0]) > 16:
            return made
        return ComposeTransforms([*made.transforms, Unknown()])

    monkeypatch.setattr(nnUNetTrainer, f"get_{kind}_transforms", staticmethod(changed))
    with pytest.raises(Untranslatable, match="Unknown") as refused:
        build(SHORT)
    assert refused.value.exit_code == 2
    assert "--augmentation nnunet" in refused.value.problems[0].remedy
    assert type(from_record(refused.value.to_record())) is Untranslatable
    # The remedy helps.
    build(SHORT, batchwise=False)


def test_looking_changes_nothing_that_is_random(build: Any) -> None:
    import torch

    trainer = build(SHORT)
    before = torch.get_rng_state()
    pipeline_of(trainer, batchwise=True).check({(8, 8, 8)})
    assert torch.equal(torch.get_rng_state(), before)
