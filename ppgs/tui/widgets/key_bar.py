"""The bottom line: the keys that mean something now, each of which can be clicked.

Textual's Footer makes a widget of every key anew whenever the focus moves, which costs more than a change of tabs.
"""

from __future__ import annotations

from textual.content import Content
from textual.events import Click
from textual.style import Style
from textual.visual import VisualType
from textual.widget import Widget


class KeyBar(Widget):
    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def render(self) -> VisualType:
        keys: list[Content] = []
        seen = set()
        for _, binding, enabled, _ in self.screen.active_bindings.values():
            shown = binding.show or binding.key == self.app.COMMAND_PALETTE_BINDING
            if not shown or not enabled or binding.action in seen:
                continue
            seen.add(binding.action)
            key = Content.styled(self.app.get_key_display(binding), "bold $footer-key-foreground")
            words = Content.assemble(" ", key, " ", binding.description)
            keys.append(words.stylize(Style.from_meta({"key": binding.key})))
        return Content(" ").join(keys)

    def on_click(self, event: Click) -> None:
        key = event.style.meta.get("key")
        if key is not None:
            self.app.simulate_key(key)
