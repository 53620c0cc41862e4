"""The bytes of one channel: what a shell is spoken to through, whether over SSH or a local process."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

HIGH_WATER_BYTES = 1 << 20


class Pipe(ABC):
    """Bytes both ways. Whoever owns the channel feeds it; one reader at a time reads.

    A reader that does not come stops the sender by flow control, so that a flood costs a bounded buffer.
    """

    def __init__(self) -> None:
        """An open, empty pipe."""
        self._buffer = bytearray()
        self.cut = False
        """Whether it ended because the link did, not the far side."""
        self._ended = False
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send, or do nothing when the channel has ended: then the next read says so."""

    @abstractmethod
    def end_input(self) -> None:
        """Let the far side see the end of its stdin; what it still prints can be read."""

    @abstractmethod
    def close(self) -> None:
        """End the channel at once."""

    @abstractmethod
    def _pause(self) -> None:
        """Stop the sender."""

    @abstractmethod
    def _resume(self) -> None:
        """Let the sender go on."""

    @property
    def ended(self) -> bool:
        """Whether the far side has ended; bytes may be left to read."""
        return self._ended

    def feed(self, data: bytes) -> None:
        """Bytes have come."""
        self._buffer += data
        if not self._paused and len(self._buffer) >= HIGH_WATER_BYTES:
            self._paused = True
            self._pause()
        self._wake()

    def feed_end(self) -> None:
        """The far side has ended."""
        self._ended = True
        self._wake()

    async def read(self) -> bytes:
        """All that has come, waiting for some; empty at the end."""
        while not self._buffer and not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = bytes(self._buffer)
        self._buffer.clear()
        if self._paused:
            self._paused = False
            self._resume()
        return data

    async def finish(self, grace_s: float) -> None:
        """End the input, wait until the far side has ended (at most `grace_s`), then close.

        With a reader waiting it closes at once: the reader then sees the end.
        """
        try:
            if self._waiter is not None:
                return
            self.end_input()
            async with asyncio.timeout(grace_s):
                while await self.read():
                    pass
        except TimeoutError:
            pass
        finally:
            self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
