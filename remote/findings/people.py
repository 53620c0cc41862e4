"""Who sent a SIGKILL by hand: sudo's line of a command, the kernel's audit record of a system call.

Each reader is given a message whose sender was checked before: sudo's own process, or the audit socket.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody had SIGKILL sent by sudo: to `pids`, to what is called like `names` (pkill: any part of it), to all of `units`,
    to `containers` (ids or names), or to whatever the kernel picks (`sysrq`)."""

    by: str
    pids: frozenset[int] = frozenset()
    names: tuple[str, ...] = ()
    parts: bool = False
    units: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    sysrq: bool = False

    def names_process(self, name: str, unit: str | None) -> bool:
        """Whether the command was meant for a process of this name, or of this unit."""
        if unit is not None and unit in self.units:
            return True
        if not name:
            return False
        return any(wanted == name or (self.parts and wanted in name) for wanted in self.names)


@dataclass(frozen=True, slots=True)
class Sent:
    """`sender` sent SIGKILL, to `pid` where the call's arguments name a process. `login_uid` is who had logged in, None for what
    no session started."""

    sender: int
    comm: str
    exe: str
    pid: int | None
    login_uid: int | None


# sudo lib/eventlog/eventlog.c new_logline: control characters are escaped, but a directory may hold a whole false line.
_SUDO = re.compile(
    r"\s*(?P<by>[^:\n]{1,64}?) : (?:HOST=[^;]{1,255} ; )?(?:TTY=[^;]{1,64} ; )?(?:CHROOT=.{1,4096} ; )?(?:PWD=.{1,4096} ; )?"
    r"USER=[^;]{1,64} ; (?:GROUP=[^;]{1,64} ; )?(?:TSID=[^;]{1,64} ; )?(?:ENV=.{1,4096} ; )?COMMAND=(?P<command>/[^\n]{1,4096})",
    re.DOTALL,
)
_KILL = re.compile(r"(?:SIG)?KILL|9", re.IGNORECASE)
_PID = re.compile(r"-?(?P<pid>\d{1,9})", re.ASCII)
_SHELLS = {"sh", "bash", "dash", "zsh"}
_VALUED = {"-u", "-U", "-g", "-G", "-P", "-t", "--euid", "--uid", "--pgroup", "--group", "--parent", "--terminal"}


def sudo_line(message: str) -> Asked | None:
    """What sudo was asked to do; None for commands that send no SIGKILL, and where the line can be read in two ways."""
    found = _SUDO.fullmatch(message) if message.count("COMMAND=") == 1 else None
    if found is None:
        return None
    words = _words(found["command"])
    by = found["by"].strip()
    if any(word.endswith("/proc/sysrq-trigger") for word in words):
        return Asked(by, sysrq=True)
    return _asked(by, posixpath.basename(words[0]), words[1:]) if words else None


def _words(command: str) -> list[str]:
    """The command's words: sudo quotes what holds a space (since 1.9.14), and a shell's `-c` holds the command itself."""
    words = command.split()
    if posixpath.basename(words[0]) in _SHELLS and words[1:2] == ["-c"]:
        words = " ".join(words[2:]).strip("'\"").replace(">", " ").split()
    return words


def _asked(by: str, program: str, words: Sequence[str]) -> Asked | None:
    match program:
        case "kill":
            signal, rest = _signal(words)
            pids = frozenset(int(found["pid"]) for word in rest if (found := _PID.fullmatch(word)))
            return Asked(by, pids) if _KILL.fullmatch(signal) and pids else None
        case "pkill" | "killall":
            signal, rest = _signal(words)
            names = tuple(word for word in rest if not word.startswith("-"))[-1 if program == "pkill" else 0 :]
            return Asked(by, names=names, parts=program == "pkill") if _KILL.fullmatch(signal) and names else None
        case "systemctl" if "kill" in words:
            signal, rest = _signal([word for word in words if word != "kill"])
            units = tuple(_unit(word) for word in rest if not word.startswith("-"))
            return Asked(by, units=units) if _KILL.fullmatch(signal) and units else None
        case "docker" | "podman" | "nerdctl":
            return _container(by, words)
        case _:
            return None


