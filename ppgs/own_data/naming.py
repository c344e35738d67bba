"""Names of channels and label values, given by options or by default."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ppgs.errors import Problem

IGNORE = "ignore"
COLOURS = ("red", "green", "blue")
# Names, in lower case, by which nnU-Net chooses another normalisation than by mean and deviation. A test compares them.
NORMALISING = ("ct", "nonorm", "norm", "zscore", "rescale_to_0_1", "rgb_to_0_1")


def parse_names(given: Sequence[str], option: str, problems: list[Problem]) -> dict[str, str]:
    """Parse options such as `1=liver` as names by key, in lower case; faults are added to `problems`."""
    found: dict[str, str] = {}
    for text in given:
        key, equals, name = (part.strip() for part in text.partition("="))
        if not (equals and key and name):
            example = "0=CT" if option == "--channel" else "1=liver"
            problems.append(Problem(f"'{text}' is not KEY=NAME", option, f"for example: {option} {example}"))
        elif found.setdefault(key.lower(), name) != name:
            what = f"'{key}' is named twice: {found[key.lower()]} and {name}"
            problems.append(Problem(what, option, "keep one of them"))
    names = list(found.values())
    for name in {n for n in names if names.count(n) > 1}:
        problems.append(Problem(f"the name '{name}' is given twice", option, "give each one its own name"))
    return found


def name_channels(
    suffixes: Sequence[str], count: int, given: Mapping[str, str], problems: list[Problem], *, colours: bool = False
) -> tuple[str, ...]:
    """Name `count` channels by number or suffix, else after the suffix, but never so that nnU-Net mistakes one for CT.

    There is one suffix per file of a case; a single file may hold several channels, such as the `colours` of a picture.
    """
    keys = list(suffixes) if len(suffixes) == count else [""] * count
    if unknown := [key for key in given if key not in keys and not (key.isdecimal() and int(key) < count)]:
        listed = ", ".join(f"{number}" + (f" ({key})" if key else "") for number, key in enumerate(keys))
        remedy = f"channels: {listed}"
        problems += [Problem(f"there is no channel '{key}'", "--channel", remedy) for key in unknown]
    names = []
    numbers = {int(key): name for key, name in given.items() if key.isdecimal() and key not in keys}
    for number, key in enumerate(keys):
        default = COLOURS[number] if colours and count == 3 else default_channel(key, number, count)
        names.append(given.get(key) or numbers.get(number) or default)
    return tuple(names)


def default_channel(suffix: str, number: int, count: int) -> str:
    """Return the name of an unnamed channel."""
    if not suffix or suffix.isdecimal():
        return "image" if count == 1 else f"channel_{number}"
    return f"image_{suffix}" if suffix.lower() in NORMALISING else suffix


@dataclass(frozen=True)
class Labels:
    """Names of label values for `dataset.json`, and the value there of each value in the files."""

    names: dict[str, int]
    values: dict[int, int]

    @property
    def is_renumbered(self) -> bool:
        """True if files need other values: nnU-Net's are 0, 1, 2, ... without a gap."""
        return any(old != new for old, new in self.values.items())


def name_labels(values: Collection[int], given: Mapping[str, str], problems: list[Problem]) -> Labels:
    """Name the values in labels; 0 is always among them, as the background."""
    present = sorted({0, *values})
    names: dict[int, str] = {0: "background"}
    for key, name in given.items():
        value = int(key) if key.isdecimal() else None
        if value not in present:
            listed = ", ".join(map(str, present[:20]))
            what = f"no label has the value '{key}', which is to be called {name}"
            problems.append(Problem(what, "--label", f"values in the labels: {listed}"))
        elif (value == 0) != (name.lower() == "background"):
            what = f"the value {value} cannot be called {name}: 0 is the background, and nothing else is"
            problems.append(Problem(what, "--label", "leave 0 out, and name the other values"))
        elif value != 0:
            names[value] = IGNORE if name.lower() == IGNORE else name
    for value in present:
        names.setdefault(value, f"label_{value}")
    for name in sorted(name for name, count in Counter(names.values()).items() if count > 1):
        problems.append(Problem(f"two values would be called {name}", "--label", "give one of them another name"))
    # nnU-Net wants the value to ignore to be the highest.
    ordered = sorted(present, key=lambda value: (names[value] == IGNORE, value))
    return Labels(
        names={names[value]: number for number, value in enumerate(ordered)},
        values={value: number for number, value in enumerate(ordered)},
    )
