"""Checks of `dataset.json`: each finding names the key and shows the line as it should be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice, product
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from ppgs import upstream
from ppgs.doctor.findings import Finding, error, of_problem, ok, warning
from ppgs.doctor.json_text import Unreadable, kind_of, read_json_text
from ppgs.doctor.nearby import absence, deeper, similar
from ppgs.errors import PpgsError
from ppgs.plans import Dataset, check_parts

_CHECK = "dataset.json"
_Region = int | tuple[int, ...]
_Regions = Mapping[str, frozenset[int]]
_Values = Annotated[int, Field(strict=True, ge=0)]


class ListedCase(BaseModel):
    """One entry of `dataset`: a case's channel files in order, and its label file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    images: Annotated[list[str], Field(min_length=1)]
    label: str


class _File(BaseModel):
    """The keys of a `dataset.json` that nnU-Net reads."""

    model_config = ConfigDict(extra="ignore", strict=True)

    channel_names: Annotated[dict[str, str], Field(validation_alias=AliasChoices("channel_names", "modality"))]
    labels: dict[str, _Values | list[_Values]]
    file_ending: str
    regions_class_order: list[_Values] | None = None
    dataset: dict[str, ListedCase] | None = None

    def as_dataset(self) -> Dataset:
        """Return the part that ppgs needs."""
        order = self.regions_class_order
        return Dataset(
            channels=tuple(self.channel_names[str(i)] for i in range(len(self.channel_names))),
            labels={k: tuple(v) if isinstance(v, list) else v for k, v in self.labels.items()},
            file_ending=self.file_ending,
            regions_class_order=tuple(order) if order is not None else None,
        )

    @field_validator("channel_names", mode="before")
    @classmethod
    def _turn_channels(cls, channels: Any) -> Any:
        if isinstance(channels, dict) and channels and all(_whole(k) is None for k in channels):
            raise _wrong("the channel's number comes first, then its name")
        return channels

    @field_validator("labels", mode="before")
    @classmethod
    def _turn_labels(cls, labels: Any) -> Any:
        if isinstance(labels, dict) and labels and all(_whole(k) is not None for k in labels):
            raise _wrong("the label's name comes first, then its value")
        return labels

    @field_validator("channel_names")
    @classmethod
    def _check_channels(cls, channels: dict[str, str]) -> dict[str, str]:
        if not channels:
            raise _wrong("there are no channels")
        if sorted(channels) != sorted(str(i) for i in range(len(channels))):
            raise _wrong(f"the keys must be the channel numbers from 0 on, found {', '.join(map(repr, channels))}")
        return channels

    @field_validator("labels")
    @classmethod
    def _check_background(cls, labels: dict[str, Any]) -> dict[str, Any]:
        if labels.get("background") != 0 or isinstance(labels["background"], bool):
            raise _wrong("there is no label 'background' with value 0")
        if empty := [name for name, value in labels.items() if value == []]:
            raise _wrong(f"'{empty[0]}' has no value")
        if "ignore" in labels and not isinstance(labels["ignore"], int):
            raise _wrong("'ignore' must be a single value, not a region")
        return labels

    @field_validator("file_ending")
    @classmethod
    def _check_ending(cls, ending: str) -> str:
        if not ending.startswith("."):
            raise _wrong(f"'{ending}' must begin with a dot")
        if any(c in ending for c in "/\\\0"):
            raise _wrong(f"{ending!r} cannot end a file's name")
        return ending


def _wrong(what: str) -> PydanticCustomError:
    return PydanticCustomError("ppgs", "{what}", {"what": what})


@dataclass
class Description:
    """Parsed content of a `dataset.json` as far as it is understood, and its faults.

    `layout` is a dataset with the right channels and file ending, also where the labels could not be understood.
    """

    content: dict[str, Any] = field(default_factory=dict)
    dataset: Dataset | None = None
    layout: Dataset | None = None
    listed: dict[str, ListedCase] | None = None
    findings: list[Finding] = field(default_factory=list)


