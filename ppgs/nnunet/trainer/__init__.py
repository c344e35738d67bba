"""nnU-Net's trainer under a curriculum, and what it needs during a step.

Nothing here knows of processes or of the command line: settings go in, events and checkpoints come out.
"""
