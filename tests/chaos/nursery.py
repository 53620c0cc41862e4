"""Lives of a bot that has the test's own clock (tests/chaos/bot.py): begun in a blink, killed, begun again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.chaos.control import Control
from tests.chaos.process import READY_S, ROOT, environment


class Life:
    """One life of the bot; as `BotProcess` has it."""

    class Gone(Exception):  # noqa: N818 - it is what a killed process is
        """It ended before it was ready; with its log."""

    def __init__(self, pid: int, log: Path, began_at: int) -> None:
        """Use `Nursery.begin`."""
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Its exit status once it is over."""
        self._log = log
        self._began_at = began_at

    @property
    def said(self) -> str:
        """What it logged in this life."""
        return self._log.read_bytes()[self._began_at :].decode(errors="replace")

    async def ready(self) -> None:
        """Wait until it is. Raises Gone when it ends instead."""
        async with asyncio.timeout(READY_S):
            while " ready " not in self.said:
                if self.ended.done():
                    raise self.Gone(self.said)
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """SIGKILL, and its end."""
        self._signal(signal.SIGKILL)
        await asyncio.shield(self.ended)

    async def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(30):
                return await asyncio.shield(self.ended)
        except TimeoutError:
            await self.kill()
            raise

    def _signal(self, number: int) -> None:
        if not self.ended.done():  # its parent has not told of its end, so the pid is nobody else's
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Nursery:
    """Where lives begin."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Use `nursery`."""
        self._process = process
        self._turn = asyncio.Lock()
        self._begun: asyncio.Queue[int] = asyncio.Queue()
        self._lives: dict[int, Life] = {}
        self._early: dict[int, int] = {}

    async def begin(self, settings: Path, log: Path, control: Control) -> Life:
        """A life begins with these settings; what it logs is appended to `log`."""
        began_at = _size(log)
        async with self._turn:
            assert self._process.stdin is not None
            order = {"settings": str(settings), "log": str(log), "control": str(control.path)}
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            async with asyncio.timeout(READY_S):
                pid = await self._begun.get()
        life = self._lives[pid] = Life(pid, log, began_at)
        if pid in self._early:
            life.ended.set_result(self._early.pop(pid))
        return life

    async def hear(self) -> None:
        """Read what the process tells, until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            match line.decode().split():
                case ["begun", pid]:
                    self._begun.put_nowait(int(pid))
                case ["ended", pid, status] if int(pid) in self._lives:
                    self._lives.pop(int(pid)).ended.set_result(int(status))
                case ["ended", pid, status]:
                    self._early[int(pid)] = int(status)


def _size(log: Path) -> int:
    log.touch()
    return log.stat().st_size


@contextlib.asynccontextmanager
async def nursery(pycache: Path) -> AsyncIterator[Nursery]:
    """A process that lives begin from, until the block ends."""
    # Coverage of what is killed is worth nothing and slows every start.
    kept = {name: value for name, value in environment(pycache).items() if not name.startswith("COVERAGE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.bot"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=kept,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with asyncio.timeout(READY_S):
        assert await process.stdout.readline() == b"ready\n"
    one = Nursery(process)
    hearing = asyncio.create_task(one.hear())
    try:
        yield one
    finally:
        process.stdin.close()
        await process.wait()
        await hearing


def new_store(template: Path, folder: Path) -> None:
    """A store whose tables are there already: alembic costs a second, and each round has a store of its own."""
    made = template / "memwarden.db"
    if not made.exists():
        url = f"sqlite:///{made}"
        subprocess.run([sys.executable, "-m", "bot.store.migrate", url], check=True, cwd=ROOT, env=environment(template))
        with contextlib.closing(sqlite3.connect(made)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(made, folder / "memwarden.db")
