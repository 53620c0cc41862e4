"""Cause of death: from journal entries to kills with who did it, why, and the proof."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeVar

from remote.facts.journal import Entry
from remote.facts.processes import Processes
from remote.facts.units import Unit, Units
from remote.findings.advice import Known, advice
from remote.findings.lines import (
    Chosen,
    DaemonKill,
    GroupKill,
    Groups,
    Limit,
    Opened,
    Summary,
    SysRq,
    UnitSaid,
    Victim,
    earlyoom_line,
    kernel_line,
    oomd_line,
    systemd_line,
    without_command,
)
from remote.redact import redact
from remote.services import kinds
from remote.services.base import Sign
from remote.text import Text

Cause = Literal[
    "kernel-oom",
    "cgroup-limit",
    "systemd-oomd",
    "userspace-oom",
    "worker-timeout",
    "stop-timeout",
    "time-limit",
    "container",
    "plan",
    "manual",
    "unknown",
]
Confidence = Literal["certain", "likely", "guess"]


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the kernel's own table at the moment of a kill."""

    pid: int
    name: str
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What a program said of one of its children and nobody else yet. It waits for a witness: that `unit` runs `invocation` with
    the main process `speaker`, and that `pid` (None where the line has none) is gone."""

    boot_id: str
    unit: str
    invocation: str
    speaker: int
    pid: int | None
    at: datetime
    monotonic_us: int


@dataclass(frozen=True, slots=True)
class Kill:
    """One killed process (or cgroup: `pid` None). `evidence` are the exact log lines, redacted, oldest first.

    `limit_group` is the cgroup whose limit was hit; `limit_bytes` that limit; `stopped_unit` says that systemd stopped the
    whole unit for it (OOMPolicy=stop). `uid` is the victim's. `final` is False while more evidence may still come.
    `members` are the processes that shared the memory that ran out, biggest first, as the kernel listed them. `doing` names the
    task or request that was in hand. `staged` marks what happened in a user's own slice, where anybody may stage kills. `counted`
    marks one that only a counter knows of. `container` is the id of the container it was in. `by` says who did it, where somebody
    did: `alice` for a sudo line, `earlyoom`, a plan's code.
    """

    pid: int | None
    name: str
    unit: str | None
    at: datetime
    boot_id: str
    monotonic_us: int
    signal: int
    cause: Cause
    confidence: Confidence
    limit_bytes: int | None
    rss_bytes: int | None
    evidence: tuple[str, ...]
    advice: Text
    limit_group: str = ""
    uid: int | None = None
    cgroup: str = ""
    stopped_unit: bool = False
    final: bool = True
    members: tuple[Member, ...] = ()
    doing: str = ""
    staged: bool = False
    counted: bool = False
    container: str = ""
    by: str = ""


# Signs of one kill come within this time of each other; a pid is not used again so soon.
_JOIN_US = 120_000_000
# What names only the unit belongs to a kill this near.
_NEAR_US = 15_000_000
# systemd tells the result of a unit when all of it has stopped, which takes up to its TimeoutStopSec.
_RESULT_US = 1_200_000_000
# The kernel prints one dump in one go, at a console's speed.
_DUMP_US = 10_000_000
_LINES, _LINE_CHARACTERS = 20, 500
_Key = TypeVar("_Key")
_SURE: dict[Confidence, int] = {"guess": 0, "likely": 1, "certain": 2}
# A stronger sign replaces what a weaker one said.
_STRENGTH: dict[Cause, int] = {
    "unknown": 0, "worker-timeout": 2, "time-limit": 2, "stop-timeout": 3, "userspace-oom": 4, "systemd-oomd": 4,
    "manual": 5, "kernel-oom": 5, "cgroup-limit": 5,
}  # fmt: skip


def kills(
    journal_entries: Iterable[Entry],
    machine_boot_id: str | None = None,
    units: Units | None = None,
    processes: Processes | None = None,
) -> tuple[Kill, ...]:
    """All kills that the entries tell of, newest first, one a killed process (or cgroup).

    `units` maps cgroups to units and knows limits, `processes` knows names; both as they are now, in the boot
    `machine_boot_id` (that of `processes` when left out). "Perhaps out of memory?" alone is no proof of anything: without
    a line of the kernel's, of systemd's or of an OOM daemon's the cause is the application's own time limit, or unknown.
    """
    autopsy = Autopsy(machine_boot_id, units, processes)
    for entry in journal_entries:
        autopsy.take(entry)
    autopsy.settle()
    return autopsy.kills


@dataclass(slots=True)
class _Case:
    """A kill while evidence comes in."""

    boot_id: str
    pid: int | None
    at: datetime
    monotonic_us: int
    name: str = ""
    unit: str | None = None
    signal: int = 9
    cause: Cause = "unknown"
    confidence: Confidence = "guess"
    limit_bytes: int | None = None
    rss_bytes: int | None = None
    limit_group: str = ""
    uid: int | None = None
    cgroup: str = ""
    stopped_unit: bool = False
    final: bool = False
    limit_s: float | None = None
    seen_us: int = 0
    evidence: dict[tuple[int, str], str] = field(default_factory=dict)

    def blame(self, cause: Cause, confidence: Confidence) -> None:
        """Keep the stronger of two causes, of two equally strong ones the surer, of those the first."""
        if (_STRENGTH[cause], _SURE[confidence]) > (_STRENGTH[self.cause], _SURE[self.confidence]):
            self.cause, self.confidence = cause, confidence

    def add(self, entry: Entry, source: str = "") -> None:
        """Keep the entry's line as proof; `source` is the unit that said it, empty for the kernel and PID 1."""
        if len(self.evidence) < _LINES:
            self.evidence.setdefault((entry.monotonic_us, entry.message), source)
        self.seen_us = max(self.seen_us, entry.monotonic_us)

    def lines(self) -> tuple[str, ...]:
        """The proof, oldest first, redacted."""
        return tuple(redact(without_command(line))[:_LINE_CHARACTERS] for _, line in sorted(self.evidence))


