"""Files each line under the death that it tells of, and finds the deaths that a line may be about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from itertools import islice

from remote.facts.journal import Entry
from remote.findings.cases import JOIN_US, NEAR_US, SHARED, Boot, Case, Proof
from remote.findings.daemons import ContainerKill, DaemonKill, UnitSaid
from remote.findings.ground import Ground
from remote.findings.lines import Summary, Victim

_MOST_CREWS = 1024


class Filing:
    """What is remembered of all boots. `pending` are cases that only a program tells of, `lost` the lines of programs that lost
    a process without knowing which."""

    def __init__(self, ground: Ground) -> None:
        """Nothing was read."""
        self._ground = ground
        self.boots: dict[str, Boot] = defaultdict(Boot)
        self.cases: list[Case] = []
        self.pending: dict[Case, None] = {}
        self.lost: list[Entry] = []

    def forget(self, before: datetime) -> None:
        """Drop what is older."""
        self.cases = [case for case in self.cases if case.at >= before]
        self.pending = {case: None for case in self.pending if case.at >= before}
        self.lost = [entry for entry in self.lost if entry.at >= before]
        newest = max((boot.newest for boot in self.boots.values() if boot.newest is not None), default=None)
        for boot_id, boot in list(self.boots.items()):
            if boot.newest != newest or len(boot.crews) > _MOST_CREWS:
                boot.crews.clear()
            boot.forget(boot.now_us(before) or 0, before)
            if boot.empty:
                del self.boots[boot_id]

    def settled(self, cases: Iterable[Case]) -> None:
        """File anew what a witness bore out; drop what has no line left."""
        for case in cases:
            self.pending.pop(case, None)
            boot = self.boots[case.boot_id]
            self._house(boot, case)
            if case.proofs:
                self._gone(boot, case)
            else:
                boot.by_key[case.key].remove(case)
        self.cases = [case for case in self.cases if case.proofs]

    def proven(self, boot_id: str, since_us: int, unit: str = "") -> int:
        """How many kills the kernel itself has told of since then (in this unit)."""
        cases = (case for case in self.cases if case.boot_id == boot_id)
        since = (case for case in cases if case.first_us >= since_us and (not unit or case.unit == unit))
        return sum(any(isinstance(proof.said, Victim | Summary) for proof in case.proofs) for case in since)

    def has_near(self, entry: Entry) -> bool:
        """Whether a death in the unit explains a process that was lost."""
        near = self.boots[entry.boot_id].of_unit(entry.system_unit, entry.monotonic_us - 2 * NEAR_US, entry.monotonic_us)
        return next(near, None) is not None

    def near_unit(self, boot: Boot, unit: str, entry: Entry) -> list[Case]:
        """Deaths that a line about the whole unit may be about."""
        at_us = entry.monotonic_us
        found = islice(boot.of_unit(unit, at_us, at_us), SHARED)
        whole = (boot.case(f"{kind}:{unit}", entry, NEAR_US) for kind in ("unit", "oomd"))
        return [*found, *(case for case in whole if case is not None)]

    def again(self, boot: Boot, entry: Entry) -> bool:
        """Whether a line that tells something was read before; else it is remembered."""
        key = (entry.at, entry.monotonic_us, entry.message, entry.pid)
        if key in boot.seen:
            return True
        boot.seen[key] = None
        if boot.newest is None or entry.at > boot.newest[0]:
            boot.newest = (entry.at, entry.monotonic_us)
        return False

    def proof(self, boot: Boot, key: int | str, proof: Proof, within_us: int = JOIN_US) -> Case:
        """Add a line to the death that it is about, or open a new one."""
        case = boot.case(key, proof, within_us)
        if case is None:
            case = self._open(boot, key, proof)
        else:
            case.add(proof)
        if not case.trusted:
            self.pending[case] = None
        elif self.pending:
            self.pending.pop(case, None)
        self._house(boot, case)
        self._gone(boot, case)
        return case

    def _open(self, boot: Boot, key: int | str, proof: Proof) -> Case:
        """A death that is new. Lines about another one of the same pid may be its own: they came before the kernel's."""
        entry = proof.entry
        case = Case(key, entry.boot_id, entry.monotonic_us, entry.monotonic_us, entry.at, [proof])
        for other in boot.by_key[key]:
            if not other.takes(proof) and other.near(entry.monotonic_us, JOIN_US):
                _share(case, other)
                self._house(boot, other)
        boot.by_key[key].append(case)
        self.cases.append(case)
        return case

    def _gone(self, boot: Boot, case: Case) -> None:
        """Nobody's worker any more."""
        if case.pid is not None and case.trusted:
            for crew in boot.crews.values():
                crew.ended(case.pid)

    def _house(self, boot: Boot, case: Case) -> None:
        """Find out where it was, and file it there."""
        case.cgroup = next(filter(None, (self._cgroup(case, proof) for proof in case.sorted())), "")
        place = self._ground.place(case.cgroup)
        case.unit, case.container, case.staged = place.unit, place.container, place.staged
        if not case.cgroup:
            case.unit = _unit(case)
            case.container = next((p.said.id for p in case.proofs if isinstance(p.said, ContainerKill)), "")
        uid = next((p.said.uid for p in case.proofs if isinstance(p.said, Victim | Summary) and p.said.uid is not None), None)
        home = (case.unit, case.first_us, case.trusted, case.staged, uid, bool(case.proofs))
        if home == case.home:
            return
        case.home = home
        for timeline, key in case.places:
            timeline.remove(key)
        case.places = []
        if case.proofs:
            self._file(boot, case, uid)

    def _file(self, boot: Boot, case: Case, uid: int | None) -> None:
        if isinstance(case.key, str):
            shelf = boot.unit_cases if case.key.startswith("unit:") else None
        else:
            shelf = boot.by_unit[case.unit] if case.unit is not None else boot.homeless
        if shelf is not None:
            case.places.append((shelf, shelf.add(case.first_us, case)))
        if case.staged and uid is not None:
            boot.staged[uid].add(case.first_us, case)

    def _cgroup(self, case: Case, proof: Proof) -> str:
        """Where the process was: by the kernel's own report, else by what was known of this pid."""
        if proof.report is not None and proof.report.cgroup:
            return proof.report.cgroup
        said = proof.said
        if isinstance(said, Summary):
            return said.cgroup
        if not isinstance(said, Victim | DaemonKill):
            return ""
        if isinstance(said, DaemonKill) and said.cgroup:
            return said.cgroup
        process = self._ground.process(case.boot_id, case.pid, case.at)
        return process.cgroup if process is not None and process.name == said.name else ""


def _share(one: Case, other: Case) -> None:
    """Give each line to the death before it, where processes of one pid died one after the other."""
    older, newer = sorted((one, other), key=lambda case: case.named_us or 0)
    since_us = newer.named_us or 0
    said = [proof for proof in (*older.proofs, *newer.proofs) if not proof.names]
    for case, later in ((older, False), (newer, True)):
        its = [proof for proof in said if (proof.entry.monotonic_us >= since_us) is later]
        case.keep([*(proof for proof in case.proofs if proof.names), *its])


def _unit(case: Case) -> str | None:
    """The unit that somebody names: systemd's word before a program's."""
    units = [proof.said.unit for proof in case.sorted() if isinstance(proof.said, UnitSaid)]
    return next(iter(units), None) or next((proof.unit for proof in case.sorted() if proof.unit), None)
