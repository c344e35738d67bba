"""Changes of a task's data since a run was trained on them."""

from __future__ import annotations

from pathlib import Path

from ppgs.doctor.description import read_description
from ppgs.doctor.files import find_cases
from ppgs.errors import PpgsError
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import read_manifest
from ppgs.runs.older import case_digests, read_data
from ppgs.runs.prepared import Changes, Record, difference, digests_of, look_at, read_record
from ppgs.tasks import Roots

_THREADS = 8


def changes_since(run: RunFolder, roots: Roots) -> Changes:
    """Compare a task's raw data with those of a run; return no changes if either is not recorded."""
    before = read_data(run)
    if before is None:
        return Changes()
    try:
        manifest = read_manifest(run)
        now = _raw_digests(roots.raw / manifest.dataset, roots.preprocessed / manifest.dataset)
        prepared = case_digests(roots.preprocessed / manifest.dataset, manifest.fold)
        record = read_record(roots.preprocessed / manifest.dataset) or Record()
    except (PpgsError, OSError):
        return Changes()
    # Cases that the folds leave out take no part; new ones may.
    left_out = record.cases.keys() - prepared.keys()
    present = {case: digest for case, digest in now.items() if case not in left_out}
    return difference(before, present) if present else Changes()


def _raw_digests(raw: Path, preprocessed: Path) -> dict[str, str]:
    if not raw.is_dir():
        return {}
    cases, _ = find_cases(raw, read_description(raw, decathlon=False), decathlon=False)
    record = read_record(preprocessed) or Record()
    files = {case.name: case.files for case in cases}
    return digests_of(look_at(files, record.cases, threads=_THREADS))