@dataclass(slots=True)
class _Dump:
    """What the kernel prints before it names a victim, until it has named it."""

    at_us: int
    entries: list[Entry] = field(default_factory=list)
    memcg: bool | None = None
    by_hand: bool = False
    limit_bytes: int | None = None
    limited: str = ""
    cgroup: str = ""
    pid: int | None = None
    group: bool = False

    def about(self, pid: int, monotonic_us: int) -> bool:
        """Whether it speaks of this victim: the one it names, the first if it names none, every one of a group kill."""
        return abs(monotonic_us - self.at_us) <= _DUMP_US and (self.group or self.pid in {None, pid})


@dataclass(slots=True)
class _Boot:
    """What is remembered of one boot."""

    by_pid: dict[int, list[_Case]] = field(default_factory=lambda: defaultdict(list))
    by_unit: dict[str | None, list[_Case]] = field(default_factory=lambda: defaultdict(list))
    dump: _Dump | None = None
    sysrq: Entry | None = None
    daemon: Entry | None = None
    escalating: _Case | None = None
    # By unit, and by unit and pid: what announces a kill that follows.
    stopping: dict[str, Entry] = field(default_factory=dict)
    main_ended_us: dict[str, int] = field(default_factory=dict)
    limits: dict[str, list[tuple[Entry, float | None]]] = field(default_factory=lambda: defaultdict(list))
    hung: dict[tuple[str, int], Entry] = field(default_factory=dict)


