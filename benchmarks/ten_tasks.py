"""All ten tasks of the Decathlon through the training of `ppgs train`: first and last stage, one iteration each.

    python benchmarks/ten_tasks.py PLANS --root DIR [--modes efficiency,performance] [--task TEXT] [--device cpu]

PLANS contains DatasetNNN_NAME/nnUNetPlans.json and dataset.json; a task's stages, channels, spacing and labels are
those of its default plans, its images noise of the median shape (`benchmarks/synthetic_task.py`). Prints a table of
seconds and of peak memory, predicted and measured (on the CPU: resident memory of the process, which no prediction is
about); `--markdown FILE` writes it down. With `--prepared` the preprocessed cases are written directly, without ITK.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from ppgs.formatting import size


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path, help="folder of DatasetNNN_NAME, or one of them")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--modes", default="efficiency,performance")
    parser.add_argument("--task", help="only tasks whose name contains this")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--prepared", action="store_true", help="write preprocessed cases, no images")
    parser.add_argument("--cap", type=float, help="with --prepared: cases of at most this many patches along an axis")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def folders(plans: Path) -> list[Path]:
    if (plans / "nnUNetPlans.json").is_file():
        return [plans]
    return sorted(p.parent for p in plans.glob("Dataset*/nnUNetPlans.json"))


def train(options: argparse.Namespace, folder: Path, mode: str) -> dict[str, Any]:
    """First and last stage of a mode in this process, as the command's own training process takes them."""
    from battery.data import write_task
    from battery.training import schedule_of, stages_of, use_roots

    roots = use_roots(options.root)
    name = json.loads((folder / "nnUNetPlans.json").read_text())["dataset_name"]
    if options.prepared:
        write_task(folder, roots, options.cases, options.cap)
    elif not (roots.raw / name).is_dir():
        from synthetic_task import make

        make(folder, roots, options.cases, "3d_fullres")
    from ppgs.commands.train.plan import create_run
    from ppgs.nnunet.process import validation
    from ppgs.nnunet.process.leader import TrainingProcess
    from ppgs.runs.events import read_events
    from ppgs.runs.request import TrainingRequest
    from ppgs.schedule import dump

    # Validation on whole images is no part of a stage.
    validation.validate = lambda *_: None  # type: ignore[assignment]
    found = stages_of(folder, mode)
    chosen = [found[0], found[-1]] if len(found) > 1 else found
    schedule = schedule_of(
        folder, [s.model_copy(update={"epochs": 1}) for s in chosen], iterations=options.iterations
    ).model_copy(update={"name": f"ends-{mode}"})
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / f"ends-{mode}.yaml"
        file.write_text(dump(schedule), encoding="utf-8")
        request = TrainingRequest(
            task=name,
            schedule=str(file),
            device=options.device,
            name="ten-tasks",
            overwrite=True,
            energy=False,
            workers=0,
        )
        run = create_run(request, 0, roots)
        started = time.perf_counter()
        code = TrainingProcess(run, roots).main()
    if code:
        sys.exit(f"the training of {name} ended with {code}: {run.log}")
    records = read_events(run.events)
    (begun,) = [r for r in records if r["type"] == "run_started"]
    return {
        "task": name,
        "mode": mode,
        "seconds": time.perf_counter() - started,
        # Of this whole process: the kernel keeps one figure, not one a stage.
        "resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "stages": [
            {
                "patch": begun["stages"][e["stage"]]["patch_size"],
                "batch": begun["stages"][e["stage"]]["batch_size"],
                "predicted": begun["stages"][e["stage"]].get("memory_bytes"),
                "measured": e.get("train_peak_memory_bytes"),
                "train_seconds": e["train_seconds"],
                "validation_seconds": e["validation_seconds"],
                "loss": e["train_loss"],
            }
            for e in records
            if e["type"] == "epoch_finished"
        ],
    }


def row(result: dict[str, Any]) -> list[str]:
    lines = []
    for number, stage in enumerate(result["stages"]):
        measured = stage["measured"]
        which = "first" if number == 0 and len(result["stages"]) > 1 else "last"
        lines.append(
            f"| {result['task'][7:]} | {result['mode']} | {which} | {'x'.join(map(str, stage['patch']))} | "
            f"{stage['batch']} | {stage['train_seconds']:.2f} | {stage['validation_seconds']:.2f} | "
            f"{size(stage['predicted'])} | {size(measured)} | {size(result['resident_bytes'])} |"
        )
    return lines


def main() -> None:
    options = arguments()
    if options.one is not None:
        (folder,) = folders(options.plans)
        with redirect_stdout(sys.stderr):
            result = train(options, folder.resolve(), options.one)
        print(json.dumps(result))
        return
    lines = [
        "| task | mode | stage | patch | batch | train s | validation s | predicted, GPU | measured, GPU | resident |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    found = [f for f in folders(options.plans) if options.task is None or options.task in f.name]
    if not found:
        sys.exit(f"no plans in {options.plans}")
    for folder in found:
        for mode in options.modes.split(","):
            command = [sys.executable, __file__, str(folder), *_passed_on(options), "--one", mode]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            new = row(json.loads(done.stdout.splitlines()[-1]))
            print("\n".join(new), flush=True)
            lines += new
    if options.markdown is not None:
        options.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _passed_on(options: argparse.Namespace) -> list[str]:
    passed = ["--root", str(options.root), "--device", options.device, "--iterations", str(options.iterations)]
    passed += ["--cases", str(options.cases), *(["--prepared"] if options.prepared else [])]
    return passed if options.cap is None else [*passed, "--cap", str(options.cap)]


if __name__ == "__main__":
    main()
