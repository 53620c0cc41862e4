"""The test's side of a target's stand-ins: counts what is called there, and stops a call where it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Called:
    """A call of a stand-in."""

    ordinal: int
    pid: int
    words: tuple[str, ...]
    following: bool = False
    """It has printed what was there and waits for more."""
    over: bool = False

    @property
    def follows(self) -> bool:
        """Whether it is one that never ends by itself."""
        return "-f" in self.words


@dataclass
class Stop:
    """A call that is stopped: before it does anything, `taken` when it has said all (or all there was), `answered` as that is
    let out."""

    ordinal: int
    moment: str
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)


class Gate:
    """Where the stand-ins ask."""

    def __init__(self) -> None:
        """Nothing is stopped."""
        self.calls: list[Called] = []
        self.stops: list[Stop] = []
        self._handlers: set[asyncio.Task[None]] = set()

    def stop(self, ordinal: int, moment: str) -> Stop:
        """Stop the call with this ordinal (from 1)."""
        self.stops.append(Stop(ordinal, moment))
        return self.stops[-1]

    def open(self) -> None:
        """Nothing is stopped any more."""
        for stop in self.stops:
            stop.released.set()

    @property
    def followers(self) -> list[Called]:
        """Those that wait for more now."""
        return [call for call in self.calls if call.following and not call.over]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One call."""
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        call: Called | None = None
        try:
            if line := await reader.readline():
                name, pid, *words = json.loads(line)
                call = Called(len(self.calls) + 1, pid, (name, *words))
                self.calls.append(call)
                await self._pass(call, "before", writer)
                while word := await reader.readline():
                    call.following = word == b"following\n"
                    if call.following or not call.follows:
                        await self._pass(call, "taken", writer)
                        await self._stop(call, "answered")
                    else:
                        writer.write(b"go\n")
        except (ConnectionError, asyncio.CancelledError):
            pass  # it was killed, or the test is over
        finally:
            if call is not None:
                call.over = True
            writer.close()
            self._handlers.discard(task)

    async def _pass(self, call: Called, moment: str, writer: asyncio.StreamWriter) -> None:
        await self._stop(call, moment)
        writer.write(b"go\n")
        await writer.drain()

    async def _stop(self, call: Called, moment: str) -> None:
        for stop in self.stops:
            if (stop.ordinal, stop.moment) == (call.ordinal, moment):
                stop.reached.set()
                await stop.released.wait()

    async def close(self) -> None:
        """End what is stopped."""
        for task in tuple(self._handlers):
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)


@contextlib.asynccontextmanager
async def gated(path: Path) -> AsyncIterator[Gate]:
    """A gate behind this socket until the block ends."""
    gate = Gate()
    server = await asyncio.start_unix_server(gate.serve, path)
    try:
        yield gate
    finally:
        server.close()
        await gate.close()
        await server.wait_closed()
