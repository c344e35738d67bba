"""Checkpoints: what they hold (`content`) and how they are written and read (`files`).

nnU-Net's own keys, so that stock nnU-Net reads them, plus what an exact continuation needs.
"""
