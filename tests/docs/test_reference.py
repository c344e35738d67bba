"""The generated pages and the schema for editors are what their sources say."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = script("reference")


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_committed_page_is_what_the_script_writes(name: str) -> None:
    written = reference.PAGES[name]()
    assert (DOCS / name).read_text(encoding="utf-8") == written, "run python .ci/reference.py"


def test_every_result_has_a_page_and_begins_with_its_answer() -> None:
    files = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / "benchmarks" / "results").glob("*.md")}
    assert sorted(name for names in reference.RESULTS.values() for name in names) == sorted(files)
    for text in files.values():
        title, answer = text.split("\n\n")[:2]
        assert re.fullmatch(r"# .+", title) and answer[:2] not in ("##", "| ", "- ", "``") and len(answer) < 400


def test_every_environment_variable_of_ppgs_is_described() -> None:
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "ppgs").rglob("*.py"))
    used = set(re.findall(r"\"(PPGS_[A-Z_]+)\"", source))
    assert used and used <= set(reference.ENVIRONMENT)


def test_the_checkpoint_page_names_every_key() -> None:
    from ppgs import upstream

    page = (DOCS / "reference" / "checkpoint.md").read_text(encoding="utf-8")
    source = (ROOT / "ppgs" / "nnunet" / "checkpoints" / "content.py").read_text(encoding="utf-8")
    own = re.search(r'plain\["ppgs"\] = \{(.*?)\n    \}', source, re.DOTALL)
    assert own is not None
    keys = {*re.findall(r'"(\w+)":', own[1]), *upstream.CHECKPOINT_KEYS, "digest"}
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


def test_the_schema_knows_every_key_of_schedule_files() -> None:
    from ppgs.schedule.model import Schedule, Stage
    from ppgs.schedule.recipe import Recipe

    kinds = json.loads((DOCS / "schedule.schema.json").read_text(encoding="utf-8"))["$defs"]
    for model in (Recipe, Schedule, Stage):
        assert kinds[model.__name__]["properties"].keys() == model.model_fields.keys()
        assert kinds[model.__name__]["additionalProperties"] is False
