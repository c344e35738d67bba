"""Laws that ship with ppgs for the networks of the shipped tasks, so that a first estimate needs no trace.

`.ci/trace_shipped_laws.py` makes the files, one per network and way of stepping, named after the network's digest.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from ppgs.estimate.network import Network
from ppgs.shipped import folder


def place(network: Network, mixed: bool, checkpointing: bool, single: bool) -> Path:
    """Return the file with the laws of this network and kind of step."""
    ways = {"float32": not mixed, "checkpointing": checkpointing, "single": single}
    name = "-".join([network.digest, *(way for way, taken in ways.items() if taken)])
    return folder() / "msd" / "laws" / f"{name}.json.gz"


def read(network: Network, mixed: bool, checkpointing: bool, single: bool) -> Any:
    """Return the shipped result of `Tracer.traced`, or None if there is no such file."""
    try:
        return json.loads(gzip.decompress(place(network, mixed, checkpointing, single).read_bytes()))
    except (OSError, EOFError, ValueError, zlib.error):
        return None


def write(network: Network, mixed: bool, checkpointing: bool, single: bool, traced: dict[str, Any]) -> Path:
    """Write a file with the same bytes for the same laws; return its path."""
    path = place(network, mixed, checkpointing, single)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(traced, separators=(",", ":")).encode(), mtime=0))
    return path
