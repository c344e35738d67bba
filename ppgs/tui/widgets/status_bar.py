"""The top line (run, status, time), and a line for what needs attention."""

from __future__ import annotations

import time

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text
from textual.widgets import Static

from ppgs.formatting import counted, duration, number
from ppgs.runs.registry import command
from ppgs.tui.cells import shortened
from ppgs.tui.palette import mark, status_colour, theme_colour
from ppgs.tui.source import WatchedRun
from ppgs.tui.view import Panel, View


class StatusBar(Static, Panel):
    def facts(self, view: View) -> object:
        run = view.run
        state = (run.status, run.stalled_since(view.now) is not None, len(run.state.warnings))
        return (view.current, len(view.runs), view.overlay, run.name, state, int(view.now) // 60)

    def draw(self, view: View) -> None:
        run = view.run
        line = Table.grid(expand=True, padding=(0, 1))
        line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        line.add_column(no_wrap=True, justify="right")
        right = Text()
        if len(view.runs) > 1:
            right.append(f"run {view.current + 1} of {len(view.runs)}{', overlaid' if view.overlay else ''}  ")
        right.append(time.strftime("%H:%M", time.localtime(view.now)))
        stalled = run.stalled_since(view.now) is not None
        status = mark(run.status) + (", stalled" if stalled else "")
        count = len(run.state.warnings)
        warned = f"   {counted(count, 'warning')}, press 6" if count else ""
        # The middle of a long name is left out, so that the status is never cut off.
        room = self.size.width - len("  ppgs      ") - cell_len(status + warned) - right.cell_len
        left = Text.assemble(
            (" ppgs ", "bold reverse"),
            "  ",
            (shortened(run.name, room), "bold"),
            "  ",
            (status, f"bold {status_colour(self.app, 'failed' if stalled else run.status)}"),
            (warned, theme_colour(self.app, "warning")),
        )
        line.add_row(left, right)
        self.update(line, layout=False)


class Notice(Static, Panel):
    """One block about a run's end or faults; hidden if there is nothing to say."""

    @property
    def is_shown(self) -> bool:
        return self.is_mounted

    def facts(self, view: View) -> object:
        state = view.run.state
        stalled = view.run.stalled_since(view.now)
        age = None if stalled is None else int(view.now - stalled) // 60
        return (view.current, view.run.status, state.reason, state.mean_dice, view.run.problem, age)

    def draw(self, view: View) -> None:
        run, status = view.run, view.run.status
        lines: list[tuple[str, str]] = []
        colour = status_colour(self.app, status)
        if status == "presumed dead":
            what = "job is gone from the queue" if run.state.status == "queued" else "process is gone"
            lines = [
                (f"The training's {what} without a last record.", f"bold {colour}"),
                *self._way_on("Continue from its last checkpoint with c, or:", run),
            ]
        elif status == "failed":
            lines = [(f"Failed: {run.state.reason or 'the reason was not recorded'}", f"bold {colour}")]
            problems = (run.state.error or {}).get("problems")
            first = problems[0] if isinstance(problems, list) and problems and isinstance(problems[0], dict) else {}
            if first.get("remedy"):
                lines.append((f"Remedy: {first['remedy']}", ""))
        elif status == "stopped":
            reason = run.state.reason or "stopped"
            lines = [
                (reason[:1].upper() + reason[1:], f"bold {colour}"),
                *self._way_on("Continue exactly there with c, or:", run),
            ]
        elif status == "finished" and run.state.mean_dice is not None:
            classes = run.state.dice if isinstance(run.state.dice, dict) else {}
            each = "  ".join(f"{name} {number(value)}" for name, value in list(classes.items())[:8])
            lines = [(f"Validation Dice {number(run.state.mean_dice)}   {each}", f"bold {colour}")]
        elif (since := run.stalled_since(view.now)) is not None:
            colour = status_colour(self.app, "failed")
            when = time.strftime("%H:%M" if view.now - since < 43_200 else "%d %b %H:%M", time.localtime(since))
            lines = [
                (f"No progress since {when} ({duration(view.now - since)})", f"bold {colour}"),
                *self._way_on("The log may say why; to stop it:", run, "stop"),
            ]
        elif status == "no data":
            lines = [(run.problem or "nothing can be read here yet", f"bold {colour}")]
        self.set_class(bool(lines), "-told")
        text = Text("\n").join(Text(words, style, no_wrap=True, overflow="ellipsis") for words, style in lines)
        self.update(text)

    def _way_on(self, words: str, run: WatchedRun, verb: str = "resume") -> list[tuple[str, str]]:
        """Return the command to continue, on a separate line rather than cut, so that it can be copied."""
        asked = command(verb, run.run, run.name)
        apart = cell_len(words) + 2 + cell_len(asked) > self.size.width
        return [(words, ""), (asked, "")] if apart else [(f"{words}  {asked}", "")]
