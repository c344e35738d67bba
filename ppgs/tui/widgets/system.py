"""The machine: GPU through NVML, CPU and memory through psutil, N/A if there is nothing."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from ppgs.formatting import size
from ppgs.tui.view import Panel, View

_METER = 14


class SystemPanel(Static, Panel):
    def facts(self, view: View) -> object:
        return (view.reading, view.run.owner)

    def draw(self, view: View) -> None:
        self.border_title = "this machine"
        reading, run = view.reading, view.run
        text = Text(no_wrap=True, overflow="ellipsis")
        if run.owner is not None and not run.owner.is_local:
            text.append(f"the training runs on {run.owner.host}; these are the readings here\n", self.palette.muted)
        if reading is None:
            self.update(text.append("reading", self.palette.muted))
            return
        self._meter(text, "CPU", reading.cpu, 100, f"{_percent(reading.cpu)} of {reading.cpus or 'N/A'} cores")
        memory = f"{size(reading.memory_used)} of {size(reading.memory_total)}"
        self._meter(text, "RAM", reading.memory_used, reading.memory_total, memory)
        ours = f"{_percent(reading.process_cpu)} of a core, {size(reading.process_memory)}"
        text.append("training  ", self.palette.muted).append(f"{ours}\n" if reading.process_memory else "N/A\n")
        for index, gpu in enumerate(reading.gpus):
            text.append(f"GPU {index}  {gpu.name}\n", "bold")
            self._meter(text, "use", gpu.utilisation, 100, _percent(gpu.utilisation))
            used = f"{size(gpu.memory_used)} of {size(gpu.memory_total)}"
            self._meter(text, "memory", gpu.memory_used, gpu.memory_total, used)
            heat = "N/A" if gpu.temperature is None else f"{gpu.temperature:.0f} °C"
            power = "N/A" if gpu.power is None else f"{gpu.power:.0f} W"
            text.append("heat      ", self.palette.muted).append(f"{heat}, {power}\n")
        if not reading.gpus:
            text.append("GPU       ", self.palette.muted).append("N/A")
        self.update(text)

    def _meter(self, text: Text, name: str, value: float | None, most: float | None, words: str) -> None:
        text.append(f"{name:10}", self.palette.muted)
        filled = round(_METER * min(max(value / most, 0), 1)) if value is not None and most else 0
        text.append("━" * filled, self.palette.done).append("╌" * (_METER - filled), self.palette.future)
        text.append(f"  {words}\n")


def _percent(value: float | None) -> str:
    return "N/A" if value is None else f"{value:.0f} %"
