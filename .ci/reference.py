"""Write the generated pages of the documentation: `docs/reference`, `docs/results` and the JSON Schema.

    python .ci/reference.py [FOLDER]

The test `tests/docs/test_reference.py` fails if the committed pages differ from what this writes.
"""

from __future__ import annotations

import argparse
import html
import importlib
import inspect
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined

import ppgs
from ppgs import errors
from ppgs.cli.app import app
from ppgs.cli.help import parameter_groups
from ppgs.cli.registry import COMMANDS
from ppgs.runs.event_types import EVENTS, Common, StageDescription
from ppgs.runs.folder import RunFolder
from ppgs.runs.manifest import Manifest
from ppgs.runs.request import TrainingRequest
from ppgs.schedule.model import LearningRate, PlanFacts, Schedule, Stage, Validation
from ppgs.schedule.recipe import MODES, Recipe

ROOT = Path(__file__).resolve().parents[1]
NOTE = "<!-- Written by .ci/reference.py: change the source, then run that script. -->\n"

EXIT_CODES = {
    errors.ExitCode.DONE: "The command did what was asked.",
    errors.ExitCode.UNFORESEEN: "An error that ppgs does not know. Run the command again with `--debug` and report it.",
    errors.ExitCode.BAD_INPUT: "A wrong option, or a schedule, dataset, plans file or image that cannot be used.",
    errors.ExitCode.DOES_NOT_FIT: "The schedule, or an image to segment, needs more memory than there is.",
    errors.ExitCode.UNUSABLE_RUN: "The run does not exist, is damaged, has no checkpoint, or is in use.",
    errors.ExitCode.STOPPED: "Stopped early (on request, by a signal or by an outside fault), or not started because "
    "the answer to a question was no. `ppgs resume` continues a training; run any other command again.",
}

ENVIRONMENT = {
    "nnUNet_raw, nnUNet_preprocessed, nnUNet_results": "nnU-Net's folders. Used if all three are set and `--root` is "
    "not given. If none is set, ppgs uses `./ppgs_data`; one or two alone are refused.",
    "nnUNet_extTrainer": "Folders with trainer classes of your own, separated as in `PATH` (nnU-Net's own variable).",
    "nnUNet_wandb_enabled": "Set to `1` for `--log wandb`; `nnUNet_wandb_project` and `nnUNet_wandb_mode` name the "
    "project and `online` or `offline` (nnU-Net's own variables). See [Experiment trackers](../how-to/trackers.md).",
    "nnUNet_compile": "Set to `f` to train without `torch.compile` (nnU-Net's own variable).",
    "nnUNet_def_n_proc": "Number of processes for nnU-Net's preprocessing and export.",
    "nnUNet_n_proc_DA": "Data-loader workers of each training process where `--workers` is not given (nnU-Net's own "
    "variable).",
    "PPGS_CACHE": "Folder for calibrations and traced costs. Default: the platform's cache folder.",
    "PPGS_DECATHLON_URL": "Server that `ppgs prepare --download` fetches archives from.",
    "PPGS_SLURM_WARNING": "For `--until job`: seconds between the signal that stops the training and the job's end, "
    "set by `--slurm`. In a script of your own it is 120, or a quarter of a short job, unless you set it.",
    "PPGS_TRUSTED_MODULES": "Comma-separated modules from which plans may import classes of your own. "
    "See [the security model](../explanation/security.md).",
    "CUDA_VISIBLE_DEVICES": "GPUs that ppgs may use, by UUID or as CUDA numbers them: the fastest first, or with "
    "`CUDA_DEVICE_ORDER=PCI_BUS_ID` as `nvidia-smi` does.",
    "GOMP_SPINCOUNT, OMP_WAIT_POLICY": "How long waiting CPU threads spin. ppgs sets `GOMP_SPINCOUNT=10000` unless a "
    "policy is set; see [the measurement](../results/contention.md).",
    "CC": "C compiler for `torch.compile`, checked by `ppgs doctor`.",
    "NO_COLOR": "Set to anything for output without colours.",
}


