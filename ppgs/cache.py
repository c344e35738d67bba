"""The user's cache folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def folder() -> Path:
    """`PPGS_CACHE` if set, else the platform's cache folder."""
    given = os.environ.get("PPGS_CACHE")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ppgs"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ppgs"
