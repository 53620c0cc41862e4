"""What the kernel prints of an OOM kill, 2.6.18 to 6.18, as values.

Each reader is given a message whose sender was checked before. A comm is at most 15 bytes and may hold anything, a
cgroup's name may be chosen by whom it was delegated to: lines are read from their fixed ends, never searched through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from remote.findings.kill import Kill, Member

_KIB = 1024
# The kernel's table counts pages; they are larger on few machines (some arm64, ppc64).
_PAGE_BYTES = 4096
# What dmesg (-T too), rsyslog and old syslogd put before the text, and rsyslog for the line feed after it.
_CLOCK = r"\[(?: *\d{1,10}\.\d{1,9}|\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4})\] ?"
_STAMP = r"(?:\w{3} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[\d:.]{8,15}(?:Z|[+-]\d\d:\d\d)) [\w.-]{1,64} "
_PREFIX = rf"(?:{_STAMP})?(?:{_CLOCK})?(?:kernel:(?: :)? ?)?(?:{_CLOCK})?"
_END = r"(?:\s|#012)*"
# No line that matters is without one of these: a cheap look before the exact ones.
_TELLING = re.compile(r"[Kk]ill|oom|limit|tgid")
_VICTIM = re.compile(
    _PREFIX + r"(?:(?P<msg>Out of memory(?: \(oom_kill_allocating_task\))?|Memory cgroup out of memory): )?"
    r"Killed process (?P<pid>\d{1,10}),?(?: UID (?P<uid6>\d{1,10}),)? \((?P<comm>.{0,64}?)\)(?:, UID (?P<uid7>\d{1,10}),)? "
    r"total-vm:\d{1,18}kB, anon-rss:(?P<anon>\d{1,18})kB, file-rss:(?P<file>\d{1,18})kB(?:, shmem-rss:(?P<shmem>\d{1,18})kB)?"
    r"(?:, UID:(?P<uid>\d{1,10}))?(?: pgtables:\d{1,18}kB)?(?: oom_score_adj:-?\d{1,6})?",
    re.DOTALL,
)
# Before 2.6.32 or so: no sizes. The message ends there.
_ANCIENT = re.compile(_PREFIX + r"Out of memory: Killed process (?P<pid>\d{1,10}) \((?P<comm>.{0,64})\)\.?" + _END, re.DOTALL)
_SUMMARY = re.compile(_PREFIX + r"oom-kill:constraint=CONSTRAINT_(?P<constraint>[A-Z_]{1,20}),(?P<rest>.*)", re.DOTALL)
_SUMMARY_END = re.compile(r"(?P<pid>\d{1,10}),uid=(?P<uid>\d{1,10})" + _END)
_OPENED = re.compile(_PREFIX + r"(?P<comm>.{0,64}?) invoked oom-killer: gfp_mask=.*?order=(?P<order>-?\d{1,3}),.*", re.DOTALL)
_LIMIT = re.compile(_PREFIX + r"memory: usage \d{1,18}kB, limit (?P<limit>\d{1,18})kB, failcnt \d{1,20}" + _END)
_CHOSEN = re.compile(
    _PREFIX + r"(?P<msg>Out of [Mm]emory|Memory cgroup out of memory): [Kk]ill process \d{1,10} \(.{0,64}\) score \d.*", re.DOTALL
)
_OLD_GROUPS = re.compile(_PREFIX + r"Task in (?P<cgroup>/.*?) killed as a result of limit of (?P<limited>/.*?)" + _END, re.DOTALL)
_GROUP_KILL = re.compile(
    _PREFIX + r"Tasks in (?P<cgroup>/.*) are going to be killed due to memory\.oom\.group set" + _END, re.DOTALL
)
_SYSRQ = re.compile(_PREFIX + r"sysrq: (?:SysRq : )?Manual OOM execution" + _END, re.IGNORECASE)
_OPTION = r"(?:Out of [Mm]emory(?: \(oom_kill_allocating_task\))?|Memory cgroup out of memory)"
_EXITING = re.compile(
    _PREFIX + _OPTION + r": OOM victim (?P<pid>\d{1,10}) \(.{0,64}\) is already exiting\. Skip killing the task" + _END, re.DOTALL
)
_REAPED = re.compile(
    _PREFIX + r"oom_reaper: (?:reaped process (?P<pid>\d{1,10}) \((?P<comm>.{0,64}?)\), now anon-rss:\d.*"
    r"|unable to reap pid:(?P<stuck>\d{1,10}) \((?P<held>.{0,64})\))" + _END,
    re.DOTALL,
)
_TASKS = re.compile(_PREFIX + r"\[ *pid *\]\s+(?P<columns>uid\s+tgid\s+total_vm\s+rss\s[a-z_ ]{0,120}\bname)" + _END)
_TASK = re.compile(_PREFIX + r"\[ *\d{1,10}\] +(?P<values>\d.*)", re.DOTALL)
# PAGE_COUNTER_MAX: no limit was set. The exact number depends on the page size.
_UNLIMITED_KIB = 1 << 50


@dataclass(frozen=True, slots=True)
class Victim:
    """`Killed process N (comm)`. `memcg` says whose memory ran out, None where the line does not."""

    pid: int
    name: str
    uid: int | None
    rss_bytes: int | None
    memcg: bool | None


@dataclass(frozen=True, slots=True)
class Summary:
    """`oom-kill:constraint=…`. `limited` is the cgroup whose limit was hit, `cgroup` the victim's; both empty where a
    name in the line could pretend to be a field of it."""

    pid: int
    name: str
    uid: int
    memcg: bool
    limited: str
    cgroup: str


@dataclass(frozen=True, slots=True)
class Opened:
    """`X invoked oom-killer`: X only happened to allocate. `by_hand` when somebody asked for it (SysRq)."""

    by_hand: bool


@dataclass(frozen=True, slots=True)
class Limit:
    """`memory: usage …, limit …`: the limit of the cgroup that ran out, None for none."""

    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """`Kill process N … or sacrifice child` (before 5.1): the line of the victim follows, without saying whose memory."""

    memcg: bool


@dataclass(frozen=True, slots=True)
class Groups:
    """`Task in A killed as a result of limit of B` (before 5.0)."""

    cgroup: str
    limited: str


@dataclass(frozen=True, slots=True)
class GroupKill:
    """`Tasks in A are going to be killed`: the victims that follow all belong to it."""

    cgroup: str


@dataclass(frozen=True, slots=True)
class SysRq:
    """Somebody wrote `f` to /proc/sysrq-trigger."""


@dataclass(frozen=True, slots=True)
class Exiting:
    """The process that was chosen ends by itself: it is not killed."""

    pid: int


@dataclass(frozen=True, slots=True)
class Reaped:
    """The memory of a victim was taken (or could not be): it was killed before."""

    pid: int
    name: str


@dataclass(frozen=True, slots=True)
class Tasks:
    """The heading of the kernel's table of processes; `columns` are the words after `[ pid ]`, which differ by version."""

    columns: tuple[str, ...]


