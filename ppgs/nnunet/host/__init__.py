"""The machine as the engine sees it: environment variables, devices, memory allocator, energy counters."""
