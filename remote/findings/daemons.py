"""What systemd and the daemons that end processes say of it, as values.

Each reader is given a message whose sender was checked before: PID 1's, or one of the daemon's own unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnitSaid:
    """What PID 1 says of a unit. `what`: `oom` (the kernel's OOM killer), `oomd` (systemd-oomd's kill), `main` (the main
    process was ended by `signal`), `control` (one of ExecStartPre=, ExecStop=…), `failed` (with `result`), `timeout` (it stopped
    too slowly and will be killed), `slow` (it started or reloaded too slowly), `watchdog` (it gave no sign of life), `killing`
    (`pid`)."""

    what: str
    unit: str
    pid: int | None = None
    name: str = ""
    signal: int = 0
    result: str = ""


_TELLING = re.compile(r"kill|exited|Failed|timed out|Watchdog|Killing")
_UNIT = r"(?P<unit>[A-Za-z0-9:_.\\@-]{1,255}\.service): "
_SYSTEMD = (
    ("oom", re.compile(_UNIT + r"A process of this unit has been killed by the OOM killer\.")),
    ("oomd", re.compile(_UNIT + r"systemd-oomd killed (?:\d+|some) process\(?e?s?\)? in this unit\.")),
    ("main", re.compile(_UNIT + r"Main process exited, code=(?:killed|dumped), status=(?P<signal>\d{1,3})/\w+")),
    ("control", re.compile(_UNIT + r"Control process exited, code=(?:killed|dumped), status=(?P<signal>\d{1,3})/\w+")),
    ("failed", re.compile(_UNIT + r"Failed with result '(?P<result>[\w-]{1,40})'\.")),
    ("watchdog", re.compile(_UNIT + r"State '(?:stop|final)-(?:watchdog|sigabrt)' timed out\. Killing\.")),
    ("timeout", re.compile(_UNIT + r"(?:State '[\w-]{1,40}' timed out|Stopping timed out)\. Killing\.")),
    ("slow", re.compile(_UNIT + r"[\w-]{1,40} operation timed out\. (?:Terminating|Killing|Aborting|Stopping)\.", re.IGNORECASE)),
    ("watchdog", re.compile(_UNIT + r"Watchdog timeout(?: \(limit [\w. ]{1,40}\))?!")),
    ("killing", re.compile(_UNIT + r"Killing process (?P<pid>\d{1,10}) \((?P<comm>.{0,64})\) with signal SIGKILL\.", re.DOTALL)),
)  # fmt: skip


def systemd_line(message: str) -> UnitSaid | None:
    """What a line of PID 1's says of a service; slices repeat what their services said, and users' managers are not ours."""
    if not _TELLING.search(message):
        return None
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
    by: str = ""


_OOMD = re.compile(r"Killed (?P<cgroup>/.*?) due to (?:memory used .*|memory pressure for (?P<limited>/.*) being .*)", re.DOTALL)
# 1.3 has no uid, 1.6 and 1.7 `badness`, from 1.8 on `oom_score` and a command line, which is not for a chat.
_EARLYOOM = re.compile(
    r"sending SIG(?P<signal>TERM|KILL) to process (?P<pid>\d{1,10})(?: uid (?P<uid>\d{1,10}))? \"(?P<name>.{0,64}?)\": "
    r"(?:badness|oom_score) -?\d{1,6}(?:, oom_score_adj -?\d{1,6})?, VmRSS (?P<rss>\d{1,12}) MiB(?:, cmdline .*)?",
    re.DOTALL,
)
_EARLYOOM_1_2 = re.compile(
    r"Killing process '(?P<name>.{0,64})' with signal (?P<signal>9|15), pid: (?P<pid>\d{1,10}), badness: -?\d{1,6}, "
    r"VmRSS: (?P<rss>\d{1,12}) MiB\s*", re.DOTALL)  # fmt: skip
_ESCALATED = re.compile(r"escalating to SIGKILL after .*")


def oomd_line(message: str) -> DaemonKill | None:
    """systemd-oomd ends a cgroup. A group's name that holds another `Killed … due to` proves nothing."""
    found = _OOMD.fullmatch(message)
    if found is None or message.count(" due to memory ") != 1:
        return None
    return DaemonKill(cgroup=found["cgroup"], limited=found["limited"] or "", by="systemd-oomd")