def read_description(folder: Path, *, decathlon: bool) -> Description:
    """Read and check the `dataset.json` of a raw nnU-Net dataset, or of a Decathlon folder."""
    path = folder / "dataset.json"
    try:
        if not path.is_file():
            return Description(findings=[error(_CHECK, f"dataset.json is {absence(path)}", _to_add(folder), path)])
        content, twice = read_json_text(path)
    except OSError as problem:
        what = f"cannot be read: {problem.strerror}"
        return Description(findings=[error(_CHECK, what, "ask for permission to read it", path)])
    except Unreadable as problem:
        return Description(findings=[error(_CHECK, problem.what, problem.remedy, path)])
    if not isinstance(content, dict):
        what = f"expected a JSON object, found {kind_of(content)}"
        return Description(findings=[error(_CHECK, what, 'write: {"channel_names": ..., "labels": ...}', path)])
    found = check_description(content, folder, decathlon=decathlon)
    found.findings += [error(_CHECK, what, remedy, path) for what, remedy in twice]
    return found


def _to_add(folder: Path) -> str:
    """Return the remedy for a folder without a `dataset.json`."""
    if (inner := deeper(folder)) is not None:
        return f"the dataset is one folder deeper: move the content of {inner.name} up"
    if (other := similar(folder, "dataset.json")) is not None:
        return f"is {other} meant? rename it to dataset.json"
    return "give the folder with dataset.json, imagesTr and labelsTr"


def check_description(content: dict[str, Any], folder: Path, *, decathlon: bool) -> Description:
    """Check the content of `folder`'s `dataset.json`; its files are only used for suggestions."""
    path = folder / "dataset.json"
    found = Description(content)
    lines = _lines(content, folder, decathlon=decathlon)
    given = content
    if decathlon:
        labels = _decathlon_labels(content.get("labels"))
        if labels is None:
            what, remedy = "labels: each value comes first, then its name, as in the Decathlon", lines["labels"]
            if (name := _twice(content.get("labels"))) is not None:
                what, remedy = f"labels: '{name}' names two values", "give each value its own name"
            found.findings.append(error("labels", what, remedy, f"{path}: labels"))
        given = {**content, "file_ending": ".nii.gz", "labels": labels or {"background": 0}}
    file = None
    try:
        if content.get("overwrite_image_reader_writer") != "None":
            check_parts(content, path)
        file = _File.model_validate(given)
    except ValidationError as invalid:
        found.findings += _told(invalid, lines, path, decathlon=decathlon)
    except PpgsError as wrong:
        found.findings += [of_problem(_CHECK, p) for p in wrong.problems]
    if file is None or found.findings:
        # File names can still be checked.
        with suppress(ValidationError, PpgsError):
            names = _File.model_validate({**given, "labels": {"background": 0}, "regions_class_order": None})
            found.listed, found.layout = names.dataset, names.as_dataset()
        return found
    found.listed = file.dataset
    found.dataset = found.layout = file.as_dataset()
    if (
        file.file_ending.lower() not in upstream.READABLE
        and content.get("overwrite_image_reader_writer", "None") == "None"
    ):
        what = f"nnU-Net reads no {file.file_ending} files"
        remedy = f"convert them to one of {' '.join(upstream.READABLE)}"
        if (ending := ending_of_images(folder)) is not None:
            # Other faults in file names show when the files are looked up.
            remedy, found.layout = lines["file_ending"], found.dataset.model_copy(update={"file_ending": ending})
        found.findings.append(error(_CHECK, what, remedy, f"{path}: file_ending"))
    found.findings += [check_values(found.dataset, path, decathlon=decathlon), *check_regions(found.dataset, path)]
    return found


def _told(invalid: ValidationError, lines: Mapping[str, str], path: Path, *, decathlon: bool) -> Iterator[Finding]:
    """Yield one finding per key, with the corrected line."""
    told: set[str] = set()
    for problem in invalid.errors(include_url=False):
        key = str(problem["loc"][0])
        if decathlon and key == "channel_names":
            key = "modality"
        inner = [str(part) for part in problem["loc"][1:] if part not in ("int", "list[constrained-int]")]
        place = ".".join([key, *(p for p in inner if not p.startswith(("constrained", "list[")))])
        if place in told:
            continue
        told.add(place)
        check = "labels" if key == "labels" else "regions" if key == "regions_class_order" else _CHECK
        if problem["type"] == "missing" and not inner:
            what = f"missing key '{key}'"
        elif problem["type"] == "ppgs":
            what = f"{key}: {problem['msg']}"
        else:
            value = json.dumps(problem["input"], ensure_ascii=False, default=str)
            expected = _expected(problem["type"], problem["msg"], labels=key in ("labels", "regions_class_order"))
            what = f"{place}: expected {expected}, found {value[:80]}"
        yield error(check, what, lines.get(key, ""), f"{path}: {key}")


