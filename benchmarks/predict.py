"""Segments the same images with `ppgs predict` and stock nnU-Net in turn: images a minute, peak memory, voxels.

    python benchmarks/predict.py folder RUN IMAGES WORK      # images that are named as nnU-Net names them
    python benchmarks/predict.py ct WORK --classes 117       # one synthetic CT and a small network with random weights

Peak memory is that of the process tree (proportional set size, polled). `--only ours|stock` runs one of them: where
stock nnU-Net runs out of memory, the machine's other work may end too. Prints JSON. Results: `results/predict.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import SimpleITK as sitk

OURS = """
import sys, json
from pathlib import Path
from ppgs.nnunet.images.find import find_images
from ppgs.nnunet.inference.model import load_model
from ppgs.nnunet.inference.segmenter import Segmenter
model, source, target = map(Path, sys.argv[1:4])
loaded = load_model(model, [model / "fold_0" / "checkpoint_final.pth"], "cpu", mirroring=False, step_size=1.0)
images = find_images(source, 1, ".nii").images
said = lambda text: print(text, file=sys.stderr)
outputs = {image: target / f"{image.name}.nii" for image in images}
outcome = Segmenter(loaded, say=said).run(outputs, target, report=lambda *_: None)
print(json.dumps(outcome.timing.stages), file=sys.stderr)
"""


def pss(process: psutil.Process) -> int:
    total = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error, OSError):
            for line in Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines():
                total += 1024 * int(line.split()[1]) if line.startswith("Pss:") else 0
    return total


def measured(command: list[str], environ: dict[str, str], limit: float) -> dict[str, Any]:
    begun, peak = time.monotonic(), 0
    child = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    process = psutil.Process(child.pid)
    while child.poll() is None:
        with contextlib.suppress(psutil.Error):
            peak = max(peak, pss(process))
        if time.monotonic() - begun > limit:
            for one in (*process.children(recursive=True), process):
                with contextlib.suppress(psutil.Error):
                    one.kill()
            child.wait()
            return {"finished": False, "seconds": limit, "peak_gib": round(peak / 2**30, 2)}
        time.sleep(0.5)  # a look costs both processes some time
    seconds, said = time.monotonic() - begun, (child.stderr.read() if child.stderr else "").strip().splitlines()
    return {
        "finished": child.returncode == 0,
        "seconds": round(seconds, 1),
        "peak_gib": round(peak / 2**30, 2),
        "said": said[-2:],
    }


def different(a: Path, b: Path, ending: str) -> dict[str, int]:
    """Voxels of all segmentations of both folders, and how many of them differ."""
    names = [p.name for p in sorted(a.glob(f"*{ending}")) if (b / p.name).is_file()]
    pairs = ([sitk.GetArrayFromImage(sitk.ReadImage(str(d / n))) for d in (a, b)] for n in names)
    counts = [(one.size, int((one != other).sum())) for one, other in pairs]
    return {"images": len(counts), "voxels": sum(n for n, _ in counts), "different": sum(d for _, d in counts)}


def synthetic(work: Path, classes: int, shape: tuple[int, int, int], spacing: list[float]) -> tuple[Path, Path]:
    """A model folder with random weights and one CT, 0.8 x 0.8 x 1.5 mm."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    from ppgs import upstream

    model, images = work / f"model_{classes}", work / "images"
    (model / "fold_0").mkdir(parents=True, exist_ok=True)
    images.mkdir(exist_ok=True)
    arch = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            **{"n_stages": 2, "features_per_stage": [8, 16], "kernel_sizes": [[3] * 3] * 2, "conv_bias": True},
            **{"strides": [[1] * 3, [2] * 3], "n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1]},
            **{"conv_op": "torch.nn.modules.conv.Conv3d", "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d"},
            **{"norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None},
            **{"nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    resampling = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    setup = {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        **{"batch_size": 2, "patch_size": [64, 96, 96], "spacing": spacing, "batch_dice": False},
        **{"median_image_size_in_voxels": list(shape), "architecture": arch},
        **{"normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False]},
        **{f"resampling_fn_{kind}": "resample_data_or_seg_to_shape" for kind in ("data", "seg", "probabilities")},
        "resampling_fn_data_kwargs": {**resampling, "order": 3},
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
    }
    intensities = {"mean": 0.0, "std": 300.0, "percentile_00_5": -900.0, "percentile_99_5": 900.0, "median": 0.0}
    plans = {
        **{"dataset_name": "Dataset998_CT", "plans_name": "nnUNetPlans", "label_manager": "LabelManager"},
        **{"transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "image_reader_writer": "SimpleITKIO"},
        **{"original_median_spacing_after_transp": spacing, "configurations": {"3d_fullres": setup}},
        "original_median_shape_after_transp": list(shape),
        "experiment_planner_used": "ExperimentPlanner",
        "foreground_intensity_properties_per_channel": {"0": {**intensities, "min": -1000.0, "max": 1000.0}},
    }
    labels = {"background": 0, **{f"c{n}": n for n in range(1, classes)}}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii"}
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(dataset))
    torch.manual_seed(0)
    names = (arch["network_class_name"], arch["arch_kwargs"], arch["_kw_requires_import"])
    network = get_network_from_plans(*names, 1, classes, deep_supervision=False)
    content = {
        **dict.fromkeys(upstream.CHECKPOINT_KEYS),
        **{"network_weights": network.state_dict(), "trainer_name": "nnUNetTrainer"},
        **{"init_args": {"configuration": "3d_fullres"}, "inference_allowed_mirroring_axes": None},
    }
    torch.save(content, model / "fold_0" / "checkpoint_final.pth")
    path = images / "ct_0000.nii"
    if not path.is_file():
        generator = np.random.default_rng(0)
        small = generator.normal(size=[n // 16 for n in shape]).astype(np.float32) * 400
        voxels = np.kron(small, np.ones((16, 16, 16), np.float32)).astype(np.int16)
        voxels += generator.integers(-40, 40, voxels.shape, dtype=np.int16)
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing((0.8, 0.8, 1.5))
        sitk.WriteImage(image, str(path))
    return model, images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    folder, ct = kinds.add_parser("folder"), kinds.add_parser("ct")
    folder.add_argument("run", type=Path)
    folder.add_argument("images", type=Path)
    for one in (folder, ct):
        one.add_argument("work", type=Path)
        one.add_argument("--only", choices=("ours", "stock"))
        one.add_argument("--limit", type=float, default=3600, help="seconds after which a command is ended")
        one.add_argument("--rounds", type=int, default=1)
    ct.add_argument("--classes", type=int, default=3)
    ct.add_argument("--shape", type=int, nargs=3, default=(400, 512, 512))
    ct.add_argument("--spacing", type=float, nargs=3, default=(1.5, 1.5, 1.5), help="the network's, in mm")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    # Its command, also where only the packages are at hand.
    code = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder as go; go()"
    stock = [sys.executable, "-c", f"if __name__ == '__main__':\n    {code}"]
    if asked.kind == "ct":
        model, images = synthetic(asked.work, asked.classes, tuple(asked.shape), list(asked.spacing))
        ending, also = ".nii", ("--disable_tta", "-step_size", "1")
        ours = [sys.executable, "-c", OURS, str(model), str(images), "OUT"]
    else:
        model, images, ending, also = asked.run.parent, asked.images, ".nii.gz", ()
        ours = [
            sys.executable,
            "-m",
            "ppgs",
            "predict",
            str(asked.run),
            "-i",
            str(images),
            "-o",
            "OUT",
            "--device",
            "cpu",
        ]
    fold = "0" if asked.kind == "ct" else asked.run.name.removeprefix("fold_")
    theirs = [*stock, "-i", str(images), "-o", "OUT", "-m", str(model), "-f", fold, "-device", "cpu", *also]
    folders = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    environ = {**os.environ, **{name: str(asked.work / name) for name in folders}}
    count = len({file.name.rsplit("_", 1)[0] for file in images.iterdir()})
    result: dict[str, Any] = {"images": count, "ours": [], "stock": []}
    outputs = {"ours": asked.work / "ours", "stock": asked.work / "stock"}
    for _ in range(asked.rounds):
        for name, command in (("ours", ours), ("stock", theirs)):
            if asked.only in (None, name):
                shutil.rmtree(outputs[name], ignore_errors=True)
                made = [str(outputs[name]) if part == "OUT" else part for part in command]
                found = measured(made, environ, asked.limit)
                found["images_per_minute"] = round(60 * count / found["seconds"], 2) if found["finished"] else None
                result[name].append(found)
    if all(path.is_dir() for path in outputs.values()):
        result["agreement"] = different(outputs["ours"], outputs["stock"], ending)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
