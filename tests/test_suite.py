"""Distribution of the suite over processes."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="module")
def made_for_this_module() -> int:
    return os.getpid()


@pytest.mark.parametrize("_", range(3))
def test_tests_that_share_a_fixture_of_their_module_are_one_group(
    made_for_this_module: int, request: pytest.FixtureRequest, _: int
) -> None:
    """Two workers would otherwise make it twice at the same time: two Slurms want one port."""
    assert made_for_this_module == os.getpid()
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@tests/test_suite.py")
