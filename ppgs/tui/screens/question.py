"""A question with a few answers, each of which has a key."""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.events import Key
from textual.widgets import Button, Static

from ppgs.tui.screens.dialog import Dialog


@dataclass(frozen=True)
class Answer:
    key: str
    words: str
    value: str


class Question(Dialog[str]):
    """Ends with the value of the chosen answer; escape chooses the last, which changes nothing."""

    def __init__(self, title: str, words: str, answers: tuple[Answer, ...]) -> None:
        super().__init__()
        self._title, self._words, self._answers = title, words, answers

    def compose(self) -> ComposeResult:
        with Vertical(id="question") as box:
            box.border_title = self._title
            yield Static(self._words, markup=False)
            with Horizontal():
                for answer in self._answers:
                    yield Button(f"{answer.words} ({answer.key})", id=f"answer-{answer.value}", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss((event.button.id or "").removeprefix("answer-"))

    def on_key(self, event: Key) -> None:
        if event.key in ("left", "right"):
            event.stop()
            (self.focus_previous if event.key == "left" else self.focus_next)()
            return
        wanted = self._answers[-1].key if event.key == "ctrl+c" else event.key
        for answer in self._answers:
            if wanted == answer.key or (event.key == "escape" and answer is self._answers[-1]):
                event.stop()
                self.dismiss(answer.value)
                return


def leave() -> Question:
    return Question(
        "leave",
        "The training runs in a separate process. Detach leaves it\n"
        "running; 'ppgs monitor' shows it again at any time.",
        (Answer("d", "Detach", "detach"), Answer("s", "Stop with checkpoint", "stop"), Answer("c", "Cancel", "cancel")),
    )


def stop(name: str) -> Question:
    return Question(
        "stop",
        f"Stop {name}? It saves a checkpoint and ends;\n'ppgs resume' continues exactly there.",
        (Answer("s", "Stop with checkpoint", "stop"), Answer("c", "Cancel", "cancel")),
    )
