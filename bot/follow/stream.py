"""One stream of a host's journal: read from the cursor that was saved, again and again."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

import structlog

from bot.alerts.kills import Mark, Sighted
from bot.follow.ledger import Ledger
from bot.follow.watched import Since
from remote.errors import HostError
from remote.facts.journal import Entry, Journal, Notice, WatchReader, programs_watch, system_watch
from remote.findings.past import BESIDE, judged, past
from remote.services import tellings
from remote.text import Mono, T

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from bot.follow.watched import Watched
    from remote.findings.kill import Kill

log = structlog.get_logger(__name__)

LOOK_BACK = timedelta(hours=24)
SAVE_S = 5.0  # a cursor that led to nothing is saved at most this often
REMEMBER = timedelta(minutes=15)  # longer than any sign of a kill comes after another
CATCH_UP_S = 300.0  # streams that were just opened may be far apart: nothing is forgotten meanwhile
FIRST_PAUSE_S, PATIENCE_S = 1.0, 60.0  # between two tries to open it
QUIET_S = 1.0
WAITING = 2000  # lines between the channel and us
A_MINUTE_S = 60.0
# A main process says a handful of words about its children; one that says more than this in a minute is not listened to for a
# while, so that it neither costs us nor keeps us from hearing the others.
MOST_LINES = 600


class Pauses:
    """The pauses between tries at what fails again and again: each longer than the one before."""

    def __init__(self) -> None:
        """The first is short."""
        self._next_s = FIRST_PAUSE_S

    async def next(self) -> None:
        """Wait before the next try."""
        await asyncio.sleep(self._next_s * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
        self._next_s = min(PATIENCE_S, self._next_s * 2)


class Stream(ABC):
    """What both have in common. `listening`: it has been open and quiet, so that all that was there has been read."""

    name: ClassVar[str]
    batch: ClassVar[int]
    """Lines of one transaction."""

    def __init__(self, watched: Watched) -> None:
        """Nothing is opened before `follow`."""
        self.listening = False
        self._watched = watched
        self._cursor = ""
        self._boot_id = ""
        self._gap = ""
        self._since = Since(watched.clock.now())
        self._opened_s = 0.0
        self._saved_at = watched.clock.now()
        self._quiet = ""

    @abstractmethod
    def script(self) -> str:
        """What prints entries from the cursor on, for ever."""

    def safe_cursor(self) -> str:
        """How far everything is settled: from there it is read again after a crash."""
        return self._cursor

    async def before(self) -> Mark | None:
        """How far it was read in an earlier life. Raises HostError."""
        return await self._watched.rule.mark(self._watched.name, self.name)

    def opened(self) -> None:
        """It begins to read anew."""
        self._opened_s = asyncio.get_running_loop().time()

    async def judge(self, entries: Sequence[Entry]) -> tuple[Kill, ...]:
        """The kills that these entries open or add to."""
        return self._watched.autopsy.read_all(entries)

    def sighted(self, found: Iterable[Kill]) -> list[Sighted]:
        """Each with the message of what was missed, if it happened while the stream was not open."""
        return [Sighted(kill, self._gap if self._since.missed(kill) else "") for kill in found]

    async def follow(self) -> None:
        """For ever; a host without a readable journal is tried again now and then."""
        pauses = Pauses()
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._listen()
            except HostError as trouble:
                self._say_ended(trouble.kind)
            except Exception:
                log.exception("the journal's stream broke", host=self._watched.name, stream=self.name)
            finally:
                self.listening = False
            if asyncio.get_running_loop().time() - began > PATIENCE_S:
                pauses, self._quiet = Pauses(), ""
            await pauses.next()

    def _say_ended(self, kind: str) -> None:
        """Once, until it has run for a while again."""
        if self._quiet != kind:
            self._quiet = kind
            log.info("the journal's stream ended", host=self._watched.name, stream=self.name, kind=kind)

    async def _listen(self) -> None:
        """Read from where it was left. What happened while nobody listened is told in one message."""
        mark = await self.before() or Mark(self.name, "")
        self._cursor, self._boot_id = mark.cursor, mark.boot_id
        self._since = await self._watched.since()
        self._gap = mark.gap or f"missed:{self._watched.name}:{self._since.at.timestamp():.0f}"
        self.opened()
        async with self._watched.host.stream(self.script()) as lines:
            await self._pump(lines, WatchReader(self._cursor or None))
        raise HostError("cut", T("The journal of {host} ended.", host=Mono(self._watched.name)))

    async def _pump(self, lines: AsyncIterator[bytes], reader: WatchReader) -> None:
        """Take what has come in one go: a line that comes alone goes on at once, a storm is not a transaction a line."""
        waiting: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING)
        pull = asyncio.create_task(_pull(lines, waiting), name="lines")
        try:
            more = True
            while more:
                batch = [await self._next(waiting)]
                while len(batch) < self.batch and not waiting.empty():
                    batch.append(waiting.get_nowait())
                more = None not in batch
                await self._take([line for line in batch if line], reader)
            await pull
        finally:
            await ended(pull)

    async def _next(self, waiting: asyncio.Queue[bytes | None]) -> bytes | None:
        """The next line. Who waits for it for a moment has read all that was there."""
        if not self.listening:
            try:
                async with asyncio.timeout(QUIET_S):
                    return await waiting.get()
            except TimeoutError:
                await self._keep(quiet=True)  # what is missed from now on has a message of its own
                self.listening = True
        return await waiting.get()

    async def _take(self, lines: Iterable[bytes], reader: WatchReader) -> None:
        entries: list[Entry] = []
        for line in lines:
            entry = reader.read(line)
            if isinstance(entry, Notice):
                self._noticed(entry)
            elif entry is not None:
                entries.append(entry)
                self._cursor, self._boot_id = entry.cursor, entry.boot_id or self._boot_id
                self._watched.voices.heard(entry)
        found = await self.judge(entries)
        owes = self._watched.ledger.owe(self.sighted(found))
        if owes or (entries and self._watched.clock.now() - self._saved_at > timedelta(seconds=SAVE_S)):
            await self._keep()

    async def _keep(self, *, quiet: bool = False) -> None:
        await self._watched.ledger.pay(lambda found: (self._mark(found, caught_up=quiet or self.listening),))
        self._saved_at = self._watched.clock.now()

    def _mark(self, found: Iterable[Sighted], *, caught_up: bool) -> Mark:
        behind = not caught_up or any(one.batch == self._gap for one in found)
        return Mark(self.name, self.safe_cursor(), self._boot_id, self._gap if behind else "")

    def _noticed(self, notice: Notice) -> None:
        if notice.word == "begin":
            self._cursor = notice.detail
            self.opened()
        else:
            log.info("of the journal", host=self._watched.name, stream=self.name, word=notice.word, detail=notice.detail)


class SystemStream(Stream):
    """What the kernel, systemd and those who may kill say. `seen` is set once the host's past was looked at."""

    name = "system"
    batch = 500

    def __init__(self, watched: Watched) -> None:
        """As its parent."""
        super().__init__(watched)
        self.seen = asyncio.Event()
        self._forgot_s = 0.0

    def script(self) -> str:
        """See the parent."""
        return system_watch(self._cursor or None)

    async def before(self) -> Mark | None:
        """Where there is no earlier life, the host's past is looked at."""
        mark = await super().before()
        if mark is None:
            try:
                await self._first_sight()
            except HostError as trouble:
                if trouble.kind == "no-journal":  # then the counters are all there is
                    self.seen.set()
                raise
            mark = await super().before()
        self.seen.set()
        return mark

    async def judge(self, entries: Sequence[Entry]) -> tuple[Kill, ...]:
        """And forget now and then, but not while the streams may still be far apart."""
        found = await super().judge(entries)
        now_s = asyncio.get_running_loop().time()
        if entries and now_s - self._opened_s > CATCH_UP_S and now_s - self._forgot_s > A_MINUTE_S:
            self._forgot_s = now_s
            self._watched.autopsy.forget(entries[-1].at - REMEMBER)
        return found

    async def _first_sight(self) -> None:
        """A host watched for the first time: one message for its last 24 hours, and the cursor to go on from."""
        watched = self._watched
        fact = past(watched.clock.now(), LOOK_BACK)
        answers = await watched.host.ask(fact, *BESIDE)
        journal = answers[fact]
        if not isinstance(journal, Journal):
            raise HostError("no-journal", journal.why)
        marks = [Mark(stream.name, journal.last_cursor) for stream in (SystemStream, ProgramsStream)]
        ledger = Ledger(watched.name, watched.rule)  # of its own: what is refused now is found again with the next look
        ledger.owe(Sighted(kill, f"first:{watched.name}") for kill in judged(journal, answers))
        await ledger.pay(lambda _: marks)


