"""Checkpoints: their content (`content`) and their files (`files`).

nnU-Net's own keys, so that stock nnU-Net reads them, plus what an exact continuation needs.
"""
