"""What was asked is kept, the host is looked at, and what is found is told: each step is a transaction, so that a crash between
two of them loses nothing and tells nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import and_, delete, func, insert, or_, select, true, update

from bot.alerts.kills import Sighted
from bot.alerts.routing import told_about
from bot.alerts.staged import is_staged
from bot.hooks import words
from bot.hooks.base import Outcome, Question, Source
from bot.hooks.words import Report
from bot.store.tables import hooks, meta
from remote.errors import HostError
from remote.facts.base import Unreadable
from remote.findings.past import BESIDE, judged, past

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from bot.alerts.kills import KillRule
    from bot.parts import App
    from handlers.reply import Reply
    from remote.findings.kill import Kill
    from remote.text import Text

log = structlog.get_logger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]

NEARBY = timedelta(minutes=15)  # a kill so near to a hook is what it is about
GIVE_UP = timedelta(hours=1)  # of looking at a host that does not answer; the watch tells what it missed anyway
NOTE_UP = timedelta(hours=24)  # of sending a note
QUIET = timedelta(hours=1)  # between two lines that say that nothing was found on a host
KEEP = timedelta(days=30)  # what was answered; as long as the ids of events are kept
EVERY = timedelta(seconds=30)  # between two looks at a host: reading its journal costs it something
LOOK_S = 90.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 15.0, 600.0


@dataclass(frozen=True, slots=True)
class Found:
    """A kill, and the key of the message that tells it (empty where none does)."""

    kill: Kill
    told: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a host brought. `partial` says why kills may be missing (`Journal.partial`)."""

    kills: tuple[Kill, ...]
    partial: str


