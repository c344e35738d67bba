"""Preprocessing of cases by nnU-Net's preprocessor in a pool of workers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from ppgs.doctor.files import Case
from ppgs.errors import DatasetError
from ppgs.formatting import last_line
from ppgs.nnunet.host.devices import keep_to_one_thread
from ppgs.nnunet.preparation.conversion import GO_ON
from ppgs.plans import load_dataset, read_json
from ppgs.processes.pool import WorkerPool, quickest_start
from ppgs.runs.atomic import remove_leftovers, sync_files, write_atomically
from ppgs.runs.disk_space import storage_failure, telling_full_disk
from ppgs.runs.prepared import digest_of_file

_STAGING = ".ppgs-staging"
_worker: dict[str, Any] = {}


def preprocess(
    plans_file: Path,
    configuration: str,
    folder: Path,
    cases: Sequence[Case],
    *,
    processes: int,
    report: Callable[[str, int, int], None],
) -> None:
    """Preprocess the cases that `folder` lacks, each whole or absent, and copy the labels that nnU-Net evaluates with.

    `plans_file` and `dataset.json` lie side by side in nnUNet_preprocessed; `report(what, done, total)` is called per
    case. Raises `DatasetError` for a case that nnU-Net cannot preprocess, `DiskFull`, `StorageFailed`, `WorkerLost`.
    """
    preprocessed = plans_file.parent
    folder.mkdir(parents=True, exist_ok=True)
    truth = preprocessed / "gt_segmentations"
    truth.mkdir(exist_ok=True)
    remove_leftovers(folder, truth)
    ending = load_dataset(preprocessed / "dataset.json").file_ending
    for case in cases:
        _copy(case.label, truth / f"{case.name}{ending}")
    missing = [c for c in cases if not (folder / f"{c.name}.pkl").is_file()]
    if not missing:
        return
    shutil.rmtree(folder / _STAGING, ignore_errors=True)
    (folder / _STAGING).mkdir()
    try:
        with WorkerPool(
            min(processes, len(missing)),
            initializer=_begin_preprocessing,
            initargs=(plans_file, configuration, folder),
            context=quickest_start(),
        ) as pool:
            made = pool.imap_unordered(_preprocess_case, missing)
            for done, _ in enumerate(made, len(cases) - len(missing) + 1):
                report("preprocessing", done, len(cases))
    finally:
        shutil.rmtree(folder / _STAGING, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its time, unless the target has the same content (assumed if time and size are equal)."""
    now = source.stat()
    if target.is_file():
        there = target.stat()
        if (there.st_size, there.st_mtime_ns) == (now.st_size, now.st_mtime_ns):
            return
        if there.st_size == now.st_size and digest_of_file(source) == digest_of_file(target):
            os.utime(target, ns=(now.st_atime_ns, now.st_mtime_ns))
            return
    write_atomically(target, lambda file: file.write(source.read_bytes()))
    os.utime(target, ns=(now.st_atime_ns, now.st_mtime_ns))


def _begin_preprocessing(plans_file: Path, configuration: str, folder: Path) -> None:
    keep_to_one_thread()
    manager = PlansManager(str(plans_file))
    setup = manager.get_configuration(configuration)
    _worker.update(
        plans=manager,
        configuration=setup,
        preprocessor=setup.preprocessor_class(verbose=False),
        dataset=read_json(plans_file.parent / "dataset.json"),
        folder=folder,
    )


def _preprocess_case(case: Case) -> None:
    """Run nnU-Net's preprocessing of one case; the properties file is written last and marks the case as complete."""
    folder: Path = _worker["folder"]
    staging = folder / _STAGING
    with telling_full_disk(folder, GO_ON):
        try:
            _worker["preprocessor"].run_case_save(
                str(staging / case.name),
                [str(p) for p in case.images],
                str(case.label),
                _worker["plans"],
                _worker["configuration"],
                _worker["dataset"],
            )
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as failure:
            if (problem := storage_failure(failure, folder)) is not None:
                raise problem from failure
            if not all(path.is_file() for path in (*case.images, case.label)):
                raise
            what = f"nnU-Net cannot preprocess {case.name}: {type(failure).__name__}: {last_line(failure)}"
            remedy = "check the shape and spacing in its header, or leave the case out; then the same command continues"
            raise DatasetError(what, case.images[0], remedy) from failure
        made = [staging / f"{case.name}{ending}" for ending in (".b2nd", "_seg.b2nd", ".pkl")]
        sync_files(*made)
    for path in made:
        path.rename(folder / path.name)
