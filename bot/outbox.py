"""The outbox: nothing is sent but from here. A row is one living message; the deliverer makes the chat show what it wants.

A notice is decided once (its key is unique in a chat), sent at least once, and shown once unless the answer to its send was
lost: then it may show one more time, says so, and that one becomes the living message.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import and_, delete, insert, or_, select, update

from bot.chat.base import Address, Chat, SendFailed
from bot.store.tables import buttons, events, messages
from handlers.reply import Reply, dump_reply, load_reply

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from bot.store import Store
    from handlers.ports.clock import Clock

log = structlog.get_logger(__name__)

PATIENCE_S = 60.0  # the longest pause between two tries of one message
IN_ORDER = 4  # a message that failed so often lets those behind it in its chat go first
KEEP_DAYS = 30  # shown messages older than this are forgotten, with their buttons


@dataclass(frozen=True, slots=True)
class Press:
    """What a button's token stands for: the command, and the message that shows it."""

    command: str
    key: str
    message_id: str
    address: Address


class Outbox:
    """Keeps what must be shown and shows it. `post` within the transaction that decides; `wake` after its commit."""

    def __init__(self, store: Store, chats: Mapping[str, Chat], clock: Clock) -> None:
        """`chats` by platform; one that is not running keeps its messages waiting."""
        self._store = store
        self._chats = chats
        self._clock = clock
        self._wake = asyncio.Event()
        self._lanes: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._ended = 0

    async def post(self, tx: AsyncConnection, to: Address, reply: Reply, key: str, *, fresh: bool = False) -> None:
        """Want `reply` shown in this chat under `key`: a new message, or an edit of the one that has this key.

        `fresh` shows it anew, below what was said since, when somebody asked for it again; the old one is left behind.
        """
        # As the row gives it back (tuples are lists there), so that what did not change is not edited.
        now, body = self._clock.now(), json.loads(json.dumps(dump_reply(reply)))
        place = and_(
            messages.c.key == key,
            messages.c.platform == to.platform,
            messages.c.chat == to.chat,
            messages.c.thread == to.thread,
        )
        row = (await tx.execute(select(messages).where(place))).one_or_none()
        if row is None:
            values = {
                "key": key,
                "platform": to.platform,
                "chat": to.chat,
                "thread": to.thread,
                "language": to.language,
            }
            made = await tx.execute(insert(messages).values(**values, reply=body, due_at=now, created_at=now))
            assert made.inserted_primary_key is not None  # noqa: S101 - for the type checker: an insert of one row
            await self._offer(tx, int(made.inserted_primary_key[0]), reply, anew=True)
        elif row.reply != body or fresh:
            if fresh:
                left = {"message_id": None, "shown": 0, "sending": False}
                await tx.execute(update(messages).where(messages.c.id == row.id).values(**left))
            # What waits because the chat asked for patience goes on waiting.
            due_at = row.due_at if row.failed is None else now
            await tx.execute(
                update(messages)
                .where(messages.c.id == row.id)
                .values(reply=body, wanted=row.wanted + 1, due_at=due_at, failed=None)
            )
            await self._offer(tx, row.id, reply)

    async def places(self, tx: AsyncConnection, key: str) -> tuple[Address, ...]:
        """Where the message with this key lives."""
        rows = await tx.execute(select(messages).where(messages.c.key == key))
        return tuple(_address(row) for row in rows)

    async def repost(self, tx: AsyncConnection, reply: Reply, key: str) -> None:
        """Edit the message with this key in every chat that has it."""
        for place in await self.places(tx, key):
            await self.post(tx, place, reply, key)

    async def known(self, tx: AsyncConnection, event_id: str) -> bool:
        """Whether this event came before."""
        return (await tx.execute(select(events.c.id).where(events.c.id == event_id))).first() is not None

    async def seen(self, tx: AsyncConnection, event_id: str) -> bool:
        """Whether this event came before; if not it is kept, in the transaction that keeps what it leads to."""
        if await self.known(tx, event_id):
            return True
        await tx.execute(insert(events).values(id=event_id, at=self._clock.now()))
        return False

    async def press(self, token: str, address: Address, message_id: str) -> Press | None:
        """What a press means; None when the token is unknown or does not belong to that message of that chat."""
        query = (
            select(buttons.c.command, messages).join(messages, buttons.c.message == messages.c.id).where(buttons.c.token == token)
        )
        async with self._store.connect() as tx:
            row = (await tx.execute(query)).one_or_none()
        if row is None or (row.platform, row.chat) != (address.platform, address.chat):
            return None
        # A thumb can be faster than the answer to our own send: then no id is known yet, and the token is proof enough.
        if row.message_id not in {None, message_id}:
            return None
        return Press(row.command, row.key, message_id, _address(row))

    def wake(self) -> None:
        """Something was committed: deliver at once."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver for ever. What a crash left in mid-send is sent again, marked so."""
        async with self._store.begin() as tx:
            await tx.execute(update(messages).where(messages.c.sending).values(sending=False, again=True))
        try:
            while True:
                self._wake.clear()
                pause = await self._start_lanes()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
        finally:
            lanes = list(self._lanes.values())
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    async def drained(self) -> None:
        """Wait until nothing that is due waits for a running chat."""
        while True:
            async with self._store.connect() as tx:
                waits = any(self._is_due(row) for row in _heads((await tx.execute(self._waiting())).all()))
            lanes = list(self._lanes.values())
            if not waits and not lanes:
                return
            self.wake()
            await (asyncio.wait(lanes) if lanes else asyncio.sleep(0.01))

    async def prune(self) -> None:
        """Forget what was shown long ago, and old event ids (Telegram keeps updates for a day at most)."""
        long_ago = self._clock.now() - timedelta(days=KEEP_DAYS)
        over = or_(messages.c.shown >= messages.c.wanted, messages.c.failed.is_not(None))
        async with self._store.begin() as tx:
            await tx.execute(delete(messages).where(messages.c.created_at < long_ago, over))
            await tx.execute(delete(events).where(events.c.at < long_ago))

    def _waiting(self) -> Any:  # noqa: ANN401 - a Select of the whole row
        running = list(self._chats)
        return (
            select(messages)
            .where(messages.c.shown < messages.c.wanted, messages.c.failed.is_(None), messages.c.platform.in_(running))
            .order_by(messages.c.id)
        )

    async def _start_lanes(self) -> float | None:
        """One task a chat with something due, so that a slow chat delays no other. Gives the seconds to the next due one."""
        while True:
            ended = self._ended
            async with self._store.connect() as tx:
                rows = (await tx.execute(self._waiting())).all()
            if ended == self._ended:
                break  # else a chat's task has ended meanwhile, and shown what is read here as waiting
        pause: float | None = None
        for row in _heads(rows):
            lane = (row.platform, row.chat)
            if not self._is_due(row):
                wait_s = (row.due_at - self._clock.now()).total_seconds()
                pause = wait_s if pause is None else min(pause, wait_s)
            elif lane not in self._lanes:
                self._lanes[lane] = asyncio.create_task(self._lane(lane, row), name=f"outbox {row.platform}")
        return pause

    def _is_due(self, row: Any) -> bool:  # noqa: ANN401 - a row of messages
        return bool(row.due_at <= self._clock.now())

    async def _lane(self, lane: tuple[str, str], row: Any) -> None:  # noqa: ANN401 - a row of messages
        """Deliver what is due in one chat, in order, `row` first."""
        query = self._waiting().where(messages.c.platform == lane[0], messages.c.chat == lane[1])
        try:
            while row is not None:
                await self._deliver(row)
                async with self._store.connect() as tx:
                    rows = (await tx.execute(query)).all()
                row = next((row for row in _heads(rows) if self._is_due(row)), None)
        finally:
            del self._lanes[lane]
            self._ended += 1
            self._wake.set()

    async def _deliver(self, row: Any) -> None:  # noqa: ANN401 - a row of messages
        """Send or edit one message, and keep what is known of it."""
        mine = messages.c.id == row.id
        known: dict[str, Any] = {"shown": row.wanted, "attempts": 0}
        try:
            chat, to, reply = self._chats[row.platform], _address(row), load_reply(row.reply)
            if row.message_id is None:
                async with self._store.begin() as tx:
                    tokens = await _tokens(tx, row.id)
                    begun = await tx.execute(update(messages).where(mine, messages.c.wanted == row.wanted).values(sending=True))
                if begun.rowcount == 0:
                    return  # it wants something else by now: the lane reads it again
                known |= {"message_id": await chat.send(to, reply, tokens, again=row.again), "sending": False, "again": False}
                mine = and_(mine, messages.c.sending)
            else:
                async with self._store.connect() as tx:
                    tokens = await _tokens(tx, row.id)
                await chat.edit(to, row.message_id, reply, tokens)
        except SendFailed as trouble:
            await self._not_shown(row, trouble)
            return
        except Exception as trouble:
            # A fault of ours: it must neither end the lane nor hold it up for ever.
            log.exception("a message broke its chat", platform=row.platform, key=row.key)
            await self._not_shown(row, SendFailed(f"{type(trouble).__name__}: {trouble}", maybe_shown=True))
            return
        # Meanwhile somebody may have asked for the message anew: an edit leaves `message_id` alone, and a send that is not
        # `sending` any more is left behind like any older message.
        async with self._store.begin() as tx:
            await tx.execute(update(messages).where(mine).values(**known))

    async def _not_shown(self, row: Any, trouble: SendFailed) -> None:  # noqa: ANN401 - a row of messages
        attempts = row.attempts + (0 if trouble.retry_after_s else 1)
        pause = trouble.retry_after_s or min(PATIENCE_S, 0.5 * 2 ** min(attempts, 10)) * (0.75 + secrets.randbelow(500) / 1000)
        values: dict[str, Any] = {
            "sending": False,
            "attempts": attempts,
            "again": row.again or (trouble.maybe_shown and row.message_id is None),
            "due_at": self._clock.now() + timedelta(seconds=0 if trouble.gone else pause),
        }
        if trouble.gone:
            values["message_id"] = None
        if trouble.permanent:
            values["failed"] = str(trouble)[:500]
        log.warning("message not shown", platform=row.platform, key=row.key, why=str(trouble), attempts=attempts)
        async with self._store.begin() as tx:
            await tx.execute(update(messages).where(messages.c.id == row.id).values(**values))

    async def _offer(self, tx: AsyncConnection, message: int, reply: Reply, *, anew: bool = False) -> None:
        """Give each button's command a token; a message that is edited keeps the tokens of what it still offers."""
        wanted = {button.command for row in reply.buttons for button in row}
        offered = select(buttons.c.command).where(buttons.c.message == message)
        known = set() if anew or not wanted else set((await tx.execute(offered)).scalars())
        new = sorted(wanted - known)
        if new:
            await tx.execute(
                insert(buttons), [{"token": secrets.token_urlsafe(12), "message": message, "command": c} for c in new]
            )


async def _tokens(tx: AsyncConnection, message: int) -> dict[str, str]:
    rows = await tx.execute(select(buttons.c.command, buttons.c.token).where(buttons.c.message == message))
    return {row.command: row.token for row in rows}


def _heads(rows: Iterable[Any]) -> list[Any]:
    """Of each chat's waiting messages (in order) the one whose turn it is; one that fails again and again is passed by."""
    heads: dict[tuple[str, str], Any] = {}
    passed: list[Any] = []
    for row in rows:
        if row.attempts >= IN_ORDER:
            passed.append(row)
        else:
            heads.setdefault((row.platform, row.chat), row)
    return [*heads.values(), *passed]


def _address(row: Any) -> Address:  # noqa: ANN401 - a row of messages
    return Address(row.platform, row.chat, row.thread, row.language)
