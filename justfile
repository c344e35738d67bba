# Everyday commands: `just` lists them. They use the environment in .venv (CONTRIBUTING.md says how it is made).

export PATH := justfile_directory() / ".venv/bin:" + env("PATH")

[private]
default:
    @just --list --unsorted

# Tests that take seconds, in two processes
fast *options:
    python -m pytest -m "not slow" {{options}}

# The whole suite in two processes, or the tests that are named in one
test *options:
    python -m pytest {{options}}

# Which lines of ppgs/ no test runs, in the processes that tests start too
coverage *options:
    python -m pytest --cov --cov-report=term-missing {{options}}

# All linters and type checks, as CI runs them
lint:
    ruff check .
    ruff format --check .
    codespell
    mypy
    lint-imports

# Format the code and fix what ruff can fix
format:
    ruff check --fix .
    ruff format .

# Take the monitor's pictures again after an intended change
snapshots:
    python -m pytest tests/tui/test_snapshots.py --snapshot-update

# Write the completion scripts again after a change of an option
completions:
    ppgs completion show bash > completions/ppgs.bash
    ppgs completion show zsh > completions/_ppgs
    ppgs completion show fish > completions/ppgs.fish

# Write the generated pages and figures of the documentation again, after a change of what they describe
docs-pages:
    python .ci/reference.py
    python .ci/figures.py

# Take the documentation's pictures of the monitor again, from a finished run of the demo
screenshots RUN:
    python .ci/screenshots.py {{RUN}}

# Draw the documentation's recording of a training again (.ci/recording.py names the command that makes RUN)
recording RUN:
    python .ci/recording.py {{RUN}}

# Build the documentation site in dist/site; needs the extra `docs`
docs: docs-pages
    mkdocs build --strict

# Trace the costs of the shipped tasks again, after a new minor version of torch or nnU-Net
laws *tasks:
    python .ci/trace_shipped_laws.py {{tasks}}

# Benchmarks that need no GPU and little time
bench:
    python benchmarks/startup.py

# The fast tests under every supported Python that is installed, and with the newest packages (6.5 GB)
matrix:
    .ci/matrix

# Check a release without changing anything; `just release 0.2.0 --for-real` commits and tags it
release version *options="--dry-run":
    python .ci/release.py {{version}} {{options}}
