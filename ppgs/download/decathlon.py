"""The Medical Segmentation Decathlon's public archives: addresses and checksums."""

from __future__ import annotations

import re
from pathlib import Path

from ppgs.download.archive import unpack
from ppgs.download.fetch import Report, fetch
from ppgs.errors import DatasetError, nearest
from ppgs.runs.lock import turn

# The organisers' own copy in Amazon's registry of open data, which MONAI downloads from, too.
SOURCE = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
# MD5 of the archives as they are published; MONAI checks the same.
CHECKSUMS = {
    "Task01_BrainTumour": "240a19d752f0d9e9101544901065d872",
    "Task02_Heart": "06ee59366e1e5124267b774dbd654057",
    "Task03_Liver": "a90ec6c4aa7f6a3d087205e23d4e6397",
    "Task04_Hippocampus": "9d24dba78a72977dbd1d2e110310f31b",
    "Task05_Prostate": "35138f08b1efaef89d7424d2bcc928db",
    "Task06_Lung": "8afd997733c7fc0432f71255ba4e52dc",
    "Task07_Pancreas": "4f7080cfca169fa8066d17ce6eb061e4",
    "Task08_HepaticVessel": "641d79e80ec66453921d997fbf12a29c",
    "Task09_Spleen": "410d4a301da4e5b2f6f86ec3ddba524e",
    "Task10_Colon": "bad7a188931dc2f6acf72b08eb6202d0",
}


def download(wanted: Path, source: str, report: Report) -> bool:
    """Make the Decathlon folder `wanted` (`.../Task04_Hippocampus`); return False if it exists.

    The archive is fetched beside the folder, where a broken download resumes, and removed once it is unpacked. Its name
    ends in `.part`, and in `.whole` once its checksum matches: a file without belongs to the user, and is unpacked if
    its checksum matches.
    `report(step, done, total)` in bytes. Raises `DatasetError` (no such task, not the published archive),
    `DownloadFailed` (call again to continue) and `DiskFull`.
    """
    name = wanted.name
    if name not in CHECKSUMS:
        raise DatasetError(f"there is no Decathlon task '{name}'", "--download", nearest(name, CHECKSUMS))
    if not re.match(r"https?://", source):
        raise DatasetError("not the address of a server", source, "begin it with https://")
    if (wanted / "dataset.json").is_file():
        # Before the lock, which needs a folder that can be written.
        return False
    import pooch

    wanted.parent.mkdir(parents=True, exist_ok=True)
    with turn(wanted.parent / f".{name}.lock", "this download", lambda: report("waiting for another download", 0, 0)):
        if (wanted / "dataset.json").is_file():
            return False
        if wanted.exists():
            raise DatasetError("the folder exists, but contains no dataset.json", wanted, "remove or rename it")
        archive = wanted.with_name(f"{name}.tar")
        if archive.exists():
            if pooch.file_hash(str(archive), alg="md5") != CHECKSUMS[name]:
                what = "a file of the archive's name is there, which is not the archive"
                raise DatasetError(what, archive, "move it")
            unpack(archive, wanted, report)
            return True
        part, whole = (archive.with_name(f"{archive.name}.{ending}") for ending in ("part", "whole"))
        if not whole.exists():
            fetch(f"{source.rstrip('/')}/{archive.name}", CHECKSUMS[name], part, report)
            part.replace(whole)
        unpack(whole, wanted, report)
        whole.unlink()
    return True
