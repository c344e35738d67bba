"""The documentation builds strictly, and its pages, links and commands are right without the generator too."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from ppgs.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [ROOT / "README.md", *PAGES]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="needs the extra docs")
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "index.html").is_file()


def test_every_page_is_in_the_navigation() -> None:
    def listed(part: Any) -> set[str]:
        if isinstance(part, str):
            return {part}
        return set().union(*map(listed, part.values() if isinstance(part, dict) else part))

    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert listed(navigation) == {str(page.relative_to(DOCS)) for page in PAGES}


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]+`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    broken = [
        link
        for link in links
        if not re.match(r"https?:|#", link) and not (page.parent / link.partition("#")[0]).is_file()
    ]
    assert broken == []


def commands(page: Path) -> list[str]:
    """The `ppgs` command lines of a page's shell blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("ppgs ")]


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_commands_are_ones_that_ppgs_accepts(page: Path) -> None:
    """Every command line is parsed, not run: an unknown command or option, or a bad value, fails."""
    group: Any = typer.main.get_command(app)
    for line in commands(page):
        words = [word for word in shlex.split(line, comments=True)[1:] if word != "--debug"]
        words = words[: words.index(">")] if ">" in words else words
        two_words = " ".join(words[:2])
        called = two_words if two_words in group.commands else words[0]
        command = group.commands.get(called)
        if command is None:
            assert words[0] in ("--version", "--help"), line
            continue
        try:
            command.make_context(called, words[len(called.split()) :])
        except Exception as error:
            pytest.fail(f"{line}: {error}")