KernelLine = Victim | Summary | Opened | Limit | Chosen | Groups | GroupKill | SysRq | Exiting | Reaped | Tasks


def kernel_line(message: str) -> KernelLine | None:
    """What a line of the kernel's says of an OOM kill; None for all other lines."""
    if not _TELLING.search(message):
        return SysRq() if _SYSRQ.fullmatch(message) else None
    return _killed(message) or _report(message)


def kernel_made(kill: Kill) -> bool:
    """Whether the kernel's OOM killer did it: then /proc/vmstat counts it too, as it does not count any other's signal."""
    if kill.cause in {"kernel-oom", "cgroup-limit"}:
        return True
    return any(isinstance(kernel_line(line), Victim | Summary) for line in kill.evidence)


def _killed(message: str) -> KernelLine | None:
    """Lines that name a victim."""
    if found := _VICTIM.match(message):
        return _victim(found)
    if found := _ANCIENT.fullmatch(message):
        return Victim(int(found["pid"]), found["comm"], None, None, memcg=False)
    if found := _SUMMARY.fullmatch(message):
        return _summary(found["constraint"], found["rest"])
    if found := _REAPED.fullmatch(message):
        return Reaped(int(found["pid"] or found["stuck"]), found["comm"] or found["held"] or "")
    found = _EXITING.fullmatch(message)
    return Exiting(int(found["pid"])) if found else None


def _report(message: str) -> KernelLine | None:
    """Lines of the report around it."""
    if found := _OPENED.fullmatch(message):
        return Opened(found["order"] == "-1")
    if found := _LIMIT.fullmatch(message):
        limit_kib = int(found["limit"])
        return Limit(limit_kib * _KIB if limit_kib < _UNLIMITED_KIB else None)
    if found := _CHOSEN.fullmatch(message):
        return Chosen(found["msg"].startswith("Memory cgroup"))
    if found := _OLD_GROUPS.fullmatch(message):
        return Groups(found["cgroup"], found["limited"])
    if found := _GROUP_KILL.fullmatch(message):
        return GroupKill(found["cgroup"])
    found = _TASKS.fullmatch(message)
    return Tasks(tuple(found["columns"].split())) if found else None


def task_row(message: str, tasks: Tasks) -> Member | None:
    """A process of the kernel's table, by the heading's names; None for a line that is no row of it."""
    found = _TASK.fullmatch(message)
    values = found["values"].rstrip("\n").split(maxsplit=len(tasks.columns) - 1) if found else []
    if len(values) == len(tasks.columns) - 1:
        values.append("")  # a process may have no name
    row = dict(zip(tasks.columns, values, strict=False))
    pid, pages = row.get("tgid", ""), row.get("rss", "")
    if len(values) != len(tasks.columns) or not (_NUMBER.fullmatch(pid) and _NUMBER.fullmatch(pages)):
        return None
    return Member(int(pid), row["name"], int(pages) * _PAGE_BYTES)


_NUMBER = re.compile(r"\d{1,18}", re.ASCII)


def _victim(found: re.Match[str]) -> Victim:
    uid = next((int(found[name]) for name in ("uid", "uid7", "uid6") if found[name]), None)
    rss_kib = sum(int(found[name] or 0) for name in ("anon", "file", "shmem"))
    memcg = None if found["msg"] is None else found["msg"].startswith("Memory cgroup")
    return Victim(int(found["pid"]), found["comm"], uid, rss_kib * _KIB, memcg)


def _summary(constraint: str, rest: str) -> Summary | None:
    """A cgroup may be called `a,task_memcg=/system.slice/other.service`: a line with two such fields proves no group."""
    fields, _, end = rest.rpartition(",pid=")
    ids = _SUMMARY_END.fullmatch(end)
    if ids is None:
        return None
    before, _, after = fields.partition(",task_memcg=")
    cgroup, _, name = after.partition(",task=")
    limited = before.partition(",oom_memcg=")[2]
    clear = rest.count(",task_memcg=") == 1 and rest.count(",oom_memcg=") <= 1
    return Summary(
        pid=int(ids["pid"]),
        name=name if clear else fields.rpartition(",task=")[2],
        uid=int(ids["uid"]),
        memcg=constraint == "MEMCG" or ",oom_memcg=" in before,
        limited=limited if clear else "",
        cgroup=cgroup if clear else "",
    )
