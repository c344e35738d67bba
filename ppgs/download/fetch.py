"""Download of one large file: resumed after a lost connection, kept only if its checksum matches."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ppgs.errors import DatasetError, DiskFull, DownloadFailed
from ppgs.formatting import size
from ppgs.runs.disk_space import require_room

Report = Callable[[str, int, int], None]
# What has come of a chunk is lost when the connection breaks.
_CHUNK = 1 << 16
# A connection without a byte for this long counts as broken; it is retried this often without progress.
_SILENCE_SECONDS = 60.0
_ATTEMPTS = 6
_WAIT_SECONDS = 1.0


def fetch(url: str, md5: str, target: Path, report: Report) -> None:
    """Download `url` to `target`, continuing after what is there from an earlier call; its checksum is then checked.

    Raises `DownloadFailed` when the server cannot be reached or breaks off again and again, `DatasetError` when it has
    no such file or another one than the checksum says, `DiskFull` before anything is written.
    """
    import pooch

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _complete(url, target, report)
        if pooch.file_hash(str(target), alg="md5") != md5:
            target.unlink()
            raise DatasetError(
                "the archive is not the one that was published: its checksum is another",
                url,
                "it was removed; try again, or another mirror",
            )
    except OSError as problem:
        raise DiskFull.of(problem, target) or DatasetError(
            f"cannot be written: {problem.strerror or problem}", target, "download to another folder"
        ) from None


def _complete(url: str, part: Path, report: Report) -> None:
    """Fill `part` to the end, over as many connections as that takes."""
    import requests

    failures, anything_came = 0, False
    while True:
        had = part.stat().st_size if part.is_file() else 0
        try:
            if _receive(url, part, report):
                return
            reason = "the server ended the connection early"
        except requests.exceptions.RequestException as problem:
            if "CERTIFICATE_VERIFY_FAILED" in str(problem):
                raise DatasetError(
                    "the server's certificate is not trusted",
                    url,
                    "set REQUESTS_CA_BUNDLE to a file with the certificates of your network, or give --mirror",
                ) from None
            reason = _reason(problem, url)
        more = part.is_file() and part.stat().st_size > had
        failures, anything_came = 0 if more else failures + 1, anything_came or more
        # A server that never answered is most often an address that is wrong, or no network.
        if failures >= (_ATTEMPTS if anything_came else 2):
            come = part.stat().st_size if part.is_file() else 0
            raise DownloadFailed(reason, url, f"run the same command again to continue after {size(come)}")
        report("connecting again", 0, 0)
        time.sleep(min(_WAIT_SECONDS * 2**failures, 30))


def _receive(url: str, part: Path, report: Report) -> bool:
    """Receive over one connection; return whether the file is complete."""
    import requests

    had = part.stat().st_size if part.is_file() else 0
    # Not packed on the way: ranges and lengths are those of the file itself.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
    with requests.get(url, headers=headers, stream=True, timeout=(15, _SILENCE_SECONDS)) as answer:
        if answer.status_code == 416:
            # Nothing is left to send: complete, or too much, which the checksum shows.
            return True
        if answer.status_code in (429, 500, 502, 503, 504):
            return False
        if answer.status_code not in (200, 206):
            raise DatasetError(
                f"the server answers {answer.status_code} {answer.reason}", url, "check the address, or give --mirror"
            )
        if answer.status_code == 200:
            # The whole file from its beginning, whatever was asked for.
            had = 0
        total = _length(answer.headers, had)
        if total is not None:
            _check_room(part, total, had)
        with part.open("ab" if had else "wb") as file:
            for chunk in answer.iter_content(_CHUNK):
                file.write(chunk)
                had += len(chunk)
                report("downloading", had, total or 0)
        return total is None or had >= total


def _length(headers: Any, had: int) -> int | None:
    """Return the file's size in bytes as reported by the server; None if it is not."""
    match = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
    if match:
        return int(match[1])
    length = headers.get("Content-Length", "")
    return had + int(length) if length.isdecimal() else None


def _check_room(part: Path, total: int, had: int) -> None:
    """Raise `DiskFull` without room for the rest of the archive and its content, which is about as large."""
    remedy = "make room, or download to another disk"
    require_room(part.parent, total - had + total, "downloading and unpacking", remedy)


def _reason(problem: Exception, url: str) -> str:
    """Describe why a connection failed, without the layers of the libraries."""
    import requests

    if isinstance(problem, requests.exceptions.ProxyError):
        proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)) or ""
        # Without user and password.
        return f"the proxy {proxy.rpartition('@')[2]} cannot be used"
    if isinstance(problem, requests.exceptions.SSLError):
        return "the encrypted connection failed"
    # The latter of a server that sends a part and then nothing.
    if isinstance(problem, requests.exceptions.Timeout) or "Read timed out" in str(problem):
        return "the server does not answer"
    if isinstance(problem, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(problem, requests.exceptions.ConnectionError):
        return "the server cannot be reached"
    return f"the download failed: {problem}"
