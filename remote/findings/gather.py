"""Gathers what is known of a death from all that was read, and tells it as a kill."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from remote.facts.journal import Entry
from remote.findings.advice import WATCHDOG, Known, advice
from remote.findings.cases import JOIN_US, NEAR_US, SHARED, Boot, Case, Own, Proof, Told, entries_of
from remote.findings.daemons import ContainerKill, DaemonKill, UnitSaid
from remote.findings.ground import Ground
from remote.findings.kill import Kill
from remote.findings.lines import Reaped, Summary, Victim
from remote.findings.people import Asked, Sent
from remote.findings.proofs import (
    fits,
    has,
    in_container,
    is_oomd,
    is_told,
    limited_of,
    lines_of,
    memory_of,
    report_of,
    rss_of,
    signal_of,
    speaker,
    uid_of,
)
from remote.findings.reports import Report
from remote.findings.verdict import Evidence, by_memory, explained, verdict
from remote.text import Text

# systemd tells the result of a unit when all of it has stopped, which takes up to its TimeoutStopSec.
_RESULT_US = 1_200_000_000
# Who asks for a signal does so before; a line of sudo's and one of the program's may change places.
_AFTER_US, _BY_NAME_US = 1_000_000, 5_000_000
_LOST_US = 2 * NEAR_US
_TASK_US = 300_000_000
_SIGABRT, _SIGKILL = 6, 9
# Whoever ends processes in the course of their work, and says so elsewhere.
_AT_WORK = {
    *("systemd", "systemd-oomd", "systemd-shutdown", "earlyoom", "nohang", "dockerd", "containerd", "containerd-shim"),
    *("containerd-shim-runc-v2", "runc", "crun", "conmon", "crio", "podman", "kubelet"),
}


@dataclass(slots=True)
class Gathered:
    """One death with all that bears on it."""

    evidence: Evidence = field(default_factory=Evidence)
    entries: list[Entry] = field(default_factory=list)
    stopped_unit: bool = False
    limit_s: float | None = None
    doing: str = ""


class Gatherer:
    """Reads a boot's memory for one death at a time; changes nothing."""

    def __init__(self, boot: Boot, ground: Ground) -> None:
        """Of one boot."""
        self._boot = boot
        self._ground = ground

    def visible(self, case: Case) -> bool:
        """Whether it is a kill to tell: a program's word alone is not, a unit's not when a process' own kill explains it."""
        if isinstance(case.key, int):
            return case.trusted
        return not case.key.startswith("unit:") or (self._opens(case) and not self._absorbed(case))

    def kill(self, case: Case) -> Kill:
        """The case as it is told."""
        proofs = self.proofs(case)
        unit = case.unit or self.adopted(case)
        found = self._gather(case, proofs, unit)
        said = verdict(found.evidence)
        report = report_of(proofs)
        limited = report.limited if report is not None and said.cause == "cgroup-limit" else ""
        known = self._ground.unit(unit)
        kill = Kill(
            pid=self._pid(case),
            name=self._name(case, proofs, unit),
            unit=unit,
            at=min(proof.entry.at for proof in proofs),
            boot_id=case.boot_id,
            monotonic_us=proofs[0].entry.monotonic_us,
            signal=signal_of(proofs),
            cause=said.cause,
            confidence=said.confidence,
            limit_bytes=self._limit_bytes(case, report, unit, said.cause),
            rss_bytes=rss_of(proofs),
            evidence=lines_of([*entries_of(proofs), *found.entries]),
            advice=_NO_ADVICE,
            limit_group=limited or limited_of(proofs),
            uid=uid_of(proofs),
            cgroup=case.cgroup,
            stopped_unit=found.stopped_unit,
            final=case.final,
            members=report.members if report is not None else (),
            doing=found.doing,
            container=case.container,
            by=said.by,
        )
        kill = replace(kill, staged=self._staged(case, kill, proofs))
        return replace(kill, advice=_advice(kill, found, known.stop_timeout_s if known else None))

    def proofs(self, case: Case) -> list[Proof]:
        """Its lines, without what a foreign unit claims."""
        return [proof for proof in case.sorted() if not proof.unit or case.unit is None or proof.unit == case.unit]

    def _pid(self, case: Case) -> int | None:
        return case.pid if case.pid is not None else self.main_pid(case)

    def main_pid(self, case: Case) -> int | None:
        """The process of a unit's own case: its main one, where systemd says that it was killed and it was known."""
        for proof in case.proofs:
            if isinstance(proof.said, UnitSaid) and proof.said.what == "main":
                return self._ground.main_pid(proof.said.unit, dict(proof.entry.extra).get("INVOCATION_ID", ""))
        return None

    # What a unit's own word opens, and what takes it in.

    def _opens(self, case: Case) -> bool:
        watchdog = self._boot.note(case.unit, "watchdog", case) is not None
        return any(
            isinstance(proof.said, UnitSaid)
            and (proof.said.what == "oom" or proof.said.signal == _SIGKILL or (proof.said.signal == _SIGABRT and watchdog))
            for proof in case.proofs
        )

    def _absorbed(self, case: Case) -> bool:
        """Whether a process' own kill (or systemd-oomd's of the whole unit) is what this word is about."""
        oom = has(case, "oom")
        if not oom and self._oomd(case.unit, case) is not None:
            return True
        near = [other for other in islice(self._in_unit(case), 4 * SHARED) if other.trusted]
        main = self.main_pid(case)
        if main is not None and not oom:
            return any(other.key == main for other in near)
        if any(not oom or self._takes_oom(other) for other in near):
            return True
        return self._adopter(case) is not None

    def _in_unit(self, case: Case) -> Iterator[Case]:
        return self._boot.of_unit(case.unit, case.first_us, case.last_us)

    def _takes_oom(self, case: Case) -> bool:
        """Whether PID 1's word about an OOM kill in the unit is about this process."""
        own = self._own(case, self.proofs(case), case.unit)
        return by_memory(own) or not explained(own)

    def adopted(self, case: Case) -> str | None:
        """The unit of a process whose own line tells none: the one in which PID 1 saw such an end then, if there is just one."""
        if case.pid is None or case.cgroup or not case.trusted:
            return None
        near = self._boot.unit_cases.newest(case.first_us - NEAR_US, case.last_us + NEAR_US)
        fitting = [other for other in islice(near, 4 * SHARED) if fits(case, other)]
        units = {other.unit for other in fitting}
        if len(units) != 1 or any(not self._alone(other) for other in fitting):
            return None
        return fitting[0].unit if self._adopter(fitting[0]) is case else None

    def _adopter(self, unit_case: Case) -> Case | None:
        """The one process without a unit that this word fits."""
        near = self._boot.homeless.newest(unit_case.first_us - NEAR_US - JOIN_US, unit_case.last_us + NEAR_US)
        fitting = (c for c in near if c.near(unit_case.first_us) and c.trusted and not c.cgroup and fits(c, unit_case))
        first_two = list(islice(fitting, 2))
        return first_two[0] if len(first_two) == 1 else None

    def _alone(self, unit_case: Case) -> bool:
        if not has(unit_case, "oom") and self._oomd(unit_case.unit, unit_case) is not None:
            return False
        return not any(other.trusted for other in islice(self._in_unit(unit_case), 4 * SHARED))

    # What bears on one death.

    def _gather(self, case: Case, proofs: list[Proof], unit: str | None) -> Gathered:
        found = Gathered(self._own(case, proofs, unit))
        self._unit_words(case, unit, found)
        self._program_words(case, unit, found)
        self._people(case, unit, proofs, found)
        self._triggers(case, found)
        return found

    def _own(self, case: Case, proofs: list[Proof], unit: str | None) -> Evidence:
        """What is said of this very process, or of what was ended as a whole."""
        report = report_of(proofs)
        killing = any(isinstance(p.said, UnitSaid) and p.said.what in {"killing", "main", "control"} for p in proofs)
        told = any(isinstance(proof.said, Told) for proof in proofs)
        sure: Literal["", "likely", "certain"] = "certain" if killing else "likely" if told else ""
        slow = ("timeout", "slow") if killing else ("timeout",)
        return Evidence(
            memory=memory_of(proofs),
            by_hand=report is not None and report.by_hand,
            asked=report is not None and report.asked,
            oomd=any(is_oomd(proof) for proof in proofs),
            hunter=next((p.said.by for p in proofs if isinstance(p.said, DaemonKill) and p.said.pid is not None), ""),
            runtime=next((proof.said.by for proof in proofs if isinstance(proof.said, ContainerKill)), ""),
            watchdog=sure if self._boot.note(unit, "watchdog", case) else "",
            stop=sure if any(self._boot.note(unit, what, case) for what in slow) else "",
            hung=told and self._said(case, unit, "timeout") is not None,
            forced=speaker(self._said(case, unit, "forced")) if told else "",
            over_time=told and self._limit(case, unit) is not None,
            limited=self._ground.limit(case.boot_id, unit) is not None,
        )

    def _unit_words(self, case: Case, unit: str | None, found: Gathered) -> None:
        """What PID 1 says of the unit."""
        if unit is None:
            return
        words = {what: self._boot.note(unit, what, case) for what in ("oom", "main", "control", "timeout", "slow", "watchdog")}
        memory = by_memory(found.evidence)
        own = memory or not explained(found.evidence)
        oomd = None if isinstance(case.key, str) and case.key.startswith("oomd:") else self._oomd(unit, case)
        found.evidence = replace(
            found.evidence,
            unit_oom=words["oom"] is not None and own and not found.evidence.oomd and not self._another(case, unit),
            oomd_near=oomd is not None,
        )
        wanted = (
            {"main", "control", "watchdog"}
            | ({"oom"} if memory or found.evidence.unit_oom else set())
            | ({"timeout", "slow"} if not memory else set())
        )
        found.entries += [note[0] for what, note in words.items() if note is not None and what in wanted]
        if oomd is not None:
            found.entries += [proof.entry for proof in oomd.proofs]
        self._result(case, unit, found)

    def _another(self, case: Case, unit: str) -> bool:
        """Whether the kernel names another process of the unit, so that PID 1's word is about that one."""
        if memory_of(case.proofs):
            return False
        near = islice(self._boot.of_unit(unit, case.first_us, case.last_us), 4 * SHARED)
        return any(other is not case and memory_of(other.proofs) for other in near)

    def _result(self, case: Case, unit: str, found: Gathered) -> None:
        """How the unit ended. `oom-kill` while its main process was not the one killed: systemd stopped all of it."""
        near = self._boot.note(unit, "failed", case)
        late = self._boot.note(unit, "failed oom-kill", case, _RESULT_US)
        if late is not None and (by_memory(found.evidence) or found.evidence.unit_oom) and not found.evidence.oomd:
            main = self._boot.note(unit, "main", case)
            found.stopped_unit = main is None or main[1].signal != _SIGKILL
            found.entries.append(late[0])
        elif near is not None:
            found.entries.append(near[0])

    def _program_words(self, case: Case, unit: str | None, found: Gathered) -> None:
        """What the unit's main process says before and after."""
        told = next((proof.said for proof in case.proofs if isinstance(proof.said, Told)), None)
        words = [self._said(case, unit, "timeout"), self._said(case, unit, "forced"), self._limit(case, unit)]
        said = [word for word in words if word is not None]
        found.entries += [word.entry for word in said]
        found.limit_s = next((word.limit_s for word in reversed(said) if word.limit_s is not None), None)
        found.doing = (told.doing if told else "") or next((word.doing for word in said if word.doing), "")
        found.doing = found.doing or self._task(case, unit)
        lost = self._boot.lost.get(unit or "")
        if lost is not None and case.pid is not None:
            found.entries += list(islice(lost.oldest(case.first_us, case.last_us + _LOST_US), 2))

    def _said(self, case: Case, unit: str | None, what: str) -> Own | None:
        """What the program says that it does to this very process."""
        words = self._boot.own.get((unit or "", case.pid or 0))
        near = words.newest(case.first_us - JOIN_US, case.last_us + JOIN_US) if words is not None else ()
        return next((word for word in near if word.what == what), None)

    def _limit(self, case: Case, unit: str | None) -> Own | None:
        """The time limit that ended this process: its own, or the oldest one told that no process found dead before explains."""
        own = self._said(case, unit, "limit")
        limits = self._boot.limits.get(unit or "")
        if own is not None or limits is None or not is_told(case):
            return own
        first_us = case.first_us - 2 * NEAR_US
        before = self._boot.by_unit[unit or ""].newest(first_us, case.first_us)
        dead = sorted((c.first_us, c.pid or 0, c is case) for c in islice(before, 4 * SHARED) if is_told(c))
        left = list(limits.oldest(first_us, case.first_us))
        for at_us, _, this in dead:
            fitting = next((limit for limit in left if 0 <= at_us - limit[0].monotonic_us <= NEAR_US), None)
            if this:
                return Own(fitting[0], "limit", fitting[1], fitting[2]) if fitting is not None else None
            if fitting is not None:
                left.remove(fitting)
        return None

    def _task(self, case: Case, unit: str | None) -> str:
        """The task in hand, where the program took no other one lately."""
        tasks = self._boot.tasks.get(unit or "")
        taken = set(islice(tasks.newest(case.first_us - _TASK_US, case.first_us), 4 * SHARED)) if tasks is not None else set()
        return taken.pop() if len(taken) == 1 and case.pid is not None else ""

    def _people(self, case: Case, unit: str | None, proofs: list[Proof], found: Gathered) -> None:
        """Who asked for it: only before it happened, and only by its pid or name."""
        sent = self._sent(case, unit, proofs)
        asked = self._asked(case, unit, proofs)
        if sent is not None:
            user = self._ground.user(sent[1].login_uid) if sent[1].login_uid is not None else sent[1].comm
            found.entries.append(sent[0])
            found.evidence = replace(found.evidence, sender=asked[1].by if asked else user)
        if asked is not None:
            found.entries.append(asked[0])
            found.evidence = replace(found.evidence, sudo=asked[1].by)

    def _sent(self, case: Case, unit: str | None, proofs: list[Proof]) -> tuple[Entry, Sent] | None:
        calls = self._boot.calls_to.get(self._pid(case) or 0)
        if calls is None:
            return None
        masters = {proof.entry.pid for proof in proofs if isinstance(proof.said, Told)} | {1}
        main = self._ground.unit(unit)
        masters |= {main.main_pid} if main is not None else set()
        for entry, sent in calls.newest(case.first_us - NEAR_US, case.last_us + _AFTER_US):
            if sent.sender not in masters and posixpath.basename(sent.exe) not in _AT_WORK:
                return entry, sent
        return None

    def _asked(self, case: Case, unit: str | None, proofs: list[Proof]) -> tuple[Entry, Asked] | None:
        pid, name = self._pid(case), self._name(case, proofs, unit)
        for entry, asked in islice(self._boot.sudo.newest(case.first_us - NEAR_US, case.first_us + _AFTER_US), 4 * SHARED):
            by_name = asked.names_process(name, unit) and case.first_us - entry.monotonic_us <= _BY_NAME_US
            if (pid is not None and pid in asked.pids) or by_name or in_container(asked, case.container):
                return entry, asked
        return None

    def _triggers(self, case: Case, found: Gathered) -> None:
        """Who made the kernel choose a victim; why earlyoom chose one."""
        if found.evidence.hunter != "earlyoom" and not found.evidence.by_hand:
            return
        low = next(self._boot.low.newest(case.first_us - NEAR_US, case.last_us + _AFTER_US), None)
        if low is not None:
            found.entries.append(low)
            found.evidence = replace(found.evidence, trigger="earlyoom")
        for entry, asked in self._boot.sudo.newest(case.first_us - NEAR_US, case.first_us + _AFTER_US):
            if asked.sysrq and found.evidence.by_hand:
                found.entries.append(entry)
                found.evidence = replace(found.evidence, person=asked.by)
                return

    def _oomd(self, unit: str | None, case: Case) -> Case | None:
        """systemd-oomd's kill of this unit then."""
        cases = self._boot.by_key.get(f"oomd:{unit}", ()) if unit else ()
        return next((c for c in reversed(cases) if c is not case and (c.near(case.first_us) or c.near(case.last_us))), None)

    # How it is told.

    def _name(self, case: Case, proofs: list[Proof], unit: str | None) -> str:
        if case.pid is None:
            return (unit or "").removesuffix(".service") or case.cgroup.rsplit("/", 1)[-1] or case.container
        names = [p.said.name for p in proofs if isinstance(p.said, Victim | Summary | Reaped | DaemonKill | UnitSaid)]
        return next(filter(None, names), "") or next((self._child(p.entry) for p in proofs if p.unit), "")

    def _child(self, entry: Entry) -> str:
        """The child's name is its master's, until it names itself."""
        master = self._ground.process(entry.boot_id, entry.pid, entry.at)
        return master.name if master else entry.comm or dict(entry.extra).get("_COMM") or entry.identifier

    def _limit_bytes(self, case: Case, report: Report | None, unit: str | None, cause: str) -> int | None:
        if cause != "cgroup-limit":
            return None
        if report is None:
            return self._ground.limit(case.boot_id, unit) if not memory_of(case.proofs) else None
        if report.limit_bytes is not None and not report.doubtful:
            return report.limit_bytes
        owner = self._ground.place(report.limited).unit
        return self._ground.limit(case.boot_id, owner) if owner and report.limited.endswith(f"/{owner}") else None

    def _staged(self, case: Case, kill: Kill, proofs: list[Proof]) -> bool:
        """Whether a user can do this at will: in his own slice, by his slice's limit. The whole machine's trouble never is."""
        if kill.unit is not None or kill.cause in {"kernel-oom", "userspace-oom"}:
            return False
        limits = [p.said.limited for p in proofs if isinstance(p.said, DaemonKill) and not p.said.pid]
        if limits and not any(limit.startswith("/user.slice") for limit in limits):
            return False
        return case.staged or self._in_a_users_storm(case, kill)

    def _in_a_users_storm(self, case: Case, kill: Kill) -> bool:
        """The kernel prints ten reports in five seconds at most; a victim of the same user's without one is in the same storm."""
        others = self._boot.staged.get(kill.uid) if kill.uid is not None else None
        if others is None or case.cgroup or kill.cause != "cgroup-limit":
            return False
        return next(others.newest(case.first_us - NEAR_US, case.last_us + NEAR_US), None) is not None


_NO_ADVICE = advice(Known(cause="unknown", name=""))


def _advice(kill: Kill, found: Gathered, stop_s: float | None) -> Text:
    at_own_limit = not kill.limit_group or kill.limit_group.endswith(f"/{kill.unit}")
    limited = kill.container if kill.container and kill.container in kill.limit_group else kill.limit_group
    known = Known(
        cause=kill.cause,
        name=kill.name,
        unit=kill.unit,
        rss_bytes=kill.rss_bytes,
        limit_bytes=kill.limit_bytes,
        limited="" if at_own_limit else limited,
        stopped_unit=kill.stopped_unit,
        limit_s=found.limit_s,
        stop_s=stop_s,
        by=WATCHDOG if found.evidence.watchdog and kill.by == "systemd" else kill.by,
        container=kill.container,
    )
    return advice(known)
