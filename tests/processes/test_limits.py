"""Limits that control groups set for a container or for a scheduler's job."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ppgs.processes import limits
from ppgs.processes.limits import available_memory, cpu_count, cpu_quota, memory_limit

_MIB = 1 << 20


class Groups:
    """A tree of control groups and the file that says in which of them a process is."""

    def __init__(self, folder: Path) -> None:
        self.root, self.membership = folder / "cgroup", folder / "self"
        self.root.mkdir()

    def is_in(self, *lines: str) -> None:
        self.membership.write_text("".join(f"{line}\n" for line in lines))

    def put(self, group: str, **values: object) -> None:
        for name, value in values.items():
            file = self.root / group / name.replace("__", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")

    def memory(self) -> tuple[int, int]:
        return available_memory(self.root, self.membership), memory_limit(self.root, self.membership)

    def cpus(self) -> float | None:
        return cpu_quota(self.root, self.membership)


@pytest.fixture
def groups(tmp_path: Path) -> Groups:
    return Groups(tmp_path)


def test_without_groups_the_machine_is_the_limit(groups: Groups) -> None:
    free, most = groups.memory()
    assert most == psutil.virtual_memory().total
    assert 0 < free <= most
    assert groups.cpus() is None


def test_the_root_of_a_container(groups: Groups) -> None:
    groups.is_in("0::/")
    kept = f"anon 5\ninactive_file {7 * _MIB}\nactive_file {3 * _MIB}"
    groups.put("", memory__max=100 * _MIB, memory__current=70 * _MIB, memory__stat=kept)
    groups.put("", cpu__max="400000 100000")
    assert groups.memory() == (40 * _MIB, 100 * _MIB)
    assert groups.cpus() == 4
    groups.put("", memory__max="max", cpu__max="max 100000")
    assert groups.memory()[1] == psutil.virtual_memory().total
    assert groups.cpus() is None


def test_the_group_of_a_job_in_version_2(groups: Groups) -> None:
    groups.is_in("0::/system.slice/slurmstepd.scope/job_7/step_0")
    job = "system.slice/slurmstepd.scope/job_7"
    groups.put(job, memory__max=64 * _MIB, memory__current=60 * _MIB, cpu__max="200000 100000")
    groups.put(f"{job}/step_0", memory__max="max", memory__current=1 * _MIB, cpu__max="max 100000")
    groups.put("", memory__current=90 * _MIB)
    assert groups.memory() == (4 * _MIB, 64 * _MIB)
    assert groups.cpus() == 2


def test_the_group_of_a_job_in_version_1(groups: Groups) -> None:
    groups.is_in("9:name=systemd:/", "4:memory:/slurm/uid_0/job_7", "2:cpu,cpuacct:/slurm/uid_0/job_7", "0::/")
    groups.put("memory", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=1)
    values = {"memory__limit_in_bytes": 64 * _MIB, "memory__usage_in_bytes": 80 * _MIB}
    kept = f"active_file 1\ninactive_file 2\ntotal_inactive_file {5 * _MIB}\ntotal_active_file {15 * _MIB}"
    groups.put("memory/slurm/uid_0/job_7", **values, memory__stat=kept)
    groups.put("cpu/slurm/uid_0/job_7", cpu__cfs_quota_us=150000, cpu__cfs_period_us=100000)
    groups.put("cpu", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    assert groups.memory() == (4 * _MIB, 64 * _MIB)
    assert groups.cpus() == 1.5


def test_a_container_that_sees_the_hosts_path_or_one_above_it(groups: Groups) -> None:
    groups.put("memory", memory__limit_in_bytes=64 * _MIB, memory__usage_in_bytes=10 * _MIB)
    for path in ("/docker/0123456789abcdef", "/../../elsewhere"):
        groups.is_in(f"4:memory:{path}")
        assert groups.memory() == (54 * _MIB, 64 * _MIB)


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A group of the running system with a limit of 512 MiB, where the tests may make one."""
    for top, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(top) / f"ppgs-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(512 * _MIB))
            yield group
            return
        except OSError:
            pass
        finally:
            group.rmdir()
    pytest.skip("no control group can be made here")


def test_a_real_group(real_group: Path) -> None:
    program = (
        "import os, sys; open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "from ppgs.processes.limits import available_memory, memory_limit\n"
        "print(memory_limit(), available_memory())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(real_group)], capture_output=True, text=True, timeout=60, check=True
    )
    most, free = map(int, done.stdout.split())
    assert most == 512 * _MIB
    assert 0 < free < most


@pytest.mark.parametrize(("quota", "cpus"), [(None, 8), (64.0, 8), (3.5, 4), (0.2, 1)])
def test_cpus_are_those_of_the_affinity_and_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(limits, "cpu_quota", lambda: quota)
    assert cpu_count() == cpus
