"""Following a host's journal, over cuts and restarts of either side: two streams, one autopsy, one transaction a batch.

The kernel's, systemd's and the OOM daemons' lines come down one channel, the lines of the services' main processes down another,
so that no flood of the second can delay the first. Each has a cursor of its own, saved with what it led to.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog

from bot.alerts.kills import FINAL_S, Mark, Sighted
from bot.alerts.staged import is_staged
from bot.alerts.tally import Tally
from remote.errors import HostError
from remote.facts.base import Unreadable
from remote.facts.journal import Entry, Journal, Notice, Speaker, WatchReader, programs_watch, system_watch
from remote.facts.processes import PROCESSES
from remote.facts.units import UNITS
from remote.facts.witness import witness
from remote.findings.death import Autopsy, Kill
from remote.findings.kill import JOIN_S
from remote.findings.past import BESIDE, judged, past
from remote.services import speakers, tellings
from remote.text import Mono, T

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

    from bot.alerts.kills import KillRule
    from bot.parts import App
    from remote.connect.base import Host
    from remote.facts.base import Answers, Fact
    from remote.facts.memory import Memory
    from remote.findings.cases import Case

log = structlog.get_logger(__name__)

SYSTEM, PROGRAMS = "system", "programs"
LOOK_BACK = timedelta(hours=24)
SAVE_S = 5.0  # a cursor that led to nothing is saved at most this often
REMEMBER = timedelta(minutes=15)  # longer than any sign of a kill comes after another
CATCH_UP_S = 300.0  # streams that were just opened may be far apart: nothing is forgotten meanwhile
LATE = timedelta(seconds=30)  # what happened so long before we listened was missed
PATIENCE_S = 60.0
ASK_S = 10.0
QUIET_S = 1.0
COUNTED = 20_000  # staged kills that are remembered, so that each counts once
BATCH, WAITING = {SYSTEM: 500, PROGRAMS: 50}, 2000  # lines: of one transaction, and between the channel and us
# A program's line may be a kill each, and while they are kept nobody else's are: so fewer of those at a time.
# A main process says a handful of words about its children; one that says more than this in a minute is not listened to for a
# while, so that it neither costs us nor keeps us from hearing the others.
MOST_LINES, A_MINUTE_S, MUTE_S = 600, 60.0, 600.0
SETTLED_S = 1.0  # a unit that starts has its main process at once; several start together
REFRESH_S = 600.0  # a master may be replaced without a word of systemd's (gunicorn's USR2)


@dataclass(frozen=True, slots=True)
class Since:
    """When a stream was opened: by our clock, and by the host's own (its boot, and the seconds since), where it said so."""

    at: datetime
    boot_id: str = ""
    uptime_s: float = 0.0

    def missed(self, kill: Kill) -> bool:
        """Whether this happened while nobody listened. Clocks of bot and host may differ: only what both call old is."""
        if self.at - kill.at <= LATE:
            return False
        same_boot = bool(self.boot_id) and kill.boot_id == self.boot_id
        return not same_boot or self.uptime_s - kill.monotonic_us / 1e6 > LATE.total_seconds()


