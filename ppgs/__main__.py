"""`ppgs`, and `python -m ppgs`."""

import sys


def main() -> None:
    """Entry point. What completion asks at every TAB is answered before the command line is even imported."""
    if sys.argv[1:3] == ["completion", "values"]:
        from ppgs.cli.candidates import main as values

        values(sys.argv[3:])
        return
    from ppgs.cli.app import main as command

    command()


if __name__ == "__main__":
    main()
