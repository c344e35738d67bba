"""The release script, on texts and, dry, on the checkout."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / ".ci" / "release.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_was_unreleased_goes_under_the_version(script: ModuleType) -> None:
    text = "# Changelog\n\n## Unreleased\n\n- New.\n\n## 0.1.0\n\n- Old.\n"
    released = "# Changelog\n\n## Unreleased\n\n## 0.2.0\n\n- New.\n\n## 0.1.0\n\n- Old.\n"
    assert script.released_changelog(text, "0.2.0") == released
    for refused in (text.replace("- New.\n\n", ""), text.replace("## Unreleased\n\n- New.\n\n", "")):
        with pytest.raises(script.Refused, match="no changes"):
            script.released_changelog(refused, "0.2.0")
    with pytest.raises(script.Refused, match="knows it"):
        script.released_changelog(text, "0.1.0")


@pytest.mark.parametrize("version", ["1", "v1.2.3", "1.2", "1.2.3rc1", ""])
def test_what_is_no_version(script: ModuleType, version: str) -> None:
    with pytest.raises(script.Refused, match="not a version"):
        script.parse(version)


def test_a_version_that_is_not_newer_changes_nothing(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "ppgs").mkdir()
    files = {"ppgs/__init__.py": '__version__ = "1.2.3"\n', "CITATION.cff": "version: 1.2.3\n"}
    files["CHANGELOG.md"] = "## Unreleased\n\n- New.\n"
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    for version in ("1.2.3", "1.2.2", "0.9.9"):
        with pytest.raises(script.Refused, match="not newer"):
            script.write_version(tmp_path, version)
    assert {name: (tmp_path / name).read_text() for name in files} == files
    script.write_version(tmp_path, "1.10.0")
    assert (tmp_path / "ppgs/__init__.py").read_text() == '__version__ = "1.10.0"\n'
    assert (tmp_path / "CITATION.cff").read_text() == "version: 1.10.0\n"


@pytest.mark.slow
def test_a_dry_run_builds_checks_and_tags_a_clone_and_leaves_the_checkout_alone() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    state = ["git", "-C", str(ROOT), "for-each-ref"]
    before = subprocess.run(state, capture_output=True, text=True, check=True).stdout
    done = subprocess.run([sys.executable, SCRIPT, "99.0.0", "--dry-run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tagged v99.0.0" in done.stdout
    assert subprocess.run(state, capture_output=True, text=True, check=True).stdout == before
    assert "99.0.0" not in (ROOT / "ppgs" / "__init__.py").read_text()
