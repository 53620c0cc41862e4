"""A process with hooks on loopback, a host whose journal was recorded, and Sentry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import func, select

from bot.alerts.kills import KillRule
from bot.app import build
from bot.hooks.service import Hooks
from bot.i18n import render
from bot.parts import App
from bot.settings import HookSettings, HostSettings, Settings
from bot.store.tables import events, hooks, kills, messages
from handlers.reply import Fold, Line, Title
from remote.connect import Conversation, Target
from remote.errors import HostError
from remote.facts.base import Answers, Fact, Unreadable
from remote.text import T
from tests.bot.chats import MemoryChat, Shown
from tests.clock import StandingClock
from tests.emulators.sentry import Sentry

RECORDED = Path(__file__).parents[2] / "recorded" / "debian12" / "journal"
AFTER_THE_KILL = datetime(2026, 11, 23, 23, 51, tzinfo=UTC)  # gunicorn-oom.jsonl: pid 415 at 23:50:56
ALERT_TOKEN = "alertmanager-s own token"


def lines(name: str) -> tuple[bytes, ...]:
    """A recorded journal."""
    return tuple((RECORDED / f"{name}.jsonl").read_bytes().splitlines())


@dataclass
class RecordedHost:
    """A host with this journal. While `down` it does not answer; while `gate` is shut it answers later."""

    journal: Sequence[bytes] = ()
    down: bool = False
    unreadable: bool = False
    words: tuple[str, ...] = ()
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    target: Target = field(default_factory=lambda: Target("prod", "203.0.113.7"))
    host_key: str = "SHA256:test"

    async def ask(self, *facts: Fact[Any]) -> Answers:
        self.asked += 1
        await self.gate.wait()
        if self.down:
            raise HostError("unreachable", T("It does not answer."))
        return Answers({fact: self._answer(fact) for fact in facts})

    def _answer(self, fact: Fact[Any]) -> object:
        if fact.name != "kills":
            return Unreadable("unsupported", T("not here"))
        if self.unreadable:
            return Unreadable("denied", T("The journal may not be read."))
        return fact.parse("\n".join((*self.words, "= entries", *(line.decode() for line in self.journal))))

    async def sample(self, *facts: Fact[Any]) -> Answers:
        return await self.ask(*facts)

    def stream(self, script: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        del script
        raise HostError("refused", T("Nothing to follow here."))

    def converse(self) -> AbstractAsyncContextManager[Conversation]:
        raise HostError("refused", T("Nothing to change here."))

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class World:
    """One life of a process with hooks."""

    app: App
    hooks: Hooks
    chat: MemoryChat
    host: RecordedHost
    sentry: Sentry
    clock: StandingClock

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.hooks.port}/hooks/"

    async def from_sentry(self, body: bytes, *, within_s: float = 20.0) -> int:
        """A webhook, as Sentry sends it."""
        return await self.sentry.send(self.url + "sentry", body, within_s=within_s)

    async def from_alertmanager(self, *alerts: dict[str, Any], token: str = ALERT_TOKEN) -> int:
        """A webhook, as Alertmanager sends it."""
        body = {"version": "4", "groupKey": "{}", "status": "firing", "receiver": "memwarden", "alerts": alerts}
        headers = {"Authorization": f"Bearer {token}"}
        status, _ = await self.post("alertmanager", json.dumps(body).encode(), headers)
        return status

    async def post(
        self, path: str, body: bytes, headers: dict[str, str] | None = None, method: str = "POST"
    ) -> tuple[int, bytes]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, data=body, headers=headers) as answer,
        ):
            return answer.status, await answer.read()

    async def settle(self) -> list[str]:
        """Wait until nothing is due: no look, no note, no message. Gives what the chat shows."""
        asker = self.hooks._asker
        assert asker is not None
        async with asyncio.timeout(20):
            while True:
                self.hooks.wake()
                work = list(asker._work.values())
                if work:
                    await asyncio.wait(work)
                elif await self._nothing_due():
                    break
                else:
                    await asyncio.sleep(0.005)
        await self.app.outbox.drained()
        return self.texts()

    async def _nothing_due(self) -> bool:
        asker = self.hooks._asker
        assert asker is not None
        now, rests = self.clock.now(), dict(asker._rests)  # as they are while nothing runs
        async with self.app.store.connect() as tx:
            rows = (await tx.execute(select(hooks))).all()
        looks = [f"look at {row.host}" for row in rows if row.state == "asked" and row.due_at <= now]
        notes = ["notes" for row in rows if row.note is not None and row.due_at <= now]
        return all(rests.get(name, now) > now for name in (*looks, *notes))

    def texts(self) -> list[str]:
        """What the chat shows, a string a message."""
        return [shown(one) for one in self.chat.shown]

    async def rows(self) -> dict[str, int]:
        """How many rows there are of each kind."""
        async with self.app.store.connect() as tx:
            counts = {
                one.name: (await tx.execute(select(func.count()).select_from(one))).scalar()
                for one in (events, hooks, kills, messages)
            }
        return {name: int(count or 0) for name, count in counts.items()}

    async def states(self) -> list[str]:
        async with self.app.store.connect() as tx:
            return list((await tx.execute(select(hooks.c.state).order_by(hooks.c.at, hooks.c.id))).scalars())


def shown(one: Shown) -> str:
    """A message's sentences."""
    blocks = [block for block in one.reply.blocks if isinstance(block, Title | Line)]
    folds = [" [+]" for block in one.reply.blocks if isinstance(block, Fold)]
    return "\n".join(render(block.text, "en") for block in blocks) + "".join(folds)


def settings(store_url: str, sentry: Sentry, **more: Any) -> Settings:  # noqa: ANN401 - settings
    """Hooks of both sources, on a port that the kernel chooses."""
    parts = {
        "listen": "127.0.0.1:0",
        "sentry": {
            "secret": sentry.secret,
            "hosts": {"teaching-panel": "prod", "42": "prod"},
            "organization": "acme",
            "base_url": sentry.url or "https://sentry.example.com",
            "token": sentry.token,
            **more,
        },
        "alertmanager": {
            "token": ALERT_TOKEN,
            "hosts": {"203.0.113.7:9100": "prod"},
            "base_url": "https://alerts.example.com/",
        },
    }
    return Settings(
        store=store_url, hosts={"prod": HostSettings(address="203.0.113.7")}, hooks=HookSettings.model_validate(parts)
    )


@asynccontextmanager
async def living(
    store_url: str,
    sentry: Sentry,
    host: RecordedHost,
    clock: StandingClock,
    chat: MemoryChat | None = None,
    change: Callable[[Settings], Settings] = lambda one: one,
    **more: Any,  # noqa: ANN401 - settings
) -> AsyncIterator[World]:
    """One life: from start to stop."""
    chat = chat or MemoryChat()
    async with build(change(settings(store_url, sentry, **more)), {"console": chat}, clock) as app:
        app.fleet._open["prod"] = host
        hooked = Hooks(app, KillRule(app.settings, app.store, app.outbox, app.clock, app.book.killed))
        sender = asyncio.create_task(app.outbox.run())
        await hooked.start()
        try:
            yield World(app, hooked, chat, host, sentry, clock)
        finally:
            await hooked.stop()
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
