"""One precision throughout: what is trained in bfloat16 is validated and predicts in it on a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ppgs.nnunet.inference import model as prediction
from ppgs.nnunet.network import precision
from ppgs.nnunet.process import session
from ppgs.runs.folder import RunFolder
from ppgs.schedule import Recipe


@pytest.fixture(autouse=True)
def _autocast_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch enters autocast for CUDA here as it does on a machine that has it."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)


def nnunets_own() -> torch.dtype:
    """The type of nnU-Net's autocast in its sliding window, inside ours."""
    with torch.autocast("cuda", enabled=True):
        return torch.get_autocast_dtype("cuda")


@pytest.mark.parametrize(
    ("cpu", "features", "faster"),
    [
        ("Intel(R) Xeon(R) Processor", {"avx512_bf16", "amx_tile"}, True),
        ("Intel(R) Xeon(R) Processor", {"avx512_bf16"}, False),
        ("AMD EPYC 9R14", {"avx512_bf16"}, True),
        ("AMD EPYC 7R13", set(), False),
    ],
)
def test_bfloat16_on_cpus_that_are_faster_in_it(
    monkeypatch: pytest.MonkeyPatch, cpu: str, features: set[str], faster: bool
) -> None:
    monkeypatch.setattr(precision, "cpu_name", lambda: cpu)
    for feature in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{feature}_supported", lambda feature=feature: feature in features)
    assert precision.has_bfloat16(torch.device("cpu")) == faster


@pytest.mark.parametrize(
    ("device", "bfloat16", "dtype"),
    [("cuda", True, torch.bfloat16), ("cuda", False, torch.float16), ("cpu", True, torch.float16)],
)
def test_the_precision_of_inference(device: str, bfloat16: bool, dtype: torch.dtype) -> None:
    with precision.inference(torch.device(device), bfloat16=bfloat16):
        assert nnunets_own() == dtype
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("bfloat16", [True, False])
def test_final_validation_is_in_the_precision_of_training(
    build: Any, monkeypatch: pytest.MonkeyPatch, bfloat16: bool
) -> None:
    trainer = build(Recipe(mode="constant", epochs=1, iterations_per_epoch=1), bfloat16=bfloat16)
    trainer.device = torch.device("cuda")
    seen: list[torch.dtype] = []
    monkeypatch.setattr(session, "segment", lambda *_, **__: seen.append(nnunets_own()))
    monkeypatch.setattr(session, "score", lambda *_: None)
    session.validate_together(trainer, trainer.settings.run, npz=False)
    assert seen == [torch.bfloat16 if bfloat16 else torch.float16]


@pytest.mark.parametrize("bfloat16", [True, False])
def test_a_model_predicts_in_the_precision_of_its_training(
    build: Any, monkeypatch: pytest.MonkeyPatch, bfloat16: bool
) -> None:
    trainer = build(Recipe(mode="constant", epochs=1, iterations_per_epoch=1), bfloat16=bfloat16)
    run: RunFolder = trainer.settings.run
    # Without training: bfloat16 is slow where the CPU emulates it.
    trainer._writer.submit(trainer._content(1, 0), run.checkpoint_final)
    trainer._writer.wait()
    folder = Path(run.path).parent
    (folder / "plans.json").write_text(json.dumps(trainer.plans_manager.plans))
    (folder / "dataset.json").write_text(json.dumps(trainer.dataset_json))
    monkeypatch.setattr(prediction, "has_bfloat16", lambda device: True)
    model = prediction.load_model(folder, [run.checkpoint_final], "cpu", mirroring=True, step_size=0.5)
    assert model.bfloat16 == bfloat16