def _container(by: str, words: Sequence[str]) -> Asked | None:
    """`docker kill` sends SIGKILL unless told otherwise, `docker rm -f` always."""
    verb = [word for word in words if word != "container"][:1]
    signal, rest = _signal(words)
    ids = tuple(word for word in rest if not word.startswith("-") and word not in {"container", "kill", "rm"})
    forced = verb == ["rm"] and any(word in {"-f", "--force", "-fv", "-vf"} for word in words)
    killed = verb == ["kill"] and (not signal or _KILL.fullmatch(signal))
    return Asked(by, containers=ids) if ids and (forced or killed) else None


def _signal(words: Sequence[str]) -> tuple[str, list[str]]:
    """The signal that an option names, and the other words, without the options that have a value."""
    signal, rest = "", list[str]()
    left = list(words)
    while left:
        word = left.pop(0)
        if word in {"-s", "-n", "--signal"} and left:
            signal = left.pop(0)
        elif word.startswith("--signal="):
            signal = word.partition("=")[2]
        elif not signal and not rest and _KILL.fullmatch(word[1:]) and word.startswith("-"):
            signal = word[1:]
        elif word in _VALUED and left:
            left.pop(0)
        elif word != "--":
            rest.append(word)
    return signal, rest


def _unit(word: str) -> str:
    return word if "." in word else f"{word}.service"


_SYSCALL, _OBJ_PID = 1300, 1318  # linux/audit.h
_X86_64, _I386 = "c000003e", "40000003"
# Which call takes a pid (or thread) first and which argument is the signal, by architecture; aarch64's numbers are those of all
# newer ones (asm-generic/unistd.h).
_CALLS = {
    _X86_64: {62: 1, 200: 1, 234: 2, 424: 1, 129: 1},
    _I386: {37: 1, 238: 1, 270: 2, 424: 1, 178: 1},
    "": {129: 1, 130: 1, 131: 2, 424: 1, 138: 1},
}
_PIDFD_SEND_SIGNAL, _SIGKILL, _NOBODY = 424, 9, 0xFFFFFFFF
_CALL = re.compile(
    r"(?:SYSCALL )?arch=(?P<arch>[0-9a-f]{8})(?: per=[0-9a-f]{1,16})? syscall=(?P<number>\d{1,4}) success=yes exit=0 "
    r"a0=(?P<a0>[0-9a-f]{1,16}) a1=(?P<a1>[0-9a-f]{1,16}) a2=(?P<a2>[0-9a-f]{1,16}) a3=[0-9a-f]{1,16} items=\d{1,4} "
    r"ppid=\d{1,10} pid=(?P<pid>\d{1,10}) auid=(?P<auid>\d{1,10}) .*"
)
_WHO = re.compile(r' comm="(?P<comm>[^"]{0,64})" exe="(?P<exe>[^"]{0,4096})"')
_TARGET = re.compile(r"(?:OBJ_PID )?opid=(?P<pid>\d{1,10}) oauid=.*", re.DOTALL)


def audit_call(audit_type: int | None, message: str) -> Sent | None:
    """A system call that sent SIGKILL."""
    found = _CALL.fullmatch(message) if audit_type == _SYSCALL else None
    if found is None:
        return None
    number = int(found["number"])
    at = _CALLS.get(found["arch"], _CALLS[""]).get(number)
    if at is None or int(found[f"a{at}"], 16) != _SIGKILL:
        return None
    pid = int(found["a0"], 16) & 0xFFFFFFFF
    one = number != _PIDFD_SEND_SIGNAL and 0 < pid <= 1 << 22  # the kernel's PID_MAX_LIMIT; negative ones are groups
    login_uid = int(found["auid"])
    who = _WHO.search(message)
    return Sent(
        sender=int(found["pid"]),
        comm=who["comm"] if who else "",
        exe=who["exe"] if who else "",
        pid=pid if one else None,
        login_uid=None if login_uid == _NOBODY else login_uid,
    )


def audit_target(audit_type: int | None, message: str) -> int | None:
    """Whom the system call of the same audit event was sent to."""
    found = _TARGET.fullmatch(message) if audit_type == _OBJ_PID else None
    return int(found["pid"]) if found else None
