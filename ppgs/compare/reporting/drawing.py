"""Style and files of figures: themes for paper and report, colours of trainings, axes, saving."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppgs.compare.results import Comparison
from ppgs.errors import BadInput

# Okabe and Ito's colours, distinguishable with any colour vision, on light and dark backgrounds.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#999933")


# Colours that stand for the page's own in the report's SVG.
_PAGE = {"#010203": "currentColor", "#040506": "var(--line)", "#070809": "var(--faint)", "#0a0b0c": "var(--card)"}


@dataclass(frozen=True)
class Theme:
    """Colours of text and axes, grid lines, secondary text, and ground."""

    ink: str
    line: str
    faint: str
    ground: str


PAPER = Theme("#1a1a1a", "#d9d9d9", "#737373", "#ffffff")

REPORT = Theme(*_PAGE)


@dataclass(frozen=True)
class Drawing:
    """A figure to draw: file name, heading, description, size in inches; `task` if it shows a single one."""

    name: str
    title: str
    caption: str
    size: tuple[float, float]
    draw: Callable[[Figure, Theme], None]
    task: str | None = None


def scheme_of(comparison: Comparison, training: str) -> str:
    """Return the training that represents all that differ from it only in their seed."""
    for task in comparison.tasks:
        for group in task.seed_groups:
            members = [r.run.training for r in group.runs]
            if training in members:
                return members[0]
    return training


def colour_of(comparison: Comparison, training: str) -> str:
    """Return a training's colour, the same in every figure; seeds of one scheme share it."""
    schemes = list(dict.fromkeys(scheme_of(comparison, t) for t in comparison.labels))
    return PALETTE[schemes.index(scheme_of(comparison, training)) % len(PALETTE)]


def scheme_label(comparison: Comparison, training: str) -> str:
    return comparison.labels[scheme_of(comparison, training)]


def style(axes: Axes, theme: Theme, grid: Literal["both", "x", "y"] = "both") -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.line)
    axes.tick_params(colors=theme.ink, length=0, labelsize=8)
    axes.grid(True, axis=grid, color=theme.line, linewidth=0.6)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.ink)
        label.set_fontsize(8.5)


def legend(figure: Figure, axes: Axes, theme: Theme) -> None:
    """Draw one entry per name above the axes, in as many columns as the longest name allows."""
    entries: dict[str, Any] = {}
    for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
        entries.setdefault(name, handle)
    # About 13 characters of this size take an inch, a mark and its gap five.
    columns = int(figure.get_figwidth() * 13) // (max(map(len, entries)) + 5)
    figure.legend(
        list(entries.values()), list(entries), loc="outside upper left", ncols=max(1, min(len(entries), columns)),
        frameon=False, fontsize=8, labelcolor=theme.ink, borderpad=0,
    )  # fmt: skip


_SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "pdf.fonttype": 42,
    "axes.linewidth": 0.7,
    "path.simplify": True,
    "axes.unicode_minus": True,
}


def _figure(drawing: Drawing, theme: Theme) -> Figure:
    figure = Figure(figsize=drawing.size, layout="constrained")
    figure.patch.set_alpha(0.0 if theme is REPORT else 1.0)
    figure.patch.set_facecolor("none" if theme is REPORT else theme.ground)
    drawing.draw(figure, theme)
    for axes in figure.axes:
        axes.set_facecolor("none")
    return figure


def inline_svg(drawing: Drawing) -> str:
    """Return the figure as an `<svg>` element for the report, in the page's colours and font."""
    text = io.StringIO()
    with mpl.rc_context({**_SETTINGS, "svg.fonttype": "none", "svg.hashsalt": drawing.name}):
        _figure(drawing, REPORT).savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?)px [^;\"]*", r"font: \1\2px var(--sans)", svg)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', _OPENING, svg, count=1)
    # Names of groups repeat from figure to figure and are of no use in a page; markers and clips keep theirs.
    svg = re.sub(r'<g id="(?!m)[^"]*">', "<g>", svg)
    for colour, variable in _PAGE.items():
        svg = svg.replace(colour, variable)
    return re.sub(r">\s+<", "><", svg)


_OPENING = r'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="\1" role="img">'


_FORMATS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("svg", {"metadata": {"Date": None}}),
    ("pdf", {"metadata": {"CreationDate": None}}),
    ("png", {"dpi": 300}),
)


def drawing_files(drawings: Iterable[Drawing], folder: Path) -> list[Path]:
    """Return the files that `save_drawings` writes."""
    return [folder / f"{drawing.name}.{ending}" for drawing in drawings for ending, _ in _FORMATS]


def save_drawings(drawings: Iterable[Drawing], folder: Path) -> list[Path]:
    """Save every figure as SVG, PDF and PNG (300 dpi) in the folder; raises `BadInput` if that fails."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context({**_SETTINGS, "svg.hashsalt": "ppgs"}):
            for drawing in drawings:
                figure = _figure(drawing, PAPER)
                for ending, options in _FORMATS:
                    path = folder / f"{drawing.name}.{ending}"
                    figure.savefig(path, **options)
                    written.append(path)
    except OSError as problem:
        raise BadInput(f"the figures cannot be written: {problem}", folder) from None
    return written
