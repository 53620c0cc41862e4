"""A process that can be killed at any of its outside calls, numbered from 1: then nothing of it reaches the outside any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from bot.chat.base import Address
from bot.store import Store
from handlers.reply import Reply
from tests.bot.chats import Crash, MemoryChat


@dataclass
class Life:
    """One life of the process. `ends_at` is the outside call that does not come back; 0 for a life without end."""

    ends_at: int = 0
    calls: int = 0
    names: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def step(self, name: str) -> None:
        """An outside call is about to be made. Raises Crash when it is the last, and ever after."""
        self.calls += 1
        self.names.append(name)
        if self.over.is_set() or self.calls == self.ends_at:
            self.over.set()
            raise Crash(name)


class MortalStore(Store):
    """A store that ends with the life: a transaction is begun, or committed, or neither."""

    def __init__(self, store: Store, life: Life) -> None:
        super().__init__(store._engine)
        self._turn = store._turn
        self._life = life

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, with a step before its commit (a crash after it is the next call's)."""
        async with super().begin() as tx:
            yield tx
            self._life.step("commit")

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """Reading changes nothing, so it is no step; the dead do not read."""
        if self._life.over.is_set():
            raise Crash("dead")
        async with super().connect() as tx:
            yield tx


async def end(*tasks: asyncio.Task[Any]) -> list[Any]:
    """Let the dead fall by themselves (a connection that is cancelled while it opens is never closed), then end the rest."""
    await asyncio.wait(tasks, timeout=0.5)
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class MortalChat(MemoryChat):
    """A chat whose messages are shown, or not, when the process ends."""

    life: Life = field(default_factory=Life)

    async def send(self, to: Address, reply: Reply, tokens: Mapping[str, str], *, again: bool = False) -> str:
        """A step before it is shown, and one before the answer comes."""
        self.life.step("send")
        shown = await super().send(to, reply, tokens, again=again)
        self.life.step("answer")
        return shown

    async def edit(self, to: Address, message_id: str, reply: Reply, tokens: Mapping[str, str]) -> None:
        """As `send`."""
        self.life.step("edit")
        await super().edit(to, message_id, reply, tokens)
        self.life.step("edited")
