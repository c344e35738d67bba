"""Typed, frozen, read-only view of nnU-Net's `nnUNetPlans.json` and `dataset.json`.

Axis order is nnU-Net's own after its transposition: (z, y, x) in 3D, (y, x) in 2D. Spacings are in millimetres.
Needs neither torch nor nnunetv2.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ppgs.errors import PlansError, nearest

_MAX_BYTES = 1 << 28


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Configuration(_Frozen):
    """One configuration of the plans (`3d_fullres`, `2d`, ...), inheritance resolved.

    `strides` holds one tuple an encoder stage, in axis order (z, y, x); their product is the `step`. A network that is
    not nnU-Net's names its step itself, and its `smallest_patch` where that is larger (`ppgs.nnunet.other_networks`).
    """

    name: str
    patch_size: tuple[int, ...]
    batch_size: int
    strides: tuple[tuple[int, ...], ...]
    spacing: tuple[float, ...]
    data_identifier: str
    architecture: str
    architecture_kwargs: dict[str, Any]
    architecture_imports: tuple[str, ...] = ()
    batch_dice: bool = False
    median_image_size: tuple[float, ...] | None = None
    previous_stage: str | None = None
    smallest_patch: tuple[int, ...] | None = None

    @property
    def is_unet(self) -> bool:
        """Whether this is one of nnU-Net's own networks, whose arguments tell all that it costs."""
        return "features_per_stage" in self.architecture_kwargs

    @property
    def step(self) -> tuple[int, ...]:
        """The product of the strides on each axis: the smallest patch and the smallest growth (method, `step_a`)."""
        return tuple(math.prod(s[axis] for s in self.strides) for axis in range(len(self.patch_size)))


class Plans(_Frozen):
    """What ppgs needs to know of an `nnUNetPlans.json`."""

    name: str
    dataset: str
    configurations: dict[str, Configuration]

    def configuration(self, name: str) -> Configuration:
        """The configuration of that name; raises `PlansError` naming what there is."""
        try:
            return self.configurations[name]
        except KeyError:
            raise PlansError(
                f"the plans have no configuration '{name}'",
                f"{self.name} of {self.dataset}",
                nearest(name, self.configurations),
            ) from None


_SIDES = {"left": "right", "l": "r", "lt": "rt", "lh": "rh"}


def _words(name: str) -> list[str]:
    """`kidney_left`, `LeftKidney` and `kidney-L` in lower-case words."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)
    return [part.lower() for part in parts]


class Dataset(_Frozen):
    """What ppgs needs to know of an nnU-Net `dataset.json`: channels, labels (regions are tuples) and file ending."""

    channels: tuple[str, ...]
    labels: dict[str, int | tuple[int, ...]]
    file_ending: str
    regions_class_order: tuple[int, ...] | None = None

    @property
    def ignore_label(self) -> int | None:
        value = self.labels.get("ignore")
        return value if isinstance(value, int) else None

    @property
    def foreground(self) -> dict[str, int | tuple[int, ...]]:
        """Foreground classes or regions by name, in the order of nnU-Net's `LabelManager`."""
        return {k: v for k, v in self.labels.items() if k != "ignore" and v != 0}

    @property
    def foreground_labels(self) -> tuple[int, ...]:
        """Values of foreground voxels, those of regions too, rising (nnU-Net's `LabelManager.foreground_labels`)."""
        return tuple(sorted(self.values - {0, self.ignore_label}))

    @property
    def values(self) -> frozenset[int]:
        """Every value that a label image may hold."""
        flat: set[int] = {0}
        for value in self.labels.values():
            flat.update(value if isinstance(value, tuple) else (value,))
        return frozenset(flat)

    @property
    def sides(self) -> tuple[str, str] | None:
        """The first two labels that by their names differ in nothing but left and right."""
        words = {tuple(_words(name)): name for name in self.foreground}
        for mine, name in words.items():
            other = words.get(tuple(_SIDES.get(word, word) for word in mine))
            if other is not None and other != name:
                return name, other
        return None

    @property
    def segmentation_heads(self) -> int:
        """Number of output channels of the network (nnU-Net's `LabelManager.num_segmentation_heads`)."""
        has_regions = any(isinstance(v, tuple) and len(v) > 1 for v in self.labels.values())
        return len(self.foreground) + (0 if has_regions else 1)


def read_json(path: Path, error: type[PlansError] = PlansError) -> dict[str, Any]:
    """A JSON object from a file; raises `error` naming the file when it is missing, damaged or no object."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise error(f"larger than {_MAX_BYTES} bytes", path)
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error("file not found", path) from None
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"not readable as JSON: {problem}", path, "restore the file or prepare the task again") from None
    if not isinstance(value, dict):
        raise error(f"expected a JSON object, found {type(value).__name__}", path)
    return value


def load_plans(path: Path) -> Plans:
    """Read `nnUNetPlans.json`, of nnU-Net's current format or the one before 2.2 (no `architecture` key)."""
    return parse_plans(read_json(path), path)