class Follower:
    """One host's two streams, and what they have in common."""

    def __init__(self, name: str, app: App, rule: KillRule) -> None:
        """`rule` keeps what is found."""
        self.name = name
        self.clock = app.clock
        self.rule = rule
        self.autopsy = Autopsy()
        self.seen = asyncio.Event()
        """Set once the host's past was looked at."""
        self._app = app
        self._tally = Tally(name, app.store, rule, app.clock)
        self._system = Stream(SYSTEM, self, system_watch)
        self._programs = Stream(PROGRAMS, self, self._programs_script)
        self._speakers: tuple[Speaker, ...] = ()
        self._known: set[str] = set()
        self._stale = asyncio.Event()
        self._muted: dict[str, float] = {}
        self._hushed: dict[str, float] = {}
        self._counted: dict[tuple[str, int | str], int] = {}
        self._owed: list[Sighted] = []
        self._keeping = asyncio.Lock()

    @property
    def host(self) -> Host:
        """The host, to ask."""
        return self._app.fleet.host(self.name)

    async def run(self) -> None:
        """For ever."""
        system = asyncio.create_task(self._system.follow(), name=f"journal {self.name}")
        programs: asyncio.Task[None] | None = None
        try:
            await self.seen.wait()
            while True:
                changed = await self._who_speaks()
                if changed or programs is None:
                    await _ended(programs)
                    programs = asyncio.create_task(self._programs.follow(), name=f"programs {self.name}")
                await self._until_stale()
        finally:
            await _ended(system, programs)

    async def sampled(self, memory: Memory) -> None:
        """The kernel's counter came with a sample: hold it against what is known, and ask for claims that still wait."""
        if not self.seen.is_set():
            return
        self.owe(self.autopsy.settle(self.clock.now() - timedelta(seconds=FINAL_S)), self._system)
        await self._keep_owed()
        with contextlib.suppress(HostError):
            self.owe(await self.ask_for_claims(), self._programs)
            await self._keep_owed()
        with contextlib.suppress(HostError):
            await self._tally.look(self.host, memory, listening=self._system.listening)

    async def first_sight(self) -> None:
        """A host watched for the first time: one message for its last 24 hours, and the cursor to go on from."""
        fact = past(self.clock.now(), LOOK_BACK)
        answers = await self.host.ask(fact, *BESIDE)
        journal = answers[fact]
        if not isinstance(journal, Journal):
            raise HostError("no-journal", journal.why)
        marks = [Mark(stream, journal.last_cursor) for stream in (SYSTEM, PROGRAMS)]
        await self.rule.keep(self.name, [Sighted(kill, f"first:{self.name}") for kill in judged(journal, answers)], *marks)

    async def ask_for_claims(self) -> tuple[Kill, ...]:
        """Ask the host about what programs claimed; gives the kills that it bears out. Raises HostError."""
        claims = self.autopsy.claims
        if not claims:
            return ()
        units = sorted({claim.unit for claim in claims})
        pids = sorted({claim.pid for claim in claims if claim.pid is not None})
        question = witness(units, pids)
        seen = (await self.ask(question))[question]
        if isinstance(seen, Unreadable):
            raise HostError("unreadable", seen.why)
        return self.autopsy.witness(seen, self.clock.now())

    def owe(self, found: Iterable[Kill], stream: Stream) -> bool:
        """Remember what this stream found until the store has taken it; whether anything is owed.

        The autopsy tells a thing once, and a store may refuse for a while (a full disk). What users staged and was counted
        before is left out: of those a number is kept, so more about one is not another.
        """
        self._owed += [Sighted(kill, stream.batch(kill)) for kill in found if not is_staged(kill) or self._is_new(kill)]
        return bool(self._owed)

    @contextlib.asynccontextmanager
    async def owed(self) -> AsyncIterator[tuple[Sighted, ...]]:
        """What is owed, for whoever keeps it now, one at a time; all of it stays owed when that fails."""
        async with self._keeping:
            found = tuple(self._owed)
            yield found
            del self._owed[: len(found)]

    async def _keep_owed(self) -> None:
        if self._owed:
            async with self.owed() as found:
                await self.rule.keep(self.name, found)

    def _is_new(self, kill: Kill) -> bool:
        key = (kill.boot_id, kill.cgroup if kill.pid is None else kill.pid)
        before_us = self._counted.pop(key, None)
        self._counted[key] = kill.monotonic_us
        if len(self._counted) > COUNTED:
            del self._counted[next(iter(self._counted))]
        return before_us is None or abs(kill.monotonic_us - before_us) > JOIN_S * 1e6

    async def since(self) -> Since:
        """Now, by our clock and by the host's."""
        at, question = self.clock.now(), witness((), ())
        try:
            seen = (await self.ask(question)).readable(question)
        except HostError:
            return Since(at)
        return Since(at, seen.boot_id, seen.uptime_s) if seen else Since(at)

    async def ask(self, *facts: Fact[Any], within_s: float = ASK_S) -> Answers:
        """One question. Raises HostError, also when it takes too long."""
        return await self._app.fleet.ask_within(within_s, self.name, *facts)

    def heard(self, entry: Entry) -> None:
        """A service starts or ends, says systemd: who speaks for it may be another process now."""
        if not entry.from_systemd or not entry.unit.endswith(".service"):
            return
        if entry.unit in {speaker.unit for speaker in self._speakers} or entry.unit not in self._known:
            self._known.add(entry.unit)
            self._stale.set()

    def mute(self, unit: str) -> None:
        """Hear less of a unit that floods, for a while: its main process alone, and if it is that one, nothing."""
        less = any(speaker.unit == unit and speaker.children for speaker in self._speakers)
        log.warning("a service says too much", host=self.name, unit=unit, heard="its main process" if less else "nothing")
        (self._hushed if less else self._muted)[unit] = asyncio.get_running_loop().time() + MUTE_S
        self._stale.set()

    def _programs_script(self, cursor: str | None) -> str:
        return programs_watch(cursor, self._speakers, tellings())

    async def _who_speaks(self) -> bool:
        """Ask who the main processes are; whether that changed whom to listen to."""
        try:
            answers = await self.ask(UNITS, PROCESSES, within_s=6 * ASK_S)
        except HostError:
            return False
        units, processes = answers.readable(UNITS), answers.readable(PROCESSES)
        if units is None:
            return False
        self.autopsy.learn(units, processes)
        self._known = {unit.id for unit in units.all}
        found = tuple(self._less(speakers(units, processes)))
        changed, self._speakers = set(found) != set(self._speakers), found
        return changed

    def _less(self, found: Iterable[Speaker]) -> Iterator[Speaker]:
        now = asyncio.get_running_loop().time()
        for quiet in (self._hushed, self._muted):
            for unit in [unit for unit, until in quiet.items() if until <= now]:
                del quiet[unit]
        for speaker in found:
            if speaker.unit not in self._muted:
                yield replace(speaker, children=speaker.children and speaker.unit not in self._hushed)

    async def _until_stale(self) -> None:
        quiet = (*self._muted.values(), *self._hushed.values())
        unmuted = min(quiet, default=float("inf")) - asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stale.wait(), max(SETTLED_S, min(REFRESH_S, unmuted)))
            await asyncio.sleep(SETTLED_S)
        self._stale.clear()


