"""Downloads from a misbehaving server: either the published archive, or an error with the reason."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ppgs.download import decathlon, fetch
from ppgs.download.archive import unpack
from ppgs.download.decathlon import CHECKSUMS, download
from ppgs.errors import DatasetError, DiskFull, DownloadFailed
from tests.conftest import Ppgs

NAME = "Task04_Hippocampus"


@dataclass
class Server:
    """A misbehaving server: its content and faults; `asked` are the ranges that were requested from it."""

    content: bytes = b""
    breaks_after: int | None = None
    breaks: int = 10**9
    status: int | None = None
    length: int | None = None
    ranges: bool = True
    silence: float = 0.0
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if state.status is not None:
                self.send_error(state.status)
                return
            if first and first >= len(state.content):
                self.send_error(416)
                return
            self.send_response(206 if first else 200)
            whole = state.length if state.length is not None else len(state.content)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{whole - 1}/{whole}")
            self.send_header("Content-Length", str(whole - first))
            self.end_headers()
            content = state.content[first:whole]
            if state.breaks_after is not None and state.breaks > 0:
                state.breaks -= 1
                content = content[: state.breaks_after]
            self.wfile.write(content)
            time.sleep(state.silence)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{running.server_port}"
    monkeypatch.setattr(fetch, "_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(fetch, "_CHUNK", 1000)
    yield state
    running.shutdown()
    running.server_close()


def archive_of(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in more:
            tar.addfile(member)
    return buffer.getvalue()


IMAGE = bytes(range(256)) * 200
GOOD = archive_of(
    {
        f"{NAME}/dataset.json": b"{}",
        f"{NAME}/imagesTr/a.nii.gz": IMAGE,
        f"{NAME}/imagesTr/._a.nii.gz": b"mac",
        f"./._{NAME}": b"mac",
    }
)


@pytest.fixture
def published(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with an archive that is taken for the published one."""
    server.content = GOOD
    monkeypatch.setitem(CHECKSUMS, NAME, hashlib.md5(GOOD).hexdigest())
    return server


def files_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def silent(*_: object) -> None:
    pass


