"""The bottom line: the keys that mean something now, each of which can be clicked.

Textual's Footer makes a new widget of every key whenever the focus moves, which costs more than a change of tabs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from textual.binding import Binding
from textual.content import Content
from textual.events import Click
from textual.style import Style
from textual.visual import VisualType
from textual.widget import Widget

# Left out first if there is no room for all; the help screen lists them.
_LESS = ("dark", "save_csv", "save_svg", "search", "overlay", "turn(1)")


@dataclass
class _Entry:
    """Keys with a shared description: one, or a group."""

    action: str
    words: str
    keys: list[tuple[str, str]] = field(default_factory=list)

    def content(self) -> Content:
        keys = (
            Content.styled(shown, "bold $footer-key-foreground").stylize(Style.from_meta({"key": key}))
            for shown, key in self.keys
        )
        words = Content(f" {self.words}").stylize(Style.from_meta({"key": self.keys[0][1]}))
        return Content.assemble(" ", *keys, words)


class KeyBar(Widget):
    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def render(self) -> VisualType:
        entries = {entry.action: entry for entry in self._entries()}
        for action in _LESS:
            if sum(entry.content().cell_length + 1 for entry in entries.values()) <= self.size.width:
                break
            entries.pop(action, None)
        return Content(" ").join(entry.content() for entry in entries.values())

    def _entries(self) -> Iterator[_Entry]:
        found: dict[str, _Entry] = {}
        for _, binding, enabled, _ in self.screen.active_bindings.values():
            shown = binding.show or binding.key == self.app.COMMAND_PALETTE_BINDING
            if not shown or not enabled:
                continue
            key = (self.app.get_key_display(binding), binding.key)
            if binding.group is not None and binding.group.description in found:
                found[binding.group.description].keys.append(key)
            elif binding.action not in found:
                name, words = _named(binding)
                found[name] = _Entry(name, words, [key])
        yield from found.values()

    def on_click(self, event: Click) -> None:
        key = event.style.meta.get("key")
        if key is not None:
            self.app.simulate_key(key)


def _named(binding: Binding) -> tuple[str, str]:
    group = binding.group.description if binding.group is not None else ""
    return (group, group) if group else (binding.action, binding.description)
