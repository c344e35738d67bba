"""Comparison of curricula by budget: the same task trained by many schedules at equal work, or at equal time.

    python benchmarks/curriculum.py TASK... --root DIR [--work 100,400] [--time 4m,8m] [--arms ...] [--seeds 5] [-- ...]

`--work` counts iterations at the final patch, each iteration in proportion to its voxels: exact on any machine.
`--time` is a budget of `ppgs train`, with the final validation. Options after `--` are passed to `ppgs train` (`--
--device cpu`), but `--iterations`, `--batch-size` and `--plans` (prepared before, where they are not nnU-Net's own)
belong to this script, since stock nnU-Net takes them as well.

Arms are shipped schedules, `stock` (nnU-Net's own trainer), and single changes of `efficiency`, see `CHANGES`.
Trainings that are finished are not repeated: the same command continues, and `--most N` trains N and stops. Another
number of iterations, batch size or passed option needs another `--root`. It always
prints a report of what is there: Dice against time with 95 % intervals over seeds, differences from `constant` seed
by seed, wins and losses, and the seconds to the Dice of `constant` and of stock nnU-Net. Rules must be chosen on some
tasks and budgets and confirmed on others.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from cells import same_settings

from ppgs.estimate.budget import parse_budget
from ppgs.plans import load_plans
from ppgs.runs.events import read_events
from ppgs.runs.state import RunState
from ppgs.schedule import PlanFacts, Recipe, Schedule, dump, resolve
from ppgs.shipped import schedules
from ppgs.tasks import Roots, resolve_task

CHANGES: dict[str, dict[str, Any]] = {
    "efficiency-decay-work": {"learning_rate": {"decay": "work"}},
    "efficiency-decay-work-warmup": {"learning_rate": {"decay": "work", "warmup": 3}},
    "efficiency-volume": {"pacing": "volume"},
    "efficiency-power-half": {"pacing": {"power": 0.5}},
    "efficiency-last-stage": {"last_stage": 0.4},
    "efficiency-start-tenth": {"start": 0.1},
    "efficiency-octave": {"growth": "octave"},
    "efficiency-late-decay-work": {"start": 0.1, "learning_rate": {"decay": "work"}},
    "efficiency-last-half-decay-work": {"last_stage": 0.5, "learning_rate": {"decay": "work"}},
    "efficiency-power-half-decay-work": {"pacing": {"power": 0.5}, "learning_rate": {"decay": "work"}},
    "efficiency-octave-decay-work": {"growth": "octave", "learning_rate": {"decay": "work"}},
}
ARMS = ("constant", "efficiency", "performance", "auto", "stock", *CHANGES)
REFERENCE = "constant"
# Two-sided 95 % quantiles of Student's t by degrees of freedom.
_T = (math.inf, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


@dataclass(frozen=True)
class Cell:
    """One training: `budget` is `w400` (work) or a time such as `4m`."""

    task: str
    budget: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"cur-{self.budget}"


@dataclass(frozen=True)
class Result:
    dice: float
    seconds: float
    epochs: int


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--work", default="")
    parser.add_argument("--time", default="")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--plans", default="nnUNetPlans")
    parser.add_argument("--most", type=int, default=10**6)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--stock", help=argparse.SUPPRESS)
    mine = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    options = parser.parse_args(mine)
    options.passed, options.mine = sys.argv[len(mine) + 2 :], mine
    unknown = set(options.arms.split(",")) - set(ARMS) - set(schedules())
    if unknown:
        parser.error(f"no arms {sorted(unknown)}; there are {', '.join(ARMS)}")
    return options


def facts_of(task: str, options: argparse.Namespace) -> PlanFacts:
    """The plans' facts; the task is prepared where it is not."""
    roots = Roots.choose(options.root, os.environ)
    file = roots.preprocessed / resolve_task(task, roots).dataset / f"{options.plans}.json"
    if not file.is_file():
        plans = ["--configuration", options.configuration, "--plans", options.plans]
        call(["prepare", task, "--root", options.root, *plans])
    loaded = load_plans(file)
    return PlanFacts.of(loaded, loaded.configuration(options.configuration))


