"""Cost of a schedule: memory, FLOPs, time and energy of every stage. Imports neither torch nor nnU-Net."""
