"""Preprocessed cases as nnU-Net stores them, which unpickles the file beside each: checked first.

A pickle can run whatever it names. Nothing but NumPy's arrays and numbers is named by nnU-Net's own.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blosc2.exceptions import UnsafeDeserializationError
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy

from ppgs import upstream
from ppgs.errors import DamagedRun, RunError, StorageFailed

# As NumPy 1 and 2 write arrays, scalars and their types in every protocol.
_KNOWN = {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
} | {("numpy", "ndarray"), ("numpy", "dtype")}


_NO = "use no preprocessed data from a source that you do not trust; prepare the task from its raw data"


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _Foreign(f"{module}.{name}")
        return super().find_class(module, name)


class _Foreign(Exception):
    pass


def check_properties(path: Path) -> None:
    """Raise `RunError` if a case's properties would execute code, `DamagedRun` if they are no properties.

    `StorageFailed` where the system does not let them be read.
    """
    try:
        with path.open("rb") as file:
            _Reader(file).load()
    except _Foreign as named:
        raise RunError(
            f"the case's properties would run '{named}', which nnU-Net writes nowhere: nothing of it was run",
            path,
            _NO,
        ) from None
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise StorageFailed.of(problem, path) from None
    except Exception as problem:  # whatever a damaged pickle makes of itself
        raise DamagedRun(
            f"the case's properties cannot be read: {problem}", path, "remove the file: the case is prepared again"
        ) from None


def unreadable(folder: Path, cases: Iterable[str]) -> StorageFailed | None:
    """Return the system's error for the first unreadable file of these cases; Blosc2 does not report it."""
    for path in (folder / f"{case}{ending}" for case in cases for ending in upstream.CASE_ENDINGS):
        try:
            with path.open("rb") as file:
                file.read(1)
        except FileNotFoundError:
            continue
        except OSError as problem:
            return StorageFailed.of(problem, path)
    return None


class _Checked:
    """Checks the properties of a case once per process before nnU-Net unpickles them."""

    source_folder: str

    def load_case(self, identifier: str) -> Any:
        seen = self.__dict__.setdefault("_seen", set())
        if identifier not in seen:
            check_properties(Path(self.source_folder) / f"{identifier}.pkl")
            seen.add(identifier)
        try:
            return super().load_case(identifier)  # type: ignore[misc]
        except UnsafeDeserializationError as unsafe:
            folder = Path(self.source_folder)
            raise RunError(
                f"the case contains more than voxels: {unsafe}", folder / f"{identifier}.b2nd", _NO
            ) from None


class CheckedBlosc2(_Checked, nnUNetDatasetBlosc2):
    """nnU-Net's cases in Blosc2 files."""


class CheckedNumpy(_Checked, nnUNetDatasetNumpy):
    """nnU-Net's cases in NumPy files."""


def checked(dataset_class: type[Any]) -> type[Any]:
    """Return the checking variant of one of nnU-Net's classes of preprocessed cases; any other unchanged."""
    return {nnUNetDatasetBlosc2: CheckedBlosc2, nnUNetDatasetNumpy: CheckedNumpy}.get(dataset_class, dataset_class)
