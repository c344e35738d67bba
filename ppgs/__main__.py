"""`python -m ppgs`."""

from ppgs.cli.app import main

if __name__ == "__main__":
    main()