class ProgramsStream(Stream):
    """What the main processes of services say of their children: claims, which the host has to bear out."""

    name = "programs"
    batch = 50  # a line may be a kill each, and while they are kept nobody else's are

    def __init__(self, watched: Watched) -> None:
        """As its parent."""
        super().__init__(watched)
        self._settled = ""
        self._lines: Counter[str] = Counter()
        self._counted_s = 0.0

    def script(self) -> str:
        """See the parent."""
        return programs_watch(self._cursor or None, self._watched.voices.speakers, tellings())

    def safe_cursor(self) -> str:
        """Before the first claim that waits."""
        return self._settled

    def opened(self) -> None:
        """Lines are counted anew."""
        super().opened()
        self._settled, self._counted_s = self._cursor, self._opened_s
        self._lines.clear()

    async def judge(self, entries: Sequence[Entry]) -> tuple[Kill, ...]:
        """What programs claimed is asked about at once. Until it is answered the cursor stays before it."""
        found = await super().judge([entry for entry in entries if not self._floods(entry.system_unit)])
        try:
            found += await self._watched.ask_for_claims()
        except HostError as trouble:
            log.info("a program's claim waits", host=self._watched.name, kind=trouble.kind)
        if not self._watched.autopsy.claims:
            self._settled = self._cursor
        return found

    def _floods(self, unit: str) -> bool:
        """Count a line of a service; whether it has said too much: then what it still says is not even judged."""
        if not unit:
            return False
        now_s = asyncio.get_running_loop().time()
        if now_s - self._counted_s > A_MINUTE_S:
            self._counted_s = now_s
            self._lines.clear()
        self._lines[unit] += 1
        if self._lines[unit] == MOST_LINES + 1:
            self._watched.voices.mute(unit)
        return self._lines[unit] > MOST_LINES


async def _pull(lines: AsyncIterator[bytes], waiting: asyncio.Queue[bytes | None]) -> None:
    """Lines from the channel; a full queue holds the channel up. None at the end, however it came."""
    try:
        async for line in lines:
            await waiting.put(line)
    except HostError:
        await waiting.put(None)
        raise
    await waiting.put(None)


async def ended(*tasks: asyncio.Task[None] | None) -> None:
    """Cancel these and wait for their end."""
    going = [task for task in tasks if task is not None]
    for task in going:
        task.cancel()
    await asyncio.gather(*going, return_exceptions=True)
