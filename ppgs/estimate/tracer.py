"""Client of the nnU-Net process that traces and measures; keeps its answers.

The process imports torch and nnU-Net so that this one need not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ppgs.errors import PlansError, PpgsError, from_record
from ppgs.estimate import shipped_laws, store
from ppgs.estimate.network import Network
from ppgs.estimate.scaling import Law, NotLinear, Patch, Recording, constant, fit
from ppgs.imports import BrokenInstallation

Pass = Literal["train", "validate", "infer"]
Point = tuple[Patch, int]
_PASSES: tuple[Pass, ...] = ("train", "validate", "infer")
_VERSION = 3
_TIMEOUT = 600


def ask(request: dict[str, Any], timeout: float = _TIMEOUT) -> dict[str, Any]:
    """Return the nnU-Net process's answer to a request.

    Raises `BrokenInstallation` where a package cannot be imported, else `PpgsError` with the last line of what went
    wrong.
    """
    package = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH", ""))))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ppgs.nnunet.probing"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PpgsError(f"no answer within {timeout:.0f} s", "ppgs.nnunet.probing") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise PpgsError(f"the network could not be examined: {lines[-1].strip()[:300]}", "ppgs.nnunet.probing")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise from_record(answer["error"])
    return answer


@cache
def _versions() -> str:
    found = [f"law {_VERSION}"]
    for package in ("torch", "nnunetv2", "dynamic_network_architectures"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{package} none")
    return ", ".join(found)


def _minor(versions: str) -> str:
    """Cut versions after the second number: `torch 2.13.0+cpu` traces as `torch 2.13.1` does."""
    return re.sub(r"(\d+\.\d+)[^,]*", r"\1", versions)


class Tracer:
    """Laws of one network: from this object, from the cache, shipped with ppgs, or traced (seconds)."""

    def __init__(
        self,
        network: Network,
        *,
        mixed: bool = True,
        use_cache: bool = True,
        ask: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        """`ask` answers requests to trace; by default a new process does."""
        self.network = network
        self._ask = ask
        self._mixed = mixed
        self._use_cache = use_cache
        # By checkpointing, and by whether the batch is a single sample: PyTorch then skips some copies.
        self._laws: dict[tuple[bool, bool], dict[Pass, Law]] = {}
        self._points: dict[tuple[bool, Pass, Patch, int], Law] = {}
        self.parameters = 0

    def law(self, name: Pass, patch: Patch, batch: int, *, checkpointing: bool = False) -> Law:
        """Return the law of this pass at this patch (voxels, z y x) and batch."""
        # One inference window more or less does not justify a second trace.
        laws = self._linear(checkpointing, batch == 1 and name != "infer")
        return laws[name] if laws else self._at(name, patch, batch, checkpointing)

    def prepare(self, points: Iterable[Point]) -> None:
        """Trace all points in one process if each has to be traced separately."""
        missing = [
            (patch, batch)
            for patch, batch in dict.fromkeys(points)
            if not self._linear(False, batch == 1) and (False, "train", patch, batch) not in self._points
        ]
        if not missing:
            return
        answer = self._trace(missing, ("train",), False)
        for point, raw in zip(missing, answer["recordings"]["train"], strict=True):
            self._points[(False, "train", *point)] = constant(Recording.model_validate(raw))

    def _at(self, name: Pass, patch: Patch, batch: int, checkpointing: bool) -> Law:
        key = (checkpointing, name, patch, batch)
        if key not in self._points:
            raw = self._trace([(patch, batch)], (name,), checkpointing)["recordings"][name][0]
            self._points[key] = constant(Recording.model_validate(raw))
        return self._points[key]

    def _linear(self, checkpointing: bool, single: bool) -> dict[Pass, Law]:
        """Return the linear laws, or none if the network does not follow them."""
        key = (checkpointing, single)
        if key not in self._laws:
            self._laws[key] = self._read(checkpointing, single)
        return self._laws[key]

    def _read(self, checkpointing: bool, single: bool) -> dict[Pass, Law]:
        path = self._path(checkpointing, single)
        if self._use_cache:
            for kept in (store.read(path), self._shipped(checkpointing, single)):
                with contextlib.suppress(ValidationError, KeyError, TypeError, ValueError, AttributeError):
                    return self._laws_of(kept)
        traced = self.traced(checkpointing, single)
        if self._use_cache:
            store.write(path, traced)
        return self._laws_of(traced)

    def _laws_of(self, kept: Any) -> dict[Pass, Law]:
        laws = {name: Law.model_validate(law) for name, law in kept["laws"].items()}
        self.parameters = int(kept["parameters"])
        return laws

    def _shipped(self, checkpointing: bool, single: bool) -> Any:
        """Return the laws of a shipped task's network, or None for other networks or other versions of the packages."""
        kept = shipped_laws.read(self.network, self._mixed, checkpointing, single)
        return kept if kept and _minor(kept["versions"]) == _minor(_versions()) else None

    def traced(self, checkpointing: bool, single: bool) -> dict[str, Any]:
        """Trace now; return versions, number of parameters and laws (none for a network that follows none) for JSON."""
        step = _step(self.network.strides)
        # Batch and volume grow by different factors (3/2, and 81/16 or 27/8), which identify the dependence.
        small, large = tuple(2 * s for s in step), tuple(3 * s for s in step)
        answer = self._trace([(small, 1), (large, 1)] if single else [(small, 2), (large, 3)], _PASSES, checkpointing)
        try:
            laws = {
                name: fit(*(Recording.model_validate(raw) for raw in answer["recordings"][name])) for name in _PASSES
            }
        except NotLinear:
            laws = {}
        plain = {name: law.model_dump(mode="json") for name, law in laws.items()}
        return {"versions": _versions(), "parameters": int(answer["parameters"]), "laws": plain}

    def _trace(self, points: Sequence[Point], passes: Sequence[Pass], checkpointing: bool) -> dict[str, Any]:
        request = {
            "want": "trace",
            "facts": self.network.model_dump(mode="json"),
            "mixed": self._mixed,
            "checkpointing": checkpointing,
            "passes": passes,
            "points": points,
        }
        try:
            return (self._ask or ask)(request)
        except BrokenInstallation as error:
            what, remedy = f"the network could not be examined: {error}", error.problems[0].remedy
        except PpgsError as error:
            what, remedy = str(error), "is this the network that nnU-Net can build?"
        raise PlansError(what, f"network {self.network.class_name}", remedy)

    def _path(self, checkpointing: bool, single: bool) -> Path:
        facts = f"{self.network.digest} {self._mixed} {checkpointing} {single} {_versions()}"
        return store.folder() / "laws" / f"{hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()}.json"


def _step(strides: Sequence[Sequence[int]]) -> Patch:
    step = [1] * len(strides[0])
    for stride in strides:
        step = [a * b for a, b in zip(step, stride, strict=True)]
    return tuple(step)
