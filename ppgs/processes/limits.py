"""Limits of memory and CPUs that a container or a job sets by control groups (Linux, versions 1 and 2)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

_ROOT, _MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available_memory(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int:
    """Return the bytes of memory that are still free to this process."""
    found = [int(psutil.virtual_memory().available)]
    for group in _groups("memory", root, membership):
        most = _number(group / "memory.max", group / "memory.limit_in_bytes")
        used = _number(group / "memory.current", group / "memory.usage_in_bytes")
        if most is not None and used is not None:
            found.append(most - used + _given_back(group / "memory.stat"))
    return max(min(found), 0)


def memory_limit(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int:
    """Return the bytes of memory that this process and all others of its container or job may have."""
    found = [int(psutil.virtual_memory().total)]
    for group in _groups("memory", root, membership):
        most = _number(group / "memory.max", group / "memory.limit_in_bytes")
        found += [] if most is None else [most]
    return min(found)


def cpu_quota(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> float | None:
    """Return how many CPUs' worth of time this process may have, or None for no limit."""
    quotas = (_quota(group) for group in _groups("cpu", root, membership))
    return min((quota for quota in quotas if quota is not None), default=None)


def cpu_count() -> int:
    """Return the number of CPUs this process may use: its affinity, and the quota of its container or job.

    Threads beyond a quota are no faster: the kernel stops all of them for the rest of every tenth of a second.
    """
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return seen if quota is None else max(1, min(seen, math.ceil(quota)))


def _groups(controller: str, root: Path, membership: Path) -> Iterator[Path]:
    """Yield the folders of this process's group and its parents, whose limits apply too.

    Within a container the path may be the host's and not exist; the container's own group is then at the root.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    places = {root: PurePosixPath("/"), root / controller: PurePosixPath("/")}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            places[root] = places[root / "unified"] = PurePosixPath(path)
        elif controller in controllers.split(","):
            places[root / controller] = PurePosixPath(path)
    for mounted, place in places.items():
        inside = PurePosixPath(*(part for part in place.parts if part not in ("/", "..")))
        yield from (mounted / level for level in (inside, *inside.parents))


def _number(*files: Path) -> int | None:
    """Return the number in the first of the files that exists; None if there is none, or it says "max"."""
    for file in files:
        try:
            text = file.read_text(encoding="utf-8").strip()
        except OSError:
            continue
        return int(text) if text.isdecimal() else None
    return None


def _given_back(stat: Path) -> int:
    """Return the bytes of files that the kernel keeps in memory and gives back when memory is needed.

    Files that are read again and again count too, as in Linux's `MemAvailable`.
    """
    try:
        kept = dict(line.split()[:2] for line in stat.read_text(encoding="utf-8").splitlines())
        names = ("inactive_file", "active_file")
        return sum(int(kept.get(f"total_{name}", kept.get(name, 0))) for name in names)
    except (OSError, ValueError):
        return 0


def _quota(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        quota, period = str(_number(group / "cpu.cfs_quota_us")), str(_number(group / "cpu.cfs_period_us"))
    if quota.isdecimal() and period.isdecimal() and int(period) > 0:
        return int(quota) / int(period) or None
    return None
