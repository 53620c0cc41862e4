"""The store: made, brought up to date, opened, and what is said when it cannot be."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, select
from sqlalchemy.exc import IntegrityError

from bot.store import Store, StoreError, open_store, path_of
from bot.store.migrate import upgrade
from bot.store.tables import events, incidents, messages, meta, metadata


async def test_a_fresh_store_has_every_table_and_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "fresh.db"
    store = await open_store(f"sqlite:///{path}")
    async with store.begin() as tx:
        await tx.execute(insert(meta).values(name="a", value="b"))
    modes = modes_in(tmp_path)
    await store.close()

    assert modes.keys() >= {"fresh.db", "fresh.db-wal"}
    assert set(modes.values()) == {0o600}
    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == {*metadata.tables, "alembic_version"}
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


def modes_in(place: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in place.iterdir()}


async def test_a_store_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "open.db"
    path.touch(mode=0o644)
    await (await open_store(f"sqlite:///{path}")).close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'twice.db'}"
    upgrade(url)
    first = schema(tmp_path / "twice.db")
    upgrade(url)

    assert schema(tmp_path / "twice.db") == first


def test_the_migrations_give_the_very_tables_that_the_code_has(migrated: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = create_engine(f"sqlite:///{migrated}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = compare_metadata(context, metadata)
    engine.dispose()

    assert differences == []


def test_partial_indexes_are_those_of_the_code(migrated: Path, tmp_path: Path) -> None:
    """Autogenerate does not compare their conditions."""
    made = tmp_path / "made.db"
    engine = create_engine(f"sqlite:///{made}")
    metadata.create_all(engine)
    engine.dispose()

    assert indexes(made) == indexes(migrated)


def schema(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return sorted(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def indexes(path: Path) -> dict[str, str]:
    return {name: " ".join(sql.split()) for name, sql in schema(path) if "INDEX" in sql}


async def test_a_current_store_is_opened_without_a_child(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    await (await open_store(store_url)).close()


async def test_what_was_committed_is_there_after_opening_again(store_url: str) -> None:
    first = await open_store(store_url)
    async with first.begin() as tx:
        await tx.execute(insert(meta).values(name="a", value="b"))
    await first.close()
    second = await open_store(store_url)
    async with second.connect() as tx:
        assert (await tx.execute(select(meta.c.value))).scalar_one() == "b"
    await second.close()


async def test_a_block_that_raises_leaves_nothing(store: Store) -> None:
    async def half() -> None:
        async with store.begin() as tx:
            await tx.execute(insert(meta).values(name="a", value="b"))
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await half()

    async with store.connect() as tx:
        assert (await tx.execute(select(meta))).all() == []


async def test_writers_take_turns(store: Store) -> None:
    async with store.begin() as tx:
        await tx.execute(insert(meta).values(name="n", value="0"))

    async def add() -> None:
        async with store.begin() as tx:
            kept = int((await tx.execute(select(meta.c.value))).scalar_one())
            await asyncio.sleep(0)
            await tx.execute(meta.update().values(value=str(kept + 1)))

    await asyncio.gather(*(add() for _ in range(20)))

    async with store.connect() as tx:
        assert (await tx.execute(select(meta.c.value))).scalar_one() == "20"


@pytest.mark.parametrize("moment", range(60))
async def test_a_task_that_is_cancelled_leaves_no_lock_behind(moment: int, store_url: str) -> None:
    """SQLAlchemy gives up a connection that is cancelled in mid-operation; aiosqlite's thread may keep it, with its lock."""
    doomed = await open_store(store_url)

    async def write(name: int) -> None:
        for n in range(20):
            async with doomed.begin() as tx:
                await tx.execute(insert(meta).values(name=f"{name}.{n}", value=""))

    async def read() -> None:
        while True:
            async with doomed.connect() as tx:
                await tx.execute(select(meta))

    tasks = [asyncio.create_task(work) for work in (write(0), write(1), read())]
    for _ in range(moment * 2):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    async with asyncio.timeout(5), doomed.begin() as tx:
        await tx.execute(insert(meta).values(name="after", value=""))
    await doomed.close()


async def test_a_reader_never_waits_for_a_writer(store: Store) -> None:
    async with store.begin() as tx:
        await tx.execute(insert(meta).values(name="a", value="b"))
        async with asyncio.timeout(5), store.connect() as other:
            assert (await other.execute(select(meta))).all() == []


