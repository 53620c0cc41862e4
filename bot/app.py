"""The only module that knows all parts: builds them, gives commands the ports they name, starts, drains."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import insert, select

from bot.clock import SystemClock
from bot.dispatch import Desk, Dispatcher, prepare
from bot.history import KillHistory
from bot.hosts import Fleet
from bot.outbox import Outbox
from bot.parts import App
from bot.people import People
from bot.plans import PlanBook
from bot.runner import Runner
from bot.store import open_store
from bot.store.tables import meta
from handlers import discover
from handlers.ports.clock import Clock
from handlers.ports.commands import Commands
from handlers.ports.history import History
from handlers.ports.hosts import Hosts
from handlers.ports.plans import Plans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from bot.chat.base import Chat
    from bot.settings import Settings
    from bot.store import Store
    from handlers.command import Command

log = structlog.get_logger(__name__)

DRAIN_S = 20.0


class _Catalogue:
    """The `Commands` port."""

    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = commands

    def all(self) -> tuple[Command, ...]:
        """Every command, by name."""
        return tuple(self._commands[name] for name in sorted(self._commands))

    def find(self, name: str) -> Command | None:
        """The one with this name."""
        return self._commands.get(name)


@contextlib.asynccontextmanager
async def build(settings: Settings, chats: Mapping[str, Chat], clock: Clock | None = None) -> AsyncIterator[App]:
    """Open the store and connect the parts; everything is closed at the end. Raises StoreError."""
    clock = clock or SystemClock()
    store = await open_store(settings.store)
    try:
        key = await _key(store)
        people, fleet, outbox = People(settings), Fleet(settings, key), Outbox(store, chats, clock)
        book = PlanBook(store, outbox, clock, settings.approvals, fleet.policy)
        runner = Runner(book, fleet.host, key)
        book.on_approved = runner.start
        commands = discover()
        ports: dict[type, object] = {
            Hosts: fleet, Plans: book, Clock: clock, Commands: _Catalogue(commands), History: KillHistory(store),
        }  # fmt: skip
        dispatcher = Dispatcher(prepare(commands, ports), clock)
        desk = Desk(dispatcher, people, outbox, store, clock)
        try:
            yield App(settings, clock, store, people, fleet, outbox, book, runner, dispatcher, desk, chats, commands)
        finally:
            await fleet.close()
    finally:
        await store.close()


async def _key(store: Store) -> bytes:
    """The secret that seals command lines; made once for a store."""
    async with store.begin() as tx:
        kept = (await tx.execute(select(meta.c.value).where(meta.c.name == "key"))).scalar()
        if kept is None:
            kept = secrets.token_hex(32)
            await tx.execute(insert(meta).values(name="key", value=kept))
    return bytes.fromhex(kept)


async def serve(app: App, stop: asyncio.Event) -> None:
    """Start everything, wait for `stop` (SIGTERM, SIGINT or the console's end), drain."""
    # Imported here: none is needed by `ask`, which is one question in a process of its own.
    from bot.alerts.kills import KillRule
    from bot.doorway import Doorway
    from bot.hooks.service import Hooks
    from bot.watch import Watch

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    rule = KillRule(app.settings, app.store, app.outbox, app.clock, app.book.killed)
    doorway, watch, hooks = Doorway(app), Watch(app, rule), Hooks(app, rule)
    await doorway.open()  # first: where another process runs on this store, this one must touch nothing
    sender = asyncio.create_task(app.outbox.run(), name="outbox")
    sender.add_done_callback(lambda _: stop.set())
    await app.runner.recover()
    for chat in app.chats.values():
        await chat.start(app.desk)
    await watch.start()
    await hooks.start()
    log.info("ready", chats=sorted(app.chats), hosts=len(app.settings.hosts))
    await stop.wait()
    await hooks.stop()
    await watch.stop()
    for chat in app.chats.values():
        await chat.stop()
    await doorway.close()
    await app.desk.drain(DRAIN_S / 2)
    await app.runner.drain(DRAIN_S / 2)
    await _let_out(app)
    sender.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sender


async def _let_out(app: App) -> None:
    """Give what is already decided a moment to leave; the rest waits in the store."""
    app.outbox.wake()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2.0):
            await app.outbox.drained()
