"""A training with a budget through the real command: stopped, killed, resumed, and trained again from its schedule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from tests.helpers.commands import Ppgs, start, wait_for
from tests.helpers.runs import events, final_weights, manifest

OPTIONS = ("--iterations", "1", "--device", "cpu", "--no-energy", "--no-tui")


@pytest.fixture
def demo_environ(demo_environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**demo_environ, "PPGS_CACHE": str(tmp_path / "cache")}


def test_killed_and_resumed_it_is_what_its_schedule_says(demo_environ: dict[str, str], ppgs: Ppgs) -> None:
    process = start(demo_environ, "train", "demo", "--budget", "40s", *OPTIONS)
    results = Path(demo_environ["nnUNet_results"])
    wait_for(results, "budget_planned", 3, seconds=200)
    process.kill()
    process.communicate()
    refused = ppgs("resume", "--epochs", "500", "--no-tui", environ=demo_environ)
    assert refused.returncode == 4 and "budget" in refused.stderr
    done = ppgs("resume", "--no-tui", environ=demo_environ)
    assert done.returncode == 0, done.stderr
    (run,) = results.glob("*/*/fold_0")
    frozen = yaml.safe_load((run / "ppgs" / "schedule.yaml").read_text())
    assert len(frozen["decayed"]) == len(frozen["stages"]) and frozen["decayed"][-1] == 1.0
    records = events(run)
    plans = [r for r in records if r["type"] == "budget_planned"]
    assert plans[-1]["epochs"] == sum(s["epochs"] for s in frozen["stages"])
    assert manifest(run)["request"]["budget"] == "40s"
    trained = {r["epoch"]: r["learning_rate"] for r in records if r["type"] == "epoch_finished"}
    assert sorted(trained) == list(range(plans[-1]["epochs"]))
    again = ("--schedule", str(run / "ppgs" / "schedule.yaml"), "--name", "again")
    replayed = ppgs("train", "demo", *again, *OPTIONS[2:], environ=demo_environ)
    assert replayed.returncode == 0, replayed.stderr
    (other,) = results.glob("*/*again*/fold_0")
    assert not [r for r in events(other) if r["type"] == "budget_planned"]
    ours, theirs = final_weights(run), final_weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # Where the end matters, nnU-Net's figure is timed beforehand.
    expected = [[r for r in events(of) if r["type"] == "run_started"][-1]["final_validation"] for of in (run, other)]
    assert expected[0]["start_seconds"] != expected[1]["start_seconds"] == 3.0


def test_one_that_is_refused_leaves_no_run(demo_environ: dict[str, str], ppgs: Ppgs) -> None:
    refused = ppgs("train", "demo", "--budget", "2s", *OPTIONS, environ=demo_environ)
    assert refused.returncode == 2 and "give more time" in refused.stderr, refused.stderr
    assert not list(Path(demo_environ["nnUNet_results"]).glob("*/*/fold_0"))


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
