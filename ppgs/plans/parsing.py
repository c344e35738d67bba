"""Read `nnUNetPlans.json` and `dataset.json`, including the layouts of older nnU-Net versions and the Decathlon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ppgs.errors import PlansError
from ppgs.plans.model import Configuration, Dataset, Plans
from ppgs.plans.trust import check_name, check_parts, check_trust

_MAX_BYTES = 1 << 28


def read_json(path: Path, error: type[PlansError] = PlansError) -> dict[str, Any]:
    """Read a JSON object from a file; raises `error` naming the file if it is missing, damaged or no object."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise error(f"larger than {_MAX_BYTES} bytes", path)
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error("file not found", path) from None
    except PermissionError:
        raise error("permission denied", path, "ask for permission to read the file") from None
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"not readable as JSON: {problem}", path, "restore the file or prepare the task again") from None
    if not isinstance(value, dict):
        raise error(f"expected a JSON object, found {type(value).__name__}", path)
    return value


def load_plans(path: Path) -> Plans:
    """Read `nnUNetPlans.json`, of nnU-Net's current format or the one before 2.2 (no `architecture` key)."""
    return parse_plans(read_json(path), path)


def load_plans_of(preprocessed: Path, name: str) -> Plans:
    """Read the plans `name` of a dataset's folder in nnUNet_preprocessed.

    Raises `PlansError` if the content names other plans or another dataset: nnU-Net would read the cases and write the
    results of those.
    """
    path = preprocessed / f"{name}.json"
    plans = load_plans(path)
    for key, found, expected in (("plans_name", plans.name, name), ("dataset_name", plans.dataset, preprocessed.name)):
        if found != expected:
            raise PlansError(
                f"these plans name {found} where {expected} is expected, and nnU-Net would use the folders of {found}",
                f"{path}: {key}",
                f'write: "{key}": "{expected}"',
            )
    return plans


def parse_plans(raw: dict[str, Any], where: object = "plans") -> Plans:
    """Parse the content of an `nnUNetPlans.json`; raises `PlansError` naming the key."""
    try:
        sections = raw["configurations"]
        # 3d_cascade_fullres and the like without a patch of their own inherit; a section that cannot be resolved to
        # a patch is no configuration that can be trained.
        resolved = {name: _inherit(sections, name, where) for name in sections}
        check_parts(raw, where)
        for name, section in resolved.items():
            check_parts(section, f"{where}: {name}")
        configurations = {
            name: _configuration(name, section) for name, section in resolved.items() if "patch_size" in section
        }
        for name in (raw["plans_name"], raw["dataset_name"], *sections):
            check_name(name, where)
        return Plans(name=raw["plans_name"], dataset=raw["dataset_name"], configurations=configurations)
    except KeyError as missing:
        raise PlansError(f"missing key {missing}", where, "is this an nnUNetPlans.json of nnU-Net v2?") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise PlansError(f"not the plans of nnU-Net v2: {_first_line(problem)}", where) from None


def _inherit(sections: dict[str, Any], name: str, where: object) -> dict[str, Any]:
    chain: list[str] = []
    current: str | None = name
    while current is not None:
        if current in chain:
            raise PlansError(f"configuration '{name}' inherits from itself", where)
        chain.append(current)
        current = sections[current].get("inherits_from")
    merged: dict[str, Any] = {}
    for parent in reversed(chain):
        merged.update(sections[parent])
    return merged