def cell(text: object) -> str:
    """Return text for a table cell."""
    line = " ".join(str(text).split())
    # In `code` a pipe has no spelling that both GitHub and the site's generator understand.
    return line if line.startswith("<code>") else line.replace("|", "\\|").replace("<", "&lt;")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *([cell(part) for part in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def code(text: object) -> str:
    line = str(text)
    return f"<code>{html.escape(line).replace('|', '&#124;')}</code>" if "|" in line else f"`{line}`"


def prose(text: str | None) -> str:
    return inspect.cleandoc(text or "").strip() + "\n"


def type_text(annotation: Any) -> str:
    """A type as JSON and YAML readers know it: `integer`, `list of number`, `"a" or "b"`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_text(part) for part in arguments))
    if origin is Literal:
        return " or ".join(json.dumps(value) for value in arguments)
    if origin in (list, tuple):
        return f"list of {type_text(arguments[0])}"
    if origin in (dict, Mapping):
        return "object"
    names = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null", dict: "object"}
    if annotation in names:
        return names[annotation]
    return str(getattr(annotation, "__name__", annotation))


def default_text(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=False)
    if value is PydanticUndefined or field.default_factory is not None:
        return ""
    if isinstance(value, BaseModel):
        return "see below"
    return code(json.dumps(value))


def commands() -> str:
    """Every command with its arguments, options and examples."""
    parts = ["# Commands\n", NOTE, "`ppgs COMMAND --help` prints the same in the terminal.\n"]
    group: Any = typer.main.get_command(app)
    for name in COMMANDS:
        command = group.commands[name]
        context = typer.Context(command, info_name=f"ppgs {name}")
        parts.append(f"## ppgs {name}\n")
        parts.append(prose(command.help).replace("\b\n", ""))
        for title, rows in parameter_groups(command, context).items():
            shown = [(code(option), text) for option, text in rows if not option.startswith("-h,")]
            if shown:
                parts.append(table((title, "Meaning"), shown))
        examples = [line.strip() for line in (command.epilog or "").splitlines() if line.strip().startswith("ppgs ")]
        if examples:
            parts.append("```bash\n" + "\n".join(examples) + "\n```\n")
    return "\n".join(parts)


def model_section(model: type[BaseModel], title: str) -> str:
    rows = [
        (code(name), type_text(field.annotation), default_text(field)) for name, field in model.model_fields.items()
    ]
    return f"## {title}\n\n{prose(model.__doc__)}\n{table(('Key', 'Type', 'Default'), rows)}"


def schedule_page() -> str:
    modes = [
        (code(name), code(rules.growth or "none"), rules.foreground_share, rules.summary)
        for name, rules in MODES.items()
    ]
    return "\n".join(
        [
            "# Schedule files\n",
            NOTE,
            "A schedule is a YAML file. It is either a recipe, which ppgs resolves for the plans of a task, or a "
            "list of explicit stages. Unknown keys are refused. `ppgs plan-schedule TASK --schedule FILE` checks one, "
            "and `ppgs plan-schedule TASK -o FILE` writes the resolved stages.\n",
            "Editors complete and check the keys with the [JSON Schema](https://json-schema.org) in "
            "`docs/schedule.schema.json`. With the YAML language server, put its path in the first line of a file:\n",
            "```yaml\n# yaml-language-server: $schema=docs/schedule.schema.json\nmode: efficiency\n```\n",
            "## Modes\n",
            table(("Mode", "Growth rule", "Foreground share", "Summary"), modes),
            model_section(Recipe, "Recipe"),
            model_section(Schedule, "Explicit schedule"),
            model_section(Stage, "stages"),
            model_section(Validation, "validation"),
            model_section(LearningRate, "learning_rate"),
            model_section(PlanFacts, "made_for"),
        ]
    )


def schedule_schema() -> str:
    schema = TypeAdapter(Recipe | Schedule).json_schema()
    number = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    patch = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 3}
    axes = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2}}
    # What the parsers of these keys accept beyond their types.
    mirroring = {
        "anyOf": [{"enum": ["on", "off"]}, {"type": "boolean"}, {"type": "string", "pattern": "^[012](,[012])*$"}, axes]
    }
    for model in ("Recipe", "Schedule"):
        schema["$defs"][model]["properties"]["mirroring"] = mirroring
    schema["$defs"]["Recipe"]["properties"]["start"] = {"anyOf": [{"const": "smallest"}, number, patch]}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Schedule file of ppgs"}
    return json.dumps({**head, **schema}, indent=2) + "\n"


def run_folder() -> str:
    place = Path("fold_K")
    files = []
    for name, member in vars(RunFolder).items():
        if isinstance(member, property) and name not in ("model", "fold", "results"):
            path = getattr(RunFolder(place), name)
            text = _FILES[name]
            files.append((code(path), text))
    manifest = [(code(n), type_text(f.annotation), default_text(f)) for n, f in Manifest.model_fields.items()]
    request = [
        (code(n), type_text(f.annotation), default_text(f), f.description or "")
        for n, f in TrainingRequest.model_fields.items()
    ]
    return "\n".join(
        [
            "# Run folder and manifest\n",
            NOTE,
            "A run is one fold of an nnU-Net model folder, `nnUNet_results/DatasetNNN_NAME/"
            "TRAINER__PLANS__CONFIGURATION/fold_K`. ppgs adds the folder `ppgs` to it.\n",
            table(("File", "Content"), files),
            "Beside them are `validation_best` and `validation_latest` (`ppgs validate --checkpoint`), and "
            "`fold_K/ppgs/slurm.json` of runs in Slurm. `nnUNet_results/.ppgs` has the files of sweeps and Slurm jobs, "
            "which load themselves from it: keep it while jobs wait or run.\n",
            "## Manifest: run.json\n",
            "Files of other versions may lack keys or have more; readers ignore keys that they do not know.\n",
            table(("Key", "Type", "Default"), manifest),
            "## request\n",
            "The options of the training, whichever way it was started.\n",
            table(("Key", "Type", "Default", "Meaning"), request),
        ]
    )


_FILES = {
    "own": "Files of ppgs",
    "manifest": "Manifest, described below",
    "data": "Digest of every case that the run trains and validates on",
    "schedule": "The schedule that the run trains under ([format](schedule.md))",
    "pretrained": "Copy of the checkpoint that the run starts from, until it has its own",
    "events": "Append-only event log ([format](events.md))",
    "log": "Output of the training process",
    "slices": "Pictures of a validation case, shown by the monitor",
    "trackers": "Files of experiment trackers (`--log`, `runs export-logs`): their logs and what was sent",
    "reserve": "Space kept for the final status on a full disk; present during training only",
    "lock": "The process that is training the run",
    "checkpoint_latest": "Checkpoint for `ppgs resume` ([format](checkpoint.md))",
    "checkpoint_best": "Checkpoint of the epoch with the best moving average of the pseudo Dice",
    "checkpoint_final": "Checkpoint of the finished training",
    "validation": "Segmentations of the validation cases",
    "summary": "nnU-Net's metrics of these segmentations",
}


def event_rows(event: Any, skip: Iterable[str] = ()) -> list[tuple[str, str, str]]:
    hints = get_type_hints(event, include_extras=True)
    return [
        (code(name), type_text(hint), "; ".join(str(a) for a in get_args(hint)[1:]))
        for name, hint in hints.items()
        if name not in skip
    ]


def events() -> str:
    common = get_type_hints(Common)
    head = ("Field", "Type", "Meaning")
    parts = [
        "# Events\n",
        NOTE,
        prose(importlib.import_module("ppgs.runs.event_types").__doc__),
        "`ppgs/events.jsonl` has one JSON object per line. `ppgs.read_events(run)` returns the complete records.\n",
        "## Every record\n",
        table(head, event_rows(Common)),
    ]
    for name, event in EVENTS.items():
        parts.append(f"## {name}\n\n{prose(event.__doc__)}")
        if rows := event_rows(event, common):
            parts.append(table(head, rows))
    parts.append(
        f"## Stage description\n\n{prose(StageDescription.__doc__)}\n{table(head, event_rows(StageDescription))}"
    )
    return "\n".join(parts)


def exit_codes() -> str:
    kinds = sorted(_subclasses(errors.PpgsError), key=lambda kind: (kind.exit_code, kind.__name__))
    rows = [(code(int(value)), code(value.name), EXIT_CODES[value]) for value in errors.ExitCode]
    return "\n".join(
        [
            "# Exit codes and errors\n",
            NOTE,
            "Errors go to stderr as one block: what is wrong, where, and what to do. `--debug` adds the traceback. "
            "Results go to stdout.\n",
            table(("Code", "Name", "Meaning"), rows),
            "## Exceptions of the Python API\n",
            "All are subclasses of `ppgs.PpgsError`. `error.problems` lists `what`, `where` and `remedy`; "
            "`error.exit_code` is the exit code of the command.\n",
            table(
                ("Exception", "Exit code", "Meaning"),
                [(code(k.__name__), int(k.exit_code), (inspect.getdoc(k) or "").split("\n\n")[0]) for k in kinds],
            ),
        ]
    )


def _subclasses(kind: type[errors.PpgsError]) -> set[type[errors.PpgsError]]:
    # Commands define their own kinds too; which are imported depends on what ran before.
    own = {child for child in kind.__subclasses__() if child.__module__ == errors.__name__}
    return own.union(*(_subclasses(child) for child in own))


def environment() -> str:
    rows = [(", ".join(map(code, name.split(", "))), text) for name, text in ENVIRONMENT.items()]
    return "\n".join(["# Environment variables\n", NOTE, table(("Variable", "Meaning"), rows)])


def python_api() -> str:
    summary, _, rest = prose(importlib.import_module("ppgs.api").__doc__).partition("\n")
    parts = ["# Python API\n", NOTE, summary + "\n", _examples(rest.strip())]
    for name in vars(ppgs)["__all__"]:
        member = getattr(ppgs, name)
        if name == "__version__":
            parts.append("## ppgs.\\_\\_version\\_\\_\n\nVersion of ppgs, a string.\n")
            continue
        parts.append(f"## ppgs.{name}\n")
        if not inspect.isclass(member):
            parts.append(_signature(member, name))
        parts.append(_examples(prose(inspect.getdoc(member))))
        if inspect.isclass(member):
            parts.append(_members(member))
    return "\n".join(parts)


def _signature(member: Any, name: str) -> str:
    text = re.sub(r"\b(ppgs\.[a-z_.]+|collections\.abc|typing|pathlib)\.", "", str(inspect.signature(member)))
    # Annotations are text in these modules.
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)
    if len(text) > 90:
        text = "(\n    " + ",\n    ".join(_split(text)) + ",\n)" + text[text.rindex(")") + 1 :]
    return f"```python\n{name}{text}\n```\n"


def _split(signature: str) -> list[str]:
    """The parameters of a signature."""
    inner, depth, parts = signature[1 : signature.rindex(")")], 0, [""]
    for letter in inner:
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _members(kind: type) -> str:
    found = []
    own = [one for one in reversed(kind.__mro__) if one.__module__.startswith("ppgs")]
    for name, member in {name: member for one in own for name, member in vars(one).items()}.items():
        if name.startswith("_") or not (text := inspect.getdoc(member)):
            continue
        if isinstance(member, property):
            found.append((code(name), text))
        elif isinstance(member, classmethod | types.FunctionType):
            found.append((code(f"{name}()"), text))
    return table(("Member", "Meaning"), found) if found else ""


def _examples(text: str) -> str:
    """Doctest examples as code blocks."""
    blocks = []
    for block in text.strip().split("\n\n"):
        is_example = block.lstrip().startswith(">>>")
        blocks.append(f"```python\n{inspect.cleandoc(block)}\n```" if is_example else inspect.cleandoc(block))
    return "\n\n".join(blocks) + "\n"


RESULTS = {
    "Time and Dice": ("speed", "curriculum", "dice", "budget", "time_left", "finetune"),
    "Prediction and comparison": ("predict", "compare"),
    "Nothing lost": ("faults", "hangs", "matrix"),
    "Estimates": ("memory_cpu", "plan_schedule", "epoch_time", "h100_epochs"),
    "The machine": ("contention", "crops", "energy_tracking", "startup", "monitor"),
}
"""Files of `benchmarks/results`, by what they are about, most important first."""


def results() -> str:
    """Return the overview of `benchmarks/results`: the title and the first paragraph of every file."""
    parts = [
        "# Results\n",
        NOTE,
        "Every page names its commands, the machine and the date; simulated figures are marked. `benchmarks/README.md` "
        "describes the scripts. On a GPU ppgs has not been measured yet.\n",
    ]
    for subject, names in RESULTS.items():
        rows = []
        for name in names:
            title, answer = _result(name).split("\n\n")[:2]
            rows.append((f"[{title.removeprefix('# ')}](results/{name}.md)", " ".join(answer.split())))
        parts.append(f"## {subject}\n\n" + table(("Measured", "In short"), rows))
    return "\n".join(parts)


def result_page(name: str) -> str:
    """Return a file of `benchmarks/results` as a page."""
    title, text = _result(name).split("\n\n", 1)
    return f"{title}\n\n{NOTE}\n{text.strip()}\n\nSource: `benchmarks/results/{name}.md`\n"


def _result(name: str) -> str:
    return (ROOT / "benchmarks" / "results" / f"{name}.md").read_text(encoding="utf-8")


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands,
    "reference/schedule.md": schedule_page,
    "schedule.schema.json": schedule_schema,
    "reference/run-folder.md": run_folder,
    "reference/events.md": events,
    "reference/exit-codes.md": exit_codes,
    "reference/environment.md": environment,
    "reference/python.md": python_api,
    "results.md": results,
    **{f"results/{name}.md": partial(result_page, name) for names in RESULTS.values() for name in names},
}


def write(folder: Path) -> None:
    for name, page in PAGES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs")
    write(parser.parse_args().folder)
