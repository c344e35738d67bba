"""Changes to nnU-Net's networks and optimiser that change no result.

Small patches, activation checkpointing, precision, fused updates.
"""
