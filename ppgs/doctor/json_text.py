"""Explanations of mistakes in JSON files for people who do not program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_MAX_BYTES = 1 << 28
_BOM = b"\xef\xbb\xbf"

_KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class Unreadable(Exception):
    """A file that is not JSON as nnU-Net reads it; `what` and `remedy` are for the user."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


def read_json_text(path: Path) -> tuple[Any, list[tuple[str, str]]]:
    """Return the content of a JSON file, and what and remedy for every key that an object has twice.

    Raises `Unreadable`, or OSError.
    """
    duplicates: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        duplicates.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)
        return dict(pairs)

    if path.exists() and not path.is_file() and not path.is_dir():
        raise Unreadable("is not a regular file", "put the file itself there")
    if path.stat().st_size > _MAX_BYTES:
        raise Unreadable(f"larger than {_MAX_BYTES} bytes", "is it another file?")
    data = path.read_bytes()
    if data.startswith(_BOM):
        raise Unreadable("begins with a byte-order mark, which nnU-Net does not read", "save it as UTF-8 without BOM")
    text = ""
    try:
        text = data.decode("utf-8")
        content = json.loads(text, object_pairs_hook=collect)
    except UnicodeDecodeError:
        raise Unreadable("is not UTF-8 text", "save it as UTF-8") from None
    except (ValueError, RecursionError) as problem:
        raise Unreadable(*json_problem(problem, text)) from None
    return content, [
        (f"the key '{name}' is there twice: only the last one would count", "remove or rename one of them")
        for name in duplicates
    ]


def kind_of(value: Any) -> str:
    """Name the type of a JSON value in plain words."""
    return _KINDS.get(type(value), type(value).__name__)


def json_problem(problem: Exception, text: str) -> tuple[str, str]:
    """Describe the fault in a text that is not JSON, and the remedy."""
    if not text.strip():
        return "the file is empty", "write its content, or copy it from a backup"
    if not isinstance(problem, json.JSONDecodeError):
        return f"not readable as JSON: {problem}", "is it another file?"
    if problem.msg.startswith("Illegal trailing comma"):
        # From Python 3.13 on the place is that of the comma, not of the bracket after it.
        bracket = len(text) - len(text[problem.pos + 1 :].lstrip())
        problem = json.JSONDecodeError(problem.msg, text, bracket)
    place = f"line {problem.lineno}, column {problem.colno}"
    here, before = text[problem.pos :].lstrip()[:1], text[: problem.pos].rstrip()[-1:]
    if here in ("/", "#"):
        remedy = f"remove the comment in line {problem.lineno}: JSON has none"
    elif here == "'":
        remedy = f"write double quotes instead of single ones, from {place} on"
    elif here in ("}", "]") and before == ",":
        remedy = f"remove the comma before '{here}' in {place}"
    elif before == "," and problem.msg.startswith("Illegal trailing comma"):
        remedy = f"remove the last comma in {place}"
    elif "delimiter" in problem.msg:
        remedy = f"a comma or colon is missing before {place}"
    elif problem.msg == "Extra data":
        remedy = f"remove what follows the end of the JSON text at {place}"
    elif not here or problem.msg.startswith("Unterminated"):
        remedy = f"the text breaks off after {place}: is the file whole?"
    else:
        remedy = f"correct it at {place}"
    return f"not readable as JSON: {problem.msg} ({place})", remedy
