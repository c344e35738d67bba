"""Types of events: every written and read field is described, and a wrong type makes a record a damaged one."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppgs.runs.event_types import EVENTS, json_types
from ppgs.runs.events import EventLog, read_whole
from ppgs.runs.state import RunState
from ppgs.tui.source import ViewState

PACKAGE = Path(__file__).resolve().parents[2] / "ppgs"
WRITERS = {"emit", "_emit", "append", "_end", "mark"}


def written() -> set[str]:
    """The event types that calls in the package name."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and name in WRITERS:
                found |= {a.value for a in node.args if isinstance(a, ast.Constant) and a.value in EVENTS}
    return found  # type: ignore[return-value]


def test_every_type_is_written_somewhere() -> None:
    assert written() == set(EVENTS)


@pytest.mark.parametrize("reader", [RunState, ViewState])
def test_readers_know_no_other_types(reader: type) -> None:
    assert {name.removeprefix("_on_") for name in dir(reader) if name.startswith("_on_")} <= set(EVENTS)


@pytest.mark.parametrize("kind", EVENTS)
def test_every_field_is_described(kind: str) -> None:
    assert EVENTS[kind].__doc__
    for name, hint in get_type_hints(EVENTS[kind], include_extras=True).items():
        assert get_origin(hint) is Annotated, name


def test_what_nobody_reads_is_not_written(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        with pytest.raises(TypeError, match="no event type 'epoch_finnished'"):
            log.append("epoch_finnished", epoch=0)
        with pytest.raises(TypeError, match=r"no fields \['ema'\]"):
            log.append("epoch_finished", epoch=0, ema=0.5)
    assert read_whole(tmp_path / "events.jsonl") == ([], 0)


VALUES: dict[type, Any] = {
    int: 3,
    float: 0.5,
    str: "text",
    bool: True,
    list: [],
    dict: {},
    type(None): None,
}


@given(st.data())
def test_a_field_of_another_type_makes_a_record_a_damaged_one(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(sorted(EVENTS)))
    own = EVENTS[kind].__annotations__.keys() - {"v", "seq", "time", "type"}
    fields = {name: kinds for name, kinds in json_types(kind).items() if name in own}
    record = {name: VALUES[min(kinds, key=str)] for name, kinds in fields.items()}
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    common = {"v": 1, "seq": 0, "time": 0.5, "type": kind}
    path.write_text(json.dumps({**common, **record}) + "\n")
    assert [r["type"] for r in read_whole(path)[0]] == [kind]
    if fields:
        name = data.draw(st.sampled_from(sorted(fields)))
        wrong = data.draw(st.sampled_from([t for t in VALUES if t not in fields[name]]))
        path.write_text(json.dumps({**common, **record, name: VALUES[wrong]}) + "\n")
        assert read_whole(path) == ([], 1)


@pytest.mark.parametrize("kind", ["warning", "of_another_version"])
@pytest.mark.parametrize("field", [{"time": {}}, {"epoch": "three"}, {"stages": [{}]}])
def test_fields_keep_their_types_where_nobody_expects_them(tmp_path: Path, kind: str, field: dict[str, Any]) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps({"v": 1, "seq": 0, "time": 0.5, "type": kind, **field}) + "\n")
    assert read_whole(path) == ([], 1)