def _expected(kind: str, message: str, *, labels: bool) -> str:
    if labels and kind.startswith(("int", "list", "greater_than")):
        return "a whole number from 0 on, or a list of them"
    known = {"string_type": "text", "dict_type": "an object", "list_type": "a list", "missing": "this key"}
    return known.get(kind, message.removeprefix("Input should be ").lower())


def _json(key: str, value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f'"{key}": {text if len(text) <= 400 else text[:400] + " ..."}'


def _lines(content: Mapping[str, Any], folder: Path, *, decathlon: bool) -> dict[str, str]:
    """Return the corrected line of each key, guessed from what is there."""
    channel_key = "channel_names" if "channel_names" in content or not decathlon else "modality"
    channels = _mended_channels(content.get(channel_key, content.get("modality")))
    labels = _mended_labels(content.get("labels"))
    plain: Any = labels
    if decathlon:
        plain = {str(v): k for k, v in labels.items() if not isinstance(v, list)}
    listed = {"case_01": {"images": ["imagesTr/case_01_0000.nii.gz"], "label": "labelsTr/case_01.nii.gz"}}
    found = {
        "channel_names": _json(channel_key, channels),
        "labels": _json("labels", plain),
        "file_ending": _json("file_ending", _mended_ending(content.get("file_ending"), folder)),
        "regions_class_order": suggested_order(labels),
        "dataset": _json("dataset", listed),
    }
    found["modality"] = found["channel_names"]
    return {key: f"write: {line}" for key, line in found.items()}


def _whole(value: Any) -> int | None:
    """Return the integer of a JSON value such as `"1"` or `1.0`."""
    try:
        number = int(value) if not isinstance(value, bool) and float(value) == int(float(value)) else None
    except ValueError:
        # "1.0"
        return _whole(float(value)) if isinstance(value, str) and re.fullmatch(r"[0-9]+\.0+", value) else None
    except (TypeError, OverflowError):
        return None
    return number if number is not None and number >= 0 else None


def _mended_channels(given: Any) -> dict[str, str]:
    if isinstance(given, str):
        return {"0": given}
    if isinstance(given, list) and given:
        return {str(i): str(name) for i, name in enumerate(given)}
    if isinstance(given, dict) and given:
        if all(_whole(key) is None for key in given):
            if all(_whole(value) is not None for value in given.values()):
                given = {value: key for key, value in given.items()}
            else:
                given = dict(enumerate(given))
        if all(_whole(key) is not None for key in given):
            return {str(i): str(given[key]) for i, key in enumerate(sorted(given, key=lambda k: _whole(k) or 0))}
    return {"0": "CT"}


def _mended_labels(given: Any) -> dict[str, Any]:
    if isinstance(given, list):
        given = {str(name): i for i, name in enumerate(given)}
    if not isinstance(given, dict):
        given = {}
    elif given and all(_whole(k) is not None and _whole(v) is None for k, v in given.items()):
        given = {str(name): value for value, name in given.items() if not isinstance(name, (dict, list))}
    labels = {str(name): _mended_value(value, region=name != "ignore") for name, value in given.items()}
    background = next((name for name in labels if name.casefold() == "background"), None)
    if background is None:
        background = next((name for name, value in labels.items() if value in (0, [0])), None)
    labels.pop(background or "", None)
    used = {0, *_flat(labels)}
    for name, value in labels.items():
        if value is None or value in (0, [0]):
            # The lowest free value; a higher one would leave a gap.
            labels[name] = next(n for n in count(1) if n not in used)
            used.add(labels[name])
    return {"background": 0, **(labels or {"organ": 1})}


def _mended_value(value: Any, *, region: bool) -> Any:
    """Guess the intended label value or region; None if that is impossible."""
    if isinstance(value, str) and "," in value:
        value = value.strip("[]() ").split(",")
    if not isinstance(value, list):
        return _whole(value)
    values = [number for part in value if (number := _whole(part)) is not None]
    return (values if region else values[0]) if values else None


def _flat(labels: Mapping[str, Any]) -> Iterator[int]:
    for value in labels.values():
        yield from value if isinstance(value, (list, tuple)) else () if value is None else (value,)


def _mended_ending(given: Any, folder: Path) -> str:
    ending = f".{given.strip('.* ')}" if isinstance(given, str) and given.strip(".* ") else None
    if ending is not None and ending.lower() in upstream.READABLE:
        return ending
    return ending_of_images(folder) or ending or ".nii.gz"


def ending_of_images(folder: Path) -> str | None:
    """Return the most frequent file ending in `imagesTr` among those that nnU-Net reads."""
    images = folder / "imagesTr"
    try:
        names = [p.name.lower() for p in images.iterdir() if not p.name.startswith(".")] if images.is_dir() else []
    except OSError:
        return None
    counts = {ending: sum(name.endswith(ending) for name in names) for ending in upstream.READABLE}
    most = max(counts, key=lambda ending: counts[ending])
    return most if counts[most] else None


def _decathlon_labels(given: Any) -> dict[str, int] | None:
    """Convert a Decathlon's labels (by value) to nnU-Net's form; value 0 is the background, whatever its name."""
    if not isinstance(given, dict) or not given:
        return None
    if not all(k.isdecimal() and isinstance(v, str) for k, v in given.items()):
        return None
    names = {int(value): name for value, name in given.items()}
    if _twice(given) is not None or len(names) < len(given):
        return None
    return {("background" if value == 0 else name): value for value, name in names.items()}


def _twice(given: Any) -> str | None:
    """Return a name given to two of a Decathlon's label values, one of which is the background."""
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given.values()):
        return None
    names = ["background" if _whole(value) == 0 else name for value, name in given.items()]
    return next((name for name in names if names.count(name) > 1), None)


