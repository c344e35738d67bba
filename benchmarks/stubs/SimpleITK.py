"""Stands in for SimpleITK: nnU-Net imports it, but training from prepared cases never calls it."""

from __future__ import annotations

from typing import NoReturn


def __getattr__(name: str) -> NoReturn:
    raise AttributeError(f"SimpleITK is not installed here (asked for {name}): images cannot be read or written")


class Image:
    """Named in nnU-Net's annotations."""
