"""What the process' tests share: a store of their own, made from one that was migrated once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bot.store import Store, open_store
from tests.clock import StandingClock


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all tables and no rows."""
    path = tmp_path_factory.mktemp("store") / "template.db"

    async def make() -> None:
        await (await open_store(f"sqlite:///{path}")).close()

    asyncio.run(make())
    return path


@pytest.fixture
def store_url(migrated: Path, tmp_path: Path) -> str:
    """The URL of a store of the test's own."""
    shutil.copy(migrated, tmp_path / "test.db")
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest_asyncio.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """That store, open."""
    store = await open_store(store_url)
    yield store
    await store.close()


@pytest.fixture
def clock() -> StandingClock:
    """A clock of the test's own."""
    return StandingClock()
