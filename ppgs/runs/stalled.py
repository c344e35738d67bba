"""Detection of live runs without progress for implausibly long."""

from __future__ import annotations

from ppgs.runs.names import WORKING
from ppgs.runs.state import RunState

# A first iteration may wait for the compiler, a large case takes minutes to preprocess or to segment.
_UNKNOWN_SECONDS = 1800.0
_LEAST_SECONDS = 600.0
# A later stage's iterations take longer than those measured so far.
_ITERATIONS, _UNITS = 20, 5


def patience(state: RunState) -> float:
    """Return the seconds without progress that are plausible in the run's present step."""
    if state.status == "training":
        seconds = state.stage_seconds
        if not seconds or not state.iterations_per_epoch:
            return _UNKNOWN_SECONDS
        longest = max(seconds[: state.stage + 1])
        return max(_LEAST_SECONDS, _ITERATIONS * longest / state.iterations_per_epoch)
    # Cases of a step, of a preparation or the final validation, by the mean of those that are done.
    began, progressed = state.step_began, state.progressed
    if not state.done or began is None or progressed is None:
        return _UNKNOWN_SECONDS
    return max(_UNKNOWN_SECONDS, _UNITS * (progressed - began) / state.done)


def stalled_since(state: RunState, now: float) -> float | None:
    """Return the time of the last progress if a live run with this state is stalled at `now`, else None."""
    if state.status not in WORKING or state.progressed is None:
        return None
    # What it waits for is another process, which is watched.
    if state.status == "preparing" and (state.step or "").startswith("waiting"):
        return None
    return state.progressed if now - state.progressed > patience(state) else None