async def test_moments_come_back_aware_and_the_same(store: Store) -> None:
    at = datetime(2026, 11, 23, 17, 2, 3, 250000, tzinfo=UTC) + timedelta(microseconds=1)
    async with store.begin() as tx:
        await tx.execute(insert(events).values(id="a", at=at))
    async with store.connect() as tx:
        kept = (await tx.execute(select(events.c.at))).scalar_one()

    assert kept == at
    assert kept.tzinfo is UTC


async def test_one_incident_a_key_is_open_at_a_time(store: Store) -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    row = {
        "key": "memory:prod",
        "host": "prod",
        "rule": "memory",
        "level": "warning",
        "opened_at": at,
        "changed_at": at,
        "data": {},
    }
    async with store.begin() as tx:
        await tx.execute(insert(incidents).values(**row, closed_at=at))
        await tx.execute(insert(incidents).values(**row))
    with pytest.raises(IntegrityError):
        async with store.begin() as tx:
            await tx.execute(insert(incidents).values(**row))


async def test_a_message_has_one_row_a_place(store: Store) -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    row = {
        "key": "k",
        "platform": "console",
        "chat": "c",
        "thread": "",
        "language": "en",
        "reply": {},
        "due_at": at,
        "created_at": at,
    }
    async with store.begin() as tx:
        await tx.execute(insert(messages).values(**row))
    with pytest.raises(IntegrityError):
        async with store.begin() as tx:
            await tx.execute(insert(messages).values(**row))


async def test_a_directory_that_is_not_there_is_named() -> None:
    with pytest.raises(StoreError) as caught:
        await open_store("sqlite:////nowhere/at/all/memwarden.db")

    assert str(caught.value) == "store: there is no directory /nowhere/at/all; make it, or set `store` to another place"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://localhost/x", "store: mysql is not supported; use sqlite:///FILE"),
        ("postgresql://localhost/x", "store: postgresql is not supported; use sqlite:///FILE"),
        ("postgresql+asyncpg://localhost/x", "store: postgresql is not supported; use sqlite:///FILE"),
        ("not a url", "store: 'not a url' is no store; write sqlite:///FILE"),
        ("sqlite://", "store: sqlite needs a file: sqlite:///FILE"),
    ],
)
async def test_a_store_of_another_kind_is_refused(url: str, said: str) -> None:
    with pytest.raises(StoreError) as caught:
        await open_store(url)

    assert str(caught.value) == said


async def test_a_file_that_is_no_store_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is not a database, it is a longer text than a header has " * 20, encoding="utf-8")

    with pytest.raises(StoreError) as caught:
        await open_store(f"sqlite:///{path}")
    assert str(caught.value) == f"store: {path}: file is not a database"


async def test_a_directory_in_the_file_s_place_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        await open_store(f"sqlite:///{tmp_path}")

    assert str(caught.value) == f"store: {tmp_path}: Is a directory"


async def test_a_store_of_a_newer_memwarden_is_left_alone(store_url: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()

    with pytest.raises(StoreError) as caught:
        await open_store(store_url)
    assert "9999" in str(caught.value)
    assert "newer" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_path_of_a_store() -> None:
    assert path_of("sqlite:///a.db") == Path("a.db")
    assert path_of("sqlite:////var/lib/memwarden/a.db") == Path("/var/lib/memwarden/a.db")
    assert path_of("postgresql://localhost/x") is None
    assert os.fspath(path_of("sqlite:///a b.db") or "") == "a b.db"


async def test_a_statement_is_one_errand_to_the_stores_thread(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/one.db")
    try:
        async with store.begin() as tx:
            raw = (await tx.get_raw_connection()).driver_connection
            assert raw is not None
            errands, plain = [], raw._execute

            async def counted(work: Callable[..., object], *given: object) -> object:
                errands.append(work)
                return await plain(work, *given)

            raw._execute = counted
            await tx.execute(insert(meta), [{"name": f"n{n}", "value": "v"} for n in range(3)])
            found = (await tx.execute(select(meta.c.name).order_by(meta.c.name))).scalars()
            assert (found.first(), len(errands)) == ("n0", 2)
            made = await tx.execute(insert(events).values(id="e", at=datetime(2026, 11, 23, tzinfo=UTC)))
            assert made.rowcount == 1
            with pytest.raises(IntegrityError):
                await tx.execute(insert(meta).values(name="n0", value="again"))
            assert [row.name for row in await tx.execute(select(meta.c.name).order_by(meta.c.name))] == ["n0", "n1", "n2"]
    finally:
        await store.close()
