"""Several trainings requested together, recorded beside the results so that none is forgotten."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppgs.runs.atomic import write_text
from ppgs.runs.folder import RunFolder

FOLDER = Path(".ppgs") / "sweeps"


class Cell(BaseModel):
    """One training of a sweep, by its path under nnUNet_results; `row` and `column` place it in the matrix."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    place: str
    row: str
    column: str

    def run(self, results: Path) -> RunFolder:
        return RunFolder(results / self.place)


class Sweep(BaseModel):
    """The cells of a sweep and the command that continues it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cells: tuple[Cell, ...]
    command: str
    created: float = Field(default_factory=time.time)

    @property
    def name(self) -> str:
        """A name derived from the cells, so that the same sweep requested again continues."""
        places = "\n".join(sorted(cell.place for cell in self.cells))
        return f"sweep-{hashlib.blake2b(places.encode(), digest_size=3).hexdigest()}"

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(cell.column for cell in self.cells))


def write_sweep(results: Path, sweep: Sweep) -> Path:
    """Save a sweep under nnUNet_results; return the file."""
    path = results / FOLDER / f"{sweep.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, sweep.model_dump_json(indent=2) + "\n")
    return path


def find_sweeps(results: Path) -> Iterator[Sweep]:
    """Yield all readable sweeps, oldest first."""
    found = []
    for path in (results / FOLDER).glob("*.json"):
        try:
            found.append(Sweep.model_validate_json(path.read_text(encoding="utf-8")))
        except (OSError, ValidationError, UnicodeDecodeError):
            continue
    yield from sorted(found, key=lambda sweep: sweep.created)
