"""From folders on disk to runs with scores, costs and curves.

Reads our own run folders and nnU-Net's result folders of any level.
"""
