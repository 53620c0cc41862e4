"""Reads entries into what is remembered of a boot: who may be believed about what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from remote.facts._journal_scripts import CONTAINERS, SUDO
from remote.facts.journal import Entry
from remote.findings.cases import JOIN_US, NEAR_US, Boot, Case, Own, Proof, Told
from remote.findings.daemons import (
    DaemonKill,
    UnitSaid,
    container_line,
    earlyoom_line,
    earlyoom_looks,
    nohang_heading,
    nohang_signal,
    nohang_target,
    oomd_line,
    systemd_line,
)
from remote.findings.filing import Filing
from remote.findings.ground import Ground
from remote.findings.lines import kernel_line
from remote.findings.people import audit_call, audit_target, sudo_line
from remote.findings.reports import Death
from remote.findings.workers import Crew
from remote.services import kinds
from remote.services.base import Sign

_SIGKILL = 9
# earlyoom waits 0.1 s at least after each signal (main.c poll_loop); a line so soon after another is of the victim's own making:
# it prints command lines as they are, line feeds too.
_EARLYOOM_US = 50_000
# An audit event's records come together.
_EVENT_US = 100_000
_MOST_LOST = 256
_OF_ITSELF = {"booted", "exiting"}
_OPENING = {"main", "control", "oom"}


class Reader(Filing):
    """Each entry may open a case or add to one. What each line says is kept by its time: in which order lines of different
    senders come, and whether they come twice, changes nothing."""

    def __init__(self, ground: Ground) -> None:
        """Nothing was read."""
        super().__init__(ground)
        self._escalating: dict[str, tuple[Entry, DaemonKill]] = {}
        self._nohang: dict[str, tuple[bool, Entry | None]] = {}
        self._daemons: Mapping[str, Callable[[Boot, Entry], Sequence[Case]]] = {
            "systemd-oomd.service": self._oomd,
            "earlyoom.service": self._earlyoom,
            "nohang.service": self._read_nohang,
            "nohang-desktop.service": self._read_nohang,
            **dict.fromkeys(CONTAINERS, self._container),
        }

    def read(self, entry: Entry) -> Iterable[Case]:
        """The cases that an entry opened or may have changed."""
        boot = self.boots[entry.boot_id]
        freed = self.free(boot, entry.monotonic_us)
        touched = self._read(boot, entry)
        return (*freed, *touched) if freed else touched

    def free(self, boot: Boot, at_us: int | None) -> list[Case]:
        """Believe a kernel's summary whose victim's own line does not come."""
        return self._deaths(boot, boot.reports.waiting(at_us))

    def _read(self, boot: Boot, entry: Entry) -> Sequence[Case]:
        if entry.from_kernel:
            return self._kernel(boot, entry)
        if entry.transport == "audit":
            return self._audit(boot, entry)
        if entry.from_systemd:
            said = systemd_line(entry.message)
            return () if said is None or self.again(boot, entry) else self._unit_said(boot, entry, said)
        if entry.system_unit in self._daemons:
            return self._daemons[entry.system_unit](boot, entry)
        # sudo logs with the caller's own uid (Debian 12, 1.9.13), but it is root: traced by its caller, to be made to say
        # anything, the kernel leaves it without capabilities.
        if entry.exe in SUDO and (entry.uid == 0 or entry.capable):
            return self._sudo(boot, entry)
        return self._program(boot, entry)

    def _kernel(self, boot: Boot, entry: Entry) -> Sequence[Case]:
        line = kernel_line(entry.message)
        if line is None:
            boot.reports.row(entry)
            return ()
        return () if self.again(boot, entry) else self._deaths(boot, boot.reports.read(entry, line))

    def _deaths(self, boot: Boot, deaths: Iterable[Death]) -> list[Case]:
        return [self.proof(boot, death.line.pid, Proof(death.entry, death.line, death.report)) for death in deaths]

    def _unit_said(self, boot: Boot, entry: Entry, said: UnitSaid) -> Sequence[Case]:
        if said.what == "oomd":
            return (self.proof(boot, f"oomd:{said.unit}", Proof(entry, said), NEAR_US),)
        if said.what == "killing":
            return self._killing(boot, entry, said)
        boot.notes[said.unit, said.what].add(entry.monotonic_us, (entry, said))
        if said.result == "oom-kill":
            boot.notes[said.unit, "failed oom-kill"].add(entry.monotonic_us, (entry, said))
        touched = self.near_unit(boot, said.unit, entry)
        if said.what in _OPENING:
            touched.append(self.proof(boot, f"unit:{said.unit}", Proof(entry, said), NEAR_US))
            touched += self._adopters(boot, entry)
        return touched

    def _adopters(self, boot: Boot, entry: Entry) -> list[Case]:
        at_us = entry.monotonic_us
        near = list(islice(boot.homeless.newest(at_us - NEAR_US, at_us + NEAR_US), 2))
        return near if len(near) == 1 else []

    def _killing(self, boot: Boot, entry: Entry, said: UnitSaid) -> Sequence[Case]:
        """SIGKILL from systemd. Without a timeout before it, it only clears up what a stopped unit left behind."""
        begun = (boot.notes.get((said.unit, what)) for what in ("timeout", "watchdog", "slow"))
        after = range(entry.monotonic_us - NEAR_US, entry.monotonic_us + NEAR_US)
        if not any(next(notes.newest(after.start, after.stop), None) for notes in begun if notes is not None):
            return ()
        return (self.proof(boot, said.pid or 0, Proof(entry, said)),)

    def _sudo(self, boot: Boot, entry: Entry) -> Sequence[Case]:
        asked = sudo_line(entry.message)
        if asked is None or self.again(boot, entry):
            return ()
        boot.sudo.add(entry.monotonic_us, (entry, asked))
        told = [case for pid in asked.pids if (case := boot.case(pid, entry, NEAR_US)) is not None]
        return [*told, *(case for unit in asked.units for case in self.near_unit(boot, unit, entry))]

    def _audit(self, boot: Boot, entry: Entry) -> Sequence[Case]:
        """A system call and whom it was sent to: two records of one event, of which only the first names the sender."""
        at_us = entry.monotonic_us
        sent, pid = audit_call(entry.audit_type, entry.message), audit_target(entry.audit_type, entry.message)
        if (sent is None and pid is None) or self.again(boot, entry):
            return ()
        if sent is not None:
            boot.calls.add(at_us, (entry, sent))
            pids = {sent.pid} if sent.pid is not None else self._targets(boot, at_us)
            calls = [(entry, sent)]
        else:
            boot.targets[pid or 0].add(at_us, entry)
            pids = {pid}
            calls = list(boot.calls.newest(at_us - _EVENT_US, at_us + _EVENT_US))[:1]
        touched = []
        for target in pids - {None}:
            for call in calls:
                boot.calls_to[target or 0].add(call[0].monotonic_us, call)
            touched.append(boot.case(target or 0, entry, NEAR_US))
        return [case for case in touched if case is not None]

    def _targets(self, boot: Boot, at_us: int) -> set[int | None]:
        return {pid for pid, seen in boot.targets.items() if next(seen.newest(at_us - _EVENT_US, at_us + _EVENT_US), None)}

    # OOM daemons and container runtimes, each believed from its own unit only.

    def _oomd(self, boot: Boot, entry: Entry) -> Sequence[Case]:
        done = oomd_line(entry.message)
        if done is None or self.again(boot, entry):
            return ()
        unit = self._ground.place(done.cgroup).unit
        return (self.proof(boot, f"oomd:{unit or done.cgroup}", Proof(entry, done), NEAR_US),)

    def _earlyoom(self, boot: Boot, entry: Entry) -> Sequence[Case]:
        done = earlyoom_line(entry.message)
        if done is None:
            if earlyoom_looks(entry.message) and not self.again(boot, entry):
                boot.low.add(entry.monotonic_us, entry)
            return ()
        last = self._escalating.get(entry.boot_id)
        if done.pid is None:
            if last is None or not 0 <= entry.monotonic_us - last[0].monotonic_us <= NEAR_US or self.again(boot, entry):
                return ()
            return (self.proof(boot, last[1].pid or 0, Proof(entry, replace(last[1], signal=_SIGKILL))),)
        if last is not None and last[1] != done and 0 <= entry.monotonic_us - last[0].monotonic_us < _EARLYOOM_US:
            return ()
        if self.again(boot, entry):
            return ()
        self._escalating[entry.boot_id] = (entry, done)
        return (self.proof(boot, done.pid, Proof(entry, done)),)

    def _read_nohang(self, boot: Boot, entry: Entry) -> Sequence[Case]:
        """The line after a heading names the process; the next that says so, the signal."""
        heading, target = self._nohang.get(entry.boot_id, (False, None))
        signal = nohang_signal(entry.message)
        done = nohang_target(target.message) if target is not None else None
        if heading and nohang_target(entry.message) is not None:
            target = entry
        self._nohang[entry.boot_id] = (nohang_heading(entry.message), target)
        if signal is None or done is None or target is None or not _soon(target, entry) or self.again(boot, entry):
            return ()
        self.proof(boot, done.pid or 0, Proof(target, replace(done, signal=signal)))
        return (self.proof(boot, done.pid or 0, Proof(entry, replace(done, signal=signal))),)

    def _container(self, boot: Boot, entry: Entry) -> Sequence[Case]:
        """The daemon's own log goes to its stderr; what comes natively is a container's output (the journald log driver)."""
        done = container_line(entry.message) if entry.transport == "stdout" else None
        if done is None or self.again(boot, entry):
            return ()
        return (self.proof(boot, f"container:{done.id}", Proof(entry, done), NEAR_US),)

    # Programs: the word of a unit's main process about its children, and of a worker about itself.

    def _program(self, boot: Boot, entry: Entry) -> Sequence[Case]:
        speaks = self._ground.speaks(entry)
        if not speaks and ("orker" not in entry.message or not self._ground.knows(entry)):
            return ()
        found = next(((kind.name, sign) for kind in kinds().values() if (sign := kind.sign(entry)) is not None), None)
        if found is None:
            return ()
        kind, sign = found
        own = sign.pid == entry.pid and sign.what in _OF_ITSELF
        return self._sign(boot, entry, kind, sign) if (speaks or own) and not self.again(boot, entry) else ()

    def _sign(self, boot: Boot, entry: Entry, kind: str, sign: Sign) -> Sequence[Case]:
        crew = boot.crews[entry.system_unit, entry.invocation]
        pid = sign.pid if sign.pid is not None else crew.named(sign.name)
        match sign.what:
            case "killed" | "died" if pid is not None:
                crew.ended(pid)
                return self._told(boot, entry, pid, Told(sign.signal, sign.task, died=sign.what == "died"))
            case "timeout" | "limit" | "forced" as what:
                return self._announced(boot, entry, what, pid, sign)
            case "lost":
                return self._lost(boot, entry)
            case "booted" if pid is not None:
                return self._booted(boot, entry, crew, pid, sign.name)
            case what:
                self._noted(boot, entry, kind, crew, what, pid, sign)
                return ()

    def _announced(self, boot: Boot, entry: Entry, what: str, pid: int | None, sign: Sign) -> Sequence[Case]:
        """The program will end one of its processes, which it names or not."""
        unit, at_us, doing = entry.system_unit, entry.monotonic_us, sign.task
        if what == "limit" and pid is None:
            boot.limits[unit].add(at_us, (entry, sign.limit_s, doing))
            return self.near_unit(boot, unit, entry)
        if pid is None:
            return ()
        boot.own[unit, pid].add(at_us, Own(entry, what, sign.limit_s, doing))
        case = boot.case(pid, entry)
        return () if case is None or case.unit != unit else (case,)

    def _lost(self, boot: Boot, entry: Entry) -> Sequence[Case]:
        """A consequence, told later and without a pid."""
        boot.lost[entry.system_unit].add(entry.monotonic_us, entry)
        near = list(islice(boot.by_unit[entry.system_unit].newest(entry.monotonic_us - 2 * NEAR_US, entry.monotonic_us), 1))
        if not near and len(self.lost) < _MOST_LOST:
            self.lost.append(entry)
        return near

    def _booted(self, boot: Boot, entry: Entry, crew: Crew, pid: int, name: str) -> Sequence[Case]:
        """A new worker: perhaps for one that went without a word."""
        gone = crew.booted(pid, name, entry.monotonic_us)
        said = Told(_SIGKILL, guessed=True)
        told = [old for old in gone if not self._elsewhere(entry, old) and boot.case(old, entry) is None]
        return [self.proof(boot, old, Proof(entry, said, unit=entry.system_unit)) for old in told]

    def _noted(self, boot: Boot, entry: Entry, kind: str, crew: Crew, what: str, pid: int | None, sign: Sign) -> None:
        if what == "version" and kind == "gunicorn":
            crew.started(sign.version, entry.monotonic_us)
        elif what == "task":
            boot.tasks[entry.system_unit].add(entry.monotonic_us, sign.task)
        elif pid is not None:
            crew.ended(pid)
            if what == "recycled":
                boot.own[entry.system_unit, pid].add(entry.monotonic_us, Own(entry, what, None, ""))

    def _told(self, boot: Boot, entry: Entry, pid: int, told: Told) -> Sequence[Case]:
        """A master found its child dead. It knows the pid and the signal, not who sent it."""
        known = boot.case(pid, entry)
        if self._elsewhere(entry, pid) or self._by_design(boot, entry, pid):
            return ()
        if known is None and told.signal != _SIGKILL and not self._limited(boot, entry, pid):
            return ()  # SIGTERM is how one is asked to end
        return (self.proof(boot, pid, Proof(entry, told, unit=entry.system_unit)),)

    def _by_design(self, boot: Boot, entry: Entry, pid: int) -> bool:
        """Whether the program itself recycled it."""
        own = boot.own.get((entry.system_unit, pid))
        near = own.newest(entry.monotonic_us - JOIN_US, entry.monotonic_us) if own is not None else ()
        return any(word.what == "recycled" for word in near)

    def _elsewhere(self, entry: Entry, pid: int) -> bool:
        """Whether the process is known to be another unit's."""
        process = self._ground.process(entry.boot_id, pid, entry.at)
        place = self._ground.place(process.cgroup) if process is not None and process.cgroup else None
        return place is not None and place.unit not in {None, entry.system_unit}

    def _limited(self, boot: Boot, entry: Entry, pid: int) -> bool:
        """Whether the program had said that it would end one."""
        at_us = entry.monotonic_us
        said = (boot.limits.get(entry.system_unit), boot.own.get((entry.system_unit, pid)))
        return any(next(iter(words.newest(at_us - NEAR_US, at_us)), None) for words in said if words is not None)


def _soon(one: Entry, other: Entry) -> bool:
    return abs(other.monotonic_us - one.monotonic_us) <= NEAR_US
