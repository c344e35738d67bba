"""The append-only event log: everything that a training shares with its viewers.

One JSON object a line, as `ppgs.runs.event_types` describes them. A torn last line is the end of
the log; a damaged line in the middle is skipped.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from ppgs.runs.event_types import check_fields, json_types

VERSION = 1
Record = dict[str, Any]


class EventLog:
    """Appends records. Open it only under the run's lock; it continues an existing log and drops a torn last line."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._sequence = 0
        whole = 0
        if path.exists():
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
            self._sequence = max((int(r["seq"]) for r in _records(content[:whole]) if r), default=-1) + 1
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._handle, whole)

    def append(self, kind: str, *, durable: bool = False, **fields: Any) -> Record:
        """Write one record with a single system call; `durable` forces it to disk.

        Raises `TypeError` for a type or field that `ppgs.runs.event_types` does not have.
        """
        check_fields(kind, fields)
        record = {"v": VERSION, "seq": self._sequence, "time": time.time(), "type": kind, **_plain(fields)}
        self._write(json.dumps(record, allow_nan=False).encode() + b"\n")
        if durable:
            os.fsync(self._handle)
        self._sequence += 1
        return record

    def _write(self, line: bytes) -> None:
        """Write the complete line, or nothing of it if the disk is full: raises OSError."""
        before = os.fstat(self._handle).st_size
        try:
            written = os.write(self._handle, line)
            while written < len(line):
                written += os.write(self._handle, line[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._handle, before)
            raise

    def close(self) -> None:
        # What had to be on disk is; network folders tell late of what failed before.
        with suppress(OSError):
            os.close(self._handle)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _plain(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _records(content: bytes) -> Iterator[Record | None]:
    """Yield the records, None for each damaged one."""
    for record in _values(content.split(b"\n")):
        yield record if isinstance(record, dict) and _is_record(record) else None


_LARGEST = 2**53


def _is_record(record: Record) -> bool:
    """Return whether the fields have the types of `ppgs.runs.event_types`; otherwise the record is damaged."""
    kind = record.get("type")
    if type(kind) is not str or type(record.get("seq")) is not int:
        return False
    expected = json_types(kind)
    for name, value in record.items():
        found = type(value)
        if name in expected and found not in expected[name]:
            return False
        if (found is float or found is int) and not -_LARGEST <= value <= _LARGEST:
            return False
    return "stages" not in record or all(map(_is_stage, record["stages"]))


def _is_stage(stage: Any) -> bool:
    if not isinstance(stage, dict) or not isinstance(stage.get("patch_size"), list):
        return False
    numbers = [*stage["patch_size"], *(stage.get(name) for name in ("batch_size", "epochs", "voxels"))]
    return all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= _LARGEST for n in numbers)


def _values(lines: list[bytes]) -> Iterator[Any]:
    """Parse the lines; None for damaged ones."""
    lines = [line for line in lines if line]
    try:
        # Parsed together and by Pydantic's parser, which takes a third of the time, unless a line is damaged.
        together = from_json(b"[" + b",".join(lines) + b"]")
        if len(together) == len(lines):
            yield from together
            return
    except (ValueError, RecursionError):
        pass
    for line in lines:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            yield None


# Bytes of a line that are read as one record.
_LONGEST = 4_000_000


class Tail:
    """Reader of records appended since its last call; starts again if the log was truncated or replaced.

    `damaged` counts the lines passed over; `is_behind` means that the last call may not have read to the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode: int | None = None
        self.restarted = False
        self.is_behind = False
        self.damaged = 0

    @property
    def offset(self) -> int:
        """Bytes of the log passed so far."""
        return self._offset

    def read(self, budget: int = _LONGEST) -> list[Record]:
        """Return new complete records, at most about `budget` bytes; `restarted` means that the log started again."""
        self.restarted = False
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if self._inode not in (None, status.st_ino) or status.st_size < self._offset:
                    self._offset, self.restarted, self.damaged = 0, True, 0
                self._inode = status.st_ino
                file.seek(self._offset)
                content = file.read(budget)
                if len(content) == budget and b"\n" not in content:
                    # One that describes very many stages.
                    content += file.readline(_LONGEST - budget)
                # A longer line is no record: what is left of it is passed over as damaged.
                while len(content) == _LONGEST and b"\n" not in content:
                    self._offset += _LONGEST
                    content = file.read(_LONGEST)
                self.is_behind = len(content) >= budget
        except OSError:
            return []
        whole = content.rfind(b"\n") + 1
        self._offset += whole
        found = list(_records(content[:whole]))
        records = [record for record in found if record is not None]
        self.damaged += len(found) - len(records)
        return records

    def read_to_end(self) -> list[Record]:
        """Return all new complete records, however many `read` calls they take."""
        records, passed = list[Record](), -1
        while self._offset != passed:
            passed = self._offset
            records += self.read()
        return records


def read_whole(path: Path) -> tuple[list[Record], int]:
    """Read all complete records of a log (none without a log), and the number of damaged lines."""
    tail = Tail(path)
    return tail.read_to_end(), tail.damaged


def read_events(path: Path) -> list[Record]:
    """Read all complete records of a log; none without a log."""
    return read_whole(path)[0]