class Stream:
    """One of a host's two streams: read from the cursor that was saved, again and again."""

    def __init__(self, name: str, follower: Follower, script: Callable[[str | None], str]) -> None:
        """`script` prints entries from a cursor on, for ever."""
        self.listening = False
        """Whether it has been open and quiet: all that was there has been read."""
        self._name = name
        self._all = follower
        self._script = script
        self._cursor = ""
        self._safe = ""
        self._boot_id = ""
        self._gap = ""
        self._since = Since(follower.clock.now())
        self._opened_s = 0.0
        self._saved_at = follower.clock.now()
        self._forgot_s = 0.0
        self._lines: Counter[str] = Counter()
        self._counted_s = 0.0
        self._quiet = ""

    async def follow(self) -> None:
        """For ever; a host without a readable journal is tried again now and then."""
        pause_s = 1.0
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._listen()
            except HostError as trouble:
                self._say_ended(trouble.kind)
            except Exception:
                log.exception("the journal's stream broke", host=self._all.name, stream=self._name)
            finally:
                self.listening = False
            if asyncio.get_running_loop().time() - began > PATIENCE_S:
                pause_s, self._quiet = 1.0, ""
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
            pause_s = min(PATIENCE_S, pause_s * 2)

    def _say_ended(self, kind: str) -> None:
        """Once, until it has run for a while again."""
        if self._quiet != kind:
            self._quiet = kind
            log.info("the journal's stream ended", host=self._all.name, stream=self._name, kind=kind)

    async def _listen(self) -> None:
        """Read from where it was left. What happened while nobody listened is told in one message."""
        mark = await self._all.rule.mark(self._all.name, self._name)
        if mark is None and self._name == SYSTEM:
            try:
                await self._all.first_sight()
            except HostError as trouble:
                if trouble.kind == "no-journal":  # then the counters are all there is
                    self._all.seen.set()
                raise
            mark = await self._all.rule.mark(self._all.name, self._name)
        self._all.seen.set()
        mark = mark or Mark(self._name, "")
        self._cursor = self._safe = mark.cursor
        self._boot_id = mark.boot_id
        self._since = await self._all.since()
        self._gap = mark.gap or f"missed:{self._all.name}:{self._since.at.timestamp():.0f}"
        self._opened_s = self._counted_s = asyncio.get_running_loop().time()
        self._lines.clear()
        async with self._all.host.stream(self._script(self._cursor or None)) as lines:
            await self._pump(lines, WatchReader(self._cursor or None))
        raise HostError("cut", T("The journal of {host} ended.", host=Mono(self._all.name)))

    async def _pump(self, lines: AsyncIterator[bytes], reader: WatchReader) -> None:
        """Take what has come in one go: a line that comes alone goes on at once, a storm is not a transaction a line."""
        waiting: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING)
        pull = asyncio.create_task(_pull(lines, waiting), name="lines")
        try:
            more = True
            while more:
                batch = [await self._next(waiting)]
                while len(batch) < BATCH[self._name] and not waiting.empty():
                    batch.append(waiting.get_nowait())
                more = None not in batch
                await self._take([line for line in batch if line], reader)
            await pull
        finally:
            await _ended(pull)

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

    async def _take(self, lines: Sequence[bytes], reader: WatchReader) -> None:
        touched: dict[Case, None] = {}
        last: Entry | None = None
        for line in lines:
            entry = reader.read(line)
            if isinstance(entry, Notice):
                self._noticed(entry)
            elif entry is not None:
                last = entry
                self._cursor, self._boot_id = entry.cursor, entry.boot_id or self._boot_id
                self._all.heard(entry)
                if not self._floods(entry.system_unit):
                    touched |= dict.fromkeys(self._all.autopsy.read(entry))
        found = self._all.autopsy.changed(touched)
        if self._name == PROGRAMS:
            found += await self._claims()
        if self._all.owe(found, self) or (last and self._all.clock.now() - self._saved_at > timedelta(seconds=SAVE_S)):
            await self._keep()
        if last is not None:
            self._forget(last)

    async def _claims(self) -> tuple[Kill, ...]:
        """What programs claimed is asked about at once. Until it is answered the cursor stays before it."""
        found: tuple[Kill, ...] = ()
        try:
            found = await self._all.ask_for_claims()
        except HostError as trouble:
            log.info("a program's claim waits", host=self._all.name, kind=trouble.kind)
        if not self._all.autopsy.claims:
            self._safe = self._cursor
        return found

    def batch(self, kill: Kill) -> str:
        """The message of what was missed, if this happened while the stream was not open."""
        return self._gap if self._since.missed(kill) else ""

    async def _keep(self, *, quiet: bool = False) -> None:
        async with self._all.owed() as found:
            behind = not (quiet or self.listening) or any(one.batch == self._gap for one in found)
            cursor = self._safe if self._name == PROGRAMS else self._cursor
            mark = Mark(self._name, cursor, self._boot_id, self._gap if behind else "")
            await self._all.rule.keep(self._all.name, found, mark)
        self._saved_at = self._all.clock.now()

    def _noticed(self, notice: Notice) -> None:
        if notice.word == "begin":
            self._cursor = self._safe = notice.detail
        else:
            log.info("of the journal", host=self._all.name, stream=self._name, word=notice.word, detail=notice.detail)

    def _floods(self, unit: str) -> bool:
        """Count a line of a service; whether it has said too much: then what it still says is not even judged."""
        if self._name != PROGRAMS or not unit:
            return False
        now = asyncio.get_running_loop().time()
        if now - self._counted_s > A_MINUTE_S:
            self._counted_s = now
            self._lines.clear()
        self._lines[unit] += 1
        if self._lines[unit] == MOST_LINES + 1:
            self._all.mute(unit)
        return self._lines[unit] > MOST_LINES

    def _forget(self, entry: Entry) -> None:
        """Now and then, and not while the streams may still be far apart."""
        now = asyncio.get_running_loop().time()
        if now - self._opened_s > CATCH_UP_S and now - self._forgot_s > A_MINUTE_S and self._name == SYSTEM:
            self._forgot_s = now
            self._all.autopsy.forget(entry.at - REMEMBER)


async def _pull(lines: AsyncIterator[bytes], waiting: asyncio.Queue[bytes | None]) -> None:
    """Lines from the channel; a full queue holds the channel up. None at the end, however it came."""
    try:
        async for line in lines:
            await waiting.put(line)
    except HostError:
        await waiting.put(None)
        raise
    await waiting.put(None)


async def _ended(*tasks: asyncio.Task[None] | None) -> None:
    going = [task for task in tasks if task is not None]
    for task in going:
        task.cancel()
    await asyncio.gather(*going, return_exceptions=True)
