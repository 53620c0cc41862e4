"""The lab for tests: one guest a session. Its tests are marked `lab`, the long ones `chaos` (`make chaos`) instead."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.build import build
from tests.lab.machine import Lab

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before `-m` deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this directory, but those that are `make chaos`'s."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("chaos") is None:
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The guest, at its snapshot `ready`; a test that needs a known state loads one itself."""
    with Lab(build()) as machine:
        yield machine
