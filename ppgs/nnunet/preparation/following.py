"""Updates of a dataset's prepared files after changes of its raw data: per case, with splits and `dataset.json`."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme
from nnunetv2.utilities.crossval_split import generate_crossval_split

from ppgs import upstream
from ppgs.doctor.findings import raise_errors
from ppgs.doctor.splits import check_splits_file
from ppgs.errors import DatasetError, PlansError, Problems, RunError
from ppgs.plans import Dataset, load_dataset, load_plans, read_json
from ppgs.runs.atomic import sync_folder, write_text
from ppgs.runs.cascade import Split, cases_of, read_splits
from ppgs.runs.older import begun_runs, is_older, is_trained_on, refuse_live
from ppgs.runs.prepared import (
    CaseStates,
    Changes,
    FileState,
    Record,
    Section,
    definition_of,
    difference,
    digest_of,
    digests_of,
    find_changes,
    read_record,
    some,
    write_record,
)
from ppgs.runs.splits import followed, write_splits


def default_splits(names: Collection[str]) -> list[Split]:
    """Return nnU-Net's own five folds (`nnUNetTrainer.do_split`)."""
    folds = generate_crossval_split(sorted(names), seed=12345, n_splits=upstream.FOLDS)
    return [{part: [str(name) for name in cases] for part, cases in fold.items()} for fold in folds]


def cases_with_truth(preprocessed: Path) -> list[str]:
    """Return the cases of a prepared dataset whose labels were copied."""
    ending = load_dataset(preprocessed / "dataset.json").file_ending
    labels = (preprocessed / "gt_segmentations").glob(f"[!.]*{ending}")
    return [path.name.removesuffix(ending) for path in labels]


def remedy_for(name: str) -> str:
    """Return the remedy for a run whose raw data changed."""
    return (
        "restore the raw files; or train on the new data in a new run (ppgs train); or continue on the cases as they "
        f"were prepared: ppgs resume {name} --as-prepared"
    )


