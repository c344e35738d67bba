"""`ppgs train`: its options, questions, progress and sweeps on the terminal."""
