"""Checks of the machine that need neither torch nor nnU-Net."""

from __future__ import annotations

import os
import platform
import shutil
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from ppgs import nvml, upstream
from ppgs.doctor.findings import Finding, error, of_problem, ok, warning
from ppgs.errors import PathUnusable
from ppgs.formatting import size
from ppgs.processes.limits import available_memory, cpu_quota, memory_limit
from ppgs.processes.temporary import NO_SOCKETS, refusal, refused_folder

_GIB = 1 << 30
_PROBE_BYTES = 64 << 20
# A preprocessed dataset and the checkpoints of a few runs; below the second nothing can be trained at all.
_DISK_WANTED, _DISK_NEEDED = 20 * _GIB, 1 * _GIB
# Data-loader workers pass batches in shared memory; Docker's default is 64 MiB.
_SHM_WANTED, _SHM_NEEDED = 2 * _GIB, _GIB // 8
_FILES_WANTED = 4096
_RESULTS = "nnUNet_results"
_SLOW_BYTES_PER_SECOND = 50e6
_PACKAGES = ("ppgs", "nnunetv2", "torch", "batchgeneratorsv2", "dynamic_network_architectures", "acvl_utils", "numpy")


def check_machine(folders: Mapping[str, Path], cpus: int) -> Iterator[Finding]:
    """Run all checks; `folders` are nnU-Net's by name, `cpus` the number of CPUs of this process."""
    yield check_versions()
    yield check_driver()
    yield check_compiler()
    yield check_cpus(cpus, cpu_quota())
    yield check_memory()
    yield check_shared_memory(Path("/dev/shm"))  # noqa: S108  (is measured, not written to)
    yield check_temporary_files()
    yield check_open_files()
    yield from check_folders(folders)


def check_versions() -> Finding:
    """Check Python, the packages that a training depends on, and that nnU-Net is a tested version."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    if not found["nnunetv2"].startswith(upstream.VERSIONS):
        return warning("versions", text, "install nnunetv2 2.8, whose internals ppgs is tested against", **found)
    return ok("versions", text, **found)


def check_driver() -> Finding:
    """Check NVIDIA's driver and the GPUs that trainings may use (`CUDA_VISIBLE_DEVICES`) as NVML reports them."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as problem:
        return warning(
            "gpu", f"no NVIDIA GPU or driver ({problem})", "trainings run on the CPU, which suits the demo alone"
        )
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        gpus = [found for name in nvml.visible(os.environ) if (found := _gpu(name)) is not None]
    finally:
        pynvml.nvmlShutdown()
    if not gpus:
        return warning("gpu", f"driver {driver}, but no GPU", "is CUDA_VISIBLE_DEVICES or the container's --gpus set?")
    text = ", ".join(
        g["name"] if g["memory"] is None else f"{g['name']} ({size(g['memory'])}, {size(g['free'])} free)" for g in gpus
    )
    if any(g["memory"] is not None and g["free"] < 0.5 * g["memory"] for g in gpus):
        remedy = "another process uses a GPU: see nvidia-smi, and choose one with CUDA_VISIBLE_DEVICES"
        return warning("gpu", f"{text}; driver {driver}", remedy, driver=driver, gpus=gpus)
    return ok("gpu", f"{text}; driver {driver}", driver=driver, gpus=gpus)


def _gpu(name: str) -> dict[str, Any] | None:
    """Return a GPU's name and memory, or None without such a GPU. Memory is None if NVML does not tell it (MIG)."""
    import pynvml

    try:
        handle = nvml.handle_of(name)
        model = str(pynvml.nvmlDeviceGetName(handle))
    except pynvml.NVMLError:
        return None
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError:
        return {"name": model, "memory": None, "free": None}
    return {"name": model, "memory": int(memory.total), "free": int(memory.free)}


def check_compiler() -> Finding:
    """Check for the compilers of `torch.compile`: C (Triton) or C++ (CPU), and Python's headers."""
    found = next((c for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c and shutil.which(c)), None)
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    remedy = "install gcc and python3-dev, or set nnUNet_compile=f; on a GPU an uncompiled training is slower"
    if found is None:
        return warning("compiler", "no C compiler: torch.compile cannot work", remedy)
    if not headers.is_file():
        return warning("compiler", "Python's headers are missing: torch.compile cannot work", remedy, headers)
    return ok("compiler", f"{shutil.which(found)}, with Python's headers")


def check_cpus(cpus: int, quota: float | None) -> Finding:
    load = psutil.getloadavg()[0]
    if quota is not None and quota <= cpus:
        # The load is the whole machine's.
        return ok("cpu", f"{cpus} CPUs: the quota of the container or job is worth {quota:g}", cpus=cpus, quota=quota)
    if load > 1.5 * cpus:
        remedy = "other processes compete for the CPUs; see top"
        return warning("cpu", f"{cpus} CPUs with a load of {load:.1f}", remedy, cpus=cpus)
    return ok("cpu", f"{cpus} CPUs, no quota below that", cpus=cpus)


