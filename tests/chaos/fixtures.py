"""What the chaos of kills and their benchmark share."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.chaos.nursery import Nursery, nursery


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store lies that all stores are copies of."""
    return tmp_path_factory.mktemp("store")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lives(pycache: Path) -> AsyncIterator[Nursery]:
    """Where lives with a clock of the test's own begin."""
    async with nursery(pycache) as one:
        yield one


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line, whatever pytest captures."""

    def print_it(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}\n")
            sys.stdout.flush()

    return print_it
