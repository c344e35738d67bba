"""`ppgs`, and `python -m ppgs`."""

import gc
import os
import sys


def main() -> None:
    """Run the command line; answer requests of shell completion before importing it."""
    # None is used, and looking for Pydantic's plugins reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if sys.argv[1:3] == ["completion", "values"]:
        from ppgs.cli.completion.candidates import main as values

        values(sys.argv[3:])
        return
    # Nothing that importing makes is garbage, now or later: without looking for it a start takes a tenth less.
    gc.disable()
    from ppgs.cli.app import main as command

    gc.freeze()
    gc.enable()
    command()


if __name__ == "__main__":
    main()
