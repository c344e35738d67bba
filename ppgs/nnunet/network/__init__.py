"""Changes to nnU-Net's networks and optimiser.

Small patches, activation checkpointing, memory layout and fused updates, which change no result; precision, freezing.
"""
