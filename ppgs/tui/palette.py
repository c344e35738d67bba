"""Colours for any colour vision (Okabe and Ito's set), and marks that need no colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.app import App
from textual.color import Color
from textual.theme import Theme

from ppgs.runs.manifest import Status

Shown = Status | Literal["presumed dead", "no data"]

DARK = Theme(
    name="ppgs-dark",
    primary="#56B4E9",
    secondary="#7B8A97",
    accent="#E69F00",
    success="#2FBF97",
    warning="#F0E442",
    error="#E8743B",
    foreground="#DDE3E8",
    background="#10151A",
    surface="#161D24",
    panel="#1E2730",
    dark=True,
    variables={"frame": "#41505C", "footer-key-foreground": "#E69F00"},
)
LIGHT = Theme(
    name="ppgs-light",
    primary="#0072B2",
    secondary="#66737E",
    accent="#A65F00",
    success="#00704F",
    warning="#7A6500",
    error="#B34700",
    foreground="#1B2329",
    background="#F7F9FA",
    surface="#EEF2F4",
    panel="#E2E8EC",
    dark=False,
    variables={"frame": "#A9B6C0", "footer-key-foreground": "#A65F00"},
)


@dataclass(frozen=True)
class Palette:
    """Colours of drawings; `series` are for classes and for runs, in this order."""

    done: str
    present: str
    future: str
    muted: str
    train: str
    validation: str
    series: tuple[str, ...]


_DARK = Palette(
    done="#56B4E9",
    present="#E69F00",
    future="#4A5763",
    muted="#8795A1",
    train="#56B4E9",
    validation="#E69F00",
    series=("#56B4E9", "#E69F00", "#2FBF97", "#CC79A7", "#F0E442", "#E8743B", "#A9B4BE"),
)
_LIGHT = Palette(
    done="#0072B2",
    present="#B86E00",
    future="#B4C0C9",
    muted="#5E6B76",
    train="#0072B2",
    validation="#B86E00",
    series=("#0072B2", "#B86E00", "#00704F", "#A3497B", "#7A6500", "#B34700", "#4A5660"),
)


@dataclass(frozen=True)
class Contours:
    """Colours and signs of contours; the same in every theme, as the image below them is."""

    reference: str = "#E69F00"
    prediction: str = "#56B4E9"
    both: str = "#2FBF97"

    def of(self, name: str) -> tuple[str, str]:
        """Return colour and sign of `reference`, `prediction` or `both`."""
        return str(getattr(self, name)), {"reference": "o", "prediction": "x", "both": "#"}[name]

    def sign(self, reference: bool, prediction: bool) -> str:
        """Return the sign of a cell without colours; empty if there is no contour."""
        return "#" if reference and prediction else "o" if reference else "x" if prediction else ""


CONTOURS = Contours()
# Pictures are dark in every theme.
ON_PICTURES = _DARK

_MARKS: dict[Shown, str] = {
    "queued": "◷",
    "preparing": "…",
    "training": "▶",
    "validating": "◆",
    "finished": "✓",
    "stopped": "■",
    "failed": "✗",
    "presumed dead": "!",
    "no data": "?",
}
_VARIABLES: dict[Shown, str] = {
    "queued": "secondary",
    "preparing": "secondary",
    "training": "primary",
    "validating": "primary",
    "finished": "success",
    "stopped": "accent",
    "failed": "error",
    "presumed dead": "error",
    "no data": "secondary",
}


def palette(app: App[object]) -> Palette:
    return _DARK if app.current_theme.dark else _LIGHT


def mark(status: Shown) -> str:
    """Return a status as symbol and word."""
    return f"{_MARKS[status]} {status}"


def status_colour(app: App[object], status: Shown) -> str:
    return theme_colour(app, _VARIABLES[status])


def theme_colour(app: App[object], variable: str) -> str:
    """Return a colour of the theme by the name that Rich has for it: themes may use `ansi_red` or CSS names."""
    colour = getattr(app.current_theme, variable) or app.current_theme.primary
    return Color.parse(colour).rich_color.name