def _configuration(name: str, section: dict[str, Any]) -> Configuration:
    if "architecture" in section:
        architecture = section["architecture"]["network_class_name"]
        kwargs = section["architecture"]["arch_kwargs"]
        imports = section["architecture"].get("_kw_requires_import", ())
        named = section["architecture"].get("ppgs", {})
        strides = [named["step"]] if "step" in named else kwargs["strides"]
    else:
        named = {}
        architecture = section["UNet_class_name"]
        strides = section["pool_op_kernel_sizes"]
        kwargs, imports = _old_architecture(section)
    check_trust(architecture, kwargs, imports)
    check_name(section["data_identifier"], f"data_identifier of '{name}'")
    patch = section["patch_size"]
    dimensions = len(patch)
    if dimensions not in (2, 3):
        raise ValueError(f"patch_size of '{name}' has {dimensions} axes, expected 2 or 3")
    # A scalar stride means the same on every axis (dynamic_network_architectures).
    strides = [s if isinstance(s, (list, tuple)) else [s] * dimensions for s in strides]
    if any(len(s) != dimensions for s in strides):
        raise ValueError(f"strides of '{name}' do not have {dimensions} axes")
    if len(named.get("smallest_patch", patch)) != dimensions:
        raise ValueError(f"smallest_patch of '{name}' does not have {dimensions} axes")
    if min(*patch, section["batch_size"], *(v for s in strides for v in s)) < 1:
        raise ValueError(f"patch_size, batch_size and strides of '{name}' must be positive")
    return Configuration(
        name=name,
        patch_size=tuple(patch),
        batch_size=section["batch_size"],
        strides=tuple(tuple(s) for s in strides),
        spacing=tuple(section["spacing"]),
        data_identifier=section["data_identifier"],
        architecture=architecture,
        architecture_kwargs=kwargs,
        architecture_imports=tuple(imports),
        batch_dice=section.get("batch_dice", False),
        median_image_size=section.get("median_image_size_in_voxels"),
        previous_stage=section.get("previous_stage"),
        smallest_patch=tuple(named["smallest_patch"]) if "smallest_patch" in named else None,
    )


def _old_architecture(section: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return arguments of the network, and which of them name classes, from plans before nnU-Net 2.2."""
    kwargs = {"strides": section["pool_op_kernel_sizes"], "kernel_sizes": section.get("conv_kernel_sizes", [])}
    if "n_conv_per_stage_encoder" not in section:
        return kwargs, ()
    encoder, axes = section["n_conv_per_stage_encoder"], len(section["patch_size"])
    base, most = section["UNet_base_num_features"], section["unet_max_num_features"]
    kwargs |= {
        "n_stages": len(encoder),
        "features_per_stage": [min(base * 2**i, most) for i in range(len(encoder))],
        "n_conv_per_stage" if section["UNet_class_name"] == "PlainConvUNet" else "n_blocks_per_stage": encoder,
        "n_conv_per_stage_decoder": section["n_conv_per_stage_decoder"],
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return kwargs, ("conv_op", "norm_op", "dropout_op", "nonlin")


def load_dataset(path: Path) -> Dataset:
    """Read an nnU-Net `dataset.json`; the Decathlon's own layout (`modality`, labels by value) is understood too."""
    return parse_dataset(read_json(path), path)


def parse_dataset(raw: dict[str, Any], where: object = "dataset.json") -> Dataset:
    """Parse the content of a `dataset.json`; raises `PlansError` naming the key."""
    try:
        channels = raw.get("channel_names", raw.get("modality"))
        if channels is None:
            raise KeyError("channel_names")
        labels = raw["labels"]
        if "channel_names" not in raw:
            labels = {name: int(value) for value, name in labels.items()}
        if raw.get("overwrite_image_reader_writer") != "None":
            check_parts(raw, where)
        order = raw.get("regions_class_order")
        check_name(f"x{raw.get('file_ending', '')}", f"{where}: file_ending")
        return Dataset(
            channels=tuple(channels[key] for key in sorted(channels, key=int)),
            labels={k: tuple(v) if isinstance(v, list) else int(v) for k, v in labels.items()},
            file_ending=raw.get("file_ending", ".nii.gz"),
            regions_class_order=tuple(order) if order is not None else None,
        )
    except KeyError as missing:
        raise PlansError(f"missing key {missing}", where, "is this a dataset.json of nnU-Net or the MSD?") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise PlansError(f"not a dataset.json: {_first_line(problem)}", where) from None


def _first_line(problem: Exception) -> str:
    return str(problem).splitlines()[0] if str(problem) else type(problem).__name__
