"""A model whose trainer class is missing where it predicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ppgs.errors import RunError
from ppgs.nnunet.checkpoints.files import CheckpointWriter
from ppgs.nnunet.inference.model import Model, load_model
from ppgs.schedule import Recipe
from ppgs.trainers import EXTERNAL
from tests.helpers.trainers import equal, weights

# A network with the same weights that computes something else, and a class that leaves nnU-Net's network.
SOURCE = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn


class LabTanh(nnUNetTrainer):
    @staticmethod
    def build_network_architecture(plans_manager, *others):
        network = nnUNetTrainer.build_network_architecture(plans_manager, *others)
        for module in network.modules():
            for name, child in module.named_children():
                if isinstance(child, nn.LeakyReLU):
                    setattr(module, name, nn.Tanh())
        return network


class LabRate(nnUNetTrainer):
    pass
"""


def loaded(trainer: Any, path: Path) -> Model:
    folder = Path(trainer.output_folder).parent
    for name, content in (("plans", trainer.plans_manager.plans), ("dataset", trainer.dataset_json)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return load_model(folder, [path], "cpu", mirroring=False, step_size=0.5)


@pytest.mark.parametrize("name", ["LabTanh", "LabRate"])
def test_only_nnunets_network_is_built_without_the_trainer_class(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "lab_networks.py").write_text(SOURCE)
    monkeypatch.setenv(EXTERNAL, str(lab))
    trainer = build(Recipe(mode="constant", epochs=1, iterations_per_epoch=1), name=name)
    path, before = tmp_path / "checkpoint_final.pth", tmp_path / "before.pth"
    content = trainer._content(1, 0)
    writer = CheckpointWriter(lambda _: None)
    writer.submit(content, path)
    writer.wait()
    # As checkpoints were written without the key.
    own = {key: value for key, value in content["ppgs"].items() if key != "own_network"}
    torch.save({**content, "ppgs": {**own, "format": 2}}, before)
    activations = {type(module) for module in loaded(trainer, path).predictor.network.modules()}
    assert (torch.nn.Tanh in activations) == (name == "LabTanh")

    monkeypatch.delenv(EXTERNAL)
    for file in (path, before):
        if file == path and name == "LabRate":
            assert equal(dict(loaded(trainer, file).predictor.network.state_dict()), weights(trainer))
            continue
        built = "is" if file == path else "may be"
        with pytest.raises(RunError, match=f"network {built} built by its trainer class {name}") as refused:
            loaded(trainer, file)
        (problem,) = refused.value.problems
        assert refused.value.exit_code == 4 and problem.where == str(file) and EXTERNAL in problem.remedy

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "lab_broken.py").write_text(f"from lab_bases import Base\n\n\nclass {name}(Base):\n    pass\n")
    monkeypatch.setenv(EXTERNAL, str(broken))
    with pytest.raises(RunError) as refused:
        loaded(trainer, before)
    assert "lab_broken.py" in refused.value.problems[0].remedy
