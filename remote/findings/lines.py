"""What the kernel, systemd and the OOM daemons print of a kill, in every shape known, as values.

Each reader is given a message whose sender was checked before. A comm is at most 15 bytes and may hold anything, a
cgroup's name may be chosen by whom it was delegated to: lines are read from their fixed ends, never searched through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_KIB = 1024
# dmesg and syslog put these before the text.
_PREFIX = r"(?:\[ *\d+\.\d+\] ?)?(?:kernel: ?)?(?:\[ *\d+\.\d+\] ?)?"
_VICTIM = re.compile(
    _PREFIX + r"(?:(?P<msg>Out of memory(?: \(oom_kill_allocating_task\))?|Memory cgroup out of memory): )?"
    r"Killed process (?P<pid>\d{1,10}),?(?: UID (?P<uid6>\d{1,10}),)? \((?P<comm>.{0,64}?)\)(?:, UID (?P<uid7>\d{1,10}),)? "
    r"total-vm:\d{1,18}kB, anon-rss:(?P<anon>\d{1,18})kB, file-rss:(?P<file>\d{1,18})kB(?:, shmem-rss:(?P<shmem>\d{1,18})kB)?"
    r"(?:, UID:(?P<uid>\d{1,10}))?(?: pgtables:\d{1,18}kB)?(?: oom_score_adj:-?\d{1,6})?",
    re.DOTALL,
)
# Before 2.6.32 or so: no sizes. The message ends there.
_ANCIENT = re.compile(_PREFIX + r"Out of memory: Killed process (?P<pid>\d{1,10}) \((?P<comm>.{0,64})\)\.?\s*", re.DOTALL)
_SUMMARY = re.compile(_PREFIX + r"oom-kill:constraint=CONSTRAINT_(?P<constraint>[A-Z_]{1,20}),(?P<rest>.*)", re.DOTALL)
_SUMMARY_END = re.compile(r"(?P<pid>\d{1,10}),uid=(?P<uid>\d{1,10})\s*")
_OPENED = re.compile(_PREFIX + r"(?P<comm>.{0,64}?) invoked oom-killer: gfp_mask=.*?order=(?P<order>-?\d{1,3}),.*", re.DOTALL)
_LIMIT = re.compile(_PREFIX + r"memory: usage \d{1,18}kB, limit (?P<limit>\d{1,18})kB, failcnt \d{1,20}\s*")
_CHOSEN = re.compile(
    _PREFIX + r"(?P<msg>Out of [Mm]emory|Memory cgroup out of memory): Kill process \d{1,10} \(.{0,64}\) score \d.*", re.DOTALL
)
_OLD_GROUPS = re.compile(_PREFIX + r"Task in (?P<cgroup>/.*?) killed as a result of limit of (?P<limited>/.*?)\s*", re.DOTALL)
_GROUP_KILL = re.compile(_PREFIX + r"Tasks in (?P<cgroup>/.*) are going to be killed due to memory\.oom\.group set\s*", re.DOTALL)
_SYSRQ = re.compile(_PREFIX + r"sysrq: (?:SysRq : )?Manual OOM execution\s*", re.IGNORECASE)
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


KernelLine = Victim | Summary | Opened | Limit | Chosen | Groups | GroupKill | SysRq


def kernel_line(message: str) -> KernelLine | None:
    """What a line of the kernel's says of an OOM kill; None for all other lines."""
    if found := _VICTIM.match(message):
        return _victim(found)
    if found := _ANCIENT.fullmatch(message):
        return Victim(int(found["pid"]), found["comm"], None, None, memcg=False)
    if found := _SUMMARY.fullmatch(message):
        return _summary(found["constraint"], found["rest"])
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
    return SysRq() if _SYSRQ.fullmatch(message) else None


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
        memcg=constraint == "MEMCG",
        limited=limited if clear else "",
        cgroup=cgroup if clear else "",
    )


@dataclass(frozen=True, slots=True)
class UnitSaid:
    """What PID 1 says of a unit. `what`: `oom` (the kernel's OOM killer), `oomd` (systemd-oomd's kill), `main` (the main
    process was ended by `signal`), `failed` (with `result`), `timeout` (it will now be killed), `killing` (`pid`)."""

    what: str
    unit: str
    pid: int | None = None
    name: str = ""
    signal: int = 0
    result: str = ""


