"""The tracer on real architectures: nnU-Net's own network, loss and optimiser, without data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ppgs.errors import PlansError
from ppgs.estimate import tracer as probe
from ppgs.estimate.network import Network
from ppgs.estimate.scaling import Recording, fit, peak
from ppgs.estimate.tracer import Tracer
from ppgs.imports import BrokenInstallation


def small(kind: str = "PlainConvUNet", axes: int = 3, **facts: Any) -> Network:
    """A U-Net of three stages, small enough to step for real."""
    blocks = {"n_blocks_per_stage" if kind.startswith("Res") else "n_conv_per_stage": [1, 2, 1]}
    return Network(
        class_name=f"dynamic_network_architectures.architectures.unet.{kind}",
        kwargs={
            "n_stages": 3,
            "features_per_stage": [4, 8, 12],
            "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
            "kernel_sizes": [[3] * axes] * 3,
            "strides": [[1] * axes, [2] * axes, [2] * axes],
            "n_conv_per_stage_decoder": [1, 1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
            **blocks,
        },
        imports=("conv_op", "norm_op", "dropout_op", "nonlin"),
        strides=((1,) * axes, (2,) * axes, (2,) * axes),
        channels=2,
        heads=3,
        **facts,
    )


NETWORKS = {
    "plain": small(),
    "residual": small("ResidualEncoderUNet"),
    "plain 2d": small(axes=2),
    "regions": small(regions=True),
    "ignore label": small(ignore_label=3),
    "regions with ignore label": small(regions=True, ignore_label=4),
    "batch dice": small(batch_dice=True),
}


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> Network:
    return NETWORKS[request.param]


def recordings(network: Network, *points: tuple[tuple[int, ...], int], **options: Any) -> list[Recording]:
    from ppgs.nnunet.probing.trace import trace

    request = {"facts": network.model_dump(mode="json"), "mixed": True, "checkpointing": False, "passes": ["train"]}
    answer = trace({**request, "points": points, **options})
    return [Recording.model_validate(r) for r in answer["recordings"]["train"]]


def test_the_law_of_two_traces_is_a_third_trace(network: Network) -> None:
    axes = len(network.strides[0])
    patch = (12, 20, 4)[:axes]
    first, second, third, least = recordings(network, ((8,) * axes, 2), ((12,) * axes, 3), (patch, 5), ((4,) * axes, 2))
    law = fit(first, second)
    assert [e for e in law.events(patch, 5) if e[0] != "w"] == [e for e in third.events if e[0] != "w"]
    assert law.flops_at(patch, 5) == third.total_flops
    # A bottleneck of a single voxel is normalised by other operations, on next to no bytes.
    assert law.flops_at(least.patch, 2) == least.total_flops
    assert peak(law.events(least.patch, 2)) == pytest.approx(peak(least.events), rel=0.01)


def test_a_single_sample_has_a_law_of_its_own(network: Network) -> None:
    axes = len(network.strides[0])
    patch = (12, 20, 4)[:axes]
    first, second, third = recordings(network, ((8,) * axes, 1), ((12,) * axes, 1), (patch, 1))
    law = fit(first, second)
    assert [e for e in law.events(patch, 1) if e[0] != "w"] == [e for e in third.events if e[0] != "w"]
    assert law.flops_at(patch, 1) == third.total_flops


def test_flops_are_those_of_a_real_step(network: Network) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from ppgs.nnunet.probing.step import Step

    axes = len(network.strides[0])
    patch = (8, 12, 8)[:axes]
    law = fit(*recordings(network, ((8,) * axes, 2), ((12,) * axes, 3), mixed=False))
    step = Step(network.model_dump(mode="json"), "cpu")
    with FlopCounterMode(display=False) as counter:
        step.train(patch, 2)
    assert law.flops_at(patch, 2) == counter.get_total_flops()


def test_mixed_precision_needs_about_half() -> None:
    """About 1.92 times as much without (measured on nnU-Net's networks); statistics and loss stay in float32."""
    patch = (64, 64, 64)
    # As wide as real networks, compared to the outputs, whose loss is in float32 either way.
    kwargs = {**NETWORKS["plain"].kwargs, "features_per_stage": [32, 64, 96]}
    network = NETWORKS["plain"].model_copy(update={"kwargs": kwargs})
    mixed, full = (recordings(network, (patch, 2), mixed=m)[0] for m in (True, False))
    assert 1.8 < peak(full.events) / peak(mixed.events) < 2.1


def test_checkpointing_needs_less_memory_and_more_arithmetic() -> None:
    patch = (64, 64, 64)
    plain, thrifty = (recordings(NETWORKS["plain"], (patch, 2), checkpointing=c)[0] for c in (False, True))
    assert peak(thrifty.events) < 0.8 * peak(plain.events)
    assert thrifty.total_flops > plain.total_flops


def test_checkpointing_keeps_loss_and_gradients() -> None:
    import torch

    from ppgs.nnunet.probing.step import Step

    facts = NETWORKS["residual"].model_dump(mode="json")
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        step = Step(facts, "cpu", checkpointing=checkpointing)
        loss = step.train((8, 8, 8), 2)
        gradients.append((loss, [p.grad.clone() for p in step.network.parameters() if p.grad is not None]))
    assert gradients[0][0] == gradients[1][0]
    for one, other in zip(gradients[0][1], gradients[1][1], strict=True):
        assert torch.equal(one, other)


def test_accumulated_parts_give_the_gradients_of_the_whole() -> None:
    """`Stage.accumulation` is exact with instance norm and a loss that is a mean over samples, and only then."""
    import torch

    from ppgs.nnunet.probing.step import Step

    def gradients(network: Network, parts: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        step = Step(network.model_dump(mode="json"), "cpu")
        step.network.double()
        data, targets = step.batch((8, 8, 8), 4)
        for piece in range(parts):
            own = slice(piece * 4 // parts, (piece + 1) * 4 // parts)
            loss = step.loss(step.network(data[own].double()), [t[own] for t in targets])
            (loss / parts).backward()
        return [p.grad for p in step.network.parameters() if p.grad is not None]

    def difference(network: Network) -> float:
        pairs = zip(gradients(network, 1), gradients(network, 4), strict=True)
        return max(float((a - b).abs().max() / (a.abs().max() + 1e-12)) for a, b in pairs if a.abs().max() > 1e-9)

    exact, inexact = small(), small(batch_dice=True)
    assert exact.accumulation_is_exact
    assert not inexact.accumulation_is_exact
    assert difference(exact) < 1e-4 < difference(inexact)


@pytest.mark.slow
def test_traces_are_made_once_and_kept(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    asked = []
    real = probe.ask
    monkeypatch.setattr(probe, "ask", lambda request: asked.append(request) or real(request))
    law = Tracer(NETWORKS["plain"]).law("train", (8, 8, 8), 2)
    assert Tracer(NETWORKS["plain"]).law("train", (8, 8, 8), 2) == law
    # Inference goes window by window, and that needs no separate trace.
    Tracer(NETWORKS["plain"]).law("infer", (8, 8, 8), 1)
    assert len(asked) == 1
    next((own_cache / "laws").glob("*.json")).write_text("{ damaged", encoding="utf-8")
    assert Tracer(NETWORKS["plain"]).law("train", (8, 8, 8), 2) == law
    assert len(asked) == 2


@pytest.mark.slow
def test_what_does_not_follow_the_law_is_traced_point_by_point(monkeypatch: pytest.MonkeyPatch) -> None:
    real = probe.ask

    def crooked(request: Any) -> Any:
        answer = real(request)
        for raw in answer["recordings"]["train"]:
            raw["events"].append(["+", raw["batch"] * raw["patch"][0] ** 2])
        return answer

    monkeypatch.setattr(probe, "ask", crooked)
    tracer = Tracer(NETWORKS["plain"])
    tracer.prepare([((8, 8, 8), 2), ((16, 8, 8), 2)])
    monkeypatch.setattr(probe, "ask", lambda request: pytest.fail("asked again"))
    assert tracer.law("train", (16, 8, 8), 2).events((16, 8, 8), 2)[-1] == ("+", 2 * 16**2)
    assert tracer.law("train", (8, 8, 8), 2).events((8, 8, 8), 2)[-1] == ("+", 2 * 8**2)


def test_a_network_that_cannot_be_built_is_bad_plans() -> None:
    broken = NETWORKS["plain"].model_copy(update={"class_name": "no.such.Network"})
    with pytest.raises(PlansError, match="could not be examined"):
        Tracer(broken).law("train", (8, 8, 8), 2)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "operator torchvision::nms does not exist"),
        ("import a_package_that_is_missing", "a_package_that_is_missing is missing"),
        ("import ctypes; ctypes.CDLL('libcudart.so.0')", "libcudart.so.0"),
    ],
)
def test_a_package_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    """Such as a torchvision built for another torch, which the networks' package imports."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # One network whose module imports torchvision, and one that nnU-Net searches for in all modules.
    for name in ("dynamic_network_architectures.architectures.primus.Primus", "no.such.Network"):
        check_named(name, said)


def check_named(class_name: str, said: str) -> None:
    network = NETWORKS["plain"].model_copy(update={"class_name": class_name})
    with pytest.raises(PlansError) as caught:
        Tracer(network, use_cache=False).law("train", (8, 8, 8), 2)
    assert said in str(caught.value)
    assert "install" in caught.value.problems[0].remedy and caught.value.exit_code == 2


def test_an_error_of_our_own_is_no_broken_installation() -> None:
    try:
        exec("import ppgs.errors as e; e.nothing", {"__name__": "ppgs.module"})
    except AttributeError as error:
        assert BrokenInstallation.of(error) is None
    try:
        import ppgs.no_such_module  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: F401
    except ImportError as error:
        assert BrokenInstallation.of(error) is None
