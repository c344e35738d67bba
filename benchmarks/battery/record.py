"""The record of one part of the battery: a JSON file that is whole after every item, and the part's own clock."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from battery.machine import describe


class Skip(Exception):
    """An item cannot run here, for the reason given."""


class Part:
    """Runs items while there is time, and writes `part<N>.json` after each of them.

    An item that fails does not end the part: its error is recorded, and `failed` counts it.
    """

    def __init__(self, number: int, options: argparse.Namespace, clock: Callable[[], float] = time.monotonic) -> None:
        self.number, self.options, self._clock = number, options, clock
        self.dry: bool = options.dry
        self.device: str = options.device
        self.root: Path = options.root
        self._begun = clock()
        self._path: Path = options.out / f"part{number}.json"
        self.failed = 0
        self.content: dict[str, Any] = {
            "part": number,
            "dry": self.dry,
            "begun": datetime.now(UTC).isoformat(timespec="seconds"),
            "minutes": options.minutes,
            "machine": describe(self.device),
            "items": {},
            "skipped": {},
        }
        self._write()

    @property
    def left(self) -> float:
        """Seconds until the part must have ended."""
        return float(self.options.minutes * 60 - (self._clock() - self._begun))

    def item(self, name: str, seconds: float, take: Callable[[], Any]) -> Any:
        """Take an item that is expected to last so many seconds, and return its result; None where there is none."""
        wanted: str | None = self.options.only
        if wanted is not None and wanted not in name:
            return None
        if not self.dry and seconds > self.left:
            return self._skip(name, f"needs about {seconds:.0f} s, {max(0.0, self.left):.0f} s are left")
        print(f"part {self.number}: {name} ({self.left:.0f} s left)", file=sys.stderr, flush=True)
        started, result = self._clock(), None
        try:
            result = take()
            entry: dict[str, Any] = {"result": result}
        except Skip as reason:
            return self._skip(name, str(reason))
        except Exception as error:  # whatever an item meets, the others are measured
            self.failed += 1
            entry = {"error": f"{type(error).__name__}: {error}"[-2000:], "traceback": traceback.format_exc()[-4000:]}
            print(f"part {self.number}: {name} failed: {entry['error']}", file=sys.stderr, flush=True)
        self.content["items"][name] = entry | {"seconds": round(self._clock() - started, 3)}
        self._write()
        return result

    def output_of(self, command: list[str], seconds: float) -> str:
        """Run a command that is expected to take `seconds`, and return its output.

        After three times as long, or at the end of the part, it is killed together with the processes that it started.
        """
        process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            output, errors = process.communicate(timeout=None if self.dry else max(1.0, min(self.left, 3 * seconds)))
        except subprocess.TimeoutExpired:
            for one in (process, *process.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.communicate()
            raise
        if process.returncode:
            raise RuntimeError(errors[-3000:])
        return str(output)

    def _skip(self, name: str, reason: str) -> None:
        self.content["skipped"][name] = reason
        self._write()

    def _write(self) -> None:
        self.content["seconds"] = round(self._clock() - self._begun, 3)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(".part")
        with beside.open("w", encoding="utf-8") as file:
            json.dump(self.content, file, indent=1, default=str)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
