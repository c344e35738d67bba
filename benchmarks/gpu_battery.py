"""The GPU battery: what to measure first on a GPU machine, part by part.

    python benchmarks/gpu_battery.py PART --out DIR --root DIR --plans DIR [--minutes 9]
    python benchmarks/gpu_battery.py PART --out DIR --root DIR --dry      # tiny sizes on the CPU: does every item run?

PART is 0 to 6 (see `benchmarks/README.md`). Every item is written to `DIR/part<PART>.json` as soon as it is measured;
items that no longer fit into the minutes are listed there as skipped. `--plans` contains
DatasetNNN_NAME/nnUNetPlans.json and dataset.json of the Decathlon's tasks; cases of their shapes are written to
`--root`. Ends with 1 where an item failed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from battery.record import Part

PARTS = {
    0: "ceilings",
    1: "correctness",
    2: "switches",
    3: "against_stock",
    4: "calibration",
    5: "first_stage",
    6: "promise",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", type=int, choices=sorted(PARTS))
    parser.add_argument("--out", type=Path, required=True, help="folder of the JSON files")
    parser.add_argument("--root", type=Path, required=True, help="folder of nnU-Net's three folders")
    parser.add_argument("--plans", type=Path, help="folder of DatasetNNN_NAME with plans of the Decathlon's tasks")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--only", metavar="TEXT", help="only items whose name contains this")
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU")
    options = parser.parse_args()
    if options.dry:
        options.device = "cpu"
    elif options.plans is None:
        parser.error("--plans is needed without --dry")
    return options


def main() -> int:
    options = arguments()
    part = Part(options.part, options)
    importlib.import_module(f"battery.{PARTS[options.part]}").take(part)
    items, skipped = part.content["items"], part.content["skipped"]
    print(f"part {options.part}: {len(items)} items, {part.failed} failed, {len(skipped)} skipped")
    for name, reason in skipped.items():
        print(f"  skipped {name}: {reason}")
    return int(part.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
