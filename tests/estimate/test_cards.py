"""Values of `--gpu-memory`."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from ppgs.errors import BadInput
from ppgs.estimate import cards

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GiB", 24 * GIB),
        ("24 gib", 24 * GIB),
        ("24G", 24 * GIB),
        ("24GB", 24 * 10**9),
        ("512MiB", 512 << 20),
        ("7.5GiB", 7.5 * GIB),
        ("8589934592", 8 * GIB),
        ("rtx3090", 24 * GIB),
        ("RTX 3090", 24 * GIB),
        ("NVIDIA GeForce RTX 3090", 24 * GIB),
        ("a100-40gb", 40 * GIB),
        ("A100", 40 * GIB),
    ],
)
def test_sizes_and_names(text: str, size: float) -> None:
    gpu = cards.parse_memory(text)
    assert gpu is not None
    assert gpu.memory == size


@pytest.mark.parametrize("text", ["", "lots", "0GiB", "-8GiB", "8", "1e9GiB", "8 GiB free", "nan"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        cards.parse_memory(text)
    assert "--gpu-memory" in refused.value.problems[0].where


def test_a_misspelt_card_names_the_nearest() -> None:
    with pytest.raises(BadInput) as refused:
        cards.parse_memory("rtx3900")
    assert "rtx3090" in refused.value.problems[0].remedy


def test_every_card_has_a_name_that_is_found_and_a_plausible_size() -> None:
    for name, size in cards.CARDS.items():
        assert cards.plain(name) == name
        assert 4096 <= size <= 200_000


def test_auto_is_the_gpu_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "present", lambda: cards.Gpu("NVIDIA A30", 24 * GIB))
    assert cards.parse_memory("auto") == cards.Gpu("NVIDIA A30", 24 * GIB)


@pytest.mark.parametrize(
    ("asked", "measured", "same"),
    [
        ("a100-80gb", "NVIDIA A100-SXM4-80GB", True),
        ("a100", "NVIDIA A100-SXM4-80GB", True),
        ("a100-40gb", "NVIDIA A100-SXM4-80GB", False),
        ("a10", "NVIDIA A100-SXM4-80GB", False),
        ("80GB", "NVIDIA A100-SXM4-80GB", False),
        ("l4", "NVIDIA L40", False),
        ("l40", "NVIDIA L40S", False),
        ("rtx3080", "NVIDIA GeForce RTX 3080 Ti", False),
        ("gtx1080ti", "NVIDIA GeForce GTX 1080 Ti", True),
        ("rtx3090", "NVIDIA GeForce RTX 3090", True),
        ("rtx6000ada", "NVIDIA RTX 6000 Ada Generation", True),
        ("h100", "NVIDIA H100 80GB HBM3", True),
        ("NVIDIA Strange 7", "NVIDIA Strange 7", True),
        ("a100", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", False),
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", False),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", True),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA A100-SXM4-40GB MIG 2g.10gb", False),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA H100 80GB HBM3 MIG 1g.20gb", False),
    ],
)
def test_a_calibration_serves_its_own_kind_of_card(asked: str, measured: str, same: bool) -> None:
    assert cards.same_card(asked, measured) == cards.same_card(measured, asked) == same


def test_every_card_is_like_itself_alone() -> None:
    families = {name.split("-")[0] for name in cards.CARDS}
    assert all(cards.same_card(a, b) == (a == b) for a in families for b in families)


class FakeError(Exception):
    """As NVML's."""


class Nvml:
    """Two unlike GPUs, the slow one in the first slot."""

    NVMLError = FakeError
    NVML_CLOCK_SM, NVML_ERROR_NOT_FOUND, NVML_DEVICE_MIG_ENABLE = 1, 6, 1
    GPUS: tuple[tuple[str, int, str], ...] = (
        ("NVIDIA GeForce GTX 1080", 8 * GIB, "GPU-1"),
        ("NVIDIA A100-SXM4-80GB", 80 * GIB, "GPU-2"),
    )

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return len(self.GPUS)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return [gpu[2] for gpu in self.GPUS].index(uuid)

    def nvmlDeviceGetName(self, handle: int) -> str:
        return self.GPUS[handle][0]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=self.GPUS[handle][1], free=self.GPUS[handle][1])

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        raise FakeError("Not Supported")

    def nvmlDeviceGetNumGpuCores(self, handle: int) -> int:
        return (2560, 6912)[handle]

    def nvmlDeviceGetMaxClockInfo(self, handle: int, kind: int) -> int:
        assert kind == self.NVML_CLOCK_SM
        return (1911, 1410)[handle]


@pytest.mark.parametrize(
    ("seen", "order", "name"),
    [
        (None, "PCI_BUS_ID", "GTX 1080"),
        ("0", "PCI_BUS_ID", "GTX 1080"),
        ("1,0", "PCI_BUS_ID", "A100"),
        ("2", "PCI_BUS_ID", None),
        # CUDA's own order begins with the fastest.
        (None, None, "A100"),
        ("0", "FASTEST_FIRST", "A100"),
        ("1,0", None, "GTX 1080"),
        ("2", None, None),
        ("GPU-2", None, "A100"),
        ("GPU-1", None, "GTX 1080"),
        ("", None, None),
        ("-1", None, None),
    ],
)
def test_the_gpu_present_is_the_first_that_is_seen(
    monkeypatch: pytest.MonkeyPatch, seen: str | None, order: str | None, name: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    if order is None:
        monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    else:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    if seen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    found = cards.present()
    assert (found is None) if name is None else (found is not None and name in found.name)


def test_a_gpu_that_may_not_be_used_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shared(Nvml):
        def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
            if index == 0:
                raise FakeError("Insufficient Permissions")
            return index

    monkeypatch.setitem(sys.modules, "pynvml", Shared())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    found = cards.present()
    assert found is not None and "A100" in found.name


@pytest.mark.parametrize("seen", [None, "0", "GPU-2"])
def test_of_a_card_in_mig_mode_the_first_slice_is_present(monkeypatch: pytest.MonkeyPatch, seen: str | None) -> None:
    class Sliced(Nvml):
        """A slice in the second place."""

        GPUS = (*Nvml.GPUS, ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 10 * GIB, "MIG-1"))

        def nvmlDeviceGetCount(self) -> int:
            return 2

        def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
            return [handle, handle]

        def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:
            return 7

        def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, index: int) -> int:
            if index != 1:
                raise FakeError("Not Found")
            return 2

    monkeypatch.setitem(sys.modules, "pynvml", Sliced())
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    found = cards.present()
    assert found == cards.Gpu("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 10 * GIB)
    assert not cards.same_card(found.name, "NVIDIA A100-SXM4-80GB")


def test_a_gpu_whose_memory_is_refused_is_one_without_a_known_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sliced(Nvml):
        def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
            raise FakeError("Insufficient Permissions")

    monkeypatch.setitem(sys.modules, "pynvml", Sliced())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert cards.present() == cards.Gpu("NVIDIA A100-SXM4-80GB", None)
