"""Limits on names in plans and `dataset.json`: nnU-Net imports classes by name, and names become paths."""

from __future__ import annotations

import os
import re
from typing import Any

from ppgs import upstream
from ppgs.errors import PlansError, nearest

# Where plans take classes from. nnU-Net imports whatever they name: nothing else may be named, unless its module is one
# of those that the user trusts (comma-separated).
TRUST_VARIABLE = "PPGS_TRUSTED_MODULES"
_TRUSTED = re.compile(
    r"(PlainConvUNet|ResidualEncoderUNet"
    r"|ppgs\.nnunet\.other_networks\.(Unetr|SwinUnetr)"
    r"|torch\.nn\.(modules\.\w+\.)?[A-Z]\w*"
    r"|dynamic_network_architectures\.(architectures|building_blocks)\.\w+\.[A-Z]\w*)"
)
_RESAMPLING = dict.fromkeys(("resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities"), "resampling_fn")
_PARTS_BY_KEY = {
    **{name: name for name in upstream.NAMED_CLASSES},
    **_RESAMPLING,
    "overwrite_image_reader_writer": "image_reader_writer",
}


def check_parts(section: dict[str, Any], where: object) -> None:
    """Raise `PlansError` if plans or `dataset.json` name a reader, preprocessor and so on that is not nnU-Net's."""
    trusted = os.environ.get(TRUST_VARIABLE, "").split(",")
    for key in _PARTS_BY_KEY.keys() & section.keys():
        known, given = upstream.NAMED_CLASSES[_PARTS_BY_KEY[key]], section[key]
        for name in given if key == "normalization_schemes" and isinstance(given, (list, tuple)) else (given,):
            if not isinstance(name, str) or (name not in known and name not in trusted):
                raise PlansError(
                    f"{key} names '{name}', which is not of nnU-Net",
                    where,
                    f"{nearest(str(name), known)}; one of your own in nnU-Net's folders: set {TRUST_VARIABLE}",
                )


def check_trust(architecture: Any, kwargs: Any, imports: Any) -> None:
    """Raise `PlansError` if plans name code outside nnU-Net's networks and torch.nn to import."""
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
    """Raise `PlansError` for a file or folder name that would lead out of its folder."""
    if not isinstance(name, str) or name in ("", ".", "..") or any(c in name for c in "/\\\0"):
        raise PlansError(f"{name!r} cannot name a file or folder", where, "use no files from a source you do not trust")
