"""Cause of death: from journal entries to kills with who did it, why, and the proof."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from remote.facts.journal import Entry
from remote.facts.processes import Processes
from remote.facts.units import Units
from remote.facts.witness import Witness
from remote.findings.cases import Case
from remote.findings.claims import Hearsay, believe, claim, grown, settle
from remote.findings.gather import Gatherer
from remote.findings.ground import Ground
from remote.findings.kill import Claim, Kill
from remote.findings.reader import Reader


def kills(
    journal_entries: Iterable[Entry],
    machine_boot_id: str | None = None,
    units: Units | None = None,
    processes: Processes | None = None,
    first_writers: Mapping[str, int] | None = None,
    *,
    counted: int = 0,
) -> tuple[Kill, ...]:
    """All kills that the entries tell of, newest first, one a killed process (or cgroup).

    `units` maps cgroups to units and knows limits, `processes` knows names; both as they are now, in the boot
    `machine_boot_id` (that of `processes` when left out). `first_writers` (`Journal.first_writers`) tells whose lines counted
    in the past. A program's own word counts unless its process still lives. Of what a text file tells (anybody writes there)
    so many are believed, newest first, as the kernel has `counted` since it started. "Perhaps out of memory?" alone is no proof
    of anything: without a line of the kernel's, of systemd's or of an OOM daemon's the cause is the application's own time
    limit, a person's command, or unknown.
    """
    autopsy = Autopsy(machine_boot_id, units, processes, first_writers)
    for entry in journal_entries:
        autopsy.read(entry)
    autopsy.believe(counted)
    autopsy.finish()
    return autopsy.kills


def _newness(kill: Kill) -> tuple[datetime, int, int, str]:
    """Kills of one moment stand in an order of their own, not in that of their lines."""
    return kill.at, kill.monotonic_us, kill.pid or 0, kill.unit or kill.name


class Autopsy:
    """Entries in, kills out: each entry may open a kill or add to one. Keeps all kills until `forget`."""

    def __init__(
        self,
        machine_boot_id: str | None = None,
        units: Units | None = None,
        processes: Processes | None = None,
        first_writers: Mapping[str, int] | None = None,
    ) -> None:
        """As for `kills`."""
        self._ground = Ground(machine_boot_id, first_writers or {})
        self._ground.learn(units, processes)
        self._reader = Reader(self._ground)
        self._hearsay = Hearsay(self._ground)
        self._seen: Witness | None = None

    @property
    def kills(self) -> tuple[Kill, ...]:
        """All kills so far, newest first."""
        told = [*self._tell(self._reader.cases), *self._hearsay.believed]
        return tuple(sorted(told, key=_newness, reverse=True))

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What waits for a `witness`, oldest first."""
        told = [claim(case.pid, case.sorted()[0].entry) for case in self._reader.pending]
        lost = [claim(None, entry) for entry in self._reader.lost]
        return tuple(sorted((*told, *lost, *self._hearsay.claims), key=lambda one: (one.at, one.monotonic_us)))

    def learn(self, units: Units | None, processes: Processes | None) -> None:
        """Newer facts of the same host."""
        self._ground.learn(units, processes)

    def read(self, entry: Entry) -> Iterable[Case]:
        """Read one entry and tell nothing yet."""
        if entry.source == "syslog":
            self._hearsay.read(entry)
            return ()
        return self._reader.read(entry)

    def read_all(self, entries: Iterable[Entry]) -> tuple[Kill, ...]:
        """Read these entries; the kills that they opened or changed, each once, in no order."""
        return self.changed([case for entry in entries for case in self.read(entry)])

    def take(self, entry: Entry) -> tuple[Kill, ...]:
        """Read one entry; the kills that it opened or changed, in no order.

        A kill with `pid` None and `final` False may be taken back later, by one of the same unit that has a pid.
        """
        return self.read_all((entry,))

    def begin(self, seen: Witness) -> None:
        """How the host's counters stood before the first line was read. Without that the first kill that a text file tells of is
        in the count already when the host is asked about it, and cannot be told from a line that somebody made up."""
        self._seen = self._seen or seen

    def witness(self, seen: Witness, at: datetime) -> tuple[Kill, ...]:
        """Settle what waits: what the host bears out is a kill, all else is dropped for good. `at` is the time of asking."""
        before, self._seen = self._seen, seen
        settled = settle(seen, self._reader.pending, self._explained)
        self._reader.settled(settled)
        counted = grown(before, seen, at, self._reader, self._ground)
        return (*self._tell(settled), *counted, *self._hearsay.witness(before, seen, self._reader.proven))

    def believe(self, counted: int = 0) -> None:
        """Settle what waits by the facts alone, for lines of the past: a process that still lives was not killed."""
        self._reader.settled(believe(self._reader.pending, self._ground, self._explained))
        self._hearsay.believe(counted)

    def settle(self, before: datetime | None = None) -> tuple[Kill, ...]:
        """Call final what was opened before `before` (all when left out): no more evidence is waited for."""
        return self._tell(self.finish(before))

    def finish(self, before: datetime | None = None) -> list[Case]:
        """The same, and tell nothing yet."""
        for boot in self._reader.boots.values():
            self._reader.free(boot, None if before is None else boot.now_us(before))
        due = [case for case in self._reader.cases if not case.final and (before is None or case.at < before)]
        done = [case for case in due if self._gatherer(case).visible(case)]
        for case in done:
            case.final = True
        return done

    def forget(self, before: datetime) -> None:
        """Drop kills and what was remembered from before `before`, so that a stream does not grow without end."""
        self._reader.forget(before)
        self._hearsay.forget(before)

    def _gatherer(self, case: Case) -> Gatherer:
        return Gatherer(self._reader.boots[case.boot_id], self._ground)

    def _explained(self, case: Case) -> bool:
        """Whether somebody else's word makes a kill of a process that was only found gone."""
        return self._gatherer(case).kill(case).cause != "unknown"

    def _kill(self, case: Case) -> Kill | None:
        gatherer = self._gatherer(case)
        return gatherer.kill(case) if case.proofs and gatherer.visible(case) else None

    def changed(self, cases: Iterable[Case]) -> tuple[Kill, ...]:
        """Of the cases those that are not what they were when they were last told so."""
        changed = []
        for case in dict.fromkeys(cases):
            kill = self._kill(case)
            if kill is not None and kill != case.told:
                case.told = kill
                changed.append(kill)
        return tuple(changed)

    def _tell(self, cases: Iterable[Case]) -> tuple[Kill, ...]:
        return tuple(kill for case in dict.fromkeys(cases) if (kill := self._kill(case)) is not None)
