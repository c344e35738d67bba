"""Finished trainings that a benchmark takes over: only those with its own settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path


def same_settings(root: Path, what: str, settings: Mapping[str, object]) -> None:
    """Exit if `root` has trainings of `what` with other settings, which would be taken for these; else record them."""
    file = root / "benchmark_settings.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    now = json.loads(json.dumps(settings, default=str))
    if known.setdefault(what, now) != now:
        changed = ", ".join(sorted(key for key in known[what] if known[what][key] != now.get(key)))
        sys.exit(f"{root} has trainings of {what} with other settings ({changed}): give another --root")
    root.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(known, indent=1))