class Asker:
    """Keeps questions and answers them, side by side for each host, one at a time of a host."""

    def __init__(self, app: App, sources: Mapping[str, Source], rule: KillRule) -> None:
        """Nothing is looked at before `run`."""
        self._app = app
        self._sources = sources
        self._rule = rule
        self._wake = asyncio.Event()
        self._work: dict[str, asyncio.Task[None]] = {}
        self._rests: dict[str, datetime] = {}  # until when each kind of work rests
        self._pruned: datetime | None = None

    async def take(self, source: Source, questions: Sequence[Question]) -> None:
        """Keep what is new of these questions. What was asked before is only read, so that sending it again costs no write."""
        async with self._app.store.connect() as tx:
            new = [question for question in questions if not await self._known(tx, source, question)]
        if new:
            async with self._app.store.begin() as tx:
                for question in new:
                    await self._keep(tx, source, question)
            self.wake()

    def wake(self) -> None:
        """Something is due: look at once."""
        self._wake.set()

    async def run(self) -> None:
        """Look, tell and leave notes for ever; what was asked in an earlier life comes first."""
        while True:
            self._wake.clear()
            try:
                await self._prune()
                pause_s = await self._start_what_is_due()
            except Exception:
                log.exception("hooks cannot be answered now")
                pause_s = FIRST_PAUSE_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause_s)

    async def drain(self, within_s: float) -> None:
        """Let what has begun come to its end; what does not is asked again in the next life."""
        if self._work:
            await asyncio.wait(self._work.values(), timeout=within_s)
        late = tuple(self._work.values())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _known(self, tx: AsyncConnection, source: Source, question: Question) -> bool:
        """Whether it came before, or the same is being asked at this moment."""
        if await self._app.outbox.known(tx, f"hook:{question.id}"):
            return True
        same = and_(
            hooks.c.state == "asked",
            hooks.c.host == question.host,
            hooks.c.source == source.name,
            hooks.c.subject == question.subject,
            true() if question.pid is None else hooks.c.pid == question.pid,
        )
        return (await tx.execute(select(hooks.c.id).where(or_(hooks.c.id == question.id, same)))).first() is not None

    async def _keep(self, tx: AsyncConnection, source: Source, question: Question) -> None:
        if await self._app.outbox.seen(tx, f"hook:{question.id}"):
            return
        now = self._app.clock.now()
        await tx.execute(
            insert(hooks).values(
                id=question.id,
                source=source.name,
                host=question.host,
                subject=question.subject,
                label=question.label,
                title=question.title,
                pid=question.pid,
                at=now,
                due_at=now,
            )
        )

    async def _start_what_is_due(self) -> float | None:
        """A task for each host with a question that is due, and one for notes. Gives the seconds to the next due one."""
        now = self._app.clock.now()
        asked = select(hooks.c.host, func.min(hooks.c.due_at)).where(hooks.c.state == "asked").group_by(hooks.c.host)
        async with self._app.store.connect() as tx:
            work: dict[str, tuple[datetime, Work]] = {
                f"look at {host}": (at, functools.partial(self._look, host)) for host, at in await tx.execute(asked)
            }
            note = (await tx.execute(select(func.min(hooks.c.due_at)).where(hooks.c.note.is_not(None)))).scalar()
        if note is not None:
            work["notes"] = (note, self._send_notes)
        pause_s = None
        for name, (due_at, one) in work.items():
            wait_s = (max(due_at, self._rests.get(name, due_at)) - now).total_seconds()
            if wait_s <= 0:
                self._start(name, one)
            else:
                pause_s = min(wait_s, pause_s or wait_s)
        return pause_s

    def _start(self, name: str, work: Work) -> None:
        if name not in self._work:
            task = asyncio.create_task(work(), name=f"hooks: {name}")
            self._work[name] = task
            task.add_done_callback(functools.partial(self._done, name))

    def _done(self, name: str, task: asyncio.Task[None]) -> None:
        self._work.pop(name, None)
        if not task.cancelled() and task.exception():
            log.error("a hook was not answered", work=name, exc_info=task.exception())
            self._rests[name] = self._app.clock.now() + EVERY
        self.wake()

    async def _look(self, host: str) -> None:
        """Answer all that is asked of one host by one look at it."""
        self._rests[f"look at {host}"] = self._app.clock.now() + EVERY
        query = select(hooks).where(hooks.c.state == "asked", hooks.c.host == host).order_by(hooks.c.at)
        async with self._app.store.connect() as tx:
            rows = (await tx.execute(query)).all()
        if host not in self._app.settings.hosts:
            await self._drop(host)
            return
        try:
            seen = await self._see(host, rows[0].at - NEARBY)
        except HostError as trouble:
            await self._later(host, rows, trouble.text)
            return
        async with self._app.store.begin() as tx:
            await self._answer(tx, host, rows, seen)
        self._app.outbox.wake()

    async def _drop(self, host: str) -> None:
        """The host was taken out of the settings since."""
        async with self._app.store.begin() as tx:
            gone = update(hooks).where(hooks.c.state == "asked", hooks.c.host == host)
            await tx.execute(gone.values(state="none"))

    async def _see(self, host: str, since: datetime) -> Seen:
        """What the host itself says. Raises HostError."""
        now = self._app.clock.now()
        fact = past(now, now - since)
        answers = await self._app.fleet.ask_within(LOOK_S, host, fact, *BESIDE)
        journal = answers[fact]
        if isinstance(journal, Unreadable):
            raise HostError("unreadable", journal.why)
        return Seen(evidence(judged(journal, answers)), journal.partial)

    async def _later(self, host: str, rows: Sequence[Any], why: Text) -> None:
        """The host does not answer: ask again, for as long as that is of use."""
        now = self._app.clock.now()
        log.info("a hook waits for its host", host=host)
        async with self._app.store.begin() as tx:
            for row in rows:
                over = now - row.at >= GIVE_UP
                state = "none" if over else "asked"
                values = {"state": state, "attempts": row.attempts + 1, "due_at": now + _pause(row.attempts)}
                await tx.execute(update(hooks).where(hooks.c.id == row.id).values(**values))
            given_up = [row for row in rows if now - row.at >= GIVE_UP]
            if given_up and await self._may_say(tx, host):
                await self._post(tx, host, words.not_looked(host, self._report(given_up[-1]), why), self._key_of_none(host))
        self._app.outbox.wake()

    async def _answer(self, tx: AsyncConnection, host: str, rows: Sequence[Any], seen: Seen) -> None:
        """Tell the kills as the watch would, say who reports them, and keep a note for who asked."""
        told = await self._rule.add(tx, host, [Sighted(kill) for kill in seen.kills])
        found = [Found(kill, key) for kill, key in zip(seen.kills, told, strict=True)]
        messages: dict[tuple[str, str], tuple[Kill, ...]] = {}
        for row in rows:
            if about := _about(row, found):
                key = about[0].told or f"hook:{row.id}"
                messages[row.source, key] = tuple(one.kill for one in about if one.told == about[0].told)
                await self._found(tx, row, key, messages[row.source, key])
        for (source, key), chosen in messages.items():
            await self._say_who(tx, host, source, key, chosen)
        in_vain = [row for row in rows if not _about(row, found)]
        for row in in_vain:
            await tx.execute(update(hooks).where(hooks.c.id == row.id).values(state="none"))
        if in_vain and await self._may_say(tx, host):
            await self._post(tx, host, words.nothing(host, self._report(in_vain[-1]), seen.partial), self._key_of_none(host))

    async def _found(self, tx: AsyncConnection, row: Any, key: str, kills: Sequence[Kill]) -> None:  # noqa: ANN401 - a row of hooks
        note = await self._note(tx, row, key, kills)
        values = {"state": "told", "told": key, "note": note, "due_at": self._app.clock.now(), "attempts": 0}
        await tx.execute(update(hooks).where(hooks.c.id == row.id).values(**values))

    async def _say_who(self, tx: AsyncConnection, host: str, source: str, key: str, kills: Sequence[Kill]) -> None:
        """One message beside the kill's own, with all that this source reports of it."""
        rows = await tx.execute(select(hooks).where(hooks.c.told == key, hooks.c.source == source).order_by(hooks.c.at))
        pids = {kill.pid for kill in kills}
        reports = {row.subject: self._report(row, named=row.pid is not None and row.pid in pids) for row in rows}
        whole = key.startswith("hook:")
        reply = words.reported(host, kills, tuple(reports.values()), self._app.clock.now(), whole=whole)
        await self._post(tx, host, reply, f"hook:{source}:{key}")

    async def _note(self, tx: AsyncConnection, row: Any, key: str, kills: Sequence[Kill]) -> str | None:  # noqa: ANN401 - a row of hooks
        """The note for who asked, once for a subject and a kill; None where the settings want none."""
        source = self._sources.get(row.source)
        if source is None or not source.takes_notes:
            return None
        same = select(hooks.c.id).where(hooks.c.told == key, hooks.c.source == row.source, hooks.c.subject == row.subject)
        if (await tx.execute(same)).first() is not None:
            return None
        return words.note(row.host, kills, self._app.clock.now(), self._app.settings.language)

    def _key_of_none(self, host: str) -> str:
        return f"hook:none:{host}:{self._app.clock.now().timestamp():.0f}"

    async def _may_say(self, tx: AsyncConnection, host: str) -> bool:
        """Whether a line without evidence may be said of this host now; then it counts as said."""
        name, now = f"hook:none:{host}", self._app.clock.now()
        last = (await tx.execute(select(meta.c.value).where(meta.c.name == name))).scalar()
        if last is not None and now - datetime.fromisoformat(last) < QUIET:
            return False
        await tx.execute(delete(meta).where(meta.c.name == name))
        await tx.execute(insert(meta).values(name=name, value=now.isoformat()))
        return True

    async def _post(self, tx: AsyncConnection, host: str, reply: Reply, key: str) -> None:
        for place in told_about(self._app.settings, host):
            await self._app.outbox.post(tx, place, reply, key)

    def _report(self, row: Any, *, named: bool = False) -> Report:  # noqa: ANN401 - a row of hooks
        source = self._sources.get(row.source)
        shown, link = (source.shown, source.link(row.subject, row.label)) if source else (row.source, "")
        return Report(shown, f"{row.label}: {row.title}" if row.title else row.label, link, named)

    async def _send_notes(self) -> None:
        """Send all notes that are due, one after the other."""
        query = select(hooks).where(hooks.c.note.is_not(None), hooks.c.due_at <= self._app.clock.now()).order_by(hooks.c.at)
        async with self._app.store.connect() as tx:
            rows = (await tx.execute(query)).all()
        for row in rows:
            await self._send(row)

    async def _send(self, row: Any) -> None:  # noqa: ANN401 - a row of hooks
        source, now = self._sources.get(row.source), self._app.clock.now()
        if source is not None and source.takes_notes:
            outcome = await source.leave(row.subject, row.note)
        else:
            outcome = Outcome(sent=False, why="the settings want none any more")
        if not outcome.sent:
            log.warning("a note was not left", source=row.source, subject=row.subject, why=outcome.why)
        values: dict[str, Any] = {"note": None}
        if outcome.again_after_s is not None and now - row.at < NOTE_UP:
            pause = max(timedelta(seconds=outcome.again_after_s), _pause(row.attempts))
            values = {"attempts": row.attempts + 1, "due_at": now + pause}
        async with self._app.store.begin() as tx:
            await tx.execute(update(hooks).where(hooks.c.id == row.id).values(**values))

    async def _prune(self) -> None:
        """Forget what was answered long ago."""
        now = self._app.clock.now()
        if self._pruned is None or now - self._pruned >= timedelta(days=1):
            self._pruned = now
            async with self._app.store.begin() as tx:
                await tx.execute(delete(hooks).where(hooks.c.at < now - KEEP, hooks.c.state != "asked", hooks.c.note.is_(None)))


def evidence(found: Iterable[Kill]) -> tuple[Kill, ...]:
    """Without what users stage in slices of their own, which the watch counts: whoever can do that can often make Sentry ask."""
    return tuple(kill for kill in found if not is_staged(kill))


def _about(row: Any, found: Sequence[Found]) -> list[Found]:  # noqa: ANN401 - a row of hooks
    """What a question is about, newest first: the process that it names, else all that died at that time."""
    near = [one for one in found if abs(one.kill.at - row.at) <= NEARBY]
    named = [one for one in near if row.pid is not None and one.kill.pid == row.pid]
    return sorted(named or near, key=lambda one: (one.kill.at, one.kill.monotonic_us), reverse=True)


def _pause(attempts: int) -> timedelta:
    return timedelta(seconds=min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempts, 10)))
