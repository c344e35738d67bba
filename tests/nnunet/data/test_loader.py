"""A loader's worker that is killed is distinguished from one that raises an error, also where memory is pinned."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from ppgs.errors import ExitCode, LoaderFailed, PpgsError
from ppgs.nnunet.data.loader import Batches

PIN_THREAD_GONE = RuntimeError("Pin memory thread exited unexpectedly")
IN_PIN_THREAD = "Caught {} in pin memory thread for device 0.\nOriginal Traceback (most recent call last):\n"


class Loader:
    """A loader whose iterator raises."""

    num_workers = 0

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        raise self.error


def fetched(error: Exception) -> Exception:
    """Return the error that stops the training or is raised in it."""

    def stop(failure: PpgsError) -> NoReturn:
        raise failure

    with pytest.raises(Exception) as raised:
        next(Batches(Loader(error), 1.0, stop))  # type: ignore[arg-type]
    return raised.value


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
        RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
        PIN_THREAD_GONE,
        ConnectionResetError(IN_PIN_THREAD.format("ConnectionResetError")),
        EOFError(IN_PIN_THREAD.format("EOFError")),
        ConnectionResetError(104, "Connection reset by peer"),
        EOFError(),
    ],
    ids=repr,
)
def test_a_killed_worker_stops_resumable(error: Exception) -> None:
    failure = fetched(error)
    assert isinstance(failure, LoaderFailed)
    assert failure.exit_code == ExitCode.STOPPED
    assert "was killed" in str(failure)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback"),
        RuntimeError(IN_PIN_THREAD.format("RuntimeError")),
        ConnectionResetError("Caught ConnectionResetError in DataLoader worker process 0.\nOriginal Traceback"),
    ],
    ids=repr,
)
def test_what_a_worker_raises_is_raised(error: Exception) -> None:
    assert fetched(error) is error


def test_the_name_of_the_dead_thread_is_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's message has the text that is recognised above."""
    from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

    iterator = SimpleNamespace(_timeout=0, _pin_memory=True, _pin_memory_thread=SimpleNamespace(is_alive=lambda: False))
    with pytest.raises(RuntimeError) as raised:
        _MultiProcessingDataLoaderIter._get_data(iterator)  # type: ignore[arg-type]
    assert str(raised.value) == str(PIN_THREAD_GONE)
