"""The outbox: nothing is sent but from here. A row is one living message; the deliverer makes the chat show what it wants.

A notice is decided once (its key is unique in a chat), sent at least once, and shown once unless the answer to its send was
lost: then it may show one more time, says so, and that one becomes the living message. What a chat has answered is kept in memory
until the store has taken it: a full disk repeats nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import and_, case, delete, insert, or_, select, update
from sqlalchemy.exc import OperationalError

from bot.chat.base import Address, Chat, SendFailed
from bot.store.tables import buttons, events, messages
from handlers.reply import Reply, dump_reply, load_reply

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection

    from bot.store import Store
    from handlers.ports.clock import Clock

log = structlog.get_logger(__name__)

PATIENCE_S = 60.0  # the longest pause between two tries of one message, give or take a quarter
LONGEST_WAIT_S = 600.0  # what a chat may have asked for in an earlier life; in this one we know what it asked for
IN_ORDER = 4  # a message that failed so often lets those behind it in its chat go first
KEEP_DAYS = 30  # shown messages older than this are forgotten, with their buttons


@dataclass(frozen=True, slots=True)
class Press:
    """What a button's token stands for: the command, and the message that shows it."""

    command: str
    key: str
    message_id: str
    address: Address


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a chat said of a message, as the change of its row, and whether that row is still the one it speaks of."""

    where: ColumnElement[bool]
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Rest:
    """A chat's lane rests, after it ended in trouble so many times in a row."""

    times: int
    until: datetime


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
        self._answers: dict[int, _Answer] = {}  # by the row's id; one at most, for it is stored before the chat is called again
        self._rests: dict[tuple[str, str], _Rest] = {}
        self._longest_wait_s = LONGEST_WAIT_S

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
        await self._mark_what_was_cut()
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

    async def _mark_what_was_cut(self) -> None:
        """Nothing is sent before the store has these marks. A disk that is full at the start is waited for."""
        cut = update(messages).where(messages.c.sending).values(sending=False, again=True)
        for times in count(1):
            try:
                async with self._store.begin() as tx:
                    await tx.execute(cut)
            except OperationalError:
                if times == 1:
                    log.exception("deliveries rest")
            else:
                return
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _pause_s(times))

    async def drained(self) -> None:
        """Wait until nothing that is due waits for a running chat."""
        while True:
            async with self._store.connect() as tx:
                waits = any(self._is_due(row) for row in self._turns((await tx.execute(self._waiting())).all()))
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
        for row in self._turns(rows):
            lane, wait_s = (row.platform, row.chat), self._wait_s(row)
            if wait_s > 0:
                pause = wait_s if pause is None else min(pause, wait_s)
            elif lane not in self._lanes:
                self._lanes[lane] = asyncio.create_task(self._lane(lane, row), name=f"outbox {row.platform}")
        return pause

    def _turns(self, rows: Sequence[Any]) -> list[Any]:
        """The rows whose turn it is, by chat; first those that only wait for the store, so that nothing new is told before."""
        return [*(row for row in rows if row.id in self._answers), *_heads(rows)]

    def _is_due(self, row: Any) -> bool:  # noqa: ANN401 - a row of messages
        return self._wait_s(row) == 0

    def _wait_s(self, row: Any) -> float:  # noqa: ANN401 - a row of messages
        """How long it is not to be touched; 0 when it is due."""
        rest = self._rests.get((row.platform, row.chat))
        rest_s = 0.0 if rest is None else self._seconds_to(rest.until, PATIENCE_S * 1.25)
        return max(rest_s, 0.0 if row.id in self._answers else self._seconds_to(row.due_at, self._longest_wait_s))

    def _seconds_to(self, at: datetime, longest_s: float) -> float:
        """0 when it is time, also when it is further off than any pause: then the clock was set back."""
        wait_s = (at - self._clock.now()).total_seconds()
        return wait_s if 0 < wait_s <= longest_s else 0.0

    async def _lane(self, lane: tuple[str, str], row: Any) -> None:  # noqa: ANN401 - a row of messages
        """Deliver what is due in one chat, in order, `row` first."""
        query = self._waiting().where(messages.c.platform == lane[0], messages.c.chat == lane[1])
        try:
            while row is not None:
                await self._deliver(row)
                if self._rests.pop(lane, None):
                    log.info("deliveries go on", platform=lane[0])
                async with self._store.connect() as tx:
                    rows = (await tx.execute(query)).all()
                row = next((row for row in self._turns(rows) if self._is_due(row)), None)
        except Exception as trouble:  # noqa: BLE001 - it is told once, for a full disk may last for hours
            self._rest(lane, trouble)
        finally:
            del self._lanes[lane]
            self._ended += 1
            self._wake.set()  # for the next pause to be reckoned; a lane that rests is not started by it

    def _rest(self, lane: tuple[str, str], trouble: Exception) -> None:
        """Leave the chat alone for a while that grows. Only the first of a run of troubles is told."""
        times = self._rests[lane].times + 1 if lane in self._rests else 1
        self._rests[lane] = _Rest(times, self._clock.now() + timedelta(seconds=_pause_s(times)))
        if times == 1:
            log.error("deliveries rest", platform=lane[0], exc_info=trouble)

    async def _deliver(self, row: Any) -> None:  # noqa: ANN401 - a row of messages
        """Send or edit one message, unless its chat has answered before, and store the answer."""
        if row.id not in self._answers:
            tokens = await self._begin(row)
            if tokens is None:
                return  # it wants something else by now: the lane reads it again
            self._answers[row.id] = await self._show(row, tokens)
        answer = self._answers[row.id]
        async with self._store.begin() as tx:
            await tx.execute(update(messages).where(answer.where).values(**answer.values))
        del self._answers[row.id]

    async def _begin(self, row: Any) -> dict[str, str] | None:  # noqa: ANN401 - a row of messages
        """Its buttons' tokens, once the store knows that it is being sent; None when this is not what it wants any more."""
        if row.message_id is not None:
            async with self._store.connect() as tx:
                return await _tokens(tx, row.id)
        mine = and_(messages.c.id == row.id, messages.c.wanted == row.wanted)
        async with self._store.begin() as tx:
            tokens = await _tokens(tx, row.id)
            begun = await tx.execute(update(messages).where(mine).values(sending=True))
        return tokens if begun.rowcount else None

    async def _show(self, row: Any, tokens: Mapping[str, str]) -> _Answer:  # noqa: ANN401 - a row of messages
        """What the chat says when it is told."""
        mine = messages.c.id == row.id
        known: dict[str, Any] = {"shown": row.wanted, "attempts": 0}
        try:
            chat, to, reply = self._chats[row.platform], _address(row), load_reply(row.reply)
            if row.message_id is not None:
                await chat.edit(to, row.message_id, reply, tokens)
                return _Answer(mine, known)
            known |= {"message_id": await chat.send(to, reply, tokens, again=row.again), "sending": False, "again": False}
        except SendFailed as trouble:
            return self._not_shown(row, trouble)
        except Exception as trouble:
            # A fault of ours: it must neither end the lane nor hold it up for ever.
            log.exception("a message broke its chat", platform=row.platform, key=row.key)
            return self._not_shown(row, SendFailed(f"{type(trouble).__name__}: {trouble}", maybe_shown=True))
        # Meanwhile somebody may have asked for the message anew: an edit leaves `message_id` alone, and a send that is not
        # `sending` any more is left behind like any older message.
        return _Answer(and_(mine, messages.c.sending), known)

    def _not_shown(self, row: Any, trouble: SendFailed) -> _Answer:  # noqa: ANN401 - a row of messages
        attempts = row.attempts + (0 if trouble.retry_after_s else 1)
        pause_s = trouble.retry_after_s or _pause_s(attempts)
        self._longest_wait_s = max(self._longest_wait_s, pause_s)
        values: dict[str, Any] = {
            "sending": False,
            "attempts": attempts,
            "again": row.again or (trouble.maybe_shown and row.message_id is None),
            "due_at": self._clock.now() + timedelta(seconds=0 if trouble.gone else pause_s),
        }
        if trouble.gone:
            values["message_id"] = None
        if trouble.permanent:
            # What is wanted since then was not tried. SQLite takes no half of a surrogate pair, and a chat may say anything.
            why = str(trouble)[:500].encode(errors="replace").decode()
            values["failed"] = case((messages.c.wanted == row.wanted, why), else_=messages.c.failed)
        log.warning("message not shown", platform=row.platform, key=row.key, why=str(trouble), attempts=attempts)
        return _Answer(messages.c.id == row.id, values)

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


def _pause_s(times: int) -> float:
    """How long to wait after so many failures in a row."""
    return min(PATIENCE_S, 0.5 * 2.0 ** min(times, 10)) * (0.75 + secrets.randbelow(500) / 1000)


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