def check_memory() -> Finding:
    free, total = available_memory(), memory_limit()
    if free < 4 * _GIB:
        return warning("memory", f"{size(free)} of {size(total)} free", "preprocessing large images may need more")
    return ok("memory", f"{size(free)} of {size(total)} free", free=free, total=total)


def check_shared_memory(folder: Path) -> Finding:
    if not folder.is_dir():
        return ok("shared memory", f"no {folder} on this platform")
    free = shutil.disk_usage(folder).free
    remedy = "start the container with --shm-size=8g (or --ipc=host), or train with --workers 0"
    if free < _SHM_NEEDED:
        return error("shared memory", f"{size(free)} free: loader processes would crash", remedy, folder, free=free)
    if free < _SHM_WANTED:
        return warning("shared memory", f"{size(free)} free; large patches need more", remedy, folder, free=free)
    return ok("shared memory", f"{size(free)} free", free=free)


def check_temporary_files() -> Finding:
    """Check the folder where worker processes put sockets, and programs temporary files."""
    used = tempfile.gettempdir()
    if (refused := refused_folder()) is not None:
        folder, why = refused
        remedy = "correct TMPDIR, or unset it"
        return warning("temporary files", f"TMPDIR cannot be used ({why}); {used} is used instead", remedy, folder)
    if refusal(Path(used)) == NO_SOCKETS:
        return warning(
            "temporary files", f"{NO_SOCKETS}, which data-loader workers need", "train with --workers 0", used
        )
    return ok("temporary files", f"in {used}", folder=used)


def check_open_files() -> Finding:
    try:
        import resource
    except ImportError:
        return ok("open files", "no limit on this platform")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _FILES_WANTED:
        remedy = f"ulimit -n {_FILES_WANTED}"
        if 0 <= hard < _FILES_WANTED:
            remedy = (
                f"an administrator can raise the hard limit of {hard}, in /etc/security/limits.conf "
                f"or with docker run --ulimit nofile={_FILES_WANTED}"
            )
        remedy += ": every batch that a loader process hands over needs some"
        return warning("open files", f"at most {soft} files may be open", remedy, soft=soft, hard=hard)
    return ok("open files", f"at most {soft}" if soft >= 0 else "no limit", soft=soft)


def check_folders(folders: Mapping[str, Path]) -> Iterator[Finding]:
    """Check room, permission and speed of nnU-Net's folders."""
    for name, folder in folders.items():
        found = _check_folder(name, folder)
        yield found
        if name == _RESULTS and found.level != "error":
            yield check_write_speed(nearest_existing(folder))


def nearest_existing(path: Path) -> Path:
    """Return the folder itself, or the nearest existing parent."""
    return next(p for p in (path, *path.absolute().parents) if p.is_dir())


def _check_folder(name: str, folder: Path) -> Finding:
    if (unusable := PathUnusable.as_folder(folder)) is not None:
        return of_problem(name, unusable.problems[0])
    place = nearest_existing(folder)
    free = shutil.disk_usage(place).free
    # A training writes its results alone.
    insufficient = error if name == _RESULTS or place != folder else warning
    serves = "" if insufficient is error else ": its data can be used, but nothing can be added"
    if not can_write(place):
        remedy = "choose another --root, or ask for permission"
        return insufficient(name, f"cannot be written{serves}", remedy, place, free=free)
    if free < _DISK_NEEDED:
        return insufficient(name, f"{size(free)} free{serves}", "make room, or choose another --root", place, free=free)
    if free < _DISK_WANTED:
        return warning(name, f"{size(free)} free", "preprocessed cases and checkpoints may need more", place, free=free)
    return ok(name, f"{size(free)} free in {place}", free=free, folder=str(place))


def can_write(folder: Path) -> bool:
    """Return whether a file can be created there; permission bits are not enough (read-only mounts, root)."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".ppgs-doctor-", dir=folder) as file:
            file.write(b"x")
    except OSError:
        return False
    return True


def check_write_speed(folder: Path, count: int = _PROBE_BYTES) -> Finding:
    """Measure how fast `count` bytes reach the disk, as those of a checkpoint do."""
    block = os.urandom(1 << 20)
    try:
        with tempfile.NamedTemporaryFile(prefix=".ppgs-doctor-", dir=folder) as file:
            began = time.perf_counter()
            for _ in range(max(1, count // len(block))):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            speed = count / (time.perf_counter() - began)
    except OSError as problem:
        return error("write speed", f"cannot be measured: {problem.strerror}", "make room or choose --root", folder)
    text = f"{speed / 1e6:.0f} MB/s, forced to disk"
    if speed < _SLOW_BYTES_PER_SECOND:
        remedy = "writing checkpoints will take long; a local disk is faster"
        return warning("write speed", text, remedy, folder, bytes_per_second=speed)
    return ok("write speed", text, bytes_per_second=speed)
