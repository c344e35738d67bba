"""A loader's worker that is killed is distinguished from one that raises an error, also where memory is pinned."""

from __future__ import annotations

import subprocess
import sys
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


KILLED_WHILE_WRITING = """
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection

import torch
from torch.utils.data._utils import pin_memory

from ppgs.nnunet.data import loader
from ppgs.nnunet.data.transport import Travelling

# PyTorch for the CPU pins no memory; only the thread is wanted here.
torch.accelerator.is_available = lambda *_, **__: True
torch.accelerator.current_accelerator = lambda *_, **__: torch.device("cuda")
torch.accelerator.current_device_index = lambda: 0
torch.accelerator.set_device_index = lambda _: None
pin_memory.pin_memory = lambda data, device=None: data
loader._SHUTDOWN_TIMEOUT = 2.0


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, index):
        if index == 5:
            plain = Connection._send

            def half(self, buffer, write=os.write):
                if len(buffer) > 1 << 20:
                    plain(self, bytes(buffer[: len(buffer) // 2]))
                    os.kill(os.getpid(), signal.SIGKILL)
                plain(self, buffer)

            Connection._send = half
        return [Travelling({"data": torch.zeros(1_500_000)})]


class Stopped(Exception):
    pass


def stop(error):
    raise Stopped


batches = loader.Batches(
    torch.utils.data.DataLoader(
        Data(), batch_size=None, num_workers=2, collate_fn=list, pin_memory=True, multiprocessing_context="fork"
    ),
    60.0,
    stop,
)
assert batches._iterator._pin_memory_thread.is_alive()
if sys.argv[1] == "noticed":
    try:
        for _ in batches:
            pass
    except Stopped:
        print("stopped")
else:
    # The training stops for another reason.
    next(batches)
    next(batches)
    while not batches._child_ended:
        time.sleep(0.1)
    print("stopped")
batches.close()
subprocess.run(["true"], check=True)
print("closed")
"""


@pytest.mark.parametrize("death", ["noticed", "unnoticed"])
def test_a_worker_killed_while_it_writes_a_batch_does_not_keep_the_training_from_ending(death: str) -> None:
    """The thread that pins memory waits for the rest of the batch for ever, and PyTorch's shutdown for the thread."""
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, death]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["stopped", "closed"]), done.stderr[-3000:]