def check_sides(dataset: Dataset) -> Finding:
    """Warn of classes that mirroring swaps."""
    pairs = dataset.sides
    if not pairs:
        return ok("sides", "no classes that differ by left and right alone")
    text = ", ".join(f"{a} / {b}" for a, b in pairs[:5]) + (", ..." if len(pairs) > 5 else "")
    return warning(
        "sides",
        f"classes that differ by their side alone: {text}; mirroring swaps them, and small patches cannot tell sides",
        "train with --mirroring off, or each pair as one class whose sides are separated afterwards",
        "dataset.json: labels",
        pairs=[list(p) for p in pairs],
    )


def check_values(dataset: Dataset, path: Path | str = "dataset.json", *, decathlon: bool = False) -> Finding:
    """Check label values: nnU-Net needs them from 0 without gaps, `ignore` last, none twice."""
    where = f"{path}: labels"
    values = sorted(dataset.values)
    if dataset.labels.get("background") != 0:
        line = _json("labels", _mended_labels({k: _listed(v) for k, v in dataset.labels.items()}))
        return error("labels", "there is no label 'background' with value 0", f"write: {line}", where)
    missing = sorted(set(range(min(max(values), 10_000) + 1)) - set(values))
    if missing:
        gaps = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        new = {old: i for i, old in enumerate(values)}
        renumbered = {k: [new[x] for x in v] if isinstance(v, tuple) else new[v] for k, v in dataset.labels.items()}
        line = _json("labels", {str(value): name for name, value in renumbered.items()} if decathlon else renumbered)
        remedy = f"renumber the labels in the label images and in dataset.json: {line}"
        return error("labels", f"label values are not consecutive: {gaps} missing", remedy, where)
    if dataset.ignore_label is not None and dataset.ignore_label != max(values):
        remedy = "renumber it in dataset.json and in the label images"
        return error("labels", f"the ignore label must be the highest value, {max(values)}", remedy, where)
    owners: dict[int, str] = {}
    for name, value in dataset.labels.items():
        if isinstance(value, int):
            if value in owners:
                what = f"'{owners[value]}' and '{name}' have the same value {value}"
                return error("labels", what, "give each label its own value", where)
            owners[value] = name
    if zero := [name for name, value in dataset.foreground.items() if isinstance(value, tuple) and 0 in value]:
        what = f"the region {zero[0]} contains 0, the background's value"
        return warning("labels", what, "name only the values of foreground classes", where)
    if not dataset.foreground:
        return error("labels", "there is no foreground class", 'write: "labels": {"background": 0, "organ": 1}', where)
    return ok("labels", f"{len(dataset.foreground)} foreground classes, values 0 to {max(values)}")