class Autopsy:
    """Entries in, kills out: each entry may open a kill or add to one. Keeps all kills until `forget`."""

    def __init__(
        self, machine_boot_id: str | None = None, units: Units | None = None, processes: Processes | None = None
    ) -> None:
        """As for `kills`."""
        self._units = units
        now = machine_boot_id or (processes.boot_id if processes else "")
        self._now = now.replace("-", "")
        same = processes is not None and processes.boot_id.replace("-", "") == self._now
        self._living = {process.pid: process for process in processes.all} if processes and same else {}
        self._boots: dict[str, _Boot] = defaultdict(_Boot)
        self._cases: list[_Case] = []

    @property
    def kills(self) -> tuple[Kill, ...]:
        """All kills so far, newest first."""
        newest = sorted(self._cases, key=lambda case: (case.at, case.monotonic_us), reverse=True)
        return tuple(map(self._kill, newest))

    def take(self, entry: Entry) -> tuple[Kill, ...]:
        """Read one entry; the kills that it opened or changed, in no order.

        A kill with `pid` None and `final` False may be taken back later, by one of the same unit that has a pid.
        """
        boot = self._boots[entry.boot_id]
        if entry.from_kernel:
            changed = self._kernel(boot, entry)
        elif entry.from_systemd:
            changed = self._systemd(boot, entry)
        else:
            changed = self._program(boot, entry)
        return tuple(self._kill(case) for case in changed)

    def settle(self, before: datetime | None = None) -> tuple[Kill, ...]:
        """Call final what was opened before `before` (all when left out): no more evidence is waited for."""
        done = [case for case in self._cases if not case.final and (before is None or case.at < before)]
        for case in done:
            case.final = True
        return tuple(map(self._kill, done))

    def forget(self, before: datetime) -> None:
        """Drop kills and what was remembered from before `before`, so that a stream does not grow without end."""
        self._cases = [case for case in self._cases if case.at >= before]
        living = {id(case) for case in self._cases}
        for boot_id, boot in list(self._boots.items()):
            boot.by_pid = _still(boot.by_pid, living)
            boot.by_unit = _still(boot.by_unit, living)
            boot.hung = {key: entry for key, entry in boot.hung.items() if entry.at >= before}
            boot.stopping = {key: entry for key, entry in boot.stopping.items() if entry.at >= before}
            boot.limits.clear()
            if not (boot.by_pid or boot.hung or boot.stopping):
                del self._boots[boot_id]

    def _kernel(self, boot: _Boot, entry: Entry) -> Sequence[_Case]:
        line = kernel_line(entry.message)
        match line:
            case Victim() | Summary():
                return self._victim(boot, entry, line)
            case Opened():
                asked = [boot.sysrq] if boot.sysrq and line.by_hand and _near(boot.sysrq, entry) else []
                boot.dump = _Dump(entry.monotonic_us, [*asked, entry], by_hand=line.by_hand)
            case SysRq():
                boot.sysrq = entry
            case GroupKill() if boot.dump is not None:
                boot.dump.group, boot.dump.cgroup = True, line.cgroup
                boot.dump.entries.append(entry)
            case Limit() | Chosen() | Groups():
                _note(boot, entry, line)
            case _:
                pass
        return ()

    def _victim(self, boot: _Boot, entry: Entry, line: Victim | Summary) -> Sequence[_Case]:
        dump = boot.dump
        if isinstance(line, Summary):
            if dump is None or not dump.about(line.pid, entry.monotonic_us):
                dump = boot.dump = _Dump(entry.monotonic_us)
            dump.memcg, dump.limited = line.memcg, line.limited
            dump.cgroup = dump.cgroup if dump.group else line.cgroup
        elif dump is not None and not dump.about(line.pid, entry.monotonic_us):
            dump = None
        case = self._open(boot, entry, line.pid)
        case.name, case.signal = line.name, 9
        case.uid = line.uid if line.uid is not None else case.uid
        if isinstance(line, Victim):
            case.rss_bytes = line.rss_bytes if line.rss_bytes is not None else case.rss_bytes
        self._judge(boot, case, dump, line)
        case.add(entry)
        self._absorb(boot, case)
        return (case,)

    def _judge(self, boot: _Boot, case: _Case, dump: _Dump | None, line: Victim | Summary) -> None:
        """Whose memory ran out, by the line itself and by the dump before it."""
        if dump is not None:
            dump.pid = dump.pid or case.pid
            for entry in dump.entries:
                case.add(entry)
            self._place(boot, case, dump.cgroup)
        memcg = line.memcg if line.memcg is not None or dump is None else dump.memcg
        if dump is not None and dump.by_hand:
            case.blame("manual", "certain" if len(dump.entries) > 1 else "likely")
        elif memcg is None:
            case.blame("kernel-oom", "likely")
        else:
            case.blame("cgroup-limit" if memcg else "kernel-oom", "certain")
        if case.cause == "cgroup-limit" and dump is not None:
            case.limit_group = dump.limited or case.limit_group
            case.limit_bytes = dump.limit_bytes or case.limit_bytes or self._limit(case.boot_id, case.limit_group)

    def _systemd(self, boot: _Boot, entry: Entry) -> Sequence[_Case]:
        said = systemd_line(entry.message)
        return () if said is None else self._unit_said(boot, entry, said)

    def _unit_said(self, boot: _Boot, entry: Entry, said: UnitSaid) -> Sequence[_Case]:
        match said.what:
            case "oom":
                return self._unit_oom(boot, entry, said.unit)
            case "oomd":
                return (self._daemon_unit(boot, entry, said.unit),)
            case "main":
                return self._main_ended(boot, entry, said)
            case "failed":
                return self._failed(boot, entry, said)
            case "killing":
                return self._killing(boot, entry, said)
            case _:
                boot.stopping[said.unit] = entry
                return ()

    def _unit_oom(self, boot: _Boot, entry: Entry, unit: str) -> Sequence[_Case]:
        """The kernel's killer was at work in the unit. Which one it was, its own line says, if it was not lost."""
        cases = [case for case in _around(boot.by_unit[unit], entry) if _proven(case)]
        if not cases:
            lost = [case for case in _around(boot.by_unit[None], entry) if _proven(case)]
            told = [case for case in _around(boot.by_unit[unit], entry) if case.cause == "unknown"]
            cases = lost if len(lost) == 1 else told if len(told) == 1 else [self._new(boot, entry, None, unit)]
        for case in cases:
            if not _proven(case):
                limit_bytes = self._limit(entry.boot_id, "", unit)
                case.limit_bytes = limit_bytes
                case.blame("kernel-oom" if limit_bytes is None else "cgroup-limit", "likely")
            _assign(boot, case, unit)
            case.add(entry)
        return cases

    def _main_ended(self, boot: _Boot, entry: Entry, said: UnitSaid) -> Sequence[_Case]:
        if said.signal == 9:  # noqa: PLR2004 - SIGKILL
            boot.main_ended_us[said.unit] = entry.monotonic_us
        cases = _around(boot.by_unit[said.unit], entry)
        if not cases:
            hunted = [case for case in _around(boot.by_unit[None], entry) if case.cause == "userspace-oom"]
            cases = hunted if len(hunted) == 1 and hunted[0].signal == said.signal else []
        if not cases and said.signal == 9:  # noqa: PLR2004 - SIGKILL
            cases = [self._new(boot, entry, None, said.unit)]
            self._stop_timeout(boot, cases[0], entry, said.unit)
        for case in cases:
            _assign(boot, case, said.unit)
            case.add(entry)
        return cases

    def _stop_timeout(self, boot: _Boot, case: _Case, entry: Entry, unit: str) -> bool:
        stopping = boot.stopping.get(unit)
        if stopping is None or not _near(stopping, entry):
            return False
        case.blame("stop-timeout", "certain")
        case.add(stopping)
        return True

    def _failed(self, boot: _Boot, entry: Entry, said: UnitSaid) -> Sequence[_Case]:
        if said.result != "oom-kill":
            cases = _around(boot.by_unit[said.unit], entry)
        else:
            recent = _around(boot.by_unit[said.unit], entry, _RESULT_US)
            cases = [case for case in recent if _proven(case) and not case.stopped_unit]
            ended_us = boot.main_ended_us.get(said.unit)
            for case in cases:
                case.stopped_unit = ended_us is None or abs(ended_us - case.monotonic_us) > _NEAR_US
        for case in cases:
            case.add(entry)
        return cases

    def _killing(self, boot: _Boot, entry: Entry, said: UnitSaid) -> Sequence[_Case]:
        """SIGKILL from systemd. Without a timeout before it, it only clears up what a stopped unit left behind."""
        pid = said.pid or 0
        stopping = boot.stopping.get(said.unit)
        if stopping is None or not _near(stopping, entry):
            return ()
        case = self._open(boot, entry, pid)
        case.name = case.name or said.name
        _assign(boot, case, case.unit or said.unit)
        self._stop_timeout(boot, case, entry, said.unit)
        case.add(entry)
        return (case,)

    def _program(self, boot: _Boot, entry: Entry) -> Sequence[_Case]:
        """A program's own line is believed about its own unit only, and an OOM daemon's only from that daemon's unit."""
        match entry.system_unit:
            case "systemd-oomd.service":
                done = oomd_line(entry.message)
                return () if done is None else (self._oomd(boot, entry, done),)
            case "earlyoom.service":
                return self._earlyoom(boot, entry)
            case unit if unit.endswith(".service") and not unit.startswith("user@"):
                sign = next((said for kind in kinds().values() if (said := kind.sign(entry)) is not None), None)
                return () if sign is None else self._sign(boot, entry, unit, sign)
            case _:
                return ()

    def _oomd(self, boot: _Boot, entry: Entry, done: DaemonKill) -> _Case:
        unit = self._unit(done.cgroup)
        case = self._daemon_unit(boot, entry, unit)
        case.cgroup, case.limit_group = done.cgroup, done.limited
        case.name = case.name or done.cgroup.rsplit("/", 1)[-1]
        return case

    def _daemon_unit(self, boot: _Boot, entry: Entry, unit: str | None) -> _Case:
        """systemd-oomd and PID 1 both tell of the same cgroup."""
        same = [case for case in _around(boot.by_unit[unit], entry) if unit and case.pid is None]
        case = same[-1] if same else self._new(boot, entry, None, unit)
        case.blame("systemd-oomd", "certain")
        case.add(entry)
        return case

    def _earlyoom(self, boot: _Boot, entry: Entry) -> Sequence[_Case]:
        done = earlyoom_line(entry.message)
        if done is None:
            boot.daemon = entry if entry.message.startswith("low memory!") else boot.daemon
            return ()
        if done.pid is None:
            if boot.escalating is None or abs(boot.escalating.seen_us - entry.monotonic_us) > _NEAR_US:
                return ()
            boot.escalating.signal = 9
            boot.escalating.add(entry)
            return (boot.escalating,)
        case = self._open(boot, entry, done.pid)
        if not _proven(case):
            case.name, case.uid, case.rss_bytes, case.signal = done.name, done.uid, done.rss_bytes, done.signal
        victim = self._living.get(done.pid) if self._is_now(entry.boot_id) else None
        if victim is not None and victim.name == done.name:
            self._place(boot, case, victim.cgroup)
        case.blame("userspace-oom", "certain")
        if boot.daemon is not None and _near(boot.daemon, entry):
            case.add(boot.daemon)
        case.add(entry)
        boot.escalating = case
        return (case,)

    def _sign(self, boot: _Boot, entry: Entry, unit: str, sign: Sign) -> Sequence[_Case]:
        match sign.what:
            case "timeout" if sign.pid is not None:
                boot.hung[unit, sign.pid] = entry
            case "limit":
                boot.limits[unit].append((entry, sign.limit_s))
            case "lost":
                cases = _around(boot.by_unit[unit], entry, 2 * _NEAR_US)[-1:]
                for case in cases:
                    case.add(entry, unit)
                return cases
            case "killed" if sign.pid is not None:
                return self._told(boot, entry, unit, sign.pid, sign.signal)
            case _:
                pass
        return ()

    def _told(self, boot: _Boot, entry: Entry, unit: str, pid: int, signal: int) -> Sequence[_Case]:
        """A master found its child dead. It knows the pid and the signal, not who sent it."""
        known = next(iter(_around(boot.by_pid[pid], entry, _JOIN_US)), None)
        if known is not None and known.unit not in {None, unit}:
            return ()
        limit = None if known is not None and _STRENGTH[known.cause] else _taken(boot.limits[unit], entry)
        if known is None and signal != 9 and limit is None:  # noqa: PLR2004 - SIGKILL; SIGTERM is how one is asked to end
            return ()
        case = known or self._new(boot, entry, pid, unit)
        _assign(boot, case, unit)
        case.name, case.cgroup = case.name or self._name(entry), case.cgroup or entry.cgroup
        case.signal = case.signal if known else signal
        hung = boot.hung.get((unit, pid))
        if hung is not None and abs(hung.monotonic_us - entry.monotonic_us) <= _JOIN_US:
            case.blame("worker-timeout", "certain")
            case.add(hung, unit)
        if limit is not None:
            case.limit_s = limit[1]
            case.blame("time-limit", "certain")
            case.add(limit[0], unit)
        case.add(entry, unit)
        self._absorb(boot, case)
        return (case,)

    def _open(self, boot: _Boot, entry: Entry, pid: int) -> _Case:
        """The kill of this pid: the one that other signs told of, or a new one."""
        known = _around(boot.by_pid[pid], entry, _JOIN_US)
        return known[-1] if known else self._new(boot, entry, pid, None)

    def _new(self, boot: _Boot, entry: Entry, pid: int | None, unit: str | None) -> _Case:
        case = _Case(entry.boot_id, pid, entry.at, entry.monotonic_us, unit=unit, seen_us=entry.monotonic_us)
        if pid is None:
            case.name = (unit or "").removesuffix(".service")
        else:
            boot.by_pid[pid].append(case)
        boot.by_unit[unit].append(case)
        self._cases.append(case)
        return case

    def _place(self, boot: _Boot, case: _Case, cgroup: str) -> None:
        """Where the kernel says that it was. What another unit claimed of it before is no proof any more."""
        if not cgroup:
            return
        unit = self._unit(cgroup)
        case.cgroup = cgroup
        case.evidence = {line: source for line, source in case.evidence.items() if source in {"", unit}}
        _assign(boot, case, unit)

    def _absorb(self, boot: _Boot, case: _Case) -> None:
        """Take in what was told of its unit without a pid, and which therefore was this one."""
        near = [other for other in boot.by_unit[case.unit] if other.pid is None and other is not case]
        if case.unit is None:
            near = [other for cases in list(boot.by_unit.values()) for other in cases if other.pid is None and other.unit]
        near = [o for o in near if abs(o.monotonic_us - case.monotonic_us) <= _NEAR_US and _without_pid(o)]
        if not near or (case.unit is None and len(near) != 1):
            return
        for other in near:
            case.blame(other.cause, other.confidence)
            case.limit_bytes = case.limit_bytes or other.limit_bytes
            case.stopped_unit = case.stopped_unit or other.stopped_unit
            case.evidence |= other.evidence
            _assign(boot, case, case.unit or other.unit)
            boot.by_unit[other.unit].remove(other)
            self._cases.remove(other)

    def _is_now(self, boot_id: str) -> bool:
        return bool(boot_id) and boot_id.replace("-", "") == self._now

    def _unit(self, cgroup: str) -> str | None:
        known = self._units.of_cgroup(cgroup) if self._units else None
        if known is not None:
            return known.id
        name = unit_of_path(cgroup)
        unit = self._units.by_name(name) if self._units and name else None
        if unit is not None and unit.delegate and not cgroup.endswith(f"/{name}"):
            return None  # the paths below it are not systemd's
        return unit.id if unit is not None else name

    def _limit(self, boot_id: str, cgroup: str, name: str = "") -> int | None:
        """The unit's limit as it is now, for a kill of this boot."""
        unit = self._known(name or self._unit(cgroup) or "")
        if unit is None or not self._is_now(boot_id) or not (name or cgroup.endswith(f"/{unit.id}")):
            return None
        return unit.memory_max_bytes

    def _known(self, name: str) -> Unit | None:
        return self._units.by_name(name) if self._units and name else None

    def _name(self, entry: Entry) -> str:
        """The child's name is its master's, until it names itself."""
        master = self._living.get(entry.pid or 0) if self._is_now(entry.boot_id) else None
        return master.name if master else dict(entry.extra).get("_COMM") or entry.identifier

    def _kill(self, case: _Case) -> Kill:
        unit = self._known(case.unit or "")
        at_own_limit = not case.limit_group or case.limit_group.endswith(f"/{case.unit}")
        known = Known(
            cause=case.cause,
            name=case.name,
            unit=case.unit,
            rss_bytes=case.rss_bytes,
            limit_bytes=case.limit_bytes,
            limited="" if at_own_limit else case.limit_group,
            stopped_unit=case.stopped_unit,
            limit_s=case.limit_s,
            stop_s=unit.stop_timeout_s if unit else None,
        )
        return Kill(
            pid=case.pid,
            name=case.name,
            unit=case.unit,
            at=case.at,
            boot_id=case.boot_id,
            monotonic_us=case.monotonic_us,
            signal=case.signal,
            cause=case.cause,
            confidence=case.confidence,
            limit_bytes=case.limit_bytes,
            rss_bytes=case.rss_bytes,
            evidence=case.lines(),
            advice=advice(known),
            limit_group=case.limit_group,
            uid=case.uid,
            cgroup=case.cgroup,
            stopped_unit=case.stopped_unit,
            final=case.final,
        )


