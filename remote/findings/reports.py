"""The kernel's reports of OOM kills: it prints one after the other (under oom_lock), each in several lines, some of them lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from remote.facts.journal import Entry
from remote.findings.kill import Member
from remote.findings.lines import (
    Chosen,
    Exiting,
    GroupKill,
    Groups,
    KernelLine,
    Limit,
    Opened,
    Reaped,
    Summary,
    SysRq,
    Tasks,
    Victim,
    task_row,
)

# The kernel prints one report in one go, at a console's speed.
_REPORT_US = 10_000_000
# Members of a group that is killed whole follow at once.
_GROUP_US = 2_000_000
_SYSRQ_US = 15_000_000
# A summary without its victim's line is believed when so much later another line comes.
_HELD_US = 1_000_000
_MEMBERS = 12


@dataclass(slots=True)
class Report:
    """What the kernel prints before it names a victim. `memcg` says whose memory ran out, where it was said; `doubtful` that two
    reports began before a victim was named, so that numbers may be the other's."""

    at_us: int
    entries: list[Entry] = field(default_factory=list)
    memcg: bool | None = None
    by_hand: bool = False
    asked: bool = False
    limit_bytes: int | None = None
    limited: str = ""
    cgroup: str = ""
    pid: int | None = None
    group_us: int | None = None
    doubtful: bool = False
    rows: list[Member] = field(default_factory=list)

    @property
    def members(self) -> tuple[Member, ...]:
        """The biggest processes of its table."""
        return () if self.doubtful else tuple(sorted(self.rows, key=lambda row: row.rss_bytes, reverse=True)[:_MEMBERS])

    def about(self, pid: int, at_us: int) -> bool:
        """Whether it speaks of this victim: the one it names, the first if it names none, every one of a group kill."""
        if self.pid in {None, pid}:
            return abs(at_us - self.at_us) <= _REPORT_US
        return self.group_us is not None and abs(at_us - self.group_us) <= _GROUP_US

    def add_row(self, row: Member) -> None:
        """A table may have thousands."""
        self.rows.append(row)
        if len(self.rows) > 8 * _MEMBERS:
            self.rows = sorted(self.rows, key=lambda one: one.rss_bytes, reverse=True)[:_MEMBERS]


@dataclass(frozen=True, slots=True)
class Death:
    """A victim that the kernel named, and what it had printed before."""

    entry: Entry
    line: Victim | Summary | Reaped
    report: Report | None


class Reports:
    """Reads the kernel's lines of one boot in their order."""

    def __init__(self) -> None:
        """Between two reports."""
        self._open: Report | None = None
        self._tasks: Tasks | None = None
        self._sysrq: Entry | None = None
        self._held: Death | None = None

    def read(self, entry: Entry, line: KernelLine) -> tuple[Death, ...]:
        """The victims that this line names, or sets free: a summary alone may be of one that was not killed after all."""
        freed = self._free(entry, line)
        if isinstance(line, Tasks):
            self._tasks = line
        elif isinstance(line, Victim | Reaped):
            return (*freed, self._victim(entry, line))
        elif isinstance(line, Summary):
            self._held = self._summary(entry, line)
        else:
            self._note(entry, line)
        return freed

    def waiting(self, at_us: int | None = None) -> tuple[Death, ...]:
        """A summary whose victim's line does not come (by `at_us`; at all when left out)."""
        held = self._held
        if held is None or (at_us is not None and at_us - held.entry.monotonic_us < _HELD_US):
            return ()
        self._held = None
        return (held,)

    def _free(self, entry: Entry, line: KernelLine) -> tuple[Death, ...]:
        held = self._held
        if held is None:
            return ()
        if isinstance(line, Exiting) and line.pid == held.line.pid and entry.monotonic_us - held.entry.monotonic_us <= _REPORT_US:
            self._held = None
            return ()
        return self.waiting()

    def row(self, entry: Entry) -> None:
        """A line that says nothing may be a row of the open table."""
        if self._tasks is not None and self._open is not None:
            row = task_row(entry.message, self._tasks)
            if row is not None:
                self._open.add_row(row)

    def _summary(self, entry: Entry, line: Summary) -> Death:
        self._tasks = None
        report = self._open
        if report is None or not report.about(line.pid, entry.monotonic_us):
            report = self._open = Report(entry.monotonic_us)
        report.memcg, report.limited = line.memcg, line.limited
        report.cgroup = report.cgroup if report.group_us is not None else line.cgroup
        report.pid = report.pid or line.pid
        return Death(entry, line, report)

    def _victim(self, entry: Entry, line: Victim | Reaped) -> Death:
        self._tasks = None
        report = self._open
        if report is None or not report.about(line.pid, entry.monotonic_us) or (report.pid is None and isinstance(line, Reaped)):
            return Death(entry, line, self._beside(line))
        report.pid = report.pid or line.pid
        return Death(entry, line, report)

    def _beside(self, line: Victim | Reaped) -> Report | None:
        """Where a victim was whose own report the kernel left away, as it does in a storm: the report before listed it among the
        processes of that very group. Whose limit it was this time is not said."""
        last = self._open
        if last is None or last.doubtful or not last.cgroup or last.limited != last.cgroup:
            return None
        listed = any(row.pid == line.pid for row in last.rows)
        return Report(last.at_us, cgroup=last.cgroup, pid=line.pid) if listed else None

    def _note(self, entry: Entry, line: KernelLine) -> None:
        match line:
            case Opened():
                self._begin(entry, line)
            case SysRq():
                self._sysrq = entry
            case GroupKill(cgroup) if self._open is not None:
                self._open.group_us, self._open.cgroup = entry.monotonic_us, cgroup
                self._open.entries.append(entry)
            case Limit(limit_bytes):
                self._of(entry).limit_bytes = limit_bytes
            case Chosen(memcg):
                self._of(entry).memcg = memcg
            case Groups(cgroup, limited):
                report = self._of(entry)
                report.memcg, report.cgroup, report.limited = True, cgroup, limited
            case _:
                pass

    def _begin(self, entry: Entry, line: Opened) -> None:
        before = self._open
        torn = (
            before is not None and before.pid is None and entry.monotonic_us - before.at_us <= _HELD_US and bool(before.entries)
        )
        asked = self._sysrq if line.by_hand and self._sysrq and _near(self._sysrq, entry) else None
        entries: Sequence[Entry] = (asked, entry) if asked else (entry,)
        self._open = Report(entry.monotonic_us, [*entries], by_hand=line.by_hand, asked=asked is not None, doubtful=torn)

    def _of(self, entry: Entry) -> Report:
        """The report that a line belongs to, which may have lost its first one."""
        report = self._open
        if report is None or report.pid is not None or abs(entry.monotonic_us - report.at_us) > _REPORT_US:
            report = self._open = Report(entry.monotonic_us)
        report.entries.append(entry)
        return report


def _near(one: Entry, other: Entry) -> bool:
    return abs(one.monotonic_us - other.monotonic_us) <= _SYSRQ_US
