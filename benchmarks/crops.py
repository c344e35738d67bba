"""Crops a second that one loader process cuts: cases read in full where a batch shows more of them, or crop by crop.

    python benchmarks/crops.py --root DIR [--shape 138,170,138] [--channels 4] [--patch 32] [--batch 128] [--rounds 5]

Writes cases (smooth images with noise within an ellipsoid, zeros outside, as skull-stripped MRI) as nnU-Net stores them
and cuts the same batches both ways in turn, of two cases each, as the first stage of `performance` does. One thread;
prints JSON. The defaults are the shapes of Task01_BrainTumour.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np


def write(folder: Path, shape: tuple[int, ...], channels: int, count: int) -> None:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    folder.mkdir(parents=True, exist_ok=True)
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, side) for side in shape], indexing="ij"))
    inside = (places**2).sum(0) < 1
    for number in range(count):
        random = np.random.default_rng(number)
        waves = [np.sin(random.normal(size=3) @ places.reshape(3, -1) * 4).reshape(shape) for _ in range(channels)]
        image = (np.stack(waves) + 0.3 * random.standard_normal((channels, *shape))).astype(np.float32) * inside
        labels = np.where(inside, 0, -1).astype(np.int8)[None]
        for label in (1, 2, 3):
            labels[0][((places - random.uniform(-0.4, 0.4, (3, 1, 1, 1))) ** 2).sum(0) < 0.15 / label] = label
        voxels = {label: np.argwhere(labels == label)[::7] for label in (1, 2, 3)}
        blocks, chunks = sizes(image)
        label_blocks, label_chunks = sizes(labels)
        nnUNetDatasetBlosc2.save_case(
            image, labels, {"class_locations": voxels}, str(folder / f"case{number}"),
            chunks=chunks, blocks=blocks, chunks_seg=label_chunks, blocks_seg=label_blocks,
        )  # fmt: skip


def sizes(array: Any) -> Any:
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params

    return comp_blosc2_params(array.shape, (128, 128, 128), array.itemsize)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--shape", default="138,170,138")
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--patch", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    import torch
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from ppgs.nnunet.data import dataset as rooms
    from ppgs.nnunet.data.keys import BatchKey

    torch.set_num_threads(1)
    folder = options.root / f"cases-{options.shape}-{options.channels}"
    shape = tuple(map(int, options.shape.split(",")))
    if not folder.is_dir():
        write(folder, shape, options.channels, 4)
    given = {"is_cascaded": False, "foreground_labels": [1, 2, 3], "regions": None, "ignore_label": None}
    pipeline = rooms.Pipeline(
        trainer=nnUNetTrainer,
        channels=options.channels,
        batchwise=True,
        rotation=(-np.pi / 6, np.pi / 6),
        dummy_2d=False,
        mirror_axes=(0, 1, 2),
        deep_supervision_scales=[[0.5**n] * 3 for n in range(5)],
        options={**given, "use_mask_for_norm": [True] * options.channels},
        validation_options=given,
    )
    cases = nnUNetDatasetBlosc2(str(folder))
    manager: Any = SimpleNamespace(all_labels=[0, 1, 2, 3], has_ignore_label=False)
    key = BatchKey("train", 0, 0, 0, (options.patch,) * 3, options.batch, 2, 1 / 3)
    in_full = rooms.in_full
    ways = {"crop by crop": lambda case: case, "in full": in_full}
    found: dict[str, list[float]] = {way: [] for way in ways}
    batches = rooms.KeyedBatches(cases, cases, pipeline, manager, finished=False)
    for number in range(options.rounds + 1):
        images: list[list[torch.Tensor]] = []
        for way, read in ways.items():
            rooms.in_full = read
            started = time.perf_counter()
            (batch,) = batches[(replace(key, iteration=number),)]
            seconds = time.perf_counter() - started
            moved = batch["crops"].moved
            images.append([*moved, *batch["crops"].moved_labels])
            if number:
                found[way].append(options.batch / seconds)
        assert all(torch.equal(a, b) for a, b in zip(*images, strict=True))
    rates = {way: round(median(values), 1) for way, values in found.items()}
    ratio = round(rates["in full"] / rates["crop by crop"], 2)
    print(json.dumps({"crops_per_second": rates, "ratio": ratio, "shape": shape}))


if __name__ == "__main__":
    main()
