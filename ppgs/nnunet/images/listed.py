"""Lists of images to segment: CSV with a header, or JSON with an array of objects.

One row is one case. `image` is its file, or `image_0000`, `image_0001`, ... are its channels; in JSON `image` may be an
array of the channels' files. `output`, which may be left out, is the segmentation's name in the output folder, with or
without subfolders and file ending. Paths are relative to the list.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ppgs.doctor.files import is_text
from ppgs.errors import BadInput, Problems, nearest
from ppgs.nnunet.images.find import Image, is_file_target, name_of

_IMAGE, _OUTPUT = "image", "output"
_CHANNEL = re.compile(rf"{_IMAGE}_(\d{{4}})")
_KEYS = (_IMAGE, f"{_IMAGE}_0000", _OUTPUT)


def read_list(path: Path, channels: int, ending: str) -> list[Image]:
    """Read the images of a list, sorted by name; raises `BadInput` naming every row that cannot be used."""
    problems = Problems()
    images: dict[str, Image] = {}
    rows: dict[str, str] = {}
    for where, row in _rows(path):
        before = len(problems.found)
        files = _files(row, channels, problems, where)
        for number, file in enumerate(files):
            files[number] = file = path.parent / file
            if not file.name.endswith(ending):
                problems.add(f"the model reads {ending} files", f"{where}: {file}")
            elif not file.is_file():
                problems.add("there is no such file", f"{where}: {file}", "paths are relative to the list's folder")
        if len(problems.found) > before:
            continue
        name = _name(row.get(_OUTPUT), files[0], channels, ending, problems, where)
        if name is not None and name in rows:
            problems.add(f"'{name}' is the output of {rows[name]} too", where, f"give them different '{_OUTPUT}' names")
        elif name is not None:
            rows[name] = where.rpartition(", ")[2]
            images[name] = Image(name, tuple(files))
    problems.raise_as(BadInput, f"{len(problems.found)} problems in the list of images; nothing was segmented")
    if not images:
        raise BadInput("the list holds no images", path, f"give one case a row, with '{_IMAGE}'")
    return [images[name] for name in sorted(images)]


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each row and its position; raises `BadInput` for a file that is no list or has unknown columns."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            content = json.loads(text)
            if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
                raise BadInput("the list is no array of objects", path, f'write [{{"{_IMAGE}": "a.nii.gz"}}, ...]')
            numbered = [(f"{path}, case {n}", row) for n, row in enumerate(content, 1)]
        else:
            # A spreadsheet in many languages separates columns by semicolons.
            first = text.partition("\n")[0]
            reader = csv.DictReader(text.splitlines(), delimiter=";" if ";" in first and "," not in first else ",")
            numbered = [(f"{path}, line {reader.line_num}", row) for row in reader if any(row.values())]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, RecursionError) as problem:
        raise BadInput(f"the list cannot be read: {problem}", path, "write CSV or JSON in UTF-8") from None
    problems = Problems()
    for where, row in numbered:
        for key in row:
            if key is None:
                problems.add("the row has more values than there are columns", where, "quote values with commas")
            elif key not in (_IMAGE, _OUTPUT) and not _CHANNEL.fullmatch(key):
                problems.add(f"there is no column '{key}'", path, nearest(key, _KEYS))
        if problems.found:
            break
    problems.raise_as(BadInput, "the list has columns that are not known")
    yield from numbered


def _files(row: Mapping[str, Any], channels: int, problems: Problems, where: str) -> list[Path]:
    """Return the channel files of a row as written there; none if one of them is unusable."""
    numbered = {int(match[1]): value for key, value in row.items() if (match := _CHANNEL.fullmatch(key)) and value}
    given: Any = row.get(_IMAGE) or [numbered[number] for number in sorted(numbered)]
    names = given if isinstance(given, list) else [given]
    if not names or not all(isinstance(name, str) and name.strip() and is_text(name) for name in names):
        problems.add("the case has no image", where, f"give its file as '{_IMAGE}'")
    elif row.get(_IMAGE) and numbered:
        problems.add(f"both '{_IMAGE}' and '{_IMAGE}_0000' are given", where, "give one of them")
    elif sorted(numbered) not in ([], list(range(channels))) or len(names) not in (1, channels):
        have = ", ".join(f"{number:04d}" for number in sorted(numbered)) or str(len(names))
        problems.add(f"the case has channels {have}; the model takes {channels}", where)
    else:
        return [Path(name.strip()) for name in names]
    return []


def _name(given: Any, file: Path, channels: int, ending: str, problems: Problems, where: str) -> str | None:
    if not given:
        return name_of(file, channels, ending)[0]
    path = PurePosixPath(str(given).strip())
    if path.is_absolute() or ".." in path.parts or not path.name or not is_text(str(path)):
        problems.add(f"'{given}' is no name in the output folder", where, "give a relative path without '..'")
        return None
    try:
        is_file_target(Path(path), ending)
    except BadInput as error:
        problems.add(error.problems[0].what, f"{where}: {path}", f"leave the ending out, or use {ending}")
        return None
    return str(path).removesuffix(ending)
