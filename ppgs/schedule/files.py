"""Schedule files: YAML in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ppgs.errors import Problems, ScheduleError, nearest
from ppgs.schedule.model import LearningRate, Schedule
from ppgs.schedule.recipe import Recipe
from ppgs.shipped import schedules

_MAX_BYTES = 1_000_000


def read_shipped(name: str) -> Recipe | Schedule:
    """Return a shipped schedule by name; raises `ScheduleError` with the nearest name."""
    known = schedules()
    if name not in known:
        raise ScheduleError(f"there is no schedule '{name}'", "--schedule", nearest(name, known))
    return load(known[name])


def load(path: Path) -> Recipe | Schedule:
    """Read a schedule file; raises `ScheduleError` naming the file and every wrong key."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ScheduleError(f"larger than {_MAX_BYTES} bytes", path, "is this a schedule?")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ScheduleError("file not found", path, nearest(path.stem, schedules())) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise ScheduleError(f"not readable: {problem}", path) from None
    return parse(text, path)


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases (they can expand without bound) and without duplicate keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key in (self.construct_object(k, deep=True) for k, _ in node.value):
            if key in seen:
                raise yaml.YAMLError(f"key '{key}' is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse(text: str, where: object = "schedule") -> Recipe | Schedule:
    """Parse a schedule (explicit `stages`) or a recipe from YAML text; raises `ScheduleError`."""
    try:
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506  (derived from SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as problem:
        raise ScheduleError(f"not valid YAML: {' '.join(str(problem).split())}", where) from None
    if not isinstance(raw, dict):
        raise ScheduleError(f"expected keys and values, found {type(raw).__name__}", where)
    kind = Schedule if "stages" in raw else Recipe
    try:
        return kind.model_validate(raw)
    except ValidationError as invalid:
        raise _explained(invalid, kind, where) from None


def _explained(invalid: ValidationError, kind: type[BaseModel], where: object) -> ScheduleError:
    problems = Problems()
    for error in invalid.errors(include_url=False, include_context=False):
        key = ".".join(str(part) for part in error["loc"])
        if error["type"] == "extra_forbidden":
            known = _keys(kind, error["loc"][:-1])
            problems.add(f"unknown key '{error['loc'][-1]}'", f"{where}: {key}", nearest(str(error["loc"][-1]), known))
        else:
            value = "" if isinstance(error["input"], (dict, list)) else f" (found {error['input']!r})"
            message = error["msg"].removeprefix("Value error, ")
            problems.add(f"{message[:1].lower()}{message[1:]}{value[:80]}", f"{where}: {key}" if key else where)
    many = len(problems.found) > 1
    summary = f"{len(problems.found)} problems in the schedule" if many else problems.found[0].what
    return ScheduleError(summary, problems=problems.found)


def _keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            nested = [model.model_fields[part].annotation]
            while nested:
                candidate = nested.pop()
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    model = candidate
                    break
                nested.extend(get_args(candidate))
    return list(model.model_fields)


class _Dumper(yaml.SafeDumper):
    """Block style with short sequences of numbers on one line."""


def _sequence(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    flat = all(isinstance(v, (int, float, str)) for v in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


_Dumper.add_representer(list, _sequence)


def dump(schedule: Schedule | Recipe) -> str:
    """Write YAML text that `parse` turns into an equal schedule."""
    data = schedule.model_dump(mode="json", exclude_none=True, exclude_defaults=False)
    if schedule.learning_rate == LearningRate():
        del data["learning_rate"]
    for stage in data.get("stages", []):
        # Rarely used: left out where they say nothing.
        for key, nothing in (("patch_choices", []), ("accumulation", 1), ("checkpointing", False)):
            if stage.get(key) == nothing:
                del stage[key]
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=120)
