"""Reader of nnU-Net's `summary.json`; rejects truncated or damaged files with the reason."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from ppgs.compare.model import CaseScores
from ppgs.errors import BadInput


class DamagedSummary(BadInput):
    """A `summary.json` that cannot be read or is not nnU-Net's."""


def case_name(file: str) -> str:
    """Return the case of a segmentation's file name: without folder (of any system) and ending."""
    name = PurePosixPath(file.replace("\\", "/")).name
    for ending in (".nii.gz", ".nii", ".mha", ".nrrd"):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return PurePosixPath(name).stem


def read_summary(path: Path, remedy: str) -> tuple[CaseScores, ...]:
    """Read all cases of a `summary.json`; raises `DamagedSummary` naming the file, the first fault and the remedy."""
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DamagedSummary("there is no summary.json", path, remedy) from None
    except PermissionError:
        raise DamagedSummary("permission denied", path, "ask for permission to read the summary") from None
    except (OSError, ValueError, RecursionError) as problem:
        raise DamagedSummary(f"the summary is half-written or damaged: {problem}", path, remedy) from None
    entries = raw.get("metric_per_case") if isinstance(raw, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DamagedSummary("expected nnU-Net's summary with a list 'metric_per_case'", path, remedy)
    try:
        cases = tuple(_cases(entries, path.parent))
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise DamagedSummary(f"the summary is damaged: {_describe(problem)}", path, remedy) from None
    seen: set[str] = set()
    for scores in cases:
        if scores.case in seen:
            raise DamagedSummary(f"the summary lists case '{scores.case}' twice", path, remedy)
        seen.add(scores.case)
    return cases


def _cases(entries: list[Any], folder: Path) -> Iterator[CaseScores]:
    keys: set[str] | None = None
    for entry in entries:
        prediction, reference = entry.get("prediction_file"), entry.get("reference_file")
        name = case_name(str(prediction or reference))
        metrics = {str(key): values for key, values in entry["metrics"].items() if str(key) != "0"}
        if not metrics:
            raise ValueError(f"case '{name}' has no foreground class")
        if keys is not None and set(metrics) != keys:
            raise ValueError(f"case '{name}' has classes {sorted(metrics)}, others have {sorted(keys)}")
        keys = set(metrics)
        yield CaseScores(
            case=name,
            dice={key: _dice(values["Dice"], name) for key, values in metrics.items()},
            reference_voxels={key: int(values["n_ref"]) for key, values in metrics.items() if "n_ref" in values},
            prediction=_locate(prediction, folder),
            reference=Path(reference) if reference else None,
        )


def _dice(value: object, case: str) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"Dice of case '{case}' is {value!r}, expected a number")
    if not math.isnan(value) and not 0.0 <= value <= 1.0 + 1e-9:
        raise ValueError(f"Dice of case '{case}' is {value}, expected 0 to 1")
    return float(value)


def _locate(prediction: object, folder: Path) -> Path | None:
    """Return the prediction beside the summary (results may be moved), else the path in the summary."""
    if not prediction:
        return None
    beside = folder / PurePosixPath(str(prediction).replace("\\", "/")).name
    return beside if beside.exists() else Path(str(prediction))


def _describe(problem: Exception) -> str:
    return f"key {problem} is missing" if isinstance(problem, KeyError) else str(problem)


def is_file(path: Path | None) -> TypeGuard[Path]:
    """Return whether a path that a summary names is a file; False if it cannot be looked at, as in another's home."""
    try:
        return path is not None and path.is_file()
    except OSError:
        return False
