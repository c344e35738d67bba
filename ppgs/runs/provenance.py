"""Provenance of a run at its start: digests of plans, dataset, splits and fingerprint; package versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ppgs import upstream
from ppgs.errors import Problems, RunError
from ppgs.runs.older import case_digests
from ppgs.runs.prepared import RECORD, Changes, data_digest, read_record

_FILES = {"dataset": "dataset.json", "fingerprint": "dataset_fingerprint.json", "splits": upstream.SPLITS}


def origin_of(preprocessed: Path, plans: str, fold: int | str) -> dict[str, str]:
    """Return digests of the existing inputs of a training; of the splits only the run's own fold."""
    found = {}
    for name, file in {"plans": f"{plans}.json", **_FILES}.items():
        path = preprocessed / file
        if path.is_file() and not (name == "splits" and fold == "all"):
            content = json.loads(path.read_text(encoding="utf-8"))
            found[name] = _digest(content[int(fold)] if name == "splits" else content)
    record = read_record(preprocessed)
    if record is not None and record.definition is not None:
        found |= {"data": data_digest(case_digests(preprocessed, fold)), "definition": record.definition}
    return found


def _digest(content: Any) -> str:
    # Whitespace and the order of keys change nothing.
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


def check_origin(
    begun: Mapping[str, str], now: Mapping[str, str], preprocessed: Path, plans: str, cases: Changes | None = None
) -> None:
    """Raise `RunError` naming every file that differs from the run's start; `cases` are the differing ones."""
    problems = Problems()
    changed = {name for name in begun.keys() & now.keys() if begun[name] != now[name]}
    if "definition" in begun and "definition" in now:
        # What else dataset.json says, such as the number of cases or a description, changes no training.
        changed = changed - {"dataset"} | ({"dataset"} if "definition" in changed else set())
    if "data" in changed:
        problems.add(
            "the cases are not those that the run was trained on" + (f" ({cases.text})" if cases else ""),
            preprocessed / RECORD,
            "restore the raw files and run 'ppgs prepare'; to train on the new data start a new run",
        )
    for name, file in {"plans": f"{plans}.json", **_FILES}.items():
        if name in changed:
            problems.add(
                f"the {name} are not those that the run was started with"
                if name in ("plans", "splits")
                else f"the {name} is not the one that the run was started with",
                preprocessed / file,
                "restore the file; to train with the new one start a new run",
            )
    problems.raise_as(RunError, "the prepared data have changed since the run was started")


def changed_versions(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Describe packages whose version differs from the last start."""
    for package, version in now.items():
        if package in before and before[package] != version:
            yield f"{package} is {version} now; the run was trained with {before[package]} so far"
