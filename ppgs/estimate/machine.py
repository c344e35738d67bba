"""The machine of an estimate: its memory and its measured speed."""

from __future__ import annotations

from dataclasses import dataclass

from ppgs.errors import BadInput
from ppgs.estimate import cards
from ppgs.estimate.calibration import Calibration, find
from ppgs.estimate.memory import Surroundings
from ppgs.estimate.published import Rough, rough_speed


@dataclass(frozen=True)
class Machine:
    """Device name, memory in bytes (None: no known limit), its calibration, and a description of that.

    `rough` is the speed that the card's published figures suggest; only where nothing was measured.
    """

    name: str | None
    limit: int | None
    surroundings: Surroundings
    calibration: Calibration | None
    notes: tuple[str, ...] = ()
    rough: Rough | None = None


def runs_on_gpu(device: str) -> bool:
    """Return whether `--device` means a CUDA GPU (`auto` too: plans are made if there is none); raises `BadInput`."""
    kind = device.split(":")[0]
    if kind not in ("auto", "cuda", "cpu", "mps"):
        raise BadInput(f"there is no device '{device}'", "--device", "use auto, cuda, cpu or mps")
    return kind in ("auto", "cuda")


def choose_machine(device: str, gpu_memory: str | None, fresh: Calibration | None = None) -> Machine:
    """Return the machine given by `--device` and `--gpu-memory`; `fresh` is a calibration made just now.

    Without `--gpu-memory` it is the GPU present, if any. Raises `BadInput` for what is no device and no memory.
    """
    given = cards.parse_memory(gpu_memory) if gpu_memory is not None else None
    limit = given.memory if given else None
    if not runs_on_gpu(device):
        # No context and no workspace: what is left is what the process itself allocates.
        return _machine(device, limit, fresh or find(device.split(":")[0]), Surroundings(0, 0.0))
    here = cards.present() if given is None or given.name not in cards.CARDS else None
    gpu = given or here
    if gpu is None:
        note = "no GPU here: memory is that of a CUDA GPU with mixed precision, without a limit"
        return _machine(None, None, fresh or find("cpu"), None, note)
    calibration = fresh or find(here.name if here is not None else gpu.name)
    return _machine(gpu.name, gpu.memory, calibration, None)


def _machine(
    name: str | None, limit: int | None, calibration: Calibration | None, around: Surroundings | None, *notes: str
) -> Machine:
    measure = "run 'ppgs plan-schedule TASK --calibrate' once on the machine that trains"
    rough = None
    if calibration is not None:
        time = f"time is that of {calibration.device}"
    elif name is not None and around is None and (rough := rough_speed(name)) is not None:
        time = (
            f"time is uncalibrated: a range from the published throughput of {rough.card} and nnU-Net's logs of an "
            f"H100, without data loading; for a measured one {measure}"
        )
    else:
        time = f"time is not known: {measure}"
    if around is None:
        around = calibration.surroundings if calibration is not None else Surroundings()
    return Machine(name, limit, around, calibration, (*notes, time), rough)
