"""The store: SQLAlchemy on SQLite in WAL (PostgreSQL later), opened once for the process.

Writes take turns behind one lock and BEGIN IMMEDIATE, so that no transaction of ours ever meets another's half.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

DRIVERS = {"sqlite": "sqlite+aiosqlite"}  # those that the locks have


class StoreError(Exception):
    """The store cannot be opened; one line that says why and what to try."""


def path_of(url: str) -> Path | None:
    """The file of a SQLite store, None for another kind."""
    parsed = _parsed(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError:
        raise StoreError(f"store: {url!r} is no store; write sqlite:///FILE") from None


T = TypeVar("T")


async def whole(work: Awaitable[T]) -> T:
    """Await to the end, also when cancelled, which then comes afterwards: SQLAlchemy drops a connection that is cancelled in
    mid-operation, and with aiosqlite that one may live on with its lock (tried: one in twelve cancellations)."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as trouble:
            cancelled = trouble
        except BaseException:  # noqa: S110, BLE001 - the task has it
            pass
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()


class _Connection(AsyncConnection):
    """A connection whose statements are never cut in the middle."""

    async def execute(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as its parent
        return await whole(super().execute(*args, **options))


class Store:
    """One open store. `begin()` is the only way to write, `connect()` to read."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Wrap an engine that `open_store` made."""
        self._engine = engine
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed when the block ends well, else rolled back."""
        async with self._turn, self._connected() as connection:
            await whole(connection.begin().start())
            try:
                yield connection
            except BaseException:
                await whole(connection.rollback())
                raise
            await whole(connection.commit())

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """For reading only."""
        async with self._connected() as connection:
            await whole(connection.execution_options(writes=False))
            yield connection

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        connection = _Connection(self._engine)
        try:
            await whole(connection.start())
            yield connection
        finally:
            if connection.sync_connection is not None:
                await whole(connection.close())

    async def close(self) -> None:
        """Close it; the last one out folds the write-ahead log into the file."""
        await self._engine.dispose()


async def open_store(url: str) -> Store:
    """Bring the tables up to date (in a child process: alembic is heavy and used once) and open. Raises StoreError."""
    parsed = _parsed(url)
    backend = parsed.get_backend_name()
    if backend not in DRIVERS:
        raise StoreError(f"store: {backend} is not supported; use sqlite:///FILE")
    path = path_of(url)
    if path is None and backend == "sqlite":
        raise StoreError("store: sqlite needs a file: sqlite:///FILE")
    if path is not None and not path.parent.is_dir():
        raise StoreError(f"store: there is no directory {path.parent}; make it, or set `store` to another place")
    if path is not None:
        _private(path)
    if path is None or not _current(path):
        await _migrate(url)
    engine = create_async_engine(parsed.set(drivername=DRIVERS[backend]), pool_pre_ping=False, **_creator(path))
    if backend == "sqlite":
        event.listen(engine.sync_engine, "connect", _sqlite_connect)
        event.listen(engine.sync_engine, "begin", _sqlite_begin)
    return Store(engine)


def _creator(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    from bot.store import sqlite  # aiosqlite is wanted by an open store alone

    return {"async_creator": partial(sqlite.connect, path)}


def _private(path: Path) -> None:
    """Make the file ours alone before anything is in it; SQLite gives its -wal and -shm the same mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
    except OSError as trouble:
        raise StoreError(f"store: {path}: {trouble.strerror}") from None


def _current(path: Path) -> bool:
    """Whether the newest migration is already there, so that the usual start needs no child."""
    newest = max(file.stem for file in (Path(__file__).parent / "migrations" / "versions").glob("[0-9]*.py"))[:4]
    with closing(sqlite3.connect(path)) as connection:
        try:
            return connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(newest,)]
        except sqlite3.Error:
            return False


async def _migrate(url: str) -> None:
    """Run the migrations in a child, so that neither alembic nor its memory stays in the process."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bot.store.migrate",
        url,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await child.communicate()
    if child.returncode:
        last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise StoreError(f"store: {path_of(url) or 'migration'}: {last[0]}")


def _sqlite_connect(connection: Any, record: Any) -> None:  # noqa: ANN401 - DBAPI objects
    """WAL with synchronous=FULL: what was committed survives a power cut (sqlite.org/pragma.html#pragma_synchronous)."""
    del record
    connection.isolation_level = None  # we begin ourselves: docs.sqlalchemy.org, "pysqlite serializable"
    cursor = connection.cursor()
    # 2 MB of pages a connection would be what the bot has least of.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000", "cache_size=-256"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Any) -> None:  # noqa: ANN401 - DBAPI objects
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes", True) else "BEGIN")
