"""Cases: one death each, while evidence comes in, and where to find those that a line may be about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from remote.facts.journal import Entry
from remote.findings.daemons import ContainerKill, DaemonKill, UnitSaid
from remote.findings.kill import AGAIN_S, JOIN_S, Kill
from remote.findings.lines import Reaped, Summary, Victim
from remote.findings.people import Asked, Sent
from remote.findings.reports import Report, Reports
from remote.findings.timeline import Timeline
from remote.findings.workers import Crew

JOIN_US = int(JOIN_S * 1e6)
_AGAIN_US = int(AGAIN_S * 1e6)
# What names only the unit belongs to a death this near.
NEAR_US = 15_000_000
# A line about a whole unit is put to so many deaths near it: in a storm it says nothing new of the others.
SHARED = 8
# So many lines of one kind are kept; what programs say takes no room from the kernel's words.
_PROOFS = 16


@dataclass(frozen=True, slots=True)
class Told:
    """A program says that one of its processes was ended by `signal`. `died`: it does not say how, so that only somebody else's
    word makes a kill of it. `guessed`: it says nothing, but starts another one."""

    signal: int
    doing: str = ""
    died: bool = False
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class Own:
    """A program says what it does to one of its processes: it hung (`timeout`), ran too long (`limit`), did not stop when asked
    (`forced`), grew too big (`recycled`)."""

    entry: Entry
    what: str
    limit_s: float | None
    doing: str


Said = Victim | Summary | Reaped | UnitSaid | DaemonKill | ContainerKill | Told


@dataclass(frozen=True, slots=True)
class Proof:
    """A line that tells of this very death. `unit` is the one whose main process says it, empty for whom all believe."""

    entry: Entry
    said: Said
    report: Report | None = None
    unit: str = ""

    @property
    def order(self) -> tuple[int, str]:
        """By time; lines of one moment by their text."""
        return self.entry.monotonic_us, self.entry.message

    @property
    def names(self) -> bool:
        """Whether it is the kernel's naming a victim, which it does once."""
        return isinstance(self.said, Victim | Summary)


@dataclass(slots=True, eq=False)
class Case:
    """A death. `key` is its pid, or what was ended as a whole: `unit:`, `oomd:`, `container:` and a name."""

    key: int | str
    boot_id: str
    first_us: int
    last_us: int
    at: datetime
    proofs: list[Proof] = field(default_factory=list)
    unit: str | None = None
    cgroup: str = ""
    staged: bool = False
    container: str = ""
    believed: bool = False
    final: bool = False
    told: Kill | None = None
    home: tuple[object, ...] = ()
    places: list[tuple[Timeline[Case], tuple[int, int]]] = field(default_factory=list)

    @property
    def pid(self) -> int | None:
        """The process, where it is one."""
        return self.key if isinstance(self.key, int) else None

    @property
    def named_us(self) -> int | None:
        """When the kernel first named it as a victim."""
        return min((proof.entry.monotonic_us for proof in self.proofs if proof.names), default=None)

    @property
    def trusted(self) -> bool:
        """Whether more than a program's own word tells of it."""
        return self.believed or any(not proof.unit for proof in self.proofs)

    def add(self, proof: Proof) -> None:
        """Keep a line about it."""
        self.first_us = min(self.first_us, proof.entry.monotonic_us)
        self.last_us = max(self.last_us, proof.entry.monotonic_us)
        self.at = min(self.at, proof.entry.at)
        alike = sum(bool(one.unit) == bool(proof.unit) for one in self.proofs)
        if alike < _PROOFS or proof.names:
            self.proofs.append(proof)

    def keep(self, proofs: Sequence[Proof]) -> None:
        """Only these lines are about it."""
        entries = [proof.entry for proof in proofs]
        self.proofs = list(proofs)
        self.first_us = min(entry.monotonic_us for entry in entries)
        self.last_us = max(entry.monotonic_us for entry in entries)
        self.at = min(entry.at for entry in entries)

    def takes(self, proof: Proof) -> bool:
        """Whether a line may be about it: not one that names a victim long before or after it was named."""
        named_us = self.named_us if proof.names else None
        return named_us is None or abs(proof.entry.monotonic_us - named_us) <= _AGAIN_US

    def near(self, at_us: int, within_us: int = NEAR_US) -> bool:
        """Whether a moment is so near to the time between its first and last line."""
        return max(self.first_us - at_us, at_us - self.last_us) <= within_us

    def sorted(self) -> list[Proof]:
        """Its lines, oldest first."""
        return sorted(self.proofs, key=lambda proof: proof.order)