class TestDownload:
    def test_a_good_server(self, published: Server, tmp_path: Path) -> None:
        told: list[tuple[str, int, int]] = []
        wanted = tmp_path / "data" / NAME
        assert download(wanted, published.url, lambda *step: told.append(step))
        assert files_in(tmp_path) == {f"data/{NAME}/dataset.json", f"data/{NAME}/imagesTr/a.nii.gz"}
        assert (wanted / "imagesTr" / "a.nii.gz").read_bytes() == IMAGE
        assert ("downloading", len(GOOD), len(GOOD)) in told
        assert told[-1] == ("unpacking", len(IMAGE) + 2, len(IMAGE) + 2)
        assert not download(wanted, published.url, silent)
        assert len(published.asked) == 1

    def test_broken_connections_are_made_anew_where_they_broke(self, published: Server, tmp_path: Path) -> None:
        published.breaks_after = 9_000
        assert download(tmp_path / NAME, published.url, silent)
        assert published.asked[:3] == [None, "bytes=9000-", "bytes=18000-"]

    def test_a_later_call_goes_on_where_the_first_gave_up(self, published: Server, tmp_path: Path) -> None:
        (tmp_path / f"{NAME}.tar.part").write_bytes(GOOD[:20_000])
        assert download(tmp_path / NAME, published.url, silent)
        assert published.asked[0] == "bytes=20000-"

    def test_a_server_that_knows_no_ranges_sends_all_again(self, published: Server, tmp_path: Path) -> None:
        published.ranges = False
        published.breaks_after, published.breaks = 9_000, 1
        assert download(tmp_path / NAME, published.url, silent)
        assert published.asked == [None, "bytes=9000-"]

    @pytest.mark.parametrize("step", ["checksum", "unpacking"])
    def test_an_interruption_after_the_download_loses_and_leaves_nothing(
        self, published: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("pooch.file_hash" if step == "checksum" else "ppgs.download.decathlon.unpack", interrupt)
            download(tmp_path / NAME, published.url, silent)
        ending = "part" if step == "checksum" else "whole"
        assert files_in(tmp_path) == {f"{NAME}.tar.{ending}"}
        assert download(tmp_path / NAME, published.url, silent)
        # A whole archive is unpacked without the server.
        assert published.asked == ([None, f"bytes={len(GOOD)}-"] if ending == "part" else [None])
        assert files_in(tmp_path) == {f"{NAME}/dataset.json", f"{NAME}/imagesTr/a.nii.gz"}

    def test_an_archive_of_the_users_own_stays(self, published: Server, tmp_path: Path) -> None:
        archive = tmp_path / f"{NAME}.tar"
        archive.write_bytes(b"other")
        with pytest.raises(DatasetError, match="which is not the archive"):
            download(tmp_path / NAME, published.url, silent)
        archive.write_bytes(GOOD)
        assert download(tmp_path / NAME, published.url, silent)
        assert archive.read_bytes() == GOOD and published.asked == []

    def test_a_complete_task_in_a_folder_that_cannot_be_written(
        self, published: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / NAME).mkdir()
        (tmp_path / NAME / "dataset.json").touch()

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(decathlon, "turn", refuse)
        assert not download(tmp_path / NAME, published.url, silent)

    def test_a_size_that_is_wrong(self, published: Server, tmp_path: Path) -> None:
        published.length = len(GOOD) + 10_000
        with pytest.raises(DownloadFailed, match="broke off"):
            download(tmp_path / NAME, published.url, silent)
        assert not (tmp_path / NAME).exists()
        (tmp_path / f"{NAME}.tar.part").unlink()
        published.length = len(GOOD) - 10_000
        with pytest.raises(DatasetError, match="checksum"):
            download(tmp_path / NAME, published.url, silent)
        assert files_in(tmp_path) == set()

    def test_nothing_more_comes(self, published: Server, tmp_path: Path) -> None:
        (tmp_path / f"{NAME}.tar.part").write_bytes(GOOD[:5_000])
        published.breaks_after = 0
        with pytest.raises(DownloadFailed) as raised:
            download(tmp_path / NAME, published.url, silent)
        assert raised.value.exit_code == 75
        assert "4.9 KiB" in raised.value.problems[0].remedy or "5 KiB" in raised.value.problems[0].remedy
        assert (tmp_path / f"{NAME}.tar.part").stat().st_size == 5_000
        published.breaks_after = None
        assert download(tmp_path / NAME, published.url, silent)

    @pytest.mark.parametrize("change", ["other bytes", "shorter", "longer"])
    def test_other_bytes_than_were_published(self, published: Server, tmp_path: Path, change: str) -> None:
        changed = bytearray(GOOD)
        changed[5_000] ^= 1
        published.content = {"other bytes": bytes(changed), "shorter": GOOD[:-600], "longer": GOOD + b"x"}[change]
        with pytest.raises(DatasetError, match="checksum"):
            download(tmp_path / NAME, published.url, silent)
        # What is wrong is not gone on with.
        assert files_in(tmp_path) == set()
        published.content = GOOD
        assert download(tmp_path / NAME, published.url, silent)

    def test_a_part_of_something_else(self, published: Server, tmp_path: Path) -> None:
        (tmp_path / f"{NAME}.tar.part").write_bytes(b"x" * (len(GOOD) + 7))
        with pytest.raises(DatasetError, match="checksum"):
            download(tmp_path / NAME, published.url, silent)
        assert download(tmp_path / NAME, published.url, silent)

    @pytest.mark.parametrize("status", [403, 404])
    def test_no_such_archive(self, published: Server, tmp_path: Path, status: int) -> None:
        published.status = status
        with pytest.raises(DatasetError, match=str(status)):
            download(tmp_path / NAME, published.url, silent)
        assert files_in(tmp_path) == set()

    def test_a_server_that_is_overloaded_or_not_there(self, published: Server, tmp_path: Path) -> None:
        published.status = 503
        with pytest.raises(DownloadFailed):
            download(tmp_path / NAME, published.url, silent)
        with pytest.raises(DownloadFailed, match="cannot be reached"):
            download(tmp_path / NAME, "http://127.0.0.1:9", silent)

    def test_a_server_that_falls_silent(
        self, published: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fetch, "_SILENCE_SECONDS", 0.2)
        published.breaks_after, published.silence = 100, 1.0
        with pytest.raises(DownloadFailed, match="does not answer"):
            download(tmp_path / NAME, published.url, silent)

    @pytest.mark.parametrize(
        ("url", "variable"), [("http://example.org", "http_proxy"), ("https://example.org", "https_proxy")]
    )
    def test_a_proxy_that_cannot_be_reached_is_named_without_its_password(
        self, published: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, variable: str
    ) -> None:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(variable, "http://me:secret@127.0.0.1:9")
        with pytest.raises(DownloadFailed, match=r"the proxy 127\.0\.0\.1:9 cannot be used"):
            download(tmp_path / NAME, url, silent)

    @pytest.mark.parametrize(
        ("problem", "kind", "said"),
        [
            ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed", DatasetError, "not trusted"),
            ("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred", DownloadFailed, "encrypted connection failed"),
        ],
    )
    def test_a_certificate_that_is_not_trusted_is_no_matter_of_trying_again(
        self, published: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str, kind: Any, said: str
    ) -> None:
        import requests

        def refuse(*_: object, **__: object) -> None:
            raise requests.exceptions.SSLError(problem)

        monkeypatch.setattr(requests, "get", refuse)
        with pytest.raises(kind, match=said) as refused:
            download(tmp_path / NAME, published.url, silent)
        assert ("REQUESTS_CA_BUNDLE" in refused.value.problems[0].remedy) == (kind is DatasetError)

    def test_too_little_room_is_told_before_anything_comes(
        self, published: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(GOOD) + 5_000))
        with pytest.raises(DiskFull, match="downloading and unpacking needs"):
            download(tmp_path / NAME, published.url, silent)
        assert files_in(tmp_path) == set()

    def test_what_is_no_task_and_what_is_in_the_way(self, published: Server, tmp_path: Path) -> None:
        with pytest.raises(DatasetError) as raised:
            download(tmp_path / "Task04_Hipocampus", published.url, silent)
        assert NAME in raised.value.problems[0].remedy
        with pytest.raises(DatasetError, match="address"):
            download(tmp_path / NAME, "file:///etc", silent)
        (tmp_path / NAME).mkdir()
        with pytest.raises(DatasetError, match="contains no dataset"):
            download(tmp_path / NAME, published.url, silent)
        assert published.asked == []


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def device(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.CHRTYPE
    return member


class TestUnpacking:
    @pytest.mark.parametrize(
        "content",
        [
            archive_of({"../outside": b"x"}),
            archive_of({f"{NAME}/../../outside": b"x"}),
            archive_of({"/tmp/outside": b"x"}),
            archive_of({"Other/file": b"x"}),
            archive_of({f"{NAME}/a": b"x"}, link(f"{NAME}/b", "/etc")),
            archive_of({}, device(f"{NAME}/null")),
            GOOD[:-12_000],
            b"no archive",
            b"",
        ],
        ids=["up", "up inside", "absolute", "other folder", "link", "device", "cut off", "garbage", "empty"],
    )
    def test_what_does_not_belong_is_refused_and_leaves_nothing(self, tmp_path: Path, content: bytes) -> None:
        archive = tmp_path / "a.tar"
        archive.write_bytes(content)
        with pytest.raises(DatasetError):
            unpack(archive, tmp_path / NAME, silent)
        assert files_in(tmp_path) == {"a.tar"}
        assert not (tmp_path / NAME).exists()

    def test_a_disk_that_fills_up(self, small_disk: Path, tmp_path: Path) -> None:
        archive = tmp_path / "a.tar"
        archive.write_bytes(archive_of({f"{NAME}/a": bytes(20_000_000)}))
        with pytest.raises(DiskFull):
            unpack(archive, small_disk / NAME, silent)
        assert files_in(small_disk) == set()


class TestCommand:
    @pytest.mark.slow
    def test_exit_codes_and_words(self, server: Server, tmp_path: Path, ppgs: Ppgs) -> None:
        """The real checksums, which no archive of a test can have."""
        server.content = GOOD

        def run(task: str, **environ: str) -> subprocess.CompletedProcess[str]:
            return ppgs("prepare", "--download", tmp_path / task, "--root", tmp_path / "root", environ=environ)

        at = {"PPGS_DECATHLON_URL": server.url}
        wrong = run(NAME, **at)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert "checksum" in wrong.stderr and f"downloading {len(GOOD) / 1024:.0f} KiB" in wrong.stderr
        assert run("Task04_Hipo", **at).returncode == 2
        server.breaks_after = 0
        broken = run(NAME, **at)
        assert broken.returncode == 75
        assert "Traceback" not in wrong.stderr + broken.stderr
        assert not (tmp_path / "root").exists()

    def test_a_task_that_could_not_be_prepared_is_not_downloaded(
        self, server: Server, tmp_path: Path, ppgs: Ppgs
    ) -> None:
        (tmp_path / "root" / "nnUNet_raw" / "Dataset004_Other").mkdir(parents=True)
        at = {"PPGS_DECATHLON_URL": server.url}
        taken = ppgs("prepare", "--download", tmp_path / NAME, "--root", tmp_path / "root", environ=at)
        assert taken.returncode == 2 and "taken by Dataset004_Other" in taken.stderr
        file = tmp_path / "file"
        file.touch()
        folders = ("raw", "preprocessed", "results")
        environ = {f"nnUNet_{name}": str(file if name == "preprocessed" else tmp_path / name) for name in folders}
        unusable = ppgs("prepare", "--download", tmp_path / NAME, environ={**at, **environ})
        assert unusable.returncode == 2 and str(file) in unusable.stderr
        assert server.asked == [] and not (tmp_path / NAME).exists()

    def test_a_missing_task_is_told_how_to_get(self, tmp_path: Path, ppgs: Ppgs) -> None:
        missing = ppgs("train", tmp_path / NAME, "--root", tmp_path / "root")
        assert missing.returncode == 2
        assert f"ppgs prepare --download {tmp_path / NAME}" in " ".join(missing.stderr.split())

    def test_the_shipped_tasks_are_those_that_can_be_had(self) -> None:
        from ppgs import shipped

        assert list(CHECKSUMS) == list(shipped.tasks())
        assert decathlon.SOURCE.startswith("https://")
        assert all(len(bytes.fromhex(checksum)) == 16 for checksum in CHECKSUMS.values())

    def test_a_download_is_prepared(
        self, shared: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Real images of the Decathlon, packed here, through the command's own function."""
        source = shared / "data" / NAME
        task = json.loads((source / "dataset.json").read_text())
        cases = sorted(p.name for p in (source / "imagesTr").glob("*.nii.gz"))[:6]
        files = {f"{NAME}/dataset.json": json.dumps(task).encode()}
        for case in cases:
            for folder in ("imagesTr", "labelsTr"):
                files[f"{NAME}/{folder}/{case}"] = (source / folder / case).read_bytes()
        server.content = archive_of(files)
        monkeypatch.setitem(CHECKSUMS, NAME, hashlib.md5(server.content).hexdigest())
        monkeypatch.setattr(fetch, "_CHUNK", 1 << 16)
        from ppgs.commands.prepare import download_task

        assert download_task(tmp_path / NAME, server.url, silent)
        assert files_in(tmp_path / NAME) == {name.removeprefix(f"{NAME}/") for name in files}
