"""A validation case as the network segments it, stage after stage: one sees it learn.

Drawn in half blocks, which every terminal has. Terminals that can show graphics are not asked for it: textual-image
asks on import and reads the answer from the keyboard's stream within 0.1 s, so that over a slow connection the answer
arrives as keys, and in tmux none comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.markup import escape
from textual.message import Message
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import DataTable, Static

from ppgs.formatting import number, patch_text
from ppgs.pictures import Picture, contour, fit, overlaid, resized, resized_labels
from ppgs.tui.cells import shortened
from ppgs.tui.palette import CONTOURS, ON_PICTURES
from ppgs.tui.source import SliceFacts, WatchedRun
from ppgs.tui.view import Panel, View
from ppgs.tui.widgets.tables import fill

_SHADES = " ░▒▓"
_FRAMES_PER_SECOND = 2.0
_DRAWN = ("both", "reference", "prediction", "neither")
# Bright parts of the image must leave room for the contours.
_BRIGHTEST = 0.75
# Cells for the name of a class, its colour and its Dice.
_WORDS = 32


@dataclass(frozen=True)
class Look:
    """Style of a picture: contours (of which labels; None: all), or classes filled in their colours."""

    drawn: str = "both"
    labels: tuple[int, ...] | None = None
    filled: tuple[tuple[tuple[int, ...], str], ...] = ()


class SliceImage(Widget):
    """Two pixels a cell: a half block with a colour for each, or, without colours, shades and signs."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._picture: Picture | None = None
        self._look = Look()
        self._strips: list[Strip] = []
        self._for: object = None

    def show(self, picture: Picture | None, look: Look) -> None:
        self._picture, self._look, self._for = picture, look, None
        self.refresh()

    def render_line(self, y: int) -> Strip:
        if self._for != self.size:
            self._for = self.size
            self._strips = self._draw() if self._picture is not None and min(self.size) > 0 else []
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width, self.rich_style)

    def _draw(self) -> list[Strip]:
        picture, look = self._picture, self._look
        assert picture is not None
        width, height = self.size.width, self.size.height * 2
        columns, rows = fit(picture, width, height)
        size = columns, max(rows // 2 * 2, 2)
        image = resized(picture.image, size)
        reference, prediction = (
            contour(resized_labels(labels, size, look.labels)) & (look.drawn in ("both", name))
            for name, labels in (("reference", picture.reference), ("prediction", picture.prediction))
        )
        left, top = (width - size[0]) // 2, (height - size[1]) // 4
        if self.app.no_color:
            lines = _as_signs(image, reference, prediction, self.rich_style)
        elif look.filled:
            masks = [
                (resized_labels(picture.prediction, size, labels) == 1, _rgb(colour), 0.55)
                for labels, colour in look.filled
            ]
            lines = _as_blocks(overlaid(image * _BRIGHTEST, masks))
        else:
            layers = [
                (reference & ~prediction, _rgb(CONTOURS.reference), 1.0),
                (prediction & ~reference, _rgb(CONTOURS.prediction), 1.0),
                (reference & prediction, _rgb(CONTOURS.both), 1.0),
            ]
            lines = _as_blocks(overlaid(image * _BRIGHTEST, layers))
        before, after = " " * left, " " * (width - left - size[0])
        around = self.rich_style
        frame = [Strip.blank(width, around)] * top
        return frame + [Strip([Segment(before, around), *line, Segment(after, around)], width) for line in lines]


def _rgb(colour: str) -> tuple[int, int, int]:
    triplet = Color.parse(colour).triplet
    assert triplet is not None
    return triplet


def _as_blocks(pixels: Any) -> list[list[Segment]]:
    """Return rows of upper half blocks, from an even number of rows of pixels."""
    colours = [[Color.from_rgb(*pixel) for pixel in row] for row in pixels.tolist()]
    return [
        [Segment("▀", Style.from_color(a, b)) for a, b in zip(upper, lower, strict=True)]
        for upper, lower in zip(colours[::2], colours[1::2], strict=True)
    ]


def _as_signs(image: Any, reference: Any, prediction: Any, style: Style) -> list[list[Segment]]:
    lines = []
    for y in range(0, len(image), 2):
        rows = slice(y, y + 2)
        shades = (image[rows].mean(axis=0) / 256 * len(_SHADES)).astype(int)
        in_reference, in_prediction = reference[rows].any(axis=0), prediction[rows].any(axis=0)
        signs = [
            CONTOURS.sign(bool(r), bool(p)) or _SHADES[shade]
            for shade, r, p in zip(shades, in_reference, in_prediction, strict=True)
        ]
        lines.append([Segment("".join(signs), style)])
    return lines


class SlicesPanel(Horizontal, Panel):
    """The slice, and the list of all pictures of the run. Follows the newest until another is selected."""

    BINDINGS: ClassVar = [
        Binding("left", "turn(-1)", "Earlier", show=False),
        Binding("right", "turn(1)", "Later", show=False),
        Binding("space", "play", "Play"),
        Binding("v", "labels", "Class"),
        Binding("b", "contours", "Contours"),
    ]

    class Wanted(Message):
        """Request for a picture that is not loaded yet; whoever reads it hands it to `take`."""

        def __init__(self, panel: SlicesPanel, path: Path, key: object) -> None:
            super().__init__()
            self.panel, self.path, self.key = panel, path, key

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[tuple[str, ...]] = []
        self._key: object = None
        self._picture: Picture | None = None
        self._problem: str | None = None
        self._drawn_what = 0
        self._class = -1
        self._player: Timer | None = None

    def compose(self) -> ComposeResult:
        yield SliceImage(id="slice-contours")
        yield SliceImage(id="slice-filled", classes="more")
        with Vertical(id="slice-side"):
            yield Static(id="slice-words", markup=False)
            table: DataTable[str] = DataTable(id="slice-table", cursor_type="row")
            yield table

    @property
    def _table(self) -> DataTable[str]:
        return self.query_one(DataTable)

    def facts(self, view: View) -> object:
        run = view.run
        chosen = (self._table.cursor_row, self._class, self._drawn_what, self._picture, self._problem)
        return (view.current, run.state.slices, list(run.state.stages), run.classes, run.is_live, chosen)

    def draw(self, view: View) -> None:
        run = view.run
        facts = list(run.state.slices.values())
        self._list(run, facts)
        one = facts[min(self._table.cursor_row, len(facts) - 1)] if facts else None
        self._fetch(run, one)
        # A case may have brackets in its name.
        self.border_title = escape(self._title(one))
        self.query_one("#slice-words", Static).update(self._words(run, one))
        chosen = run.classes[self._class][1] if 0 <= self._class < len(run.classes) else None
        filled = tuple((labels, self._colour(index)) for index, (_, labels) in enumerate(run.classes))
        self.query_one("#slice-contours", SliceImage).show(self._picture, Look(_DRAWN[self._drawn_what], chosen))
        self.query_one("#slice-filled", SliceImage).show(self._picture, Look(filled=filled))

    def _title(self, one: SliceFacts | None) -> str:
        if one is None:
            return "slice"
        when = f"  after epoch {one.epoch + 1} in stage {one.stage + 1}"
        return shortened(one.case, self.size.width - len(when) - 4) + when

    def _list(self, run: WatchedRun, facts: list[SliceFacts]) -> None:
        table, stages = self._table, run.state.stages
        rows: list[tuple[str, ...]] = [
            (
                str(one.stage + 1),
                patch_text(stages[one.stage].patch_size) if one.stage < len(stages) else "-",
                str(one.epoch + 1),
                number(_mean(one.dice)),
            )
            for one in facts
        ]
        if rows == self._rows:
            return
        follows = table.cursor_row >= len(self._rows) - 1
        where, self._rows = table.cursor_row, rows
        with table.prevent(DataTable.RowHighlighted):
            fill(table, ("stage", "patch", "epoch", "Dice") if rows else (), rows)
            table.move_cursor(row=len(rows) - 1 if follows else where)

    def _fetch(self, run: WatchedRun, one: SliceFacts | None) -> None:
        key = (run.run.path, one) if one else None
        if key != self._key:
            self._key, self._problem = key, None
            if one is None:
                self._picture = None
            else:
                self.post_message(self.Wanted(self, run.run.slices / one.file, key))

    def take(self, key: object, content: Picture | str) -> None:
        """Take the requested picture, or the reason why there is none; ignore one that is no longer wanted."""
        if key == self._key:
            self._picture = content if isinstance(content, Picture) else None
            self._problem = content if isinstance(content, str) else None
            self.again()

    def _words(self, run: WatchedRun, one: SliceFacts | None) -> Text:
        muted = self.palette.muted
        if one is None:
            rest = "after the first epoch and at every stage's end" if run.is_live else "the training made none"
            return Text(f"no pictures yet: they are made\n{rest}" if run.is_live else f"no pictures: {rest}", muted)
        if self._problem is not None:
            return Text(f"{one.file} cannot be shown: {self._problem}", muted)
        text = Text(no_wrap=True, overflow="ellipsis")
        for name in ("reference", "prediction", "both"):
            sign = CONTOURS.of(name)[1] if self.app.no_color else "━"
            text.append(f"{sign} ", f"bold {CONTOURS.of(name)[0]}").append(f"{name}  ")
        drawn = "" if _DRAWN[self._drawn_what] == "both" else f"  {_DRAWN[self._drawn_what]} only"
        text.append(f"\nDice of this slice{drawn}\n", muted)
        swatch = "■ " if self.query_one("#slice-filled").display and not self.app.no_color else ""
        most = max(self.size.height // 3, 2)
        # The chosen one is always among them.
        first = min(max(self._class - most + 1, 0), max(len(run.classes) - most, 0))
        for index, (name, _) in list(enumerate(run.classes))[first : first + most]:
            value = one.dice[index] if index < len(one.dice) else None
            text.append("▸ " if index == self._class else "  ").append(swatch, f"bold {self._colour(index)}")
            told = shortened(name, _WORDS - cell_len(swatch) - len(number(value)))
            text.append(f"{told} ", "bold" if index == self._class else "").append(f"{number(value)}\n")
        if len(run.classes) > most:
            text.append(f"  {len(run.classes) - most} more classes\n", muted)
        return text

    def _colour(self, index: int) -> str:
        """Return the colour of a filled class, different from the first ones, which contours use."""
        colours = ON_PICTURES.series
        return colours[(index + 3) % len(colours)]

    def on_data_table_row_highlighted(self) -> None:
        self.again()

    # Keys

    def action_turn(self, by: int) -> None:
        table = self._table
        table.move_cursor(row=min(max(table.cursor_row + by, 0), max(len(self._rows) - 1, 0)))

    def action_labels(self) -> None:
        """Show the next class, and after the last all of them."""
        classes = len(self.view.run.classes) if self.view is not None else 0
        self._class = self._class + 1 if self._class + 1 < classes else -1
        self.again()

    def action_contours(self) -> None:
        self._drawn_what = (self._drawn_what + 1) % len(_DRAWN)
        self.again()

    def action_play(self) -> None:
        """Play from the first picture (or the selected one) to the last; pause if playing."""
        if self._player is not None:
            self._pause()
            return
        if self._table.cursor_row >= len(self._rows) - 1:
            self._table.move_cursor(row=0)
        self._player = self.set_interval(1 / _FRAMES_PER_SECOND, self._next)

    def _next(self) -> None:
        self.action_turn(1)
        if self._table.cursor_row >= len(self._rows) - 1:
            self._pause()

    def _pause(self) -> None:
        if self._player is not None:
            self._player.stop()
            self._player = None


def _mean(dice: tuple[float | None, ...]) -> float | None:
    known = [value for value in dice if value is not None]
    return sum(known) / len(known) if known else None
