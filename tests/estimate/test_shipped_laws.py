"""The laws that ship with ppgs: complete, used without a trace, and what a fresh trace gives."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from ppgs.estimate import shipped_laws
from ppgs.estimate import tracer as probe
from ppgs.estimate.network import Network
from ppgs.estimate.scaling import Law
from ppgs.estimate.shipped_tasks import read_task
from ppgs.estimate.tracer import Tracer
from ppgs.shipped import tasks

WAYS = list(itertools.product((True, False), repeat=3))


@pytest.fixture(autouse=True)
def no_cache(own_cache: Path) -> Path:
    return own_cache


def test_every_shipped_network_has_all_its_laws_and_no_other_is_there() -> None:
    networks = [read_task(name).network for name in tasks()]
    wanted = {shipped_laws.place(network, *way) for network in networks for way in WAYS}
    assert wanted == set(next(iter(wanted)).parent.iterdir())
    for network in networks:
        for way in WAYS:
            kept = shipped_laws.read(network, *way)
            assert {name: Law.model_validate(law) for name, law in kept["laws"].items()}.keys() == {
                "train",
                "validate",
                "infer",
            }


# Two architectures whose axes are pooled differently; `.ci/trace_shipped_laws.py` makes the files again.
@pytest.mark.parametrize(("name", "way"), [("Task04_Hippocampus", WAYS[3]), ("Task02_Heart", WAYS[1])])
def test_a_fresh_trace_gives_the_same(name: str, way: tuple[bool, bool, bool]) -> None:
    from ppgs.nnunet.probing.trace import trace

    network = read_task(name).network
    mixed, checkpointing, single = way
    fresh = Tracer(network, mixed=mixed, ask=trace).traced(checkpointing, single)
    kept = shipped_laws.read(network, *way)
    assert fresh["parameters"] == kept["parameters"]
    assert fresh["laws"] == kept["laws"]


def laws_of(network: Network) -> dict[str, Any]:
    """Return the laws of a shipped network if nothing may be traced."""

    def refuse(_: object) -> dict[str, Any]:
        raise AssertionError("traced although its laws are shipped")

    tracer = Tracer(network, ask=refuse)
    law = tracer.law("train", (32, 32, 32), 2)
    return {"law": law, "parameters": tracer.parameters}


@pytest.mark.parametrize("name", list(tasks()))
def test_a_shipped_task_needs_no_trace(name: str) -> None:
    found = laws_of(read_task(name).network)
    assert found["law"].flops_at((32, 32, 32), 2) > found["parameters"] > 1e6


def test_another_release_of_torch_is_traced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = read_task("Task04_Hippocampus").network
    versions = probe._versions()
    monkeypatch.setattr(probe, "_versions", lambda: versions.replace("torch 2", "torch 7"))
    with pytest.raises(AssertionError, match="traced although"):
        laws_of(network)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("torch 2.13.0, nnunetv2 2.8.1", "torch 2.13.1+cu130, nnunetv2 2.8.2", True),
        ("torch 2.13.0, nnunetv2 2.8.1", "torch 2.14.0, nnunetv2 2.8.1", False),
        ("law 2, torch 2.13.0", "law 3, torch 2.13.0", False),
    ],
)
def test_patch_releases_share_their_laws(one: str, other: str, same: bool) -> None:
    assert (probe._minor(one) == probe._minor(other)) is same


def test_a_damaged_file_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network = read_task("Task04_Hippocampus").network
    damaged = tmp_path / "laws.json.gz"
    for content in (b"", b"no gzip", shipped_laws.place(network, True, False, False).read_bytes()[:500]):
        damaged.write_bytes(content)
        monkeypatch.setattr(shipped_laws, "place", lambda *_: damaged)
        assert shipped_laws.read(network, True, False, False) is None
        monkeypatch.undo()
