"""Train nnU-Net under the Progressive Growing of Patch Size curriculum. What can be done from Python: `ppgs.api`."""

import importlib
from typing import Any

__version__ = "0.1.0"

__all__ = [
    "Curriculum",
    "Plan",
    "PpgsError",
    "Run",
    "Schedule",
    "Stage",
    "__version__",
    "find_run",
    "find_runs",
    "plan_schedule",
    "predict",
    "read_events",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    """Return a name of `ppgs.api`, imported on first use so that `import ppgs` takes milliseconds."""
    if name in __all__:
        module = "ppgs.curriculum" if name == "Curriculum" else "ppgs.api"
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'ppgs' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
