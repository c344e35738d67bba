"""nnU-Net's trainer under a curriculum, and the parts of its steps.

Nothing here knows of processes or of the command line: settings go in, events and checkpoints come out.
"""
