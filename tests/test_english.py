"""Words of a dialect that readers had to decode stay rare in everything that a person reads."""

from __future__ import annotations

import ast
import re
import tokenize
from pathlib import Path

PROJECT = Path(__file__).parent.parent
WORDS = (
    *("told", "tells", "anew", "so many", "goes on", "begun", "alike", "of its own", "lies", "for ever", "where there"),
    *("what there is", "stands", "reckon", "reckons", "nobody", "at once", "by itself", "holds"),
)
RARE = re.compile(rf"\b({'|'.join(WORDS)})\b", re.IGNORECASE)
MOST_PER_10_000 = 20.0
QUESTIONS = ("What ", "How ", "Whether ", "Where ", "Which ", "Who ", "Why ")


def prose_of(path: Path) -> str:
    """Comments and strings of a Python file (names in the code are not prose); the whole text of any other."""
    if path.suffix != ".py":
        return path.read_text(encoding="utf-8")
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    with path.open("rb") as file:
        tokens = [t for t in tokenize.tokenize(file.readline) if t.type in kinds]
    # What an f-string puts in is code.
    return "\n".join(re.sub(r"\{[^{}]*\}", "", token.string) for token in tokens)


def share_of(paths: list[Path]) -> tuple[float, dict[str, list[str]]]:
    """Occurrences per 10,000 words, and where they are."""
    words, found = 0, dict[str, list[str]]()
    for path in paths:
        prose = prose_of(path)
        words += len(re.findall(r"[A-Za-z']+", prose))
        if hits := RARE.findall(prose):
            found[str(path.relative_to(PROJECT))] = hits
    return 1e4 * sum(map(len, found.values())) / words, found


def test_the_project_reads_as_plain_english() -> None:
    pages = [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"), *(PROJECT / "benchmarks").rglob("*.md")]
    for paths in ([*(PROJECT / "ppgs").rglob("*.py")], [*(PROJECT / "tests").rglob("*.py")], pages):
        assert len(paths) > 5
        share, found = share_of([p for p in paths if p != Path(__file__)])
        assert share <= MOST_PER_10_000, found


def test_docstrings_begin_with_a_verb_or_the_name_of_the_thing() -> None:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    folders = [PROJECT / name for name in ("ppgs", "tests", "benchmarks", ".ci")]
    found = [
        f"{path.relative_to(PROJECT)}:{node.body[0].lineno}"
        for path in (path for folder in folders for path in folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, documented) and (ast.get_docstring(node) or "").startswith(QUESTIONS)
    ]
    assert not found


def test_the_dialect_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text('told = 1\n# It lies there.\ntext = f"{told} stands"\n')
    assert RARE.findall(prose_of(file)) == ["lies", "stands"]