def earlyoom_line(message: str) -> DaemonKill | None:
    """What earlyoom does: SIGTERM, then SIGKILL to one process."""
    if _ESCALATED.fullmatch(message):
        return DaemonKill(escalated=True, by="earlyoom")
    found = _EARLYOOM.fullmatch(message)
    if found is None:
        return _earlyoom_before(message)
    return DaemonKill(
        pid=int(found["pid"]),
        name=found["name"],
        uid=int(found["uid"]) if found["uid"] else None,
        rss_bytes=int(found["rss"]) << 20,
        signal=15 if found["signal"] == "TERM" else 9,
        by="earlyoom",
    )


def _earlyoom_before(message: str) -> DaemonKill | None:
    """As earlyoom 1.2 and older say it."""
    found = _EARLYOOM_1_2.fullmatch(message)
    if found is None:
        return None
    rss_bytes = int(found["rss"]) << 20
    return DaemonKill(int(found["pid"]), name=found["name"], rss_bytes=rss_bytes, signal=int(found["signal"]), by="earlyoom")


_LOW = re.compile(r"low memory! at or below SIG(?:TERM|KILL) limits: .{1,80}")
_TRIGGERED = re.compile(r"trigger_kernel_oom: successfully triggered kernel OOM killer\s*")


def earlyoom_looks(message: str) -> bool:
    """Whether earlyoom says why it is about to act: by itself, or by the kernel (`--kernel-oom`)."""
    return bool(_LOW.fullmatch(message) or _TRIGGERED.fullmatch(message))


# nohang prints each of its messages as several lines; the process stands on the line after a heading (src/nohang).
_NOHANG_HEADING = re.compile(
    r"\s*(?:Victim status \(found in \d+ms\):|(?:TOP printed in \d+ms; p|P)rocess with highest badness.*:)\s*"
)
_NOHANG_TARGET = re.compile(
    r"\s*PID:\s+(?P<pid>\d{1,10}), [Nn]ame: (?P<name>.{0,64}?)(?:, (?:badness: \d{1,6}|state: .*))?", re.DOTALL
)
_NOHANG_ACT = re.compile(r"\s*Sending SIG(?P<signal>TERM|KILL) to the victim\s*")


def nohang_heading(message: str) -> bool:
    """Whether the next line of nohang's names a process."""
    return _NOHANG_HEADING.fullmatch(message) is not None


def nohang_target(message: str) -> DaemonKill | None:
    """The process that nohang looks at."""
    found = _NOHANG_TARGET.fullmatch(message)
    return None if found is None else DaemonKill(int(found["pid"]), name=found["name"], by="nohang")


def nohang_signal(message: str) -> int | None:
    """The signal that nohang now sends to the process it looked at last."""
    found = _NOHANG_ACT.fullmatch(message)
    return None if found is None else {"TERM": 15, "KILL": 9}[found["signal"]]


# moby daemon/stop.go and daemon/kill.go (the id in the text before 20.10), containerd internal/cri/server/container_stop.go;
# both log as logfmt to stderr.
_LOGFMT = r'time="[\w:.+-]{10,40}" level=\w{4,7} msg="'
_FORCED = r"(?:signal \d{1,2} - using the force|kill - trying direct SIGKILL)"
_LATE = rf'Container failed to exit within [\w.]{{1,16}} of {_FORCED}" container=(?P<id>[0-9a-f]{{64}})'
_LATE_BEFORE = rf'Container (?P<id>[0-9a-f]{{64}}) failed to exit within \d{{1,6}} seconds of {_FORCED}"'
_CONTAINERS = (
    ("dockerd", re.compile(rf"{_LOGFMT}{_LATE}(?: .*)?", re.DOTALL)),
    ("dockerd", re.compile(rf"{_LOGFMT}{_LATE_BEFORE}(?: .*)?", re.DOTALL)),
    ("containerd", re.compile(_LOGFMT + r'Kill container \\"(?P<id>[0-9a-f]{64})\\""(?: .*)?', re.DOTALL)),
)


@dataclass(frozen=True, slots=True)
class ContainerKill:
    """A container runtime sends SIGKILL to a container that did not stop in time (or was given no time)."""

    id: str
    by: str


def container_line(message: str) -> ContainerKill | None:
    """What dockerd and containerd say of a container that they kill."""
    found = next(((by, found) for by, pattern in _CONTAINERS if (found := pattern.fullmatch(message))), None)
    return ContainerKill(found[1]["id"][:12], found[0]) if found else None


_CMDLINE = re.compile(r', cmdline ".*', re.DOTALL)


def without_command(message: str) -> str:
    """A line of earlyoom's without the victim's command line, which may hold a password in any place."""
    return _CMDLINE.sub(", cmdline …", message)
