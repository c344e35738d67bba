"""The GPU battery: what to measure first on a GPU machine, one module per part. See `benchmarks/README.md`."""
