"""Questions about the names of a new dataset's channels and label values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from ppgs.cli.output import note

if TYPE_CHECKING:
    from ppgs.nnunet.preparation.own_data import Unnamed


def ask_names(unnamed: Unnamed) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Ask for each name and offer its default: channels by number, classes by value."""
    note("Enter keeps the name in brackets")
    channels = {
        key: _answer(f"name of channel {key} (CT: normalised by Hounsfield units)", default, set())
        for key, default in unnamed.channels.items()
    }
    taken = {"background"}
    values = {key: _answer(f"name of label value {key}", default, taken) for key, default in unnamed.values.items()}
    return channels, values


def _answer(question: str, default: str, taken: set[str]) -> str:
    while True:
        answer = str(typer.prompt(question, default=default, err=True)).strip()
        if answer.lower() not in taken:
            taken.add(answer.lower())
            return answer
        note(f"'{answer}' is the name of another value")
