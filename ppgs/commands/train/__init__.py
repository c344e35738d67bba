"""`train`: plan a run, claim its folder, start and follow the process that trains it; sweeps of many runs."""
