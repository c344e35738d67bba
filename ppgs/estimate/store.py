"""Cache of slow results of estimates (traced laws, calibrations), as JSON in the user's cache folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ppgs.cache import folder
from ppgs.runs.atomic import write_text

__all__ = ["folder", "read", "write"]


def read(path: Path) -> Any:
    """Return the JSON in a file, or None if it is absent or unreadable."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def write(path: Path, value: Any) -> bool:
    """Replace a file atomically; return False if the folder cannot be written (a cache may be missing)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(value))
    except OSError:
        return False
    return True
