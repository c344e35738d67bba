"""Progress of the whole training and the present epoch, and the expected end."""

from __future__ import annotations

import time

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Label, ProgressBar, Static

from ppgs.formatting import CARBON, ENERGY, amount, amount_of, duration, number, time_left
from ppgs.tui.source import WatchedRun
from ppgs.tui.view import Panel, View

# From here on the year is ambiguous.
_FAR_SECONDS = 300 * 86_400


class Progress(Vertical, Panel):
    def facts(self, view: View) -> object:
        run, state = view.run, view.run.state
        counts = (state.epoch, state.epochs, state.iteration, state.iterations, state.phase, state.done, state.total)
        return (view.current, run.status, state.status, state.step, counts, state.series.version, run.carbon,
                id(state), run.is_behind, list(state.stages), int(view.now) // 60)  # fmt: skip

    def compose(self) -> ComposeResult:
        for name in ("whole", "part"):
            with Horizontal():
                yield Label("", id=f"{name}-name", classes="name")
                yield ProgressBar(total=1, show_eta=False, show_percentage=False, id=name)
                yield Label("", id=f"{name}-count", classes="count", markup=False)
        yield Static(id="when", markup=False)

    def draw(self, view: View) -> None:
        run, state = view.run, view.run.state
        self._bar("whole", "training", state.fraction, f"{state.fraction:4.0%}  epoch {_epoch(run)}")
        if run.status == "preparing" or (run.status not in ("training", "finished") and not state.epochs):
            share = state.done / state.total if state.total else 0.0
            count = f"{state.done}/{state.total}" if state.total else ""
            self._bar("part", state.step or "starting", share, count)
        elif state.status == "validating" or (run.status == "finished" and state.total):
            share = state.done / state.total if state.total else 0.0
            if run.status == "finished":
                share = 1.0
            self._bar("part", "validation", share, f"{share:4.0%}  case  {state.done}/{state.total}")
        else:
            share = state.iteration / state.iterations if state.iterations else 0.0
            word = "validation" if state.phase == "validation" else "epoch"
            self._bar("part", word, share, f"{share:4.0%}  step  {state.iteration}/{state.iterations}")
        self.query_one("#when", Static).update(self._when(view), layout=False)

    def _bar(self, name: str, word: str, share: float, count: str) -> None:
        self.query_one(f"#{name}-name", Label).update(word[:13], layout=False)
        self.query_one(f"#{name}", ProgressBar).update(total=1, progress=min(max(share, 0.0), 1.0))
        self.query_one(f"#{name}-count", Label).update(count, layout=False)

    def _when(self, view: View) -> Text:
        run, state = view.run, view.run.state
        parts = []
        spent = state.series.total("seconds")
        if spent is not None:
            parts.append(("trained", duration(spent)))
        if (left := run.left) is not None:
            parts += [("left", time_left(left)), ("ends", _time_of_day(view.now, left.middle))]
        dice = state.series.last("ema_dice")
        if dice is not None and run.status != "finished":
            parts.append(("pseudo Dice", number(dice)))
        return Text("\n").join(self._line(line) for line in (parts, self._costs(run)))

    def _line(self, parts: list[tuple[str, str]]) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        for word, value in parts:
            text.append(f"{word} ", self.palette.muted).append(value, "bold").append("   ")
        return text

    def _costs(self, run: WatchedRun) -> list[tuple[str, str]]:
        """Describe energy and CO2 so far and expected, and the extra cost of constant patch size (`~`: estimated)."""
        state, parts = run.state, []
        energy, power = state.series.total("energy_wh"), state.power()
        if energy is not None:
            training = state.training_left
            left = (0.0 if training is None else training.middle) * (power or 0.0)
            parts.append(("energy", amount_of(energy, energy + left, ENERGY)))
            if run.carbon is not None:
                grams = energy * run.carbon[0], (energy + left) * run.carbon[0]
                parts.append((f"CO2 {run.carbon[1]}", "~" + amount_of(*grams, CARBON)))
        saved = state.saved(state.stage_seconds)
        if saved is not None:
            parts.append(self._saved(round(100 * saved[0]), state.saved(state.stage_energy), run.carbon))
        return parts

    def _saved(
        self, percent: int, energy: tuple[float, float] | None, carbon: tuple[float, str] | None
    ) -> tuple[str, str]:
        """Describe saved shares of time, energy and CO2, in words if there is room for them."""
        wide = self.size.width >= 100
        if percent < 0:
            return "takes", f"~{-percent}% more than " + ("a constant patch size" if wide else "constant")
        words = [f"~{percent}%" + (" of a constant patch's time" if wide else "")]
        if energy is not None and energy[1] > 0:
            words.append(amount(energy[1], ENERGY))
            if carbon is not None and wide:
                words.append(amount(energy[1] * carbon[0], CARBON) + " CO2")
        return "saves", ", ".join(words)


def _epoch(run: WatchedRun) -> str:
    state = run.state
    return f"{min(state.epoch + 1, state.epochs) if run.status == 'training' else state.epoch}/{state.epochs or '-'}"


def _time_of_day(now: float, left: float) -> str:
    """Format `14:32`, `Tue 03 Mar 14:32` if it is not today, `03 Mar 2031` if it is far away."""
    try:
        end = time.localtime(now + left)
    except (OverflowError, ValueError, OSError):
        return "-"
    today = time.strftime("%j%Y", end) == time.strftime("%j%Y", time.localtime(now))
    far = left > _FAR_SECONDS
    return time.strftime("%H:%M" if today else "%d %b %Y" if far else "%a %d %b %H:%M", end)
