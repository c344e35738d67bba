"""Concurrent preprocessing, network and export: workers prepare and write images while the network predicts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ppgs.errors import DoesNotFit, Problem, Problems, WorkerLost
from ppgs.formatting import duration
from ppgs.nnunet.host.out_of_memory import is_out_of_memory
from ppgs.nnunet.images.find import Image
from ppgs.nnunet.inference.cases import Cases, prepare, start_worker, write
from ppgs.nnunet.inference.memory import Needs, Room, choose_place
from ppgs.nnunet.inference.model import Model
from ppgs.nnunet.inference.pending import Exports
from ppgs.nnunet.inference.window import Place
from ppgs.nnunet.network.precision import inference
from ppgs.processes.limits import cpu_count
from ppgs.processes.pool import Results, WorkerPool, quickest_start

_MOST_WORKERS = 8
_LINE_SECONDS = 60.0
_PLACES: dict[Place, str] = {"device": "on the device", "memory": "in memory", "file": "in a file beside the output"}
_REMEDY = "look at the image; if memory was short, run the same command with --continue on a machine with more of it"


@dataclass(frozen=True)
class Workers:
    """Numbers of processes that prepare and write images; None: as CPUs and memory allow.

    `sharing` is how many predictions share the machine.
    """

    preprocess: int | None = None
    export: int | None = None
    sharing: int = 1


@dataclass
class Timing:
    """Seconds of a prediction: in total, and in each stage, whose workers share its seconds.

    Those of a cascade are the sums of both of its models.
    """

    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=lambda: {"preprocessing": 0.0, "network": 0.0, "export": 0.0})


@dataclass(frozen=True)
class Outcome:
    """Result of a pass over images: the files written, the problems of other images, and the time taken."""

    written: list[Path]
    problems: Problems
    timing: Timing

    def add(self, other: Outcome) -> None:
        """Add the result of another pass."""
        self.written.extend(other.written)
        self.problems.found.extend(other.problems.found)
        self.timing.seconds += other.timing.seconds
        for stage, seconds in other.timing.stages.items():
            self.timing.stages[stage] += seconds


@dataclass(frozen=True)
class _Flow:
    """Numbers of images processed concurrently; `ahead` are prepared before the network needs them.

    `abreast` is how many classes of an image are resampled at the same time.
    """

    preprocess: int
    export: int
    ahead: int
    abreast: int = 1


# One image after another.
_ONE = _Flow(1, 1, 0)


def flow_of(asked: Workers, needs: Needs | None, memory: int, cpus: int) -> _Flow:
    """Return how much runs concurrently within CPUs and memory, given the needs of the largest image.

    On few cores more workers would only take them from the network.
    """
    default = max(1, min(_MOST_WORKERS, cpus // 4))
    flow = _Flow(asked.preprocess or default, asked.export or default, 0)
    flow = replace(flow, ahead=flow.preprocess)
    if needs is None:
        return flow

    def needed(flow: _Flow) -> int:
        waiting = (flow.ahead + 1) * needs.data + (flow.export + 1) * needs.logits
        return flow.preprocess * needs.preparing + flow.export * needs.exporting + waiting

    while needed(flow) > memory and (flow.preprocess > 1 or flow.export > 1):
        flow = _Flow(max(1, flow.preprocess - 1), max(1, flow.export - 1), max(1, flow.ahead - 1))
    left = memory - needed(flow)
    if left < 0:
        # One after another: nothing is prepared while another image is exported, and logits may go to a file.
        flow = replace(flow, ahead=0)
        left = memory - needs.memory - (needs.logits if needs.memory + needs.logits <= memory else 0)
    by_memory = 1 + left // (flow.export * needs.abreast) if needs.abreast else 1
    return replace(flow, abreast=max(1, min(_MOST_WORKERS, cpus // flow.export, by_memory)))


def by_the_minute(name: str, say: Callable[[str], object]) -> Callable[[int, int], None]:
    """Return `counted(done, total)` for an image's windows, which says once a minute how many are done."""
    began = last = time.monotonic()

    def counted(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LINE_SECONDS:
            last = now
            say(f"{name}: {done}/{total} windows, {duration((now - began) / done * (total - done))} left")

    return counted


class Pipeline:
    """Takes images through preprocessing, a model's network and export."""

    def __init__(self, model: Model, cases: Cases, workers: Workers, say: Callable[[str], object]) -> None:
        self._model, self._cases, self._workers, self._say = model, cases, workers, say
        self._said: Place | None = None

    def require_room(self, images: Sequence[Image], folder: Path) -> None:
        """Raise `DoesNotFit` with all images for which there is neither memory nor disk."""
        room, problems = self._room(folder), Problems()
        for image in images:
            if (needs := self._needs(image)) is not None:
                place = choose_place(needs, room, image.files[0])
                problems.found += [place] if isinstance(place, Problem) else []
        problems.raise_as(DoesNotFit, f"{len(problems.found)} images do not fit; nothing was segmented")

    def _room(self, folder: Path) -> Room:
        """Return the room of this prediction beside others that share the machine."""
        room, sharing = Room.now(self._model.predictor.device, folder), self._workers.sharing
        return replace(room, memory=room.memory // sharing, disk=room.disk // sharing)

    def _needs(self, image: Image) -> Needs | None:
        return self._cases.needs(image, len(self._model.predictor.list_of_parameters))

    def run(
        self,
        outputs: dict[Image, Path],
        staging: Path,
        previous: Path | None,
        report: Callable[[int, int], None],
        wrote: Callable[[Path], object] = lambda _: None,
    ) -> Outcome:
        """Segment every image that can be; call `report(done, total)` after each, and `wrote(file)` before, if written.

        When a worker process dies, the images that were being worked on are tried again one by one: the one that its
        worker dies of again is left out, and the rest continues.
        """
        needs = {image: self._needs(image) for image in outputs}
        largest = max((n for n in needs.values() if n is not None), key=lambda n: n.memory + n.logits, default=None)
        memory = int(self._room(staging).memory * 0.8)
        flow = flow_of(self._workers, largest, memory, cpu_count() // self._workers.sharing)
        run = _Run(self._model, outputs, needs, staging, previous, report, wrote, self._tell, self._say)
        begun = time.monotonic()
        waiting = deque([(list(outputs), flow)])
        while waiting:
            images, flow_now = waiting.popleft()
            exporting = replace(self._cases, abreast=flow_now.abreast)
            try:
                with (
                    WorkerPool(flow_now.preprocess, start_worker, (self._cases,), context=quickest_start()) as before,
                    WorkerPool(flow_now.export, start_worker, (exporting,), context=quickest_start()) as after,
                ):
                    run.go(images, flow_now, before, after)
            except WorkerLost as lost:
                if len(images) == 1 and flow_now == _ONE:
                    run.fail(images[0], [Problem(str(lost), str(images[0].files[0]), _REMEDY)])
                    continue
                begun_on = [image for image in images if image in run.begun]
                rest = [image for image in images if image not in run.begun and image not in run.done]
                waiting.extendleft([(rest, flow_now)] if rest else [])
                waiting.extendleft([([image], _ONE) for image in reversed(begun_on)])
                run.begun.clear()
        run.timing.seconds = time.monotonic() - begun
        run.timing.stages["preprocessing"] /= flow.preprocess
        run.timing.stages["export"] /= flow.export
        return Outcome([outputs[image] for image in outputs if image in run.written], run.problems, run.timing)

    def _tell(self, image: Image, place: Place, needs: Needs) -> None:
        if place != self._said:
            self._say(f"{image.name}: logits ({needs.logits / (1 << 30):.1f} GiB) {_PLACES[place]}")
        self._said = place


class _Run:
    """One pass over images."""

    def __init__(
        self,
        model: Model,
        outputs: dict[Image, Path],
        needs: dict[Image, Needs | None],
        staging: Path,
        previous: Path | None,
        report: Callable[[int, int], None],
        wrote: Callable[[Path], object],
        tell: Callable[[Image, Place, Needs], None],
        say: Callable[[str], object],
    ) -> None:
        self.problems, self.timing = Problems(), Timing()
        # Images in progress, written images, and finished ones including failures.
        self.begun: set[Image] = set()
        self.written: set[Image] = set()
        self.done: set[Image] = set()
        self._model, self._outputs, self._needs = model, outputs, needs
        self._staging, self._previous = staging, previous
        self._report, self._wrote, self._tell, self._say = report, wrote, tell, say
        self._exports: Exports[Image] = Exports(self._exported)

    def go(self, images: Sequence[Image], flow: _Flow, before: WorkerPool, after: WorkerPool) -> None:
        """Segment some of the images; raises `WorkerLost`."""
        waiting, ready = deque(images), deque[tuple[Image, Results]]()
        try:
            while waiting or ready:
                if not flow.ahead:
                    self._exports.wait()
                while waiting and len(ready) <= flow.ahead:
                    image = waiting.popleft()
                    self.begun.add(image)
                    ready.append((image, before.apply_async(prepare, (image, self._staging, self._previous))))
                image, result = ready.popleft()
                loaded, seconds = result.get()
                self.timing.stages["preprocessing"] += seconds
                if isinstance(loaded, list):
                    self.fail(image, loaded)
                else:
                    self._predict(image, *loaded, after=after)
                    del loaded
                self._exports.wait(flow.export)
            self._exports.wait()
        except WorkerLost:
            # Work of the other pool is not lost.
            with suppress(WorkerLost):
                self._exports.wait()
            raise
        finally:
            self._exports.close()

    def _predict(self, image: Image, data: Any, properties: dict[str, Any], *, after: WorkerPool) -> None:
        predictor, place = self._model.predictor, self._place(image)
        if isinstance(place, Problem):
            # By then other predictions have released their memory.
            self._exports.wait()
            place = self._place(image)
        if isinstance(place, Problem):
            self.fail(image, [place])
            return
        begun = time.monotonic()
        try:
            with inference(predictor.device, bfloat16=self._model.bfloat16):
                counted = by_the_minute(image.name, self._say)
                stored, storage = predictor.logits(torch.from_numpy(data), place, self._staging, counted)
        except RuntimeError as error:
            if (problem := _of_this_image(error, image)) is None:
                raise
            self.fail(image, [problem])
            return
        self.timing.stages["network"] += time.monotonic() - begun
        result = after.apply_async(write, (image, stored, properties, self._staging, self._outputs[image]))
        self._exports.add(image, storage, result)

    def _place(self, image: Image) -> Place | Problem:
        needs = self._needs[image]
        if needs is None:
            return "device" if self._model.predictor.device.type == "cuda" else "memory"
        # It is preprocessed already.
        needs = replace(needs, preparing=0, data=0)
        place = choose_place(needs, Room.now(self._model.predictor.device, self._staging), image.files[0])
        if not isinstance(place, Problem):
            self._tell(image, place, needs)
        return place

    def _exported(self, image: Image, result: tuple[float, Problem | None]) -> None:
        seconds, problem = result
        self.timing.stages["export"] += seconds
        if problem is not None:
            self.fail(image, [problem])
            return
        self.written.add(image)
        self._wrote(self._outputs[image])
        self._count(image)

    def fail(self, image: Image, found: list[Problem]) -> None:
        """Record why an image could not be segmented."""
        self.problems.found += found
        self._count(image)

    def _count(self, image: Image) -> None:
        self.begun.discard(image)
        self.done.add(image)
        self._report(len(self.done), len(self._outputs))


def _of_this_image(error: RuntimeError, image: Image) -> Problem | None:
    """Return the problem of one image that need not affect others."""
    where = str(image.files[0])
    if is_out_of_memory(error):
        return Problem("the device's memory is too small for the network", where, "give --device cpu")
    if "Encountered inf" in str(error):
        return Problem("the network's outputs are infinite", where, "look at the image's intensities")
    return None