def _listed(value: _Region) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_regions(dataset: Dataset, path: Path | str = "dataset.json") -> Iterator[Finding]:
    """Check regions and the values that nnU-Net writes for them in turn, later ones over earlier ones."""
    regions = {
        name: frozenset(value if isinstance(value, tuple) else (value,)) for name, value in dataset.foreground.items()
    }
    if not any(isinstance(v, tuple) and len(v) > 1 for v in dataset.labels.values()):
        yield ok("regions", "no overlapping regions")
        return
    where = f"{path}: regions_class_order"
    order = dataset.regions_class_order
    line = suggested_order({name: _listed(v) for name, v in dataset.labels.items()})
    remedy = f"one value per region, written in the order of labels, later ones over earlier ones; write: {line}"
    if order is None or len(order) != len(regions):
        found = "is missing" if order is None else f"has {len(order)} entries"
        yield error("regions", f"regions_class_order {found}; there are {len(regions)} regions", remedy, where)
        return
    wrong = list(wrong_writes(regions, order))
    for what in wrong:
        yield error("regions", what, remedy, where)
    if not wrong:
        lost = [n for n, region in regions.items() if any(_written(v, regions, order) not in region for v in region)]
        if lost:
            what = f"a perfect segmentation of {', '.join(lost)} cannot be written: another region overwrites a part"
            yield warning("regions", what, "add the overlap as a separate region, last in the order", where)
        else:
            yield ok("regions", f"{len(regions)} regions, each of which can be predicted")


def _written(value: int, regions: _Regions, order: tuple[int, ...] | list[int]) -> int:
    """Return the value that nnU-Net writes for a voxel of this value if all its regions are predicted right."""
    result = 0
    for region, written in zip(regions.values(), order, strict=True):
        if value in region:
            result = written
    return result


def wrong_writes(regions: _Regions, order: tuple[int, ...] | list[int]) -> Iterator[str]:
    """Describe regions that could never be written, or would be written in wrong places, by any network."""
    for (name, region), written in zip(regions.items(), order, strict=True):
        if written not in region:
            values = ", ".join(map(str, sorted(region)))
            yield f"regions_class_order writes {written} for '{name}', which consists of {values}"
            continue
        if all(_written(value, regions, order) not in region for value in region):
            yield f"'{name}' could never be predicted: the regions after it overwrite all of it"
        for value in sorted(frozenset().union(*regions.values()) - region):
            if (result := _written(value, regions, order)) in region:
                yield f"voxels of value {value} would be written as {result}, which is in '{name}'; {value} is not"


def suggested_order(labels: Mapping[str, Any]) -> str:
    """Return lines with which each region can be written; the labels' own line only if their order must change."""
    if (order := _possible_order(labels)) is not None:
        return _json("regions_class_order", order)
    larger_first = sorted(labels.items(), key=lambda item: -len(item[1]) if isinstance(item[1], list) else 0)
    background = {name: value for name, value in labels.items() if value in (0, [0])}
    sorted_labels = background | dict(larger_first)
    order = _possible_order(sorted_labels) or list(range(1, len(sorted_labels)))
    return f"{_json('labels', sorted_labels)}, {_json('regions_class_order', order)}"


def _possible_order(labels: Mapping[str, Any]) -> list[int] | None:
    regions = {
        name: frozenset(value if isinstance(value, list) else (value,))
        for name, value in labels.items()
        if name != "ignore" and value not in (0, [0])
    }
    names = list(regions)
    choices = []
    for i, name in enumerate(names):
        later: frozenset[int] = frozenset().union(*(regions[n] for n in names[i + 1 :]))
        choices.append(sorted(regions[name] - later) + sorted(regions[name] & later))
    # Values that are in no later region come first: the first combination is nearly always right.
    for order in islice(product(*choices), 2000):
        if not any(wrong_writes(regions, order)):
            return list(order)
    return None
