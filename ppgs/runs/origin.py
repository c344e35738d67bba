"""What a run was begun with: digests of plans, dataset, splits and fingerprint, and versions of packages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ppgs.errors import Problems, RunError

_FILES = {"dataset": "dataset.json", "fingerprint": "dataset_fingerprint.json", "splits": "splits_final.json"}


def origin_of(preprocessed: Path, plans: str, fold: int | str) -> dict[str, str]:
    """Digests of what training depends on and that is there; of the splits only the run's own fold."""
    found = {}
    for name, file in {"plans": f"{plans}.json", **_FILES}.items():
        path = preprocessed / file
        if path.is_file() and not (name == "splits" and fold == "all"):
            content = json.loads(path.read_text(encoding="utf-8"))
            found[name] = _digest(content[int(fold)] if name == "splits" else content)
    return found


def _digest(content: Any) -> str:
    # Whitespace and the order of keys change nothing.
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


def check_origin(begun: Mapping[str, str], now: Mapping[str, str], preprocessed: Path, plans: str) -> None:
    """Raise `RunError` naming every file that is not what the run was begun with."""
    problems = Problems()
    for name, file in {"plans": f"{plans}.json", **_FILES}.items():
        if name in begun and name in now and begun[name] != now[name]:
            problems.add(
                f"the {name} are not those that the run was begun with"
                if name in ("plans", "splits")
                else f"the {name} is not the one that the run was begun with",
                preprocessed / file,
                "restore the file; to train with the new one start a new run",
            )
    problems.raise_as(RunError, "the prepared data have changed since the run was begun")


def changed_versions(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """What to say about packages that are not those of the last start."""
    for package, version in now.items():
        if package in before and before[package] != version:
            yield f"{package} is {version} now; the run was trained with {before[package]} so far"
