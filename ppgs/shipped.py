"""Paths of files shipped with ppgs. Uses the standard library only, since completion needs it at every TAB."""

from __future__ import annotations

from pathlib import Path


def folder() -> Path:
    """Return `schedules/` in the wheel, or at the top of a checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "shipped_schedules"
    return installed if installed.is_dir() else here.parent / "schedules"


def schedules() -> dict[str, Path]:
    """Return shipped schedules by name."""
    return {p.stem: p for p in sorted(folder().glob("*.yaml"))}


def tasks() -> dict[str, Path]:
    """Return the facts of the Decathlon's default plans by task."""
    return {p.stem: p for p in sorted((folder() / "msd").glob("*.yaml"))}
