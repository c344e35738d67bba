"""Runs that were trained on other data than those prepared now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from ppgs import upstream
from ppgs.errors import DamagedRun, RunLocked
from ppgs.runs.atomic import write_text
from ppgs.runs.cascade import Split, cases_of, read_splits
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import is_held
from ppgs.runs.manifest import Manifest
from ppgs.runs.prepared import Record, data_digest, read_record
from ppgs.runs.registry import find_runs


def write_data(run: RunFolder, digests: Mapping[str, str]) -> None:
    """Record the data that a run is trained on: a digest per case."""
    write_text(run.data, json.dumps(dict(sorted(digests.items()))) + "\n")


def read_data(run: RunFolder) -> dict[str, str] | None:
    """Return the digests of the cases that a run was trained on, or None if the run does not record them."""
    try:
        content = json.loads(run.data.read_text(encoding="utf-8"))
        return {str(case): str(digest) for case, digest in content.items()}
    except (OSError, ValueError, AttributeError):
        return None


def trained_cases(record: Record, splits: list[Split], fold: int | str) -> dict[str, str]:
    """Return the digests of the cases that a fold trains and validates on."""
    if fold == "all" or int(fold) >= len(splits):
        return record.digests
    digests = record.digests
    return {case: digests[case] for case in cases_of(splits, fold) if case in digests}


def case_digests(preprocessed: Path, fold: int | str) -> dict[str, str]:
    """Return `trained_cases` of the prepared data; empty if ppgs has no record of them."""
    record, splits = read_record(preprocessed), preprocessed / upstream.SPLITS
    if record is None:
        return {}
    return trained_cases(record, read_splits(splits) if splits.is_file() else [], fold)


def is_older(manifest: Manifest, record: Record, splits: list[Split]) -> bool | None:
    """Return whether a run was trained on other data than the record's, or None if that is not known."""
    begun = manifest.origin
    if not begun:
        return None
    if "data" not in begun:
        # It was started by a ppgs that did not record its data.
        return True if record.changed is not None and manifest.created < record.changed else None
    definition = begun.get("definition", record.definition)
    return definition != record.definition or begun["data"] != data_digest(trained_cases(record, splits, manifest.fold))


class OlderRuns:
    """Answers `is_older` for runs of any dataset; each dataset's record is read once."""

    def __init__(self, preprocessed: Path) -> None:
        self._preprocessed = preprocessed
        self._known: dict[str, tuple[Record, list[Split]] | None] = {}

    def __call__(self, manifest: Manifest) -> bool | None:
        if manifest.dataset not in self._known:
            self._known[manifest.dataset] = self._read(self._preprocessed / manifest.dataset)
        known = self._known[manifest.dataset]
        return None if known is None else is_older(manifest, *known)

    @staticmethod
    def _read(folder: Path) -> tuple[Record, list[Split]] | None:
        record = read_record(folder)
        try:
            return None if record is None else (record, read_splits(folder / upstream.SPLITS))
        except DamagedRun:
            return None


def begun_runs(results: Path, dataset: str, own: Path | None) -> Iterator[tuple[RunFolder, Manifest]]:
    """Yield the runs of a dataset that have started to use its prepared cases, except `own`."""
    for run, manifest in find_runs(results):
        if manifest.dataset == dataset and manifest.origin and (own is None or run.path.resolve() != own.resolve()):
            yield run, manifest


def is_trained_on(results: Path, dataset: str, own: Path | None) -> bool:
    """Return whether any run, including nnU-Net's own, was trained on a dataset."""
    if next(begun_runs(results, dataset, own), None) is not None:
        return True
    return any((results / dataset).glob("*/fold_*/checkpoint_*.pth"))


def refuse_live(results: Path, dataset: str, own: Path | None, why: str) -> None:
    """Raise `RunLocked` if a live process trains on a dataset's prepared cases."""
    for run, manifest in begun_runs(results, dataset, own):
        if (owner := is_held(run.lock)) is not None:
            raise RunLocked(
                f"{why}, but '{manifest.name}' is training on the prepared data (process {owner.pid} on {owner.host})",
                run.path,
                f"wait until it has finished, or stop it first: ppgs stop {manifest.name}",
            )