@dataclass(slots=True)
class Boot:
    """What is remembered of one boot. All but the reports is found by time, so that the order of coming does not matter."""

    reports: Reports = field(default_factory=Reports)
    seen: dict[tuple[datetime, int, str, int | None], None] = field(default_factory=dict)
    newest: tuple[datetime, int] | None = None
    by_key: dict[int | str, list[Case]] = field(default_factory=lambda: defaultdict(list))
    by_unit: dict[str, Timeline[Case]] = field(default_factory=lambda: defaultdict(Timeline))
    homeless: Timeline[Case] = field(default_factory=Timeline)
    unit_cases: Timeline[Case] = field(default_factory=Timeline)
    staged: dict[int, Timeline[Case]] = field(default_factory=lambda: defaultdict(Timeline))
    notes: dict[tuple[str, str], Timeline[tuple[Entry, UnitSaid]]] = field(default_factory=lambda: defaultdict(Timeline))
    own: dict[tuple[str, int], Timeline[Own]] = field(default_factory=lambda: defaultdict(Timeline))
    tasks: dict[str, Timeline[str]] = field(default_factory=lambda: defaultdict(Timeline))
    crews: dict[tuple[str, str], Crew] = field(default_factory=lambda: defaultdict(Crew))
    limits: dict[str, Timeline[tuple[Entry, float | None, str]]] = field(default_factory=lambda: defaultdict(Timeline))
    lost: dict[str, Timeline[Entry]] = field(default_factory=lambda: defaultdict(Timeline))
    sudo: Timeline[tuple[Entry, Asked]] = field(default_factory=Timeline)
    calls: Timeline[tuple[Entry, Sent]] = field(default_factory=Timeline)
    calls_to: dict[int, Timeline[tuple[Entry, Sent]]] = field(default_factory=lambda: defaultdict(Timeline))
    targets: dict[int, Timeline[Entry]] = field(default_factory=lambda: defaultdict(Timeline))
    low: Timeline[Entry] = field(default_factory=Timeline)

    def case(self, key: int | str, line: Entry | Proof, within_us: int = JOIN_US) -> Case | None:
        """The case that a line about this pid (or group) belongs to: of several the newest that began before it."""
        entry, proof = (line, None) if isinstance(line, Entry) else (line.entry, line)
        at_us = entry.monotonic_us
        near = [case for case in self.by_key.get(key, ()) if case.near(at_us, within_us) and (proof is None or case.takes(proof))]
        begun = [case for case in near if case.first_us <= at_us]
        if begun:
            return max(begun, key=lambda case: case.first_us)
        return min(near, key=lambda case: case.first_us, default=None)

    def of_unit(self, unit: str | None, first_us: int, last_us: int) -> Iterator[Case]:
        """Deaths of processes in this unit near a time, the newest first."""
        cases = self.by_unit.get(unit or "")
        if cases is None:
            return
        for case in cases.newest(first_us - JOIN_US, last_us + NEAR_US):
            if case.first_us - NEAR_US <= last_us and first_us <= case.last_us + NEAR_US:
                yield case

    def note(self, unit: str | None, what: str, case: Case, within_us: int = NEAR_US) -> tuple[Entry, UnitSaid] | None:
        """What PID 1 said of the unit near a death: the first such word after it began, else the last before."""
        notes = self.notes.get((unit or "", what))
        if notes is None:
            return None
        after = next(notes.oldest(case.first_us, case.last_us + within_us), None)
        return after or next(notes.newest(case.first_us - NEAR_US, case.first_us), None)

    def forget(self, before_us: int, before: datetime) -> None:
        """Drop what is older."""
        self.seen = {key: None for key in self.seen if key[0] >= before}
        for timeline in (self.homeless, self.unit_cases, self.sudo, self.calls, self.low):
            timeline.forget(before_us)
        notes = (self.notes, self.own, self.tasks, self.limits, self.lost)
        for index in (self.by_unit, self.staged, self.calls_to, self.targets, *notes):
            _forget(index, before_us)
        for key, cases in list(self.by_key.items()):
            self.by_key[key] = left = [case for case in cases if case.at >= before]
            if not left:
                del self.by_key[key]

    def now_us(self, at: datetime) -> int | None:
        """A moment by the boot's clock."""
        if self.newest is None:
            return None
        newest_at, newest_us = self.newest
        return newest_us + int((at - newest_at).total_seconds() * 1e6)

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered."""
        return not self.seen and not self.by_key and not self.crews


def _forget(index: dict[Any, Timeline[Any]], before_us: int) -> None:
    for key, timeline in list(index.items()):
        timeline.forget(before_us)
        if not timeline:
            del index[key]


def entries_of(proofs: Sequence[Proof]) -> Iterator[Entry]:
    """The lines themselves, with the reports around them."""
    for proof in proofs:
        yield proof.entry
        if proof.report is not None:
            yield from proof.report.entries
