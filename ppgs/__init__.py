"""Train nnU-Net under the Progressive Growing of Patch Size curriculum."""

__version__ = "0.1.0"
