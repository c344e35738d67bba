"""Exports in progress beside the network: each keeps its logits until a worker has written what they say."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ppgs.nnunet.inference.window import Storage
from ppgs.processes.pool import Results

T = TypeVar("T")


@dataclass
class _Export(Generic[T]):
    what: T
    storage: Storage
    result: Results


class Exports(Generic[T]):
    """Queue of exports; `finished(what, result)` is called for each when it has ended, in the order of `add`."""

    def __init__(self, finished: Callable[[T, Any], object] = lambda *_: None) -> None:
        self._finished = finished
        self._pending: deque[_Export[T]] = deque()

    @property
    def pending(self) -> list[T]:
        return [export.what for export in self._pending]

    def add(self, what: T, storage: Storage, result: Results) -> None:
        self._pending.append(_Export(what, storage, result))

    def wait(self, most: int = 0) -> None:
        """Wait until at most this many are pending, and collect the finished ones; raises their errors."""
        while self._pending and (len(self._pending) > most or self._pending[0].result.ready()):
            export = self._pending[0]
            result = export.result.get()
            self._pending.popleft().storage.close()
            self._finished(export.what, result)

    def close(self) -> None:
        """Free the logits of those that have not finished."""
        while self._pending:
            self._pending.popleft().storage.close()
