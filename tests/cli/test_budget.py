"""A training with a budget through the real command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.commands import Ppgs


@pytest.fixture
def demo_environ(demo_environ: dict[str, str], small_demo: Path, tmp_path: Path) -> dict[str, str]:
    """The demo with a small network: what is planned does not depend on its size."""
    return {**demo_environ, "nnUNet_preprocessed": str(small_demo), "PPGS_CACHE": str(tmp_path / "cache")}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", "2h", "--epochs", "5"), "chooses the number of epochs"),
        (("--budget", "2h", "--until", "07:00"), "contradict"),
        (("--budget", "soon"), "no budget"),
        (("--budget", "50%"), "no time or energy"),
        (("--budget", "1kWh", "--no-energy"), "needs its measurement"),
        (("--until", "2020-01-01"), "past"),
        (("--until", "tomorrow"), "no time"),
    ],
)
def test_what_contradicts_is_refused(
    demo_environ: dict[str, str], ppgs: Ppgs, options: tuple[str, ...], said: str
) -> None:
    refused = ppgs("train", "demo", *options, environ=demo_environ)
    assert refused.returncode == 2 and said in refused.stderr
    assert not list(Path(demo_environ["nnUNet_results"]).glob("*/*/fold_0"))
