"""Preparation of a task: makes missing raw dataset, fingerprint, plans, preprocessed cases and splits.

The work is nnU-Net's own functions'; here is what they lack: each step is done once, is whole or absent after a kill,
continues where it was interrupted, and is done by one process at a time.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
    nnUNetPlannerResEncXL,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from ppgs import upstream
from ppgs.doctor.description import read_description
from ppgs.doctor.files import Case, find_cases
from ppgs.doctor.findings import raise_errors, warnings_of
from ppgs.doctor.folder import FolderCheck, check_folder
from ppgs.errors import BadInput, DatasetError, PathUnusable, PlansError, RunError
from ppgs.formatting import last_line
from ppgs.nnunet.host.environment import pool_size
from ppgs.nnunet.other_networks import SwinUnetrPlanner, UnetrPlanner
from ppgs.nnunet.preparation import demo
from ppgs.nnunet.preparation.conversion import CHECKED, GO_ON, SOURCE, Conversion, environment, listing, polled
from ppgs.nnunet.preparation.following import Following, cases_with_truth, remedy_for
from ppgs.nnunet.preparation.preprocessing import preprocess
from ppgs.nnunet.preparation.raw_checks import Geometry, examine_images
from ppgs.nnunet.preparation.transfer import transferred_plans
from ppgs.plans import Plans, check_plannable, load_plans_of, read_json
from ppgs.processes.pool import quickest_start, watched_pools
from ppgs.processes.worker import refuse_unguarded_main
from ppgs.runs.atomic import (
    remove_leftovers,
    staged_folder,
    temporary_folder,
    write_atomically,
    write_text,
)
from ppgs.runs.cascade import cases_of, read_splits, require_fold
from ppgs.runs.disk_space import telling_full_disk
from ppgs.runs.folder import RunFolder
from ppgs.runs.lock import turn
from ppgs.runs.prepared import CaseStates, look_at, settings_of, some
from ppgs.tasks import Roots, Task

PLANNERS: dict[str, type[Any]] = {
    "nnUNetPlans": ExperimentPlanner,
    "nnUNetResEncUNetMPlans": nnUNetPlannerResEncM,
    "nnUNetResEncUNetLPlans": nnUNetPlannerResEncL,
    "nnUNetResEncUNetXLPlans": nnUNetPlannerResEncXL,
    **{planner.plans_name: planner for planner in (UnetrPlanner, SwinUnetrPlanner)},
}
Report = Callable[[str, int, int], None]


class Preparation:
    """Prepares a task for one configuration; calls `report(step, done, total)` for progress, and `warn`.

    `run` is what it is prepared for. If that has `begun` (its name), it continues on the cases as they are prepared:
    missing ones are made, but raw data that changed since are refused, or passed over if it is to train `as_prepared`.
    With `plans_from` the plans are those of another dataset, transferred by nnU-Net, and not planned for this one.
    """

    def __init__(
        self,
        task: Task,
        roots: Roots,
        plans: str,
        configuration: str,
        report: Report,
        *,
        geometry: Geometry = "header",
        warn: Callable[[str], object] = lambda _: None,
        run: RunFolder | None = None,
        begun: str | None = None,
        as_prepared: bool = False,
        plans_from: dict[str, Any] | None = None,
    ) -> None:
        self.task, self.roots = task, roots
        self._run, self._begun, self._as_prepared = run, begun, as_prepared
        self.plans_name, self.configuration = plans, configuration
        self.raw = roots.raw / task.dataset
        self.preprocessed = roots.preprocessed / task.dataset
        self._report, self._warn = report, warn
        self._geometry: Geometry = geometry
        self._plans_from = plans_from
        self._processes = pool_size()

    def run(self, note: Callable[[], object] = lambda: None) -> Plans:
        """Make whatever is missing and return the plans. `note` is called before another preparation may begin.

        Raises `DatasetError` for data that cannot be used, `PlansError` for plans or configurations that are not
        there, `BadInput` for folders that cannot be written, `DiskFull` with all that is whole kept.
        """
        refuse_unguarded_main()
        try:
            with telling_full_disk(self.roots.preprocessed, GO_ON):
                self.roots.preprocessed.mkdir(parents=True, exist_ok=True)
                with self._turn(), watched_pools():
                    with self._noticing_lost_files():
                        plans = self._make()
                    note()
                    return plans
        except OSError as denied:
            if denied.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                if (unusable := PathUnusable.of(denied)) is not None:
                    raise unusable from None
                raise
            if self._is_whole():
                if self._begun is None:
                    self._refuse_outdated()
                note()
                return self._load_plans()
            raise BadInput(
                f"the folder cannot be written ({denied.strerror})",
                denied.filename or self.preprocessed,
                "choose another --root; what is prepared already may lie in a read-only folder",
            ) from None

    @contextmanager
    def _noticing_lost_files(self) -> Iterator[None]:
        """Raise `DatasetError` in place of an unforeseen error if raw files were lost since they were checked."""
        try:
            yield
        except (FileNotFoundError, RuntimeError, ValueError) as error:
            if self.raw.is_dir():
                try:
                    check_folder(self.raw, self.preprocessed, decathlon=False).raise_errors()
                except DatasetError as lost:
                    raise lost from error
            raise

    def _make(self) -> Plans:
        self._make_raw()
        following = Following(
            self.raw, self.preprocessed, self.roots.results, None if self._run is None else self._run.path, self._warn
        )
        cases: list[Case] | None = None
        if self._begun is not None and self.raw.is_dir() and _is_json(self.plans_file):
            cases = self._unchanged(following)
        if not self._as_prepared:
            self._check_raw()
        if cases is None and self.raw.is_dir():
            following.check_channels()
        self._make_plans()
        plans = self._load_plans()
        folder = self._prepared_folder
        if cases is None and self.raw.is_dir():
            cases = _cases(self.raw)
            following.follow(folder, self._settings(following), self._look(cases, following), self.plans_file)
        if cases is not None:
            preprocess(
                self.plans_file, self.configuration, folder, cases, processes=self._processes, report=self._report
            )
        elif not any(folder.glob("*.pkl")):
            raise DatasetError("neither raw nor preprocessed cases are there", folder, "restore the raw dataset")
        if not (self.preprocessed / upstream.SPLITS).is_file():
            following.make_splits()
        return plans

    def _unchanged(self, following: Following) -> list[Case]:
        """Return the cases that a run which has started may still prepare: none that is new or has changed."""
        assert self._begun is not None
        folder = self._prepared_folder
        cases = _cases(self.raw)
        settings, states = self._settings(following), self._look(cases, following)
        changes = following.changes(folder, settings, states)
        if not self._as_prepared:
            following.refuse(changes, name=self._begun)
        for names, what in (
            (changes.added, "new cases take no part in this run"),
            (changes.dated, "raw files are newer than what was prepared from them; the run continues on the latter"),
        ):
            if names:
                self._warn(f"{what}: {some(names)}")
        changed = {*changes.changed, *changes.added, *changes.removed}
        if changed and self._as_prepared:
            self._warn(f"the run continues on the data as they were prepared; changed since: {some(sorted(changed))}")
        lost = [name for name in changes.changed if not (folder / f"{name}.pkl").is_file()]
        if lost:
            raise RunError(
                f"{some(lost)} changed since the run was started, and its prepared files are gone",
                folder,
                "restore the raw files, or start a new run",
            )
        if lost := following.missing_beside_npz(folder, [case.name for case in cases if case.name not in changed]):
            raise RunError(
                f"prepared files of {some(lost)} are gone, and an older nnU-Net made the others, in another format",
                folder,
                "restore the files, or start a new run: all cases are prepared again",
            )
        if not changes:
            following.adopt(folder, settings, states)
        return [case for case in cases if case.name not in changed]

    def _refuse_outdated(self) -> None:
        """Raise `BadInput` if prepared data that cannot be written no longer match the raw data."""
        if not self.raw.is_dir():
            return
        following = Following(self.raw, self.preprocessed, self.roots.results, None, self._warn)
        folder = self._prepared_folder
        changes = following.changes(folder, self._settings(following), self._look(_cases(self.raw), following))
        if names := sorted({*changes.changed, *changes.added, *changes.removed} - {*changes.dated}):
            raise BadInput(
                f"the raw data changed since they were prepared, and the folder cannot be written: {some(names)}",
                self.preprocessed,
                "choose another --root, or make the folder writable",
            )

    def _look(self, cases: Sequence[Case], following: Following) -> CaseStates:
        return look_at(
            {case.name: case.files for case in cases},
            {} if following.record is None else following.record.cases,
            threads=self._processes,
            report=lambda done, total: self._report("reading the raw files for changes", done, total),
        )

    def _settings(self, following: Following) -> str:
        plans = PlansManager(str(self.plans_file))
        return settings_of(plans.plans, plans.get_configuration(self.configuration).configuration, following.dataset)

    def _is_whole(self) -> bool:
        """Return whether nothing is missing; fold `all`, and too few cases for folds, need no splits."""
        if not all(path.is_file() for path in (self.plans_file, self.preprocessed / "dataset.json")):
            return False
        folder, splits = self._prepared_folder, self.preprocessed / upstream.SPLITS
        if splits.is_file():
            cases = cases_of(read_splits(splits), "all")
        else:
            raw = self.raw.is_dir()
            cases = [case.name for case in _cases(self.raw)] if raw else cases_with_truth(self.preprocessed)
            has_folds = len(cases) >= upstream.FOLDS or (self.raw / upstream.SPLITS).is_file()
            if has_folds and (self._run is None or self._run.fold != "all"):
                return False
        return bool(cases) and all((folder / f"{name}.pkl").is_file() for name in cases)

    @property
    def _prepared_folder(self) -> Path:
        """Folder of the configuration's preprocessed cases; needs the plans."""
        return self.preprocessed / self._load_plans().configuration(self.configuration).data_identifier

    def _load_plans(self) -> Plans:
        return load_plans_of(self.preprocessed, self.plans_name)

    @property
    def plans_file(self) -> Path:
        return self.preprocessed / f"{self.plans_name}.json"

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other process prepares this dataset."""
        lock = self.roots.preprocessed / ".ppgs" / f"{self.task.dataset}.lock"
        waiting = "waiting for another process that prepares this task"
        with turn(lock, "the preparation of this task", lambda: self._report(waiting, 0, 0)):
            remove_leftovers(self.preprocessed)
            yield

    def _make_raw(self) -> None:
        if self.raw.is_dir():
            self._follow_source()
            return
        if self.task.kind == "nnunet":
            if not (self.preprocessed / "dataset.json").is_file():
                raise DatasetError("the raw dataset is missing", self.raw, "restore it, or give the Decathlon folder")
            return
        if self.task.kind == "demo":
            with staged_folder(self.raw) as folder, telling_full_disk(folder, GO_ON):
                demo.write_dataset(folder, lambda done, total: self._report("making the demo", done, total))
            return
        self._check_source()
        self._conversion.convert()

    @property
    def _conversion(self) -> Conversion:
        assert self.task.source is not None
        return Conversion(self.task.source, self.raw, self._report, processes=self._processes, checked=self._geometry)

    def _check_source(self) -> None:
        assert self.task.source is not None
        self._check_images(check_folder(self.task.source, self.preprocessed, decathlon=True), decathlon=True)

    def _follow_source(self) -> None:
        """Convert changed files of the dataset's Decathlon folder again."""
        if self.task.source is None or not (self.raw / SOURCE).is_file():
            return
        changes = self._conversion.changes()
        if self._begun is None:
            if changes:
                self._check_source()
                self._warn(f"the folder {self.task.source} changed since it was converted ({changes.text})")
            aside = self._conversion.follow(changes)
            if aside is not None:
                self._warn(f"what was removed or edited in {self.raw} is kept in {aside}")
        elif (changes.changed or changes.removed) and not self._as_prepared:
            raise RunError(
                f"the raw data have changed since the run was started ({changes.text})",
                self.task.source,
                remedy_for(self._begun),
            )

    def _check_raw(self) -> None:
        """Check a dataset that was not converted here, again whenever files were added or changed."""
        if not self.raw.is_dir() or self.task.kind == "demo":
            return
        found = check_folder(self.raw, self.preprocessed, decathlon=False)
        marker = self.preprocessed / CHECKED
        # Files that dataset.json lists may lie anywhere.
        named = [path for case in found.cases for path in case.files]
        files = listing(self.raw, named) | {"geometry": [self._geometry]}
        for known in (marker, self.raw / CHECKED):
            if known.is_file() and _is_json(known) and json.loads(known.read_text(encoding="utf-8")) == files:
                found.raise_errors()
                return
        self._check_images(found, decathlon=False)
        self.preprocessed.mkdir(parents=True, exist_ok=True)
        write_text(marker, json.dumps(files))

    def _check_images(self, found: FolderCheck, *, decathlon: bool) -> None:
        """Read all images and labels; raises `DatasetError` with all faults."""
        found.raise_early()
        examined = examine_images(
            found,
            decathlon=decathlon,
            geometry=self._geometry,
            report=lambda done, total: self._report("checking images and labels", done, total),
            threads=self._processes,
        )
        findings = [*found.findings, *(examined.findings if examined is not None else ())]
        raise_errors(findings, found.folder.name)
        for message in warnings_of(findings):
            self._warn(message)

    def _make_plans(self) -> None:
        # The planner writes in place.
        made = _is_json(self.plans_file) and _is_json(self.preprocessed / "dataset.json")
        if made and self._plans_from is None:
            return
        if not self.raw.is_dir():
            raise DatasetError("the raw dataset, of which plans are made, is missing", self.raw, "restore it")
        description = read_json(self.raw / "dataset.json")
        if self._plans_from is None:
            check_plannable(self.plans_name, self.configuration, description["file_ending"], self.plans_file)
        self.preprocessed.mkdir(parents=True, exist_ok=True)
        if (kept := _set_aside(self.plans_file)) is not None:
            self._warn(f"{self.plans_file} is not JSON: new plans are made, the old file is kept as {kept.name}")
        fingerprint = self.preprocessed / "dataset_fingerprint.json"
        cases = _cases(self.raw)
        content = description | {"numTraining": len(cases)}
        with self._as_listed(content, cases) as raw:
            transferred = (
                None
                if self._plans_from is None
                else transferred_plans(self._plans_from, self.task.dataset, self.plans_name, raw)
            )
            if made:
                if read_json(self.plans_file) != transferred:
                    raise PlansError(
                        f"there are other plans '{self.plans_name}' already", self.plans_file, "give another --plans"
                    )
                return
            if not _is_json(fingerprint):
                fingerprint.unlink(missing_ok=True)
                self._report("taking the fingerprint", 0, 0)
                extractor = DatasetFingerprintExtractor(self.task.dataset, self._processes)
                extractor.show_progress_bar = False
                done: list[None] = []
                with (
                    watched_pools(finished=lambda: done.append(None), context=quickest_start()),
                    polled(self._report, "taking the fingerprint", lambda: len(done), len(cases)),
                ):
                    extractor.run(overwrite_existing=False)
            self._report("planning", 0, 0)
            if transferred is not None:
                write_text(self.plans_file, json.dumps(transferred, indent=4))
            else:
                planning = PLANNERS[self.plans_name](self.task.dataset)
                try:
                    planning.plan_experiment()
                except (ArithmeticError, LookupError, ValueError) as failure:
                    what = f"nnU-Net cannot plan {self.task.dataset}: {type(failure).__name__}: {last_line(failure)}"
                    remedy = (
                        "correct images whose shapes or spacings in this file are odd, and remove it: it is made again"
                    )
                    raise PlansError(what, fingerprint, remedy) from failure
                plans = self.plans_file.read_bytes()
                write_atomically(self.plans_file, lambda file: file.write(plans))
        write_text(self.preprocessed / "dataset.json", json.dumps(content, indent=4))

    @contextmanager
    def _as_listed(self, content: dict[str, Any], cases: list[Case]) -> Iterator[Path]:
        """Yield a raw folder for nnU-Net whose `dataset.json` lists the cases by file and gives their number.

        nnU-Net would list the folder itself, including unrelated files, and requires `numTraining`.
        """
        channels = content["channel_names" if "channel_names" in content else "modality"]
        listed = {case.name: {"images": [str(p) for p in case.images], "label": str(case.label)} for case in cases}
        # The order in the file counts, not the numbers.
        ordered = {str(i): channels[str(i)] for i in range(len(channels))}
        # Not in TMPDIR, which may be another disk: this one must have room anyway.
        with temporary_folder(self.preprocessed / "planning") as place:
            roots = Roots(place / "raw", self.roots.preprocessed, place / "results")
            view = roots.raw / self.task.dataset
            view.mkdir(parents=True)
            text = json.dumps(content | {"channel_names": ordered, "dataset": listed})
            (view / "dataset.json").write_text(text, encoding="utf-8")
            with environment(roots):
                yield roots.raw

    def check_fold(self, fold: int | str) -> None:
        """Raise `BadInput` if the splits have no such fold; nnU-Net would silently make one up."""
        if fold == "all":
            return
        splits = self.preprocessed / upstream.SPLITS
        folds = len(read_splits(splits)) if splits.is_file() else 0
        if folds == 0:
            raise BadInput("too few cases for nnU-Net's five folds", "--fold", "give --fold all, or folds of your own")
        require_fold(fold, folds, self.task.dataset)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return False
    return True


def _set_aside(plans: Path) -> Path | None:
    """Rename plans that are not JSON and return the new path: somebody may have edited them by hand."""
    if not plans.is_file() or _is_json(plans):
        return None
    return plans.replace(plans.with_name(f"{plans.name}.damaged"))


def _cases(raw: Path) -> list[Case]:
    description = read_description(raw, decathlon=False)
    return find_cases(raw, description, decathlon=False)[0]
