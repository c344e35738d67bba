"""Prediction by several processes of this machine, each with a part of the images and one GPU.

The processes are started with the request on their stdin and report progress as lines of JSON on their stdout.
One that dies takes only the images that it was working on with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from ppgs.commands.gpus import check_gpus
from ppgs.commands.predict_parts import Part, parse_part, part_of
from ppgs.commands.predict_plan import PredictRequest
from ppgs.errors import DeviceError, PpgsError, WorkerLost, from_record
from ppgs.formatting import exit_text
from ppgs.nnunet.images.find import Image
from ppgs.nvml import visible
from ppgs.tasks import Roots

_PATHS = ("source", "target", "references")
_LAST_SECONDS = 30.0


@dataclass
class Shares:
    """Results of several processes; `errors` are in the order of the processes."""

    files: list[Path] = field(default_factory=list)
    errors: list[PpgsError] = field(default_factory=list)
    speed: dict[str, Any] = field(default_factory=dict)


def gpus_for(count: int, device: str, environ: Mapping[str, str]) -> list[str | None]:
    """Return the `CUDA_VISIBLE_DEVICES` of each of `count` processes; None for processes on the CPU.

    Raises `DeviceError` where there are fewer GPUs.
    """
    check_gpus(count, device)
    if device == "cpu":
        return [None] * count
    there = visible(environ)
    if len(there) < count:
        raise DeviceError(
            f"{count} processes need as many NVIDIA GPUs, here are {len(there)}",
            "--gpus",
            "give fewer; with --device cpu the processes compute there",
        )
    return list(there[:count])


def speed_of(images: int, seconds: float, stages: Mapping[str, float]) -> dict[str, Any]:
    """Return the speed of `images` segmentations for JSON; `stages` are seconds by stage."""
    return {
        "images_per_minute": 60 * images / seconds if seconds else None,
        "seconds": seconds,
        "stage_seconds": dict(stages),
        "slowest_stage": max(stages, key=lambda stage: stages[stage]) if stages and images else None,
    }


def as_record(asked: PredictRequest) -> dict[str, Any]:
    """Return the request for JSON, with absolute paths."""
    record = dataclasses.asdict(asked)
    for name in _PATHS:
        if record[name] is not None:
            record[name] = str(Path(record[name]).absolute())
    for name in ("run", "previous_stage"):
        if record[name] is not None and Path(record[name]).exists():
            record[name] = str(Path(record[name]).absolute())
    return record


def of_record(record: Mapping[str, Any]) -> PredictRequest:
    """Return the request from a record of `as_record`."""
    paths = {name: Path(record[name]) for name in _PATHS if record.get(name) is not None}
    return PredictRequest(**{**record, **paths})


def share_of(asked: PredictRequest, part: Part, sharing: int = 1) -> PredictRequest:
    """Return the request for one part, without results that the parent computes for all parts together."""
    return dataclasses.replace(
        asked, part=str(part), gpus=None, sharing=sharing, statistics=False, overlay=False, references=None
    )


class Child:
    """A process that segments one part; `tell(child, message)` is called from a thread, with None at its end."""

    def __init__(
        self,
        asked: PredictRequest,
        roots: Roots,
        tell: Callable[[Child, dict[str, Any] | None], object],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.part = parse_part(asked.part)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ppgs.commands.predict_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **roots.environment, "PYTHONUNBUFFERED": "1", **(environ or {})},
            # A Ctrl-C is for the command, which passes it on once.
            start_new_session=True,
        )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as pipe:
            pipe.write(json.dumps({"asked": as_record(asked), "parent": os.getpid()}).encode())
        Thread(target=self._listen, args=(tell,), daemon=True).start()

    def _listen(self, tell: Callable[[Child, dict[str, Any] | None], object]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                tell(self, json.loads(line))
        self.process.wait()
        tell(self, None)

    def stop(self) -> None:
        """Ask the process to stop; finished segmentations stay."""
        # Not Popen.terminate, whose lock an interrupted thread may hold.
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)

    def death(self) -> WorkerLost:
        """Return the error for a process that ended without reporting how."""
        code = self.process.returncode
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        said = f" ({lines[-1].strip()[-160:]})" if lines else ""
        return WorkerLost(
            f"the process that segments part {self.part} {exit_text(code)}{said}",
            "",
            "if memory was short, give fewer --gpus; the same command with --continue does what is left",
        )


def segment_in_children(
    asked: PredictRequest,
    cases: Mapping[Image, Path],
    outputs: Mapping[Image, Path],
    roots: Roots,
    report: Callable[[int, int], None],
    say: Callable[[str], object],
) -> Shares:
    """Segment in `asked.gpus` processes; those without images are not started.

    `cases` are all images, `outputs` those to be segmented. Raises `DeviceError` where there are fewer GPUs.
    """
    count = asked.gpus or 1
    whole = parse_part(asked.part)
    work = {
        part: len(part_of(dict(cases), Part(number + 1, count)).keys() & outputs.keys())
        for number, part in enumerate(whole.split(count))
    }
    gpus = gpus_for(count, asked.device, os.environ)
    chosen = [(part, gpu) for (part, images), gpu in zip(work.items(), gpus, strict=True) if images]
    news: SimpleQueue[tuple[Child, dict[str, Any] | None]] = SimpleQueue()
    children: list[Child] = []
    done = {part: (0, work[part]) for part, _ in chosen}
    files: dict[Part, list[Path]] = {part: [] for part, _ in chosen}
    results: dict[Part, dict[str, Any]] = {}
    try:
        for part, gpu in chosen:
            environ = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
            share = share_of(asked, part, len(chosen))
            children.append(Child(share, roots, lambda *told: news.put(told), environ))
        running = set(children)
        while running:
            child, message = news.get()
            if message is None:
                running.discard(child)
            elif "done" in message:
                done[child.part] = (message["done"], message["total"])
                report(sum(one for one, _ in done.values()), sum(total for _, total in done.values()))
            elif "file" in message:
                files[child.part].append(Path(message["file"]))
            elif "say" in message:
                say(f"part {child.part}: {message['say']}")
            else:
                results[child.part] = message
    finally:
        for child in children:
            child.stop()
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(_LAST_SECONDS)
    return _joined(children, files, results)


def _joined(
    children: list[Child], files: Mapping[Part, list[Path]], results: Mapping[Part, Mapping[str, Any]]
) -> Shares:
    shares, speeds, timed = Shares(), [], 0
    for child in children:
        shares.files += files[child.part]
        result = results.get(child.part)
        if result is None:
            shares.errors.append(child.death())
            continue
        if result["speed"]:
            speeds.append(result["speed"])
            timed += len(files[child.part])
        shares.errors += [from_record(result["error"])] if result["error"] is not None else []
    shares.files.sort()
    seconds = max((speed["seconds"] for speed in speeds), default=0.0)
    names = dict.fromkeys(stage for speed in speeds for stage in speed["stage_seconds"])
    # As many work side by side.
    stages = {name: sum(s["stage_seconds"].get(name, 0.0) for s in speeds) / len(speeds) for name in names}
    shares.speed = speed_of(timed, seconds, stages)
    return shares
