"""Threads of workers that are forked from a process that has computed with PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_simple

from ppgs.nnunet.inference.cases import be_quiet_worker
from ppgs.nnunet.preparation import preprocessing
from ppgs.processes.pool import WorkerPool, quickest_start


def begin_preprocessing() -> None:
    preprocessing._begin_preprocessing(Path("plans.json"), "3d_fullres", Path())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked on Linux alone")
@pytest.mark.parametrize("initializer", [be_quiet_worker, begin_preprocessing])
def test_resampling_by_pytorch_ends_in_a_forked_worker(
    initializer: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """nnU-Net's function asks for four threads, which a process that was forked cannot start."""
    setup = SimpleNamespace(preprocessor_class=lambda verbose: None)
    plans = SimpleNamespace(get_configuration=lambda name: setup)
    monkeypatch.setattr(preprocessing, "PlansManager", lambda path: plans)
    monkeypatch.setattr(preprocessing, "read_json", lambda path: {})
    threads, values = torch.get_num_threads(), np.random.default_rng(0).normal(size=(1, 16, 64, 64))
    torch.set_num_threads(2)
    try:
        expected = resample_torch_simple(values, (16, 128, 128))
        with WorkerPool(1, initializer, context=quickest_start()) as pool:
            found = pool.apply_async(resample_torch_simple, (values, (16, 128, 128))).get(timeout=60)
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(found, expected)
