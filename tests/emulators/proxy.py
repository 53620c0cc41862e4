"""A TCP proxy on loopback that delays, counts and cuts: what a network does between the bot and a host.

`Proxy(port)` forwards to 127.0.0.1:port. Each direction is delayed by `one_way_s` (propagation, not bandwidth: bytes on their
way do not wait for each other). `round_trips` counts how often the client spoke after it had last been answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

CHUNK_BYTES = 65536


@dataclass
class Proxy:
    """A running proxy. The limits may be changed at any time; they hold for bytes that come after."""

    target_port: int
    one_way_s: float = 0.0
    cut_after_bytes: int | None = None
    """Bytes of the server's that still pass; then all connections are reset in the middle."""
    cut_after_chunks: int | None = None
    """The same in chunks (about: packets)."""
    cut_after_chunks_up: int | None = None
    """The same of the client's: the one after those is lost."""
    heals: bool = False
    """After a cut all is well again: what was to cut is forgotten."""
    cuts: int = 0
    """How often that came to a cut."""
    frozen: bool = False
    """Accept and hold: nothing passes either way while it is set."""
    port: int = 0
    round_trips: int = 0
    accepted: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    _answered: bool = True
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def count_afresh(self) -> None:
        """Start counting at zero."""
        self.round_trips = self.bytes_up = self.bytes_down = 0
        self._answered = True

    def cut(self) -> None:
        """Reset all connections now."""
        for writer in self._writers:
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            down, upstream = await asyncio.open_connection("127.0.0.1", self.target_port)
            self._writers.add(upstream)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(reader, upstream, up=True))
                group.create_task(self._carry(down, writer, up=False))
        except OSError:
            pass
        except asyncio.CancelledError:
            # The proxy is closing; a connection handler that ends as cancelled would be logged as a failure.
            pass
        finally:
            for each in (writer, upstream):
                if each is not None:
                    each.transport.abort()
                    self._writers.discard(each)
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deliver(queue, writer, up=up))
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(CHUNK_BYTES):
                    if up and not self._passes_up(data):
                        self._cut_as_planned()
                        return
                    await queue.put((asyncio.get_running_loop().time() + self.one_way_s, data))
            await queue.put((0.0, b""))

    async def _deliver(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                due_at, data = await queue.get()
                if not data:
                    break
                await asyncio.sleep(max(0.0, due_at - asyncio.get_running_loop().time()))
                while self.frozen:  # noqa: ASYNC110 - a plain attribute is easier to set from a test
                    await asyncio.sleep(0.01)
                if not up:
                    data = self._allowed(data)
                writer.write(data)
                await writer.drain()
                if not up and 0 in (self.cut_after_bytes, self.cut_after_chunks):
                    self._cut_as_planned()
                    return
        if not writer.is_closing() and writer.can_write_eof():
            with contextlib.suppress(OSError):
                writer.write_eof()

    def _cut_as_planned(self) -> None:
        self.cuts += 1
        if self.heals:
            self.cut_after_bytes = self.cut_after_chunks = self.cut_after_chunks_up = None
        self.cut()

    def _passes_up(self, data: bytes) -> bool:
        if self.cut_after_chunks_up is not None:
            if self.cut_after_chunks_up == 0:
                return False
            self.cut_after_chunks_up -= 1
        self._count_up(data)
        return True

    def _count_up(self, data: bytes) -> None:
        self.bytes_up += len(data)
        if self._answered:
            self.round_trips += 1
            self._answered = False

    def _allowed(self, data: bytes) -> bytes:
        if self.cut_after_bytes is not None:
            data = data[: self.cut_after_bytes]
            self.cut_after_bytes -= len(data)
        if self.cut_after_chunks is not None:
            self.cut_after_chunks = max(0, self.cut_after_chunks - 1)
        self.bytes_down += len(data)
        self._answered = self._answered or bool(data)
        return data

    async def close(self) -> None:
        """End all connections."""
        self.cut()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def proxied(
    target_port: int,
    *,
    one_way_s: float = 0.0,
) -> AsyncIterator[Proxy]:
    """A proxy in front of a local port."""
    proxy = Proxy(target_port, one_way_s)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
