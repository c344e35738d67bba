"""Settings of a run beyond nnU-Net's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ppgs.nnunet.data.loader import LOADER_TIMEOUT
from ppgs.nnunet.distributed.ranks import Ranks
from ppgs.nnunet.host.energy import EnergyMeter
from ppgs.runs.folder import RunFolder
from ppgs.schedule import Schedule


@dataclass
class Settings:
    """Settings of a run beyond nnU-Net's own. `emit(type, **fields)` appends to the event log.

    `plan` settles the next stage of a schedule that is planned on the way; on rank 0 alone.
    """

    run: RunFolder
    schedule: Schedule
    seed: int
    workers: int
    emit: Callable[..., object]
    stop_requested: Callable[[], str | None]
    energy: EnergyMeter
    loader_timeout: float = LOADER_TIMEOUT
    predicted_memory: tuple[int | None, ...] = ()
    bfloat16: bool = False
    batchwise: bool = True
    skip_nonfinite: bool = False
    schedules: frozenset[str] = frozenset()
    ranks: Ranks = field(default_factory=Ranks)
    plan: Callable[[Schedule], Schedule] | None = None
    patience: int | None = None
    deterministic: bool = False
    channels_last: bool = False
    freeze: Sequence[str] = ()
