"""Python programs in processes that are forked from one which has imported PyTorch and what nnU-Net needs besides.

Imports are nearly half of a short training. A command and the process that it trains, traces or predicts in are parent
and child as ever, with their own signals, files and environment. What differs: the modules below are imported already,
and the command line that the system shows is not theirs.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, process, resource_tracker
from pathlib import Path
from typing import Any, NoReturn

# Third-party modules only: those of ppgs and nnU-Net read the environment when they are imported.
_IMPORTED = (
    *("torch", "torch._dynamo", "torch.distributed", "matplotlib.pyplot", "seaborn", "pandas", "scipy.ndimage"),
    *(
        "scipy.stats",
        "skimage.transform",
        "skimage.measure",
        "sklearn.model_selection",
        "SimpleITK",
        "nibabel",
        "blosc2",
    ),
    *("cc3d", "tifffile", "imageio", "psutil", "httpx", "batchgenerators.utilities.file_and_folder_operations"),
    *("batchgenerators.dataloading.multi_threaded_augmenter", "batchgeneratorsv2.transforms.spatial.spatial"),
    *("dynamic_network_architectures.architectures.unet", "acvl_utils.cropping_and_padding.bounding_boxes"),
    *("typer", "rich.console", "rich.progress", "pydantic", "yaml"),
)
# What is started as `python -m` and imports PyTorch, or starts what does.
_FORKED = ("ppgs", "ppgs.nnunet.process", "ppgs.nnunet.probing", "ppgs.commands.predict_child")
# Variables that Python and libraries read when a process begins.
_READ_AT_START = ("PYTHON", "LD_", "OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_", "TORCH_")


def possible(environ: Mapping[str, str]) -> bool:
    """Return whether a process with these further variables can be forked."""
    return sys.platform == "linux" and not any(name.startswith(_READ_AT_START) for name in environ)


def run(arguments: Sequence[str], environ: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS`, a script or `-m` and a module, with this whole environment to its end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        files = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
        child = context.Process(target=_begin, args=(list(arguments), dict(environ), Path.cwd(), files))
        child.start()
        child.join(timeout)
        if child.is_alive():
            child.kill()
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    assert child.exitcode is not None
    return subprocess.CompletedProcess([sys.executable, *arguments], child.exitcode, *texts)


def _begin(arguments: list[str], environ: dict[str, str], folder: Path, files: Sequence[str]) -> NoReturn:
    """Be the program, in a process of the fork server."""
    subprocess.Popen = _Popen  # type: ignore[misc]
    standard = [os.open(os.devnull, os.O_RDONLY), *(os.open(file, os.O_RDWR | os.O_APPEND) for file in files)]
    _be(arguments, environ, folder, standard)


def _be(arguments: list[str], environ: Mapping[str, str], folder: Path, standard: Sequence[int]) -> NoReturn:
    """Be a process that began as `python ARGUMENTS`, with these standard files, to its end."""
    for number, file in enumerate(standard):
        os.dup2(file, number)
    _forget_the_server()
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    tempfile.tempdir = None
    code = 0
    try:
        _run(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(arguments: list[str]) -> None:
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")


def _forget_the_server() -> None:
    """Close the server's files, and reset what multiprocessing remembers of them."""
    os.closerange(3, 4096)
    modules: Any = process, resource_tracker, forkserver
    modules[0]._parent_process, modules[0]._children = None, set()
    now = modules[0]._current_process
    now._name, now._identity, now._parent_pid = "MainProcess", (), None
    now._config = {"authkey": now.authkey, "semprefix": "/mp"}
    tracker, server = modules[1]._resource_tracker, modules[2]._forkserver
    tracker._fd = tracker._pid = None
    server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None


def _forked(args: Any) -> list[str] | None:
    """Return the arguments of `python` where it is to be forked."""
    if not isinstance(args, list) or args[0] != sys.executable:
        return None
    words = [str(word) for word in args[1:]]
    return words if words[0].endswith(".py") or (words[0] == "-m" and words[1] in _FORKED) else None


class _Popen(subprocess.Popen[Any]):
    """Fork where one of `_FORKED` or a script is started, and start everything else as ever."""

    def _execute_child(
        self,
        args: Any,
        executable: Any,
        preexec_fn: Any,
        close_fds: Any,
        pass_fds: Any,
        cwd: Any,
        env: Any,
        startupinfo: Any,
        creationflags: Any,
        shell: Any,
        *rest: Any,
    ) -> None:
        words = _forked(args)
        if words is None:
            usual = (executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell)
            super()._execute_child(args, *usual, *rest)  # type: ignore[misc]
            return
        pipes, new_session = rest[:6], rest[-2]
        # What waits in their buffers would be written twice.
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            self._child_created = True
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
            return
        try:
            if new_session:
                os.setsid()
            # Copies, as one of them may be what another is copied to.
            standard = [os.dup(own if pipes[i] == -1 else pipes[i]) for own, i in enumerate((0, 3, 5))]
            _be(words, dict(os.environ) if env is None else env, Path(cwd or "."), standard)
        finally:
            traceback.print_exc()
            os._exit(1)