def call(command: Sequence[object]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ppgs", *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)


def recipe_of(arm: str) -> Recipe:
    mode = {"mode": "efficiency", "name": arm, **CHANGES[arm]} if arm in CHANGES else {"mode": arm}
    return Recipe.model_validate(mode)


def work_of(schedule: Schedule, facts: PlanFacts) -> float:
    """Iterations at the final patch and batch."""
    last = schedule.stages[-1]
    one = last.batch_size * math.prod(facts.patch_size)
    return schedule.trained_voxels * schedule.iterations_per_epoch / one


def epochs_for(arm: str, work: float, options: argparse.Namespace, facts: PlanFacts) -> int | None:
    """The epochs whose work is nearest; None where even one epoch in every stage is half as much again."""
    base = {"iterations_per_epoch": options.iterations, "batch_size": options.batch_size}
    recipe = recipe_of(arm).model_copy(update=base)

    def worked(epochs: int) -> float:
        return work_of(resolve(recipe.model_copy(update={"epochs": epochs}), facts), facts)

    least = len(resolve(recipe.model_copy(update={"epochs": 10_000}), facts).stages) if arm != "auto" else 1
    least += recipe.learning_rate.warmup
    low, high = least, max(least, math.ceil(60 * work / options.iterations))
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if worked(middle) < work else (low, middle)
    best = min({max(least, low - 1), low}, key=lambda epochs: abs(worked(epochs) - work))
    return best if worked(best) <= 1.5 * work else None


def folder_of(cell: Cell, options: argparse.Namespace) -> Path | None:
    if cell.arm == "stock":
        usual = {"3d_fullres", "nnUNetPlans"}
        which = [Path(cell.task).name, *(one for one in (options.configuration, options.plans) if one not in usual)]
        return options.root / "curriculum_stock" / "-".join([*which, cell.budget, str(cell.seed)])
    label = "_".join([cell.arm, *([f"seed{cell.seed}"] if cell.seed else []), cell.name])
    dataset = resolve_task(cell.task, Roots.choose(options.root, os.environ)).dataset
    pattern = f"nnUNet_results/{dataset}/nnUNetTrainerPPGS_{label}__{options.plans}__{options.configuration}/fold_0"
    return next(iter(options.root.glob(pattern)), None)


def result_of(cell: Cell, options: argparse.Namespace) -> Result | None:
    folder = folder_of(cell, options)
    if folder is None:
        return None
    if cell.arm == "stock":
        file = folder / "result.json"
        return Result(**json.loads(file.read_text())) if file.is_file() else None
    records = read_events(folder / "ppgs" / "events.jsonl")
    if not any(record["type"] == "run_finished" for record in records):
        return None
    state = RunState().apply_all(records)
    return None if state.mean_dice is None else Result(state.mean_dice, state.worked, state.epochs)


def train(cell: Cell, options: argparse.Namespace) -> bool:
    """Train one cell; whether its budget suffices."""
    what = f"curricula of {Path(cell.task).name}, {options.configuration}, {options.plans}"
    settings = {"iterations": options.iterations, "batch_size": options.batch_size, "passed": options.passed}
    same_settings(options.root, what, settings)
    facts = facts_of(cell.task, options)
    work = float(cell.budget[1:]) if cell.budget.startswith("w") else None
    if cell.arm == "stock":
        child = [sys.executable, __file__, *options.mine, "--stock", json.dumps([cell.task, cell.budget, cell.seed])]
        if subprocess.run(child, stdout=subprocess.DEVNULL).returncode:
            sys.exit("stock nnU-Net failed")
        return True
    folder = options.root / "curriculum_schedules"
    folder.mkdir(parents=True, exist_ok=True)
    schedule: object = cell.arm
    if cell.arm in CHANGES:
        schedule = folder / f"{cell.arm}.yaml"
        Path(folder / f"{cell.arm}.yaml").write_text(dump(recipe_of(cell.arm)))
    command: list[object] = ["train", cell.task, "--root", options.root, "--schedule", schedule, "--name", cell.name]
    command += ["--configuration", options.configuration, "--seed", cell.seed, "--iterations", options.iterations]
    command += ["--plans", options.plans]
    command += [] if options.batch_size is None else ["--batch-size", options.batch_size]
    if work is None:
        command += ["--budget", cell.budget]
    elif (epochs := epochs_for(cell.arm, work, options, facts)) is None:
        return False
    else:
        command += ["--epochs", epochs]
    there = folder_of(cell, options)
    if there is not None and (there / "checkpoint_latest.pth").is_file():
        call(["resume", there, "--root", options.root, "--no-tui"])
    else:
        call([*command, "--overwrite", "--no-tui", *options.passed])
    return True


def stock(options: argparse.Namespace, task: str, budget: str, seed: int) -> None:
    """Train and validate with nnU-Net's own trainer; at equal time, as many epochs as a probe of two says fit."""
    roots = Roots.choose(options.root, os.environ)
    facts_of(task, options)
    cell = Cell(task, budget, "stock", seed)
    folder = folder_of(cell, options)
    assert folder is not None
    os.environ.update(roots.environment)
    os.environ["nnUNet_results"] = str(folder)
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from ppgs.nnunet.host.devices import choose_device

    data = roots.preprocessed / resolve_task(task, roots).dataset
    plans, dataset = (json.loads((data / name).read_text()) for name in (f"{options.plans}.json", "dataset.json"))
    wanted = options.passed[options.passed.index("--device") + 1] if "--device" in options.passed else "auto"
    device = choose_device(wanted, 1)

    def run(epochs: int) -> tuple[Any, float]:
        torch.manual_seed(seed)
        trainer: Any = nnUNetTrainer({**plans, "continue_training": False}, options.configuration, 0, dataset, device)
        trainer.num_epochs, trainer.num_iterations_per_epoch = epochs, options.iterations
        trainer.num_val_iterations_per_epoch = math.ceil(options.iterations / 5)
        trainer.initialize()
        trainer.batch_size = options.batch_size or trainer.batch_size
        begun = time.perf_counter()
        trainer.run_training()
        return trainer, time.perf_counter() - begun

    if budget.startswith("w"):
        epochs = max(1, round(float(budget[1:]) / options.iterations))
    else:
        _, one = run(1)
        _, three = run(3)
        trainer, _ = run(1)
        begun = time.perf_counter()
        trainer.perform_actual_validation(False)
        validation = time.perf_counter() - begun
        each = (three - one) / 2
        epochs = max(1, round((parse_budget(budget).amount - validation - one + each) / each))
    trainer, seconds = run(epochs)
    begun = time.perf_counter()
    trainer.perform_actual_validation(False)
    seconds += time.perf_counter() - begun
    dice = json.loads(Path(trainer.output_folder, "validation", "summary.json").read_text())["foreground_mean"]["Dice"]
    (folder / "result.json").write_text(json.dumps({"dice": dice, "seconds": seconds, "epochs": epochs}))


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval of the mean."""
    if len(values) < 2:
        return f"{mean(values):.4f}"
    half = _T[min(len(values), len(_T)) - 1] * stdev(values) / math.sqrt(len(values))
    return f"{mean(values):.4f} ± {half:.4f}"


def report(found: dict[Cell, Result]) -> str:
    lines: list[str] = []
    for task in dict.fromkeys(cell.task for cell in found):
        ours = {cell: result for cell, result in found.items() if cell.task == task}
        for budget in dict.fromkeys(cell.budget for cell in ours):
            lines += ["", f"## {Path(task).name}, {budget}", ""]
            lines += ["| arm | seeds | epochs | seconds | Dice | against constant | wins : losses |"]
            lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
            by_arm: dict[str, dict[int, Result]] = {}
            for cell, result in ours.items():
                if cell.budget == budget:
                    by_arm.setdefault(cell.arm, {})[cell.seed] = result
            for arm, results in by_arm.items():
                lines.append(row(arm, results, by_arm.get(REFERENCE, {})))
        lines += times_to(ours)
    return "\n".join(lines) + "\n"


def row(arm: str, results: dict[int, Result], reference: dict[int, Result]) -> str:
    epochs, seconds = (mean(getattr(r, name) for r in results.values()) for name in ("epochs", "seconds"))
    pairs = [results[seed].dice - reference[seed].dice for seed in results.keys() & reference.keys()]
    difference = interval(pairs) if pairs and arm != REFERENCE else "-"
    wins = f"{sum(d > 0 for d in pairs)} : {sum(d < 0 for d in pairs)}" if arm != REFERENCE else "-"
    dice = interval([r.dice for r in results.values()])
    return f"| {arm} | {len(results)} | {epochs:.0f} | {seconds:.0f} | {dice} | {difference} | {wins} |"


def times_to(found: dict[Cell, Result]) -> list[str]:
    """Seconds after which each arm reaches the mean Dice of `constant` and of stock nnU-Net at each budget.

    Linear between budgets; beside stock's Dice also as a share of stock's time.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    targets: dict[tuple[str, str], tuple[float, float]] = {}
    for arm, budget in dict.fromkeys((cell.arm, cell.budget) for cell in found):
        results = [r for cell, r in found.items() if (cell.arm, cell.budget) == (arm, budget)]
        point = mean(r.seconds for r in results), mean(r.dice for r in results)
        curves.setdefault(arm, []).append(point)
        if arm in (REFERENCE, "stock"):
            targets[arm, budget] = point
    if not targets or all(len(points) < 2 for points in curves.values()):
        return []
    labels = [f"{arm}, {budget}: {dice:.4f}" for (arm, budget), (_, dice) in targets.items()]
    lines = ["", "| seconds to the Dice of | " + " | ".join(labels) + " |", "| --- |" + " --- |" * len(targets)]
    for arm, points in curves.items():
        cells = []
        for (target, _), (seconds, dice) in targets.items():
            reached, is_exact = time_to(dice, sorted(points))
            share = f" ({reached / seconds:.2f})" if target == "stock" else ""
            cells.append(f"{'' if is_exact else '≤ '}{reached:.0f}{share}" if reached < math.inf else "-")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return lines


def time_to(dice: float, points: Sequence[tuple[float, float]]) -> tuple[float, bool]:
    """Seconds to a Dice, infinite where it is not reached; False where the shortest training is beyond it."""
    if points[0][1] >= dice:
        return points[0][0], points[0][1] == dice
    for (begun, low), (ended, high) in pairwise(points):
        if low <= dice <= high and low < high:
            return begun + (dice - low) / (high - low) * (ended - begun), True
    return math.inf, True


def main() -> None:
    options = arguments()
    if options.stock:
        stock(options, *json.loads(options.stock))
        return
    budgets = [f"w{work}" for work in options.work.split(",") if work] + [t for t in options.time.split(",") if t]
    found: dict[Cell, Result] = {}
    trained = 0
    # Seed by seed, so that what is there at any time compares all arms.
    for task, budget, seed, arm in product(options.tasks, budgets, range(options.seeds), options.arms.split(",")):
        cell = Cell(task, budget, arm, seed)
        facts_of(task, options)
        if result_of(cell, options) is None and trained < options.most:
            trained += train(cell, options)
        if (result := result_of(cell, options)) is not None:
            found[cell] = result
            print(cell.budget, cell.arm, cell.seed, result, file=sys.stderr, flush=True)
    text = report(found)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
