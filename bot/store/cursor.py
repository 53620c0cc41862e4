"""A statement in one errand to SQLite's thread, where SQLAlchemy's cursor takes four: open, execute, fetch, close.

Each errand wakes a thread and the loop again. A kill is told after some twenty statements, so that what is saved is several of
its milliseconds. It leans on `_execute` and `_conn` of aiosqlite's connection, as SQLAlchemy's own adapter leans on its `_tx`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from sqlalchemy.util.concurrency import await_only

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable


class Cursor:
    """A DBAPI cursor: a statement is run and read at once."""

    server_side = False
    arraysize = 1

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's adapter of a connection
        """As SQLAlchemy makes it."""
        self._adapter = connection
        self._rows: deque[Any] = deque()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    def execute(self, operation: str, parameters: Sequence[Any] | None = None) -> None:
        """Run a statement and read all its rows."""
        self._errand(lambda cursor: cursor.execute(operation, parameters or ()))

    def executemany(self, operation: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each of these."""
        self._errand(lambda cursor: cursor.executemany(operation, parameters))

    def _errand(self, run: Callable[[sqlite3.Cursor], object]) -> None:
        try:
            await_only(self._go(run))
        except Exception as error:  # noqa: BLE001 - SQLAlchemy's adapter tells which is which
            self._adapter._handle_exception(error)  # noqa: SLF001 - as its own cursor does

    async def _go(self, run: Callable[[sqlite3.Cursor], object]) -> None:
        connection = self._adapter._connection  # noqa: SLF001 - aiosqlite's
        async with self._adapter._execute_mutex:  # noqa: SLF001 - as its own cursor does
            rows, said = await connection._execute(_there, connection._conn, run)  # noqa: SLF001 - see above
        self._rows = deque(rows)
        self.description, self.rowcount, self.lastrowid = said

    def __iter__(self) -> Iterator[Any]:
        """The rows that were not given yet."""
        while self._rows:
            yield self._rows.popleft()

    def fetchone(self) -> Any:  # noqa: ANN401 - a row
        """The next row; None when there is none."""
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """So many of the next rows."""
        return [self._rows.popleft() for _ in range(min(size or self.arraysize, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        rows = list(self._rows)
        self._rows.clear()
        return rows

    def setinputsizes(self, *sizes: object) -> None:
        """Nothing: SQLite has no use for it."""

    def close(self) -> None:
        """What was not read is forgotten; on the connection nothing is open any more."""
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """As `close`, but rows may still be read."""


def _there(connection: sqlite3.Connection, run: Callable[[sqlite3.Cursor], object]) -> tuple[Sequence[Any], tuple[Any, int, Any]]:
    """In the connection's thread."""
    cursor = connection.cursor()
    try:
        run(cursor)
        rows = cursor.fetchall() if cursor.description else ()
        return rows, (cursor.description, cursor.rowcount, cursor.lastrowid)
    finally:
        cursor.close()


def in_one_errand() -> None:
    """Let SQLAlchemy's connections to SQLite run their statements so."""
    AsyncAdapt_aiosqlite_connection._cursor_cls = Cursor  # type: ignore[assignment]  # noqa: SLF001 - there is no other way in
