"""Change of the number of epochs of a run in progress."""

from __future__ import annotations

from ppgs.errors import ScheduleError
from ppgs.schedule.model import Schedule


def rescaled(schedule: Schedule, done: int, epochs: int) -> Schedule:
    """Return the schedule with `epochs` in total; the first `done`, which are trained, stay as they are.

    The others are shared out among the stages that are left in proportion to what these had, at least one each. Raises
    `ScheduleError` if there are too few.
    """
    current = schedule.stage_index_at(done)
    before = done - schedule.first_epoch(current)
    left = [stage.epochs for stage in schedule.stages[current:]]
    left[0] -= before
    room = epochs - done
    if room < len(left) or left[0] < 1:
        raise ScheduleError(
            f"{epochs} epochs leave {max(room, 0)} for {len(left)} stages: {done} are trained",
            "--epochs",
            f"give at least {done + len(left)}",
        )
    if (problem := schedule.learning_rate.problem(epochs)) is not None:
        raise ScheduleError(problem, "--epochs", f"give at least {schedule.learning_rate.warmup + 1}")
    wanted = [room * epochs_left / sum(left) for epochs_left in left]
    shared = [max(1, int(share)) for share in wanted]
    while sum(shared) != room:
        step = 1 if sum(shared) < room else -1
        index = max((i for i, n in enumerate(shared) if n + step >= 1), key=lambda i: step * (wanted[i] - shared[i]))
        shared[index] += step
    shared[0] += before
    stages = [
        *schedule.stages[:current],
        *(s.changed(epochs=n) for s, n in zip(schedule.stages[current:], shared, strict=True)),
    ]
    return schedule.changed(stages=stages)
