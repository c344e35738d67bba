"""The user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def folder() -> Path:
    """`PPGS_CACHE` if set, else the platform's cache folder."""
    given = os.environ.get("PPGS_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("ppgs", appauthor=False)
