"""Mistakes in JSON files, in words for people who do not write programs."""

from __future__ import annotations

import json
from typing import Any

_KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def kind_of(value: Any) -> str:
    """What a JSON value is, without Python's name for it."""
    return _KINDS.get(type(value), type(value).__name__)


def json_problem(problem: Exception, text: str) -> tuple[str, str]:
    """What is wrong with a text that is no JSON, and the remedy."""
    if not text.strip():
        return "the file is empty", "write its content, or copy it from a backup"
    if not isinstance(problem, json.JSONDecodeError):
        return f"not readable as JSON: {problem}", "is it another file?"
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