class Following:
    """One dataset: `own` is the fold's folder of the run that it is prepared for; `warn` receives messages.

    Nothing here may run beside another preparation of the dataset.
    """

    def __init__(
        self, raw: Path, preprocessed: Path, results: Path, own: Path | None, warn: Callable[[str], object]
    ) -> None:
        self._raw, self._preprocessed, self._results = raw, preprocessed, results
        self._own, self._warn = own, warn
        self.record = read_record(preprocessed)

    @property
    def _dataset_file(self) -> Path:
        return self._preprocessed / "dataset.json"

    @property
    def _has_other_dataset_json(self) -> bool:
        """True if the raw `dataset.json` changed after it was copied, rather than the copy after that."""
        raw = self._raw / "dataset.json"
        if not (raw.is_file() and self._dataset_file.is_file()):
            return False
        now = _digest_of_description(raw)
        if self.record is not None and self.record.dataset is not None:
            return self.record.dataset != now
        newer = raw.stat().st_mtime_ns > self._dataset_file.stat().st_mtime_ns
        return newer and now != _digest_of_description(self._dataset_file)

    @property
    def dataset(self) -> Dataset:
        """The content of `dataset.json` that matches the raw data."""
        changed = self._has_other_dataset_json or not self._dataset_file.is_file()
        return load_dataset((self._raw if changed else self._preprocessed) / "dataset.json")

    def check_channels(self) -> None:
        """Raise `PlansError` if `dataset.json` now names other channels than the plans were made for."""
        if not self._has_other_dataset_json:
            return
        before, now = load_dataset(self._dataset_file), load_dataset(self._raw / "dataset.json")
        problems = Problems()
        for what, was, is_ in (
            ("channels", _kinds(before.channels), _kinds(now.channels)),
            ("file ending", before.file_ending, now.file_ending),
        ):
            if was != is_:
                told = (before.channels, now.channels) if what == "channels" else (was, is_)
                problems.add(
                    f"the {what} in dataset.json changed from {_text(told[0])} to {_text(told[1])}, which the "
                    "fingerprint and plans do not fit",
                    self._raw / "dataset.json",
                    f"restore it, or remove {self._preprocessed}: it is planned and prepared again (unfinished runs "
                    "cannot be resumed then)",
                )
        problems.raise_as(PlansError, "dataset.json has changed, and the plans do not fit it")

    def changes(self, folder: Path, settings: str, states: CaseStates) -> Changes:
        """Compare the raw cases with the sources of a folder's cases."""
        made = {path.stem: path.stat().st_mtime_ns for path in folder.glob("*.pkl")}
        return find_changes(self.record, folder.name, settings, states, made)

    def missing_beside_npz(self, folder: Path, names: Collection[str]) -> list[str]:
        """Return which cases are not prepared in a folder that an older nnU-Net filled; none in any other."""
        return [name for name in names if not (folder / f"{name}.pkl").is_file()] if any(folder.glob("*.npz")) else []

    def _would_mix(self, folder: Path, states: CaseStates, changes: Changes) -> bool:
        """Return whether cases of an older nnU-Net (`.npz`) would share the folder with those made now (`.b2nd`)."""
        if not any(folder.glob("*.npz")):
            return False
        return bool(changes.changed or self.missing_beside_npz(folder, states) or any(folder.glob("*.b2nd")))

    def refuse(self, changes: Changes, *, name: str) -> None:
        """Raise `RunError` if a run that has started depends on raw data that changed since."""
        problems = Problems()
        remedy = remedy_for(name)
        changed = [case for case in changes.changed if case not in changes.dated]
        for cases, what in (
            (changed, "cases whose raw files changed since the run was started"),
            (changes.removed, "cases of the run that are gone from the raw dataset"),
        ):
            if cases:
                problems.add(f"{what}: {some(cases)}", self._raw, remedy)
        if self._has_other_dataset_json:
            before, now = load_dataset(self._dataset_file), load_dataset(self._raw / "dataset.json")
            if definition_of(before) != definition_of(now):
                problems.add("the channels or label values in dataset.json have changed", self._raw, remedy)
        problems.raise_as(RunError, "the raw data have changed since the run was started")

    def follow(self, folder: Path, settings: str, states: CaseStates, plans_file: Path) -> None:
        """Remove outdated files so that they are made again; update splits, `dataset.json` and the record.

        Raises `RunLocked` if a live training reads what would change, `DatasetError` if the splits cannot follow.
        """
        if not states:
            raise DatasetError("there are no training images", self._raw / "imagesTr", "restore them")
        changes = self.changes(folder, settings, states)
        other_format = self._would_mix(folder, states, changes)
        if other_format:
            changes = replace(changes, redone=True)
        new = self._new_record(folder.name, settings, states, changes)
        splits = self._followed_splits(states, changes)
        if changes or splits is not None:
            refuse_live(self._results, self._preprocessed.name, self._own, f"the data of {self._raw.name} changed")
            if other_format:
                self._warn(
                    f"all cases are prepared again: an older nnU-Net prepared those in {folder} (.npz), and nnU-Net "
                    "reads one format per folder"
                )
            elif changes.redone:
                self._warn("all cases are prepared again: the plans or the label values in dataset.json changed")
            self._tell_changes(changes, splits, new, plans_file, folder.name)
            self._make_way(folder, changes, states)
        if splits is not None:
            self._write_splits(splits)
        new.splits = [] if self.record is None else self.record.splits
        if self._has_other_dataset_json:
            content = read_json(self._raw / "dataset.json") | {"numTraining": len(states)}
            write_text(self._dataset_file, json.dumps(content, indent=4))
        write_record(self._preprocessed, new)
        self.record = new

    def make_splits(self) -> None:
        """Write the folds of the raw dataset, or else nnU-Net's five if there are enough cases."""
        names = cases_with_truth(self._preprocessed)
        if self._own_splits.is_file():
            self._write_splits(read_splits(self._own_splits))
        elif len(names) >= upstream.FOLDS:
            self._write_splits(default_splits(names))

    @property
    def _is_trained_on(self) -> bool:
        return is_trained_on(self._results, self._preprocessed.name, self._own)

    @property
    def _own_splits(self) -> Path:
        return self._raw / upstream.SPLITS

    def _write_splits(self, splits: list[Split]) -> None:
        # Recorded as ours before it exists: after a kill in between it must not count as the user's file.
        record = self.record or Record()
        record = record.model_copy(update={"splits": [*record.splits[-1:], digest_of(splits)]})
        if self.record is not None:
            write_record(self._preprocessed, record)
            self.record = record
        write_splits(self._preprocessed / upstream.SPLITS, splits)

    def adopt(self, folder: Path, settings: str, states: CaseStates) -> None:
        """Update the record if nothing has changed but files' times."""
        new = self._new_record(folder.name, settings, states, Changes())
        if self._has_other_dataset_json:
            new.dataset = None if self.record is None else self.record.dataset
            new.definition = definition_of(load_dataset(self._dataset_file))
        write_record(self._preprocessed, new)
        self.record = new

    def _new_record(self, identifier: str, settings: str, states: CaseStates, changes: Changes) -> Record:
        old = self.record or Record()
        digests = digests_of(states)
        other_data = changes if self.record is None else difference(old.digests, digests)
        section = Section(settings=settings, nnunetv2=importlib.metadata.version("nnunetv2"), cases=digests)
        return Record(
            cases=states,
            dataset=_digest_of_description(self._raw / "dataset.json"),
            definition=definition_of(self.dataset),
            splits=old.splits,
            changed=time.time() if other_data or changes.dated else old.changed,
            prepared={**old.prepared, identifier: section},
        )

    def _followed_splits(self, states: CaseStates, changes: Changes) -> list[Split] | None:
        """Return splits of the present cases if the existing ones lack some or name others."""
        file = self._preprocessed / upstream.SPLITS
        if not file.is_file():
            return None
        known = read_splits(file)
        listed = set(cases_of(known, "all"))
        ours = self.record is not None and digest_of(known) in self.record.splits
        ours = ours or (len(listed) >= upstream.FOLDS and known == default_splits(listed))
        if ours and self._own_splits.is_file() and (own := read_splits(self._own_splits)) != known:
            raise_errors(check_splits_file(self._own_splits, list(states)), self._raw.name)
            _refuse_own_splits(self._own_splits, sorted(set(changes.added).difference(cases_of(own, "all"))), [])
            return own
        missing, gone = sorted(set(states) - listed), sorted(listed - set(states))
        if not missing and not gone:
            return None
        if not ours or self._own_splits.is_file():
            _refuse_own_splits(file, sorted(set(missing) & set(changes.added)), gone)
            return None
        if len(states) >= upstream.FOLDS and not self._is_trained_on:
            return default_splits(states)
        splits = followed(known, states)
        empty = [str(fold) for fold, split in enumerate(splits) if not split["val"]]
        if empty:
            raise DatasetError(
                f"without the removed cases, fold {', '.join(empty)} has none left to validate",
                file,
                "remove the file to have all cases split again; runs trained so far are not comparable then",
            )
        return splits

    def _tell_changes(
        self, changes: Changes, splits: list[Split] | None, new: Record, plans_file: Path, identifier: str
    ) -> None:
        if changes.changed and not changes.redone:
            why = "are newer than what was prepared from them" if changes.dated else "changed"
            self._warn(f"cases prepared again because their raw files {why}: {some(changes.changed)}")
        if changes.added:
            self._warn(f"new cases: {some(changes.added)}")
        if changes.removed:
            self._warn(f"cases gone from the raw dataset, whose prepared files are removed: {some(changes.removed)}")
        if splits is not None:
            if self._own_splits.is_file():
                self._warn(f"the splits are taken over again from {self._own_splits}")
            elif self._is_trained_on:
                self._warn("the splits follow: no case that stays moves to another fold")
            else:
                self._warn("all cases are split into folds again: no run was trained on the old splits")
        if changes and not changes.redone:
            fingerprint = self._preprocessed / "dataset_fingerprint.json"
            self._warn(
                "fingerprint and plans are kept, so that runs stay comparable; to plan again, remove "
                f"{fingerprint} and {plans_file.name} there, then prepare"
            )
        section = self.record.prepared.get(identifier) if self.record is not None else None
        version = new.prepared[identifier].nnunetv2
        if section is not None and section.nnunetv2 != version and not changes.redone:
            self._warn(f"the other cases were prepared by nnU-Net {section.nnunetv2}; this is {version}")
        self._tell_older(new, splits)

    def _tell_older(self, new: Record, splits: list[Split] | None) -> None:
        if splits is None:
            file = self._preprocessed / upstream.SPLITS
            splits = read_splits(file) if file.is_file() else []
        older = [
            manifest
            for _, manifest in begun_runs(self._results, self._preprocessed.name, self._own)
            if is_older(manifest, new, splits)
        ]
        finished = [manifest.name for manifest in older if manifest.status == "finished"]
        unfinished = [manifest.name for manifest in older if manifest.status != "finished"]
        if finished:
            self._warn(f"trained on the data as they were before: {some(finished)}")
        if unfinished:
            self._warn(f"started on the data as they were before, and cannot be resumed now: {some(unfinished)}")

    def _make_way(self, folder: Path, changes: Changes, states: CaseStates) -> None:
        """Remove outdated files, properties first: without them a case does not count as prepared."""
        outdated = {*changes.changed, *changes.removed}
        if changes.redone:
            outdated |= {path.stem for pattern in ("*.pkl", "*.npz") for path in folder.glob(pattern)}
        for case in outdated:
            (folder / f"{case}.pkl").unlink(missing_ok=True)
        if folder.is_dir():
            sync_folder(folder)
        for case in outdated:
            for part in upstream.CASE_ENDINGS:
                (folder / f"{case}{part}").unlink(missing_ok=True)
        known = {} if self.record is None else self.record.cases
        other_images = [c for c in changes.changed if _images(known.get(c, ())) != _images(states[c])]
        ending = load_dataset(self._dataset_file).file_ending
        for case in changes.removed:
            (self._preprocessed / "gt_segmentations" / f"{case}{ending}").unlink(missing_ok=True)
        # First-stage segmentations of other images.
        for stage in (self._results / self._preprocessed.name).glob(f"*/{upstream.NEXT_STAGE}/*"):
            for case in (*changes.removed, *other_images):
                for part in (".b2nd", ".npz"):
                    (stage / f"{case}{part}").unlink(missing_ok=True)
            if changes.redone and self._is_prepared_in(stage, folder):
                for file in stage.glob("*.*"):
                    if file.suffix in (".b2nd", ".npz"):
                        file.unlink()

    def _is_prepared_in(self, stage: Path, folder: Path) -> bool:
        """Return whether the second stage of these segmentations trains on the prepared cases in `folder`."""
        plans = stage.parent.parent.name.split("__")[-2:-1]
        try:
            known = load_plans(self._preprocessed / f"{''.join(plans)}.json").configuration(stage.name)
        except PlansError:
            return False
        return known.data_identifier == folder.name


def _refuse_own_splits(file: Path, missing: Sequence[str], gone: Sequence[str]) -> None:
    problems = Problems()
    if missing:
        problems.add(
            f"new cases that no fold of your own splits names: {some(missing)}",
            file,
            "add each to 'train' or 'val' of every fold, or move its images and label out of the raw dataset",
        )
    if gone:
        problems.add(
            f"cases in your own splits that the raw dataset does not hold: {some(gone)}",
            file,
            "remove them from the folds, or restore the cases",
        )
    problems.raise_as(DatasetError, "your own splits do not fit the cases any more")


def _digest_of_description(path: Path) -> str:
    """Return a digest of a `dataset.json` that ignores its number of cases."""
    return digest_of({key: value for key, value in read_json(path).items() if key != "numTraining"})


def _images(case: Sequence[FileState]) -> list[str]:
    return [state.digest for state in case[:-1]]


def _kinds(channels: Sequence[str]) -> list[str]:
    """Return nnU-Net's normalisation of each channel, the only thing it derives from channel names."""
    return [get_normalization_scheme(channel).__name__ for channel in channels]


def _text(value: str | Sequence[str]) -> str:
    return f"'{value}'" if isinstance(value, str) else ", ".join(value)