def unit_of_path(cgroup: str) -> str | None:
    """The first service of a cgroup's path below slices of the system; None below user.slice, where anybody names them."""
    for at, part in enumerate(cgroup.strip("/").split("/")):
        if part.endswith(".service"):
            return part
        if not part.endswith(".slice") or (at == 0 and part in {"user.slice", "machine.slice"}):
            return None
    return None


def _note(boot: _Boot, entry: Entry, line: Limit | Chosen | Groups) -> None:
    """A line of a dump, which may have lost its first one."""
    dump = boot.dump
    if dump is None or dump.pid is not None or abs(entry.monotonic_us - dump.at_us) > _DUMP_US:
        dump = boot.dump = _Dump(entry.monotonic_us)
    dump.entries.append(entry)
    match line:
        case Limit(limit_bytes):
            dump.limit_bytes = limit_bytes
        case Chosen(memcg):
            dump.memcg = memcg
        case Groups(cgroup, limited):
            dump.memcg, dump.cgroup, dump.limited = True, cgroup, limited


def _near(one: Entry, other: Entry) -> bool:
    return abs(one.monotonic_us - other.monotonic_us) <= _NEAR_US


def _around(cases: Sequence[_Case], entry: Entry, within_us: int = _NEAR_US) -> list[_Case]:
    """Cases that were told of within this time, oldest first. Entries come nearly in order, so the newest are asked first."""
    found: list[_Case] = []
    for case in reversed(cases):
        if _between(case, entry.monotonic_us) <= within_us:
            found.append(case)
        elif case.seen_us < entry.monotonic_us - _RESULT_US - within_us:
            break
    return found[::-1]


