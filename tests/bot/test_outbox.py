"""The outbox: every notice is shown, once unless an answer was lost, in order, and no chat waits for another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from bot.chat.base import Address, SendFailed
from bot.outbox import IN_ORDER, KEEP_DAYS, LONGEST_WAIT_S, PATIENCE_S, Outbox
from bot.store import Store
from bot.store.tables import buttons, events, messages
from handlers.reply import Button, Code, Fold, Line, Reply, Table
from remote.text import Mono, T
from tests.bot.chats import Crash, Fault, MemoryChat, note
from tests.bot.mortal import Life, MortalChat, MortalStore, end
from tests.bot.waiting import until
from tests.clock import StandingClock

OPS = Address("console", "ops")
DEV = Address("console", "dev")


@asynccontextmanager
async def running(outbox: Outbox) -> AsyncIterator[Outbox]:
    """The outbox at work until the block ends."""
    task = asyncio.create_task(outbox.run())
    try:
        yield outbox
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def post(outbox: Outbox, store: Store, to: Address, reply: Reply, key: str, *, fresh: bool = False) -> None:
    async with store.begin() as tx:
        await outbox.post(tx, to, reply, key, fresh=fresh)
    outbox.wake()


async def the_row(store: Store, key: str) -> Any:  # noqa: ANN401 - a row of messages
    async with store.connect() as tx:
        return (await tx.execute(select(messages).where(messages.c.key == key))).one()


async def drained(outbox: Outbox) -> None:
    async with asyncio.timeout(20):
        await outbox.drained()


@pytest.fixture
def chat() -> MemoryChat:
    return MemoryChat()


@pytest.fixture
def outbox(store: Store, chat: MemoryChat, clock: StandingClock) -> Outbox:
    return Outbox(store, {"console": chat}, clock)


async def test_a_message_is_shown_once(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)

    assert chat.calls == ["send ops one"]


async def test_what_did_not_change_is_not_edited(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    lines = Code(("one", "two"))
    reply = Reply((Table(((Mono("a"), 1),)), lines, Fold(T("more"), (lines,))), ((Button(T("Do"), "/do"),),))
    async with running(outbox):
        for _ in range(3):
            await post(outbox, store, OPS, reply, "a")
            await drained(outbox)

    assert len(chat.calls) == 1


async def test_another_reply_under_its_key_edits_it(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        await post(outbox, store, OPS, note("two"), "a")
        await drained(outbox)

    assert chat.calls == ["send ops one", "edit m1 two"]
    assert chat.texts() == ["two"]


async def test_edits_that_nobody_saw_collapse_into_the_last(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    gate = asyncio.Event()
    chat.gate = lambda _: gate
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await until(lambda: len(chat.calls) == 1)
        for text in ("two", "three", "four"):
            await post(outbox, store, OPS, note(text), "a")
        gate.set()
        await drained(outbox)

    assert chat.calls == ["send ops one", "edit m1 four"]


async def test_a_key_is_one_message_in_each_chat(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    async with running(outbox):
        for place in (OPS, DEV, replace(OPS, thread="7")):
            await post(outbox, store, place, note("one"), "a")
        await drained(outbox)
        async with store.begin() as tx:
            await outbox.repost(tx, note("two"), "a")
        outbox.wake()
        await drained(outbox)

    assert chat.texts() == ["two", "two", "two"]


async def test_fresh_shows_it_anew_and_the_new_one_lives_on(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        await post(outbox, store, OPS, note("one"), "a", fresh=True)
        await drained(outbox)
        await post(outbox, store, OPS, note("two"), "a")
        await drained(outbox)

    assert chat.calls == ["send ops one", "send ops one", "edit m2 two"]
    assert not any(one.again for one in chat.shown)


async def test_asked_anew_while_an_edit_is_under_way_it_is_still_shown_anew(
    outbox: Outbox, store: Store, chat: MemoryChat
) -> None:
    gate = asyncio.Event()
    gate.set()
    chat.gate = lambda _: gate
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        gate.clear()
        await post(outbox, store, OPS, note("two"), "a")
        await until(lambda: len(chat.calls) == 2)
        await post(outbox, store, OPS, note("two"), "a", fresh=True)
        gate.set()
        await drained(outbox)

    assert chat.calls == ["send ops one", "edit m1 two", "send ops two"]


async def test_asked_anew_while_it_is_sent_it_is_shown_anew_and_the_new_one_lives_on(
    outbox: Outbox, store: Store, chat: MemoryChat
) -> None:
    gate = asyncio.Event()
    chat.gate = lambda _: gate
    quiet, loud = note("quiet"), replace(note("loud"), loud=True)
    async with running(outbox):
        await post(outbox, store, OPS, quiet, "a")
        await until(lambda: len(chat.calls) == 1)
        await post(outbox, store, OPS, loud, "a", fresh=True)
        gate.set()
        await drained(outbox)
        await post(outbox, store, OPS, note("final"), "a")
        await drained(outbox)

    assert chat.calls == ["send ops quiet", "send ops loud", "edit m2 final"]
    assert not any(one.again for one in chat.shown)


async def test_edited_while_it_is_sent_it_is_no_second_message(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    gate = asyncio.Event()
    chat.gate = lambda _: gate
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await until(lambda: len(chat.calls) == 1)
        await post(outbox, store, OPS, note("two"), "a")
        gate.set()
        await drained(outbox)

    assert chat.calls == ["send ops one", "edit m1 two"]


async def test_what_was_asked_for_anew_before_its_send_began_is_sent_as_it_is_now(
    outbox: Outbox, store: Store, chat: MemoryChat
) -> None:
    await post(outbox, store, OPS, note("quiet"), "a")
    async with store.connect() as tx:
        row = (await tx.execute(select(messages))).one()
    await post(outbox, store, OPS, replace(note("loud"), loud=True), "a", fresh=True)
    await outbox._deliver(row)
    assert chat.calls == []
    async with running(outbox):
        await drained(outbox)

    assert chat.calls == ["send ops loud"]


async def test_a_chat_is_told_in_order(outbox: Outbox, store: Store, chat: MemoryChat, clock: StandingClock) -> None:
    chat.faults = {1: Fault(SendFailed("502")), 3: Fault(SendFailed("502"))}
    async with running(outbox):
        for n in range(4):
            await post(outbox, store, OPS, note(f"{n}"), f"{n}")
        await patiently(outbox, clock)

    assert chat.texts() == ["0", "1", "2", "3"]
    assert not any(one.again for one in chat.shown)


async def test_one_that_fails_again_and_again_lets_the_others_pass(
    outbox: Outbox, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    chat.faults = {n: Fault(SendFailed("502")) for n in range(1, IN_ORDER + 1)}
    async with running(outbox):
        await post(outbox, store, OPS, note("poison"), "p")
        await post(outbox, store, OPS, note("other"), "o")
        await patiently(outbox, clock)

    assert sorted(chat.texts()) == ["other", "poison"]
    assert len(chat.calls) == IN_ORDER + 2


async def test_a_slow_chat_delays_no_other(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    gate = asyncio.Event()
    chat.gate = lambda to: gate if to == OPS else None
    async with running(outbox):
        await post(outbox, store, OPS, note("slow"), "a")
        for n in range(3):
            await post(outbox, store, DEV, note(f"{n}"), f"{n}")
        await until(lambda: len(chat.texts("dev")) == 3)
        assert chat.texts("ops") == []
        gate.set()
        await drained(outbox)

    assert chat.texts("ops") == ["slow"]


async def test_a_message_for_a_chat_that_does_not_run_waits(store: Store, chat: MemoryChat, clock: StandingClock) -> None:
    outbox = Outbox(store, {"console": chat}, clock)
    async with running(outbox):
        await post(outbox, store, Address("telegram", "1"), note("one"), "a")
        await drained(outbox)
    telegram = MemoryChat("telegram")
    later = Outbox(store, {"telegram": telegram}, clock)
    async with running(later):
        await drained(later)

    assert (chat.calls, telegram.calls) == ([], ["send 1 one"])


async def test_a_429_waits_as_long_as_it_says_and_holds_its_chat(
    outbox: Outbox, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    chat.faults = {1: Fault(SendFailed("429", retry_after_s=30))}
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        await post(outbox, store, OPS, note("one more"), "a")
        await post(outbox, store, OPS, note("two"), "b")
        clock.go(29.9)
        outbox.wake()
        await drained(outbox)
        assert chat.shown == []
        clock.go(0.2)
        outbox.wake()
        await drained(outbox)

    assert chat.texts() == ["one more", "two"]


async def test_what_failed_for_good_is_not_tried_again_until_there_is_news(
    outbox: Outbox, store: Store, chat: MemoryChat
) -> None:
    chat.faults = {1: Fault(SendFailed("kicked", permanent=True))}
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await post(outbox, store, OPS, note("other"), "b")
        await drained(outbox)
        assert chat.texts() == ["other"]
        async with store.connect() as tx:
            failed = (await tx.execute(select(messages.c.failed).where(messages.c.key == "a"))).scalar_one()
        await post(outbox, store, OPS, note("two"), "a")
        await drained(outbox)

    assert failed == "kicked"
    assert chat.texts() == ["other", "two"]


async def test_a_message_that_is_gone_is_sent_anew(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        chat.shown.clear()  # somebody deleted it
        await post(outbox, store, OPS, note("two"), "a")
        await drained(outbox)

    assert chat.calls == ["send ops one", "edit m1 two", "send ops two"]
    assert not chat.shown[0].again


@pytest.mark.parametrize("trouble", [SendFailed("timeout", maybe_shown=True), RuntimeError("a fault of ours")])
async def test_a_send_without_an_answer_says_so_the_second_time(
    trouble: Exception, outbox: Outbox, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    chat.faults = {1: Fault(trouble, "after")}
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await patiently(outbox, clock)
        await post(outbox, store, OPS, note("two"), "a")
        await drained(outbox)

    assert [(one.text, one.again) for one in chat.shown] == [("one", False), ("two", True)]


async def test_an_edit_without_an_answer_is_only_edited_again(
    outbox: Outbox, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    chat.faults = {2: Fault(SendFailed("timeout", maybe_shown=True), "after")}
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        await post(outbox, store, OPS, note("two"), "a")
        await patiently(outbox, clock)

    assert chat.calls == ["send ops one", "edit m1 two", "edit m1 two"]


def offer(*commands: str, text: str = "offer") -> Reply:
    return Reply((Line(T(text)),), (tuple(Button(T("Do"), command) for command in commands),))


async def test_a_press_means_its_command_only_on_its_own_message(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    async with running(outbox):
        await post(outbox, store, OPS, offer("/approve a", "/decline a"), "plan:a")
        await post(outbox, store, OPS, offer("/approve b"), "plan:b")
        await drained(outbox)
    first, second = chat.shown
    token = first.tokens["/approve a"]

    press = await outbox.press(token, OPS, first.id)
    assert press is not None
    assert (press.command, press.key, press.address) == ("/approve a", "plan:a", OPS)
    assert await outbox.press(token, OPS, second.id) is None
    assert await outbox.press(token, DEV, first.id) is None
    assert await outbox.press(token, Address("telegram", "ops"), first.id) is None
    assert await outbox.press("guessed", OPS, first.id) is None
    assert len({*first.tokens.values(), *second.tokens.values()}) == 3
    assert all(len(one) <= 64 for one in first.tokens.values())  # Telegram's callback_data


async def test_an_edit_keeps_the_tokens_of_what_it_still_offers(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    async with running(outbox):
        await post(outbox, store, OPS, offer("/approve a", "/details a"), "a")
        await drained(outbox)
        before = chat.shown[0].tokens
        await post(outbox, store, OPS, offer("/details a", "/undo a", text="done"), "a")
        await drained(outbox)
    after = chat.shown[0].tokens

    assert after["/details a"] == before["/details a"]
    assert "/undo a" in after
    old = await outbox.press(before["/approve a"], OPS, "m1")
    assert old is not None  # a phone that has not caught up gets an honest answer, from the plan's own state
    assert old.command == "/approve a"


async def test_a_message_left_behind_takes_no_press(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    async with running(outbox):
        await post(outbox, store, OPS, offer("/approve a"), "a")
        await drained(outbox)
        await post(outbox, store, OPS, offer("/approve a"), "a", fresh=True)
        await drained(outbox)
    old, new = chat.shown

    assert await outbox.press(old.tokens["/approve a"], OPS, old.id) is None
    assert await outbox.press(new.tokens["/approve a"], OPS, new.id) is not None


async def test_an_event_is_seen_once(outbox: Outbox, store: Store) -> None:
    async with store.begin() as tx:
        assert not await outbox.known(tx, "update:1")
        assert not await outbox.seen(tx, "update:1")
    async with store.begin() as tx:
        assert await outbox.known(tx, "update:1")
        assert await outbox.seen(tx, "update:1")


async def test_what_was_shown_long_ago_is_forgotten_with_its_buttons(
    outbox: Outbox, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    chat.faults = {2: Fault(SendFailed("kicked", permanent=True))}
    async with running(outbox):
        await post(outbox, store, OPS, offer("/approve a"), "old")
        await post(outbox, store, OPS, note("never"), "failed")
        await drained(outbox)
        await post(outbox, store, Address("telegram", "1"), note("waits"), "waiting")
        async with store.begin() as tx:
            await outbox.seen(tx, "update:1")
        clock.moment += timedelta(days=KEEP_DAYS, seconds=1)
        await post(outbox, store, OPS, note("new"), "new")
        await drained(outbox)
        await outbox.prune()

    async with store.connect() as tx:
        assert set((await tx.execute(select(messages.c.key))).scalars()) == {"waiting", "new"}
        assert (await tx.execute(select(buttons))).all() == []
        assert (await tx.execute(select(events))).all() == []


async def test_an_end_of_the_process_lets_no_delivery_go_on(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    chat.gate = lambda _: asyncio.Event()
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await until(lambda: len(chat.calls) == 1)

    assert outbox._lanes == {}
    assert chat.shown == []


NOTICES = ((OPS, "0"), (DEV, "1"), (OPS, "2"), (OPS, "3"))


async def one_life(store: Store, clock: StandingClock, life: Life, chat: MortalChat) -> None:
    """Tell some notices and edit one of them, until done or dead."""
    chat.life = life
    mortal = MortalStore(store, life)
    outbox = Outbox(mortal, {"console": chat}, clock)

    async def live() -> None:
        for place, key in NOTICES:
            await post(outbox, mortal, place, note(f"notice {key}"), key)
        await outbox.drained()
        await post(outbox, mortal, OPS, note("notice 0 edited"), "0")
        await outbox.drained()

    run, alive, death = (asyncio.create_task(work) for work in (outbox.run(), live(), life.over.wait()))
    async with asyncio.timeout(30):
        await asyncio.wait((alive, death), return_when=asyncio.FIRST_COMPLETED)
    death.cancel()
    if not life.over.is_set():
        run.cancel()
    outbox.wake()
    results = await end(run, alive, death, *outbox._lanes.values())
    assert all(result is None or isinstance(result, Crash | asyncio.CancelledError | bool) for result in results), results


async def calls_of_a_whole_life(store: Store, clock: StandingClock) -> list[str]:
    life = Life()
    await one_life(store, clock, life, MortalChat())
    return life.names


async def test_wherever_the_process_dies_each_notice_is_shown_and_at_most_one_a_chat_twice(
    migrated: object, tmp_path: object
) -> None:
    from pathlib import Path
    from shutil import copy

    from bot.store import open_store

    async def fresh(name: str) -> Store:
        path = Path(str(tmp_path)) / name
        copy(Path(str(migrated)), path)
        return await open_store(f"sqlite:///{path}")

    clock = StandingClock()
    store = await fresh("whole.db")
    names = await calls_of_a_whole_life(store, clock)
    await store.close()
    assert names.count("send") == 4
    assert names.count("edit") == 1

    for ends_at in range(1, len(names) + 1):
        store, chat = await fresh(f"{ends_at}.db"), MortalChat()
        life = Life(ends_at)
        await one_life(store, clock, life, chat)
        last = life.names[ends_at - 1]
        await one_life(store, clock, Life(), chat)
        await store.close()

        texts = {key: [one for one in chat.shown if one.text.startswith(f"notice {key}")] for _, key in NOTICES}
        assert all(texts.values()), (ends_at, last)
        # One answer a chat can be lost at once, for its messages go one after the other.
        for place in (OPS, DEV):
            extra = len(chat.texts(place.chat)) - sum(to == place for to, _ in NOTICES)
            assert extra <= 1, (ends_at, last, chat.calls)
        # Shown twice only if it had been shown when the answer was lost; then the second one says so and lives on.
        twice = [shown for shown in texts.values() if len(shown) > 1]
        assert all(shown[1].again for shown in twice)
        assert texts["0"][-1].text == "notice 0 edited", (ends_at, last)
        assert list(dict.fromkeys(one.text[:8] for one in chat.shown if one.to == OPS)) == ["notice 0", "notice 2", "notice 3"]


async def patiently(outbox: Outbox, clock: StandingClock) -> None:
    """Let time pass until nothing waits."""
    for _ in range(2 * IN_ORDER):
        await drained(outbox)
        clock.go(61)
        outbox.wake()
    await drained(outbox)


class SlowStore(Store):
    """A store one of whose answers takes its time."""

    def __init__(self, store: Store, number: int) -> None:
        super().__init__(store._engine)
        self._turn = store._turn
        self._number = number
        self.reads = 0
        self.arrives = asyncio.Event()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        self.reads += 1
        slow = self.reads == self._number
        async with super().connect() as tx:
            yield tx
        if slow:
            await self.arrives.wait()


async def test_what_was_shown_while_the_store_answered_is_not_shown_again(
    store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    gate, slow = asyncio.Event(), SlowStore(store, 2)
    chat.gate = lambda _: gate
    async with running(Outbox(slow, {"console": chat}, clock)) as outbox:
        await post(outbox, slow, OPS, note("a"), "a")
        await until(lambda: slow.reads == 1)
        outbox.wake()
        await until(lambda: slow.reads == 2)  # it still waits, says the answer that comes late
        gate.set()
        await until(lambda: bool(chat.shown) and not outbox._lanes)
        slow.arrives.set()
        await post(outbox, slow, DEV, note("b"), "b")
        await until(lambda: any(one.to == DEV for one in chat.shown))
        await drained(outbox)

    assert len(chat.shown) == 2


Space = Literal["enough", "no page more", "none"]


class FullStore(Store):
    """A store whose disk may be full: no transaction begins, or one is refused that changes a page (others are no writes)."""

    def __init__(self, store: Store) -> None:
        super().__init__(store._engine)
        self._turn = store._turn
        self.space: Space = "enough"
        self.refused = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        if self.space == "none":
            self._refuse()
        async with super().begin() as tx:
            before = await self._rows(tx)
            yield tx
            if self.space != "enough" and await self._rows(tx) != before:
                self._refuse()

    def _refuse(self) -> None:
        self.refused += 1
        raise OperationalError("COMMIT", {}, Exception("database or disk is full"))

    async def _rows(self, tx: AsyncConnection) -> Sequence[Any]:
        return (await tx.execute(select(messages))).all()


@pytest.fixture
def full(store: Store) -> FullStore:
    return FullStore(store)


FULL = pytest.mark.parametrize("space", ["no page more", "none"])


def fills(chat: MemoryChat, full: FullStore, space: Space) -> None:
    """From the next call of the chat on the disk is full: its answer cannot be stored."""

    def gate(_: Address) -> None:
        full.space = space

    chat.gate = gate


def has_room(chat: MemoryChat, full: FullStore) -> None:
    chat.gate = lambda _: None
    full.space = "enough"


async def later(outbox: Outbox, clock: StandingClock, after_s: float = PATIENCE_S * 1.25) -> None:
    """Let time pass, and what is due by then be tried."""
    clock.go(after_s)
    outbox.wake()
    await drained(outbox)


@FULL
async def test_on_a_full_disk_a_message_is_sent_once_and_lives_on_when_there_is_room(
    space: Space, full: FullStore, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    fills(chat, full, space)
    async with running(Outbox(full, {"console": chat}, clock)) as outbox:
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        for _ in range(5):
            await later(outbox, clock)
        assert (await the_row(store, "a")).sending
        has_room(chat, full)
        await later(outbox, clock)
        assert (await the_row(store, "a")).message_id == "m1"
        await post(outbox, full, OPS, note("two"), "a")
        await drained(outbox)

    assert chat.calls == ["send ops one", "edit m1 two"]
    assert full.refused == 6


@FULL
async def test_on_a_full_disk_a_message_is_edited_once(
    space: Space, full: FullStore, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    async with running(Outbox(full, {"console": chat}, clock)) as outbox:
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        fills(chat, full, space)
        await post(outbox, store, OPS, note("two"), "a")
        await drained(outbox)
        for _ in range(5):
            await later(outbox, clock)
        has_room(chat, full)
        await later(outbox, clock)

    assert chat.calls == ["send ops one", "edit m1 two"]
    assert (await the_row(store, "a")).shown == 2


@FULL
async def test_on_a_full_disk_nothing_new_is_told_before_what_was_answered_is_stored(
    space: Space, full: FullStore, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    async with running(Outbox(full, {"console": chat}, clock)) as outbox:
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        fills(chat, full, space)
        await post(outbox, store, OPS, note("two"), "b")
        await drained(outbox)
        await post(outbox, store, OPS, note("one more"), "a")
        await post(outbox, store, OPS, note("three"), "c")
        await later(outbox, clock)
        assert chat.calls == ["send ops one", "send ops two"]
        has_room(chat, full)
        await later(outbox, clock)

    assert chat.calls[2:] == ["edit m1 one more", "send ops three"]


@FULL
async def test_what_cannot_be_marked_is_not_sent_and_bears_no_mark_later(
    space: Space, full: FullStore, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    async with running(Outbox(full, {"console": chat}, clock)) as outbox:
        await drained(outbox)
        full.space = space
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        await later(outbox, clock)
        assert chat.calls == []
        has_room(chat, full)
        await later(outbox, clock)

    assert [(one.text, one.again) for one in chat.shown] == [("one", False)]


@FULL
async def test_on_a_full_disk_a_429_is_kept_and_holds_its_chat(
    space: Space, full: FullStore, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    chat.faults = {1: Fault(SendFailed("429", retry_after_s=300))}
    fills(chat, full, space)
    async with running(Outbox(full, {"console": chat}, clock)) as outbox:
        await post(outbox, store, OPS, note("one"), "a")
        await post(outbox, store, OPS, note("two"), "b")
        await drained(outbox)
        await later(outbox, clock, 100)
        has_room(chat, full)
        await later(outbox, clock, 199)
        assert chat.calls == ["send ops one"]
        await later(outbox, clock, 2)

    assert [(one.text, one.again) for one in chat.shown] == [("one", False), ("two", False)]


@FULL
async def test_on_a_full_disk_a_send_without_an_answer_says_so_the_second_time(
    space: Space, full: FullStore, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    chat.faults = {1: Fault(SendFailed("timeout", maybe_shown=True), "after")}
    fills(chat, full, space)
    async with running(Outbox(full, {"console": chat}, clock)) as outbox:
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        await later(outbox, clock)
        assert len(chat.calls) == 1
        has_room(chat, full)
        await patiently(outbox, clock)

    assert [(one.text, one.again) for one in chat.shown] == [("one", False), ("one", True)]


@pytest.mark.parametrize(
    ("fresh", "calls"), [(False, ["send ops one", "edit m1 two"]), (True, ["send ops one", "send ops two"])], ids=["edit", "anew"]
)
async def test_news_of_a_message_whose_answer_is_not_stored_yet_are_told_as_ever(
    *, fresh: bool, calls: list[str], full: FullStore, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    fills(chat, full, "none")
    async with running(Outbox(full, {"console": chat}, clock)) as outbox:
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        await post(outbox, store, OPS, note("two"), "a", fresh=fresh)
        has_room(chat, full)
        await later(outbox, clock)

    assert chat.calls == calls
    assert not any(one.again for one in chat.shown)


async def test_news_of_a_message_that_is_failing_for_good_are_tried(
    full: FullStore, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    chat.faults = {1: Fault(SendFailed("kicked", permanent=True))}
    fills(chat, full, "none")
    async with running(Outbox(full, {"console": chat}, clock)) as outbox:
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        await post(outbox, store, OPS, note("two"), "a")
        has_room(chat, full)
        await patiently(outbox, clock)

    assert chat.calls == ["send ops one", "send ops two"]


async def test_what_was_not_stored_in_an_earlier_life_is_sent_once_more_and_says_so(
    full: FullStore, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    fills(chat, full, "no page more")
    async with running(Outbox(full, {"console": chat}, clock)) as outbox:
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
    has_room(chat, full)
    async with running(Outbox(full, {"console": chat}, clock)) as outbox:
        await drained(outbox)

    assert [(one.text, one.again) for one in chat.shown] == [("one", False), ("one", True)]


async def test_a_disk_that_is_full_at_the_start_is_waited_for(
    full: FullStore, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    fills(chat, full, "no page more")
    async with running(Outbox(full, {"console": chat}, clock)) as outbox:
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
    with capture_logs() as logs:
        async with running(Outbox(full, {"console": chat}, clock)) as outbox:
            await until(lambda: full.refused >= 2)
            await post(outbox, store, OPS, note("two"), "b")
            await until(lambda: full.refused >= 3)
            assert len(chat.calls) == 1
            has_room(chat, full)
            outbox.wake()
            await drained(outbox)

    assert [(one.text, one.again) for one in chat.shown] == [("one", False), ("one", True), ("two", False)]
    assert [line["event"] for line in logs] == ["deliveries rest"]


async def test_a_store_that_refuses_is_tried_ever_more_seldom_and_told_of_once(
    full: FullStore, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    with capture_logs() as logs:
        async with running(Outbox(full, {"console": chat}, clock)) as outbox:
            await drained(outbox)
            for n in range(2):
                full.space, began, tries = "none", full.refused, []
                await post(outbox, store, OPS, note(f"{n}"), f"{n}")
                await drained(outbox)
                for _ in range(300):
                    await later(outbox, clock, 1)
                    tries.append(full.refused - began)
                has_room(chat, full)
                await later(outbox, clock)
                assert 3 <= tries[9] <= 5  # at once, and after about 1, 3 and 7 s
                assert 2 <= tries[-1] - tries[149] <= 4  # about once a minute

    assert chat.texts() == ["0", "1"]
    assert [(line["event"], line["log_level"]) for line in logs] == 2 * [
        ("deliveries rest", "error"),
        ("deliveries go on", "info"),
    ]


async def test_a_chat_that_rests_is_left_alone_however_often_the_outbox_is_woken(
    full: FullStore, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    async with running(Outbox(full, {"console": chat}, clock)) as outbox:
        await drained(outbox)
        full.space = "none"
        await post(outbox, store, OPS, note("one"), "a")
        await until(lambda: full.refused == 1)
        for n in range(10):
            await post(outbox, store, OPS, note(f"{n}"), f"{n}")
            await drained(outbox)

    assert full.refused == 1


async def test_what_a_chat_says_in_half_characters_is_kept(outbox: Outbox, store: Store, chat: MemoryChat) -> None:
    chat.faults = {1: Fault(SendFailed("kicked \ud83d", permanent=True))}
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)

    assert (await the_row(store, "a")).failed == "kicked ?"


async def test_a_message_due_later_than_any_pause_lasts_is_due(
    outbox: Outbox, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    await post(outbox, store, OPS, note("one"), "a")
    await post(outbox, store, DEV, note("waits"), "b")
    async with store.begin() as tx:
        await tx.execute(update(messages).where(messages.c.key == "b").values(due_at=clock.now() + timedelta(days=365)))
    clock.go(-LONGEST_WAIT_S)
    async with running(outbox):
        await drained(outbox)
        assert chat.texts() == ["waits"]  # the other may be waiting because its chat asked for it
        await later(outbox, clock, -1)

    assert chat.texts() == ["waits", "one"]


async def test_a_chat_that_asks_for_hours_is_given_them(
    outbox: Outbox, store: Store, chat: MemoryChat, clock: StandingClock
) -> None:
    chat.faults = {1: Fault(SendFailed("429", retry_after_s=7200))}
    async with running(outbox):
        await post(outbox, store, OPS, note("one"), "a")
        await drained(outbox)
        await later(outbox, clock, 7199)
        assert chat.shown == []
        await later(outbox, clock, 2)

    assert chat.texts() == ["one"]
