"""SQLite with one errand a statement, where aiosqlite takes four: open a cursor, execute, fetch, close.

Each errand wakes the connection's thread and then the loop again, and a kill is told after a dozen statements and more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import aiosqlite


async def connect(path: Path) -> Connection:
    """Open a file, as `async_creator` of SQLAlchemy's engine wants it. Raises sqlite3.Error."""
    connection = Connection(partial(sqlite3.connect, path), iter_chunk_size=64)
    # As SQLAlchemy does with those that it makes: a process that ends does not wait for its threads.
    connection._thread.daemon = True  # noqa: SLF001
    await connection
    return connection


class Connection(aiosqlite.Connection):
    """aiosqlite's connection, with cursors of our own."""

    def cursor(self) -> Cursor:  # type: ignore[override]
        """A cursor, nothing of which is open yet."""
        return Cursor(self)


class Cursor:
    """What SQLAlchemy's adapter asks of a driver's cursor: a statement is run and read at once, and nothing stays open."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        """Free of cost."""
        self._connection = connection
        self._rows: Sequence[Any] = ()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        return self

    async def execute(self, operation: str, parameters: Sequence[Any] = ()) -> Self:
        """Run a statement and read all its rows. Raises sqlite3.Error."""
        return await self._errand("execute", operation, parameters)

    async def executemany(self, operation: str, parameters: Sequence[Sequence[Any]]) -> Self:
        """Run a statement once for each of these. Raises sqlite3.Error."""
        return await self._errand("executemany", operation, parameters)

    async def fetchall(self) -> Sequence[Any]:
        """The rows, once."""
        rows, self._rows = self._rows, ()
        return rows

    async def close(self) -> None:
        """Nothing is open."""

    async def _errand(self, how: str, operation: str, parameters: Sequence[Any]) -> Self:
        await self._connection._execute(self._there, how, operation, parameters)  # type: ignore[no-untyped-call]  # noqa: SLF001 - as aiosqlite's own cursor does
        return self

    def _there(self, how: str, operation: str, parameters: Sequence[Any]) -> None:
        """In the connection's thread, while the loop's waits for it."""
        cursor = self._connection._conn.cursor()  # noqa: SLF001 - as above
        try:
            getattr(cursor, how)(operation, parameters)
            self._rows = cursor.fetchall() if cursor.description else ()
            self.description, self.rowcount, self.lastrowid = cursor.description, cursor.rowcount, cursor.lastrowid
        finally:
            cursor.close()
