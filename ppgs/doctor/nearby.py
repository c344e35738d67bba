"""Guesses for a missing file or folder: similar names nearby."""

from __future__ import annotations

from pathlib import Path

from ppgs.errors import nearest_name


def absence(path: Path) -> str:
    """Explain why there is no file at a path."""
    if path.is_symlink() and not path.exists():
        return f"a link that leads nowhere ({path.readlink()})"
    if path.is_dir():
        return "a folder"
    return "not a file that can be read" if path.exists() else "not there"


def similar(folder: Path, name: str) -> str | None:
    """Return a name in the folder that differs from the expected one by case or a few letters."""
    names = [other for other in _names(folder) if other != name]
    return next((n for n in names if n.casefold() == name.casefold()), None) or nearest_name(name, names)


def deeper(folder: Path) -> Path | None:
    """Return the only inner folder with a whole dataset, as some archives unpack to."""
    found = [folder / name for name in _names(folder) if (folder / name / "dataset.json").is_file()]
    return found[0] if len(found) == 1 else None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []
