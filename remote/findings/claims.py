"""Claims: what a program alone says of its children waits until the host itself bears it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from remote.facts.journal import Entry
from remote.facts.witness import Witness
from remote.findings.cases import Case, Proof, Told
from remote.findings.causes import Confidence
from remote.findings.gather import Gatherer
from remote.findings.ground import Ground
from remote.findings.kill import Claim, Kill, counted_kill
from remote.findings.reader import Reader

# A counter that has not grown so long after a line will not grow for it.
_PATIENCE = timedelta(minutes=2)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def claim(pid: int | None, entry: Entry) -> Claim:
    """What an entry claims."""
    return Claim(entry.boot_id, entry.system_unit, entry.invocation, entry.pid or 0, pid, entry.at, entry.monotonic_us)


def settle(seen: Witness, pending: Iterable[Case], explained: Callable[[Case], bool]) -> list[Case]:
    """The cases that the witness decides: borne out, or left without what was claimed. A line younger than it waits on."""
    decided = [case for case in pending if _before(case.last_us, case.boot_id, seen)]
    for case in decided:
        case.proofs = [proof for proof in case.proofs if not _contradicted(proof, case, seen)]
        _decide(case, explained)
    return decided


def believe(pending: Iterable[Case], ground: Ground, explained: Callable[[Case], bool]) -> list[Case]:
    """The same by the facts alone. Of a silent crew one is gone for each new worker, the first one first."""
    decided = sorted(pending, key=lambda case: (case.first_us, case.pid or 0))
    replaced: set[tuple[int, str]] = set()
    gone: set[int] = set()
    for case in decided:
        if ground.process(case.boot_id, case.pid, case.at) is not None:
            case.proofs = []
        elif _guessed(case):
            new = next((proof for proof in case.proofs if proof.order not in replaced), None)
            entry = case.proofs[0].entry
            if new is None or case.pid in gone or not ground.runs(entry.system_unit, entry.invocation):
                case.proofs = []
            else:
                case.proofs = [new]
                replaced.add(new.order)
                gone.add(case.pid or 0)
        _decide(case, explained)
    return decided


def _decide(case: Case, explained: Callable[[Case], bool]) -> None:
    case.believed = True
    if case.proofs and all(isinstance(proof.said, Told) and proof.said.died for proof in case.proofs) and not explained(case):
        case.proofs = []


def _guessed(case: Case) -> bool:
    return bool(case.proofs) and all(isinstance(proof.said, Told) and proof.said.guessed for proof in case.proofs)


def _contradicted(proof: Proof, case: Case, seen: Witness) -> bool:
    """Whether the process is still there, or who spoke is not the main process of that invocation."""
    if seen.boot_id != case.boot_id:
        return False  # another boot: nothing of it is left
    living = seen.living.get(case.pid or 0)
    if living is not None and living.started_us <= proof.entry.monotonic_us:
        return True
    if isinstance(proof.said, Told) and proof.said.guessed:
        return False  # a worker spoke, of itself
    main = seen.mains.get(proof.unit)
    return main is not None and main.invocation == proof.entry.invocation and main.pid not in {0, proof.entry.pid}


def grown(before: Witness | None, seen: Witness, at: datetime, reader: Reader, ground: Ground) -> tuple[Kill, ...]:
    """A program that lost a process without knowing which or how (celery's `exitcode 0`) and whose unit's counter has grown
    since the witness before, by more than the kernel's own lines tell of."""
    if before is None or before.boot_id != seen.boot_id:
        reader.lost = _fresh(reader.lost, at)
        return ()
    found: list[Kill] = []
    since_us = int(before.uptime_s * 1e6)
    for entry in [entry for entry in reader.lost if _before(entry.monotonic_us, entry.boot_id, seen)]:
        unit = entry.system_unit
        # Who was not asked about the unit before does not know what its counter has grown by.
        growth = seen.unit_oom_kills.get(unit, 0) - before.unit_oom_kills[unit] if unit in before.unit_oom_kills else 0
        told = reader.proven(entry.boot_id, since_us, unit) + sum(kill.unit == unit for kill in found)
        if growth > told and not reader.has_near(entry):
            limit_bytes = ground.limit(entry.boot_id, unit)
            found.append(counted_kill(unit, entry.boot_id, entry.at, entry.monotonic_us, limit_bytes, entry.message))
            reader.lost.remove(entry)
    reader.lost = [entry for entry in _fresh(reader.lost, at) if not reader.has_near(entry)]
    return tuple(found)


def _fresh(entries: Iterable[Entry], at: datetime) -> list[Entry]:
    return [entry for entry in entries if at - entry.at <= _PATIENCE]


class Hearsay:
    """Lines of the kernel's in a text file, where anybody may write: so many are believed as the kernel's counter has grown."""

    def __init__(self, ground: Ground) -> None:
        """Nothing was heard."""
        self._ground = ground
        self._reader = Reader(ground)
        self.believed: list[Kill] = []

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The deaths heard of, as claims of nobody."""
        return tuple(replace(claim(case.pid, case.proofs[0].entry), unit=case.unit or "") for case in self._reader.cases)

    def read(self, entry: Entry) -> None:
        """Read an entry as if it were the kernel's. rsyslog writes a line feed as #012."""
        at_us = entry.monotonic_us or int((entry.at - _EPOCH).total_seconds() * 1e6)
        text = entry.message.replace("#012", "\n")
        self._reader.read(replace(entry, transport="kernel", facility=0, source="journal", monotonic_us=at_us, message=text))

    def witness(self, before: Witness | None, seen: Witness, proven: Callable[[str, int], int]) -> tuple[Kill, ...]:
        """Believe as many as were counted since the witness before and the kernel itself has not told of; drop the others, and
        all where nothing is counted."""
        if seen.oom_kills is None:
            return self._believe((), seen.boot_id)
        if before is None or before.oom_kills is None:
            return ()
        growth = seen.oom_kills - before.oom_kills if before.boot_id == seen.boot_id else seen.oom_kills
        heard = [case for case in self._cases() if not _alive(case, seen)]
        counted = max(0, growth - proven(seen.boot_id, int(before.uptime_s * 1e6)))
        return self._believe(heard[:counted], seen.boot_id)

    def believe(self, counted: int) -> None:
        """Believe the newest: what is counted was since the boot of now."""
        heard = [case for case in self._cases() if self._ground.process(case.boot_id, case.pid, case.at) is None]
        self._believe(heard[-counted:] if counted else (), self._ground.boot_id)

    def _cases(self) -> list[Case]:
        for boot in self._reader.boots.values():
            self._reader.free(boot, None)
        return sorted(self._reader.cases, key=lambda case: (case.at, case.first_us))

    def _believe(self, cases: Iterable[Case], boot_id: str) -> tuple[Kill, ...]:
        """A text file knows no boot; the counter that bears its lines out is one boot's."""
        found = tuple(replace(self._kill(case), boot_id=boot_id) for case in cases)
        self.believed += found
        self._reader = Reader(self._ground)
        return found

    def _kill(self, case: Case) -> Kill:
        kill = Gatherer(self._reader.boots[case.boot_id], self._ground).kill(case)
        sure: Confidence = "guess" if kill.confidence == "guess" else "likely"
        first_us = 0 if kill.monotonic_us == int((kill.at - _EPOCH).total_seconds() * 1e6) else kill.monotonic_us
        return replace(kill, confidence=sure, monotonic_us=first_us, final=True)

    def forget(self, before: datetime) -> None:
        """Drop what is older."""
        self._reader.forget(before)
        self.believed = [kill for kill in self.believed if kill.at >= before]


def _alive(case: Case, seen: Witness) -> bool:
    living = seen.living.get(case.pid or 0)
    return living is not None and living.started_us <= case.first_us


def _before(at_us: int, boot_id: str, seen: Witness) -> bool:
    """Whether the witness is younger than a line, by the host's own clock."""
    return boot_id != seen.boot_id or at_us <= seen.uptime_s * 1e6