def _between(case: _Case, monotonic_us: int) -> int:
    """How far a moment is from the time between a kill's first and last sign."""
    return max(case.monotonic_us - monotonic_us, monotonic_us - case.seen_us, 0)


def _proven(case: _Case) -> bool:
    """Whether an OOM killer did it."""
    return _STRENGTH[case.cause] >= _STRENGTH["userspace-oom"]


def _without_pid(case: _Case) -> bool:
    """Whether it waits for the line that names its process: systemd-oomd's kill of a whole cgroup does not."""
    return case.cause != "systemd-oomd"


def _assign(boot: _Boot, case: _Case, unit: str | None) -> None:
    if unit != case.unit:
        boot.by_unit[case.unit].remove(case)
        boot.by_unit[unit].append(case)
        case.unit = unit


def _taken(limits: list[tuple[Entry, float | None]], entry: Entry) -> tuple[Entry, float | None] | None:
    """The oldest time limit that was told of and whose process has not been found yet."""
    limits[:] = [limit for limit in limits if _near(limit[0], entry)]
    return limits.pop(0) if limits else None


def _still(index: dict[_Key, list[_Case]], living: set[int]) -> dict[_Key, list[_Case]]:
    kept: dict[_Key, list[_Case]] = defaultdict(list)
    for key, cases in index.items():
        if left := [case for case in cases if id(case) in living]:
            kept[key] = left
    return kept