def parse_plans(raw: dict[str, Any], where: object = "plans") -> Plans:
    """`Plans` from the content of an `nnUNetPlans.json`; raises `PlansError` naming the key."""
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
    _check_trust(architecture, kwargs, imports)
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


# Where plans take classes from. nnU-Net imports whatever they name: nothing else may be named, unless its module is one
# of those that the user trusts (comma-separated).
TRUST_VARIABLE = "PPGS_TRUSTED_MODULES"
_TRUSTED = re.compile(
    r"(PlainConvUNet|ResidualEncoderUNet"
    r"|ppgs\.nnunet\.other_networks\.(Unetr|SwinUnetr)"
    r"|torch\.nn\.(modules\.\w+\.)?[A-Z]\w*"
    r"|dynamic_network_architectures\.(architectures|building_blocks)\.\w+\.[A-Z]\w*)"
)


# What else nnU-Net finds by name in its modules, which import much that is not meant to be found there. The contract
# test knows whether nnU-Net has more of them.
_PARTS: dict[str, frozenset[str]] = {
    "image_reader_writer": frozenset(
        ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient", "NaturalImage2DIO", "Tiff3DIO")
    ),
    "label_manager": frozenset(("LabelManager",)),
    "preprocessor_name": frozenset(("DefaultPreprocessor",)),
    "normalization_schemes": frozenset(
        (
            "ZScoreNormalization",
            "CTNormalization",
            "NoNormalization",
            "RescaleTo01Normalization",
            "RGBTo01Normalization",
        )
    ),
    "resampling_fn": frozenset(
        ("resample_data_or_seg_to_shape", "resample_torch_simple", "resample_torch_fornnunet", "no_resampling_hack")
    ),
}
_RESAMPLING = dict.fromkeys(("resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities"), "resampling_fn")
_PARTS_BY_KEY = {name: name for name in _PARTS} | _RESAMPLING | {"overwrite_image_reader_writer": "image_reader_writer"}


def check_parts(section: dict[str, Any], where: object) -> None:
    """Raise `PlansError` where plans or `dataset.json` name a reader, preprocessor and so on that is not nnU-Net's."""
    trusted = os.environ.get(TRUST_VARIABLE, "").split(",")
    for key in _PARTS_BY_KEY.keys() & section.keys():
        known, given = _PARTS[_PARTS_BY_KEY[key]], section[key]
        for name in given if key == "normalization_schemes" and isinstance(given, (list, tuple)) else (given,):
            if not isinstance(name, str) or (name not in known and name not in trusted):
                raise PlansError(
                    f"{key} names '{name}', which is not of nnU-Net",
                    where,
                    f"{nearest(str(name), known)}; one of your own in nnU-Net's folders: set {TRUST_VARIABLE}",
                )


def _check_trust(architecture: Any, kwargs: Any, imports: Any) -> None:
    """Raise `PlansError` where plans name code outside of nnU-Net's networks and torch.nn to import."""
    if not isinstance(kwargs, dict) or not isinstance(imports, (list, tuple)):
        raise ValueError("arch_kwargs must be an object and _kw_requires_import a list")
    for key, name in {"network_class_name": architecture, **{str(k): kwargs.get(k) for k in imports}}.items():
        if name is None and key != "network_class_name":
            continue
        if isinstance(name, str) and name.rpartition(".")[0] in filter(
            None, os.environ.get(TRUST_VARIABLE, "").split(",")
        ):
            continue
        if not isinstance(name, str) or _TRUSTED.fullmatch(name) is None:
            raise PlansError(
                f"the plans name '{name}' to be imported, which is neither of torch.nn nor of nnU-Net's networks",
                f"architecture: {key}",
                f"use no plans from a source that you do not trust; a module of your own: set {TRUST_VARIABLE}",
            )


def check_name(name: Any, where: object) -> None:
    """Raise `PlansError` for what is to name a file or folder and would lead out of its folder."""
    if not isinstance(name, str) or name in ("", ".", "..") or any(c in name for c in "/\\\0"):
        raise PlansError(f"{name!r} cannot name a file or folder", where, "use no files from a source you do not trust")


def _old_architecture(section: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Arguments of the network, and which of them name classes, from plans before nnU-Net 2.2."""
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
    """`Dataset` from the content of a `dataset.json`; raises `PlansError` naming the key."""
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
