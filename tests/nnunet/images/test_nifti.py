"""Files that are not images: the message names what they are."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ppgs.nnunet.images.nifti import check_nifti
from tests.helpers.datasets import voxels, write

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.nii.gz", LFS, "git lfs pull"),
        ("a.png", LFS, "git lfs pull"),
        ("a.nrrd", b"/annex/objects/MD5E-s1--abc.nrrd\n", "git annex get"),
        ("a.nii.gz", b"", "the file is empty"),
        ("a.mha", b"", "the file is empty"),
        ("a.nii.gz", b"\n<!DOCTYPE html><html>log in</html>", "a web page"),
        ("a.nii.gz", b"PK\3\4" + bytes(600), "truncated or damaged"),
    ],
)
def test_what_a_file_is_instead_of_an_image(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    problem = check_nifti(tmp_path / name)
    assert problem is not None
    assert said in f"{problem.what}; {problem.remedy}"


def test_compression_is_as_the_name_says(tmp_path: Path) -> None:
    compressed = write(voxels(0)[0], tmp_path / "a.nii.gz")
    assert check_nifti(compressed) is None
    content = compressed.read_bytes()
    (tmp_path / "b.nii").write_bytes(content)
    (tmp_path / "c.nii.gz").write_bytes(gzip.decompress(content))
    for name, said in (("b.nii", "compressed, although"), ("c.nii.gz", "not compressed, although")):
        problem = check_nifti(tmp_path / name)
        assert problem is not None
        assert problem.what.startswith(said)


def test_a_closed_file_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"no image")
    monkeypatch.setattr("os.access", lambda *_: False)
    found = check_nifti(tmp_path / "a.nii.gz")
    assert found is not None and found.what == "permission denied" and "damaged" not in found.remedy
