"""A TMPDIR that cannot be used is passed over, before workers lose their first batch in it."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ppgs.doctor.machine import check_temporary_files
from ppgs.errors import BadInput
from ppgs.processes import temporary
from ppgs.processes.temporary import choose_temporary_folder, refusal
from tests.helpers.disks import mounted

Made = Callable[[Path], Path]


def absent(folder: Path) -> Path:
    return folder / "absent"


def file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def circle(folder: Path) -> Path:
    (folder / "circle").symlink_to("circle")
    return folder / "circle"


def long(folder: Path) -> Path:
    """Longer than a socket's path may be, as folders of batch systems are."""
    path = folder / ("x" * 100)
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(temporary, "_GIVEN", "")
    for name in ("TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("make", [absent, file, circle, long])
def test_another_one_is_taken(make: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = make(tmp_path)
    monkeypatch.setenv("TMPDIR", str(given))
    monkeypatch.setattr(temporary, "_GIVEN", str(given))
    choose_temporary_folder()
    assert os.environ["TMPDIR"] == tempfile.gettempdir() != str(given)
    with tempfile.TemporaryDirectory(prefix="pymp-") as place, socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{place}/listener-12345678")
    found = check_temporary_files()
    assert found.level == "warning" and found.where == str(given) and tempfile.gettempdir() in found.what


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "small", "size=64k")


def test_a_full_or_read_only_disk_is_passed_over(small_disk: Path, read_only: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(small_disk.stat().st_blksize * 8))
    assert refusal(small_disk) == "no space left on device"
    assert refusal(read_only) == "read-only file system"


def test_one_that_can_be_used_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", tempfile.mkdtemp(dir="/tmp", prefix="ok-"))
    choose_temporary_folder()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] and list(Path(os.environ["TMPDIR"]).iterdir()) == []
    Path(os.environ["TMPDIR"]).rmdir()
    monkeypatch.delenv("TMPDIR")
    choose_temporary_folder()
    assert "TMPDIR" not in os.environ
    assert check_temporary_files().level == "ok"


@pytest.fixture(params=[(errno.EPERM, "bind"), (errno.EAFNOSUPPORT, "__init__"), (errno.EOPNOTSUPP, "__init__")])
def no_sockets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker and Kubernetes, systemd's RestrictAddressFamilies, firejail's protocol."""
    number, denied = request.param

    def forbid(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, denied, forbid)


def test_where_sockets_are_forbidden_only_loader_workers_are_refused(
    no_sockets: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox: all but the loader's workers makes do with files."""
    usable = tempfile.mkdtemp(dir="/tmp", prefix="ok-")
    monkeypatch.setenv("TMPDIR", usable)
    choose_temporary_folder()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == usable
    found = check_temporary_files()
    assert found.level == "warning" and "--workers 0" in found.remedy
    with pytest.raises(BadInput, match="forbids the sockets") as refused:
        choose_temporary_folder(sockets=True)
    assert "--workers 0" in refused.value.problems[0].remedy
    monkeypatch.setenv("TMPDIR", str(absent(tmp_path)))
    choose_temporary_folder()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == "/tmp"
    Path(usable).rmdir()


def test_without_any_all_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(absent(tmp_path)))
    monkeypatch.setattr(temporary, "_USUAL", (str(file(tmp_path)),))
    with pytest.raises(BadInput, match=r"absent \(no such file or directory\); .*file \(not a directory\)"):
        choose_temporary_folder()
