"""A comparison as a table for spreadsheets, papers and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from ppgs.compare.reporting.column_types import columns_of
from ppgs.compare.reporting.columns import of_lines
from ppgs.compare.reporting.formats import MISSING
from ppgs.compare.reporting.layouts import CSV, PAPER, lines_of
from ppgs.compare.reporting.sentences import verdict_lines
from ppgs.compare.results import Comparison


@dataclass(frozen=True)
class Table:
    """Rows of text with a heading; `numeric` are the columns to align right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int]


def full_table(comparison: Comparison) -> Table:
    """Return one row per run of a task, without the columns that are empty in every row."""
    lines = [line for task in comparison.tasks for line in lines_of(task)]
    columns = [
        ("Task", False, [line.task.task for line in lines]),
        ("Training", False, [comparison.label(line.result.run) for line in lines]),
        *((c.title, c.numeric, [c.cell(line).text for line in lines]) for c in columns_of(PAPER, of_lines())),
    ]
    kept = [column for column in columns if any(text not in ("", MISSING) for text in column[2])]
    return Table(
        columns=tuple(title for title, _, _ in kept),
        rows=tuple(zip(*(texts for _, _, texts in kept), strict=True)),
        numeric=frozenset(index for index, (_, numeric, _) in enumerate(kept) if numeric),
    )


def to_markdown(comparison: Comparison) -> str:
    """Write the full table and the verdicts in Markdown."""
    table = full_table(comparison)
    lines = [_pipe(table.columns), _pipe(["---:" if i in table.numeric else "---" for i in range(len(table.columns))])]
    lines += [_pipe(row) for row in table.rows]
    lines += ["", *(f"- {text}" for text in verdict_lines(comparison))]
    return "\n".join(lines) + "\n"


def _pipe(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "−": "$-$", "×": r"$\times$",
    "–": "--", "±": r"$\pm$", "CO2": r"CO\textsubscript{2}",
}  # fmt: skip


def to_latex(comparison: Comparison) -> str:
    """Write the full table as a LaTeX `tabular` with booktabs rules."""
    table = full_table(comparison)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{tabular}{" + "".join("r" if i in table.numeric else "l" for i in range(len(table.columns))) + "}",
        "\\toprule",
        _latex_row(table.columns),
        "\\midrule",
    ]
    for index, row in enumerate(table.rows):
        if index and row[0] != table.rows[index - 1][0]:
            lines.append("\\addlinespace")
        lines.append(_latex_row(row))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_escape_latex(cell) for cell in cells) + r" \\"


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text).replace("CO2", _LATEX["CO2"])


def to_csv(comparison: Comparison) -> str:
    """Write one row per run with unrounded figures and machine-readable names."""
    columns = columns_of(CSV, of_lines())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.key for column in columns)
    for task in comparison.tasks:
        for line in lines_of(task):
            writer.writerow(_cell(column.raw(line)) for column in columns)
    return text.getvalue()


def _cell(value: object) -> str:
    return "" if value is None else str(value)