_UNIT = r"(?P<unit>[A-Za-z0-9:_.\\@-]{1,255}\.service): "
_SYSTEMD = (
    ("oom", re.compile(_UNIT + r"A process of this unit has been killed by the OOM killer\.")),
    ("oomd", re.compile(_UNIT + r"systemd-oomd killed (?:\d+|some) process\(?e?s?\)? in this unit\.")),
    ("main", re.compile(_UNIT + r"Main process exited, code=(?:killed|dumped), status=(?P<signal>\d{1,3})/\w+")),
    ("failed", re.compile(_UNIT + r"Failed with result '(?P<result>[\w-]{1,40})'\.")),
    ("timeout", re.compile(_UNIT + r"(?:State '[\w-]{1,40}' timed out|Stopping timed out)\. Killing\.")),
    ("killing", re.compile(_UNIT + r"Killing process (?P<pid>\d{1,10}) \((?P<comm>.{0,64})\) with signal SIGKILL\.", re.DOTALL)),
)  # fmt: skip


def systemd_line(message: str) -> UnitSaid | None:
    """What a line of PID 1's says of a service; slices repeat what their services said, and users' managers are not ours."""
    for what, pattern in _SYSTEMD:
        found = pattern.fullmatch(message)
        if found is not None and not found["unit"].startswith("user@"):
            parts = found.groupdict()
            return UnitSaid(
                what,
                found["unit"],
                pid=int(parts["pid"]) if parts.get("pid") else None,
                name=parts.get("comm") or "",
                signal=int(parts.get("signal") or 0),
                result=parts.get("result") or "",
            )
    return None


@dataclass(frozen=True, slots=True)
class DaemonKill:
    """What an OOM daemon says: it ends `pid` or a whole `cgroup` by `signal`. `escalated`: it now sends SIGKILL instead."""

    pid: int | None = None
    cgroup: str = ""
    name: str = ""
    uid: int | None = None
    rss_bytes: int | None = None
    signal: int = 9
    escalated: bool = False
    limited: str = ""


_OOMD = re.compile(r"Killed (?P<cgroup>/.*?) due to (?:memory used .*|memory pressure for (?P<limited>/.*) being .*)", re.DOTALL)
# 1.3 has no uid, 1.6 and 1.7 `badness`, from 1.8 on `oom_score` and a command line, which is not for a chat.
_EARLYOOM = re.compile(
    r"sending SIG(?P<signal>TERM|KILL) to process (?P<pid>\d{1,10})(?: uid (?P<uid>\d{1,10}))? \"(?P<name>.{0,64}?)\": "
    r"(?:badness|oom_score) -?\d{1,6}(?:, oom_score_adj -?\d{1,6})?, VmRSS (?P<rss>\d{1,12}) MiB(?:, cmdline .*)?",
    re.DOTALL,
)
_ESCALATED = re.compile(r"escalating to SIGKILL after .*")


def oomd_line(message: str) -> DaemonKill | None:
    """systemd-oomd ends a cgroup. A group's name that holds another `Killed … due to` proves nothing."""
    found = _OOMD.fullmatch(message)
    if found is None or message.count(" due to memory ") != 1:
        return None
    return DaemonKill(cgroup=found["cgroup"], limited=found["limited"] or "")


def earlyoom_line(message: str) -> DaemonKill | None:
    """What earlyoom does: SIGTERM, then SIGKILL to one process."""
    if _ESCALATED.fullmatch(message):
        return DaemonKill(escalated=True)
    found = _EARLYOOM.fullmatch(message)
    if found is None:
        return None
    return DaemonKill(
        pid=int(found["pid"]),
        name=found["name"],
        uid=int(found["uid"]) if found["uid"] else None,
        rss_bytes=int(found["rss"]) << 20,
        signal=15 if found["signal"] == "TERM" else 9,
    )


_CMDLINE = re.compile(r', cmdline ".*', re.DOTALL)


def without_command(message: str) -> str:
    """A line of earlyoom's without the victim's command line, which may hold a password in any place."""
    return _CMDLINE.sub(", cmdline …", message)
