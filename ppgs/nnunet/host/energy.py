"""Energy of a training, measured with CodeCarbon's offline tracker; independent of the trainer.

Nothing here uses the network. The tracker samples counters (NVML, RAPL) in a separate thread; what has no counter is
estimated from load and type, as CodeCarbon does. Without CodeCarbon, or where it fails, a training is not measured and
not disturbed.
"""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ppgs.runs.atomic import write_text
from ppgs.runs.emissions import EMISSIONS

# Power changes with the stage, not with the second: sampling this often costs far less than 1 % of one core.
SAMPLE_SECONDS = 15.0
# CO2 of the record needs some country; `compare --country` computes it again from the energy.
COUNTRY = "DEU"


class EnergyMeter:
    """Measures the energy of this machine from `start` to `stop` and writes CodeCarbon's `emissions.csv`.

    Figures are of the whole machine or job, as CodeCarbon sees them (all visible GPUs, the CPU, the memory): one meter
    a machine, in the process of rank 0. A resumed training appends a row. `problem` says why nothing is measured.
    """

    def __init__(
        self,
        folder: Path,
        *,
        enabled: bool = True,
        sample_seconds: float = SAMPLE_SECONDS,
    ) -> None:
        self._folder = folder
        self._enabled = enabled
        self._sample_seconds = sample_seconds
        self._tracker: Any = None
        self._read: Callable[[], float] | None = None
        self._lapped_kwh = 0.0
        self.problem: str | None = None if enabled else "switched off"

    def start(self) -> bool:
        """Start measuring; return whether that works. Never raises: a training continues without it."""
        if not self._enabled or self._tracker is not None:
            return self._tracker is not None
        try:
            self._tracker, self._read = _start_tracker(self._folder, self._sample_seconds)
        except ImportError:
            self.problem = "codecarbon is not installed"
        except Exception as error:
            self.problem = f"the energy cannot be measured: {error}"
        self._lapped_kwh = 0.0
        return self._tracker is not None

    def lap(self) -> float | None:
        """Return watt-hours since the last lap or the start, for the event of an epoch; None if nothing is measured.

        Also brings `emissions.csv` up to date, so that a killed training keeps its record.
        """
        if self._tracker is None or self._read is None:
            return None
        try:
            self._tracker.flush()
            total = self._read()
        except Exception as error:
            self._give_up(error)
            return None
        spent, self._lapped_kwh = total - self._lapped_kwh, total
        return max(0.0, spent * 1000) if math.isfinite(spent) else None

    def stop(self) -> None:
        """End measuring and write the last row; may be called twice."""
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            with suppress(Exception):
                tracker.stop()

    def _give_up(self, error: Exception) -> None:
        self.problem = f"the energy is no longer measured: {error}"
        self.stop()


def _start_tracker(folder: Path, sample_seconds: float) -> tuple[Any, Callable[[], float]]:
    """Start a tracker; return it and a function that reads its total in kWh."""
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.output_methods.base_output import BaseOutput

    record = _Record(folder / EMISSIONS)

    class _Output(BaseOutput):
        """Receiver of the tracker's totals on `flush` and `stop`."""

        def out(self, total: Any, _: Any) -> None:
            record.write(dict(total.values))

    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    # Said explicitly, as CodeCarbon else obeys configuration files and variables of the user's: nothing is sent,
    # nothing is asked for over the network (a token of Electricity Maps, the place), and no second file is written.
    tracker = OfflineEmissionsTracker(
        project_name="ppgs",
        country_iso_code=COUNTRY,
        country_2letter_iso_code=None,
        region=None,
        cloud_provider=None,
        cloud_region=None,
        electricitymaps_api_token="",
        emissions_endpoint=None,
        output_methods=[],
        output_handlers=[_Output()],
        measure_power_secs=sample_seconds,
        api_call_interval=-1,
        tracking_mode="machine",
        gpu_ids=None,
        allow_multiple_runs=True,
        log_level="error",
    )
    tracker.start()
    return tracker, lambda: record.kwh


class _Record:
    """`emissions.csv`: rows of earlier processes and of this one, written atomically."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._earlier: list[dict[str, Any]] = []
        self.kwh = 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError, UnicodeDecodeError, csv.Error), path.open(encoding="utf-8", newline="") as file:
            self._earlier = list(csv.DictReader(file))

    def write(self, row: dict[str, Any]) -> None:
        self.kwh = float(row["energy_consumed"])
        text = io.StringIO()
        columns = list(dict.fromkeys([*(c for earlier in self._earlier for c in earlier if c), *row]))
        writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*self._earlier, row])
        write_text(self._path, text.getvalue())
