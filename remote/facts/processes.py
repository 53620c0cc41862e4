"""Processes: who runs, in which cgroup, with how much memory."""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from remote.errors import Unparsable
from remote.facts.base import Fact, Unreadable
from remote.facts.reading import bare_boot_id, read_proc, refusal, unescape, unreadable, whole
from remote.secret import CommandLine

if TYPE_CHECKING:
    import psutil


@dataclass(frozen=True, slots=True)
class Process:
    """One process. Its identity is (boot id, pid, start_ticks, uid, exe, cgroup, digest of argv).

    `name` is comm (at most 15 bytes, any character, hostile). `pss_bytes` is None where it may not be read or was
    not (only the biggest are measured). `exe` and `cwd` are None where they may not be read.
    """

    pid: int
    ppid: int
    start_ticks: int
    started_at: datetime
    name: str
    command: CommandLine
    uid: int
    user: str
    rss_bytes: int
    swap_bytes: int
    pss_bytes: int | None
    cgroup: str
    exe: str | None
    cwd: str | None

    @property
    def memory_bytes(self) -> int:
        """PSS where known, else RSS."""
        return self.rss_bytes if self.pss_bytes is None else self.pss_bytes


@dataclass(frozen=True, slots=True)
class Processes:
    """All processes with memory of their own (kernel threads left out), biggest first."""

    all: tuple[Process, ...]
    boot_id: str


# How it stays cheap and cannot be forged:
# - one awk reads what the kernel itself writes line by line (comm is escaped in `status`; in `stat` only what stands
#   after the last `)` is used), by getline because a process that is gone must not end awk (mawk dies on a missing
#   operand); kernel threads and zombies (vsize 0) cost one read.
# - command lines hold any byte, so they come through one `head`, each after the environment of `head` itself: it holds a
#   mark that is new every time and that no other user can read (/proc/PID/environ needs ptrace rights), while
#   arguments of a command could be seen by all.
# - links come from one `ls`; GNU's escapes line feeds when told so, busybox's prints `?` for them.
# PSS costs 20 to 80 us a MiB (smaps_rollup walks page tables): the 40 biggest, none above 4 GiB, 8 GiB in all.
# The page size is not asked: VmRSS is in kB.
SCRIPT = r"""
[ -r /proc/self/stat ] || { echo '! missing /proc/self/stat'; exit 0; }
read -r boot </proc/sys/kernel/random/boot_id
read -r mark </proc/sys/kernel/random/uuid
printf 'boot %s\nmark %s\n' "$boot" "$mark"
unset LC_ALL LANG TZ OLDPWD
export mark QUOTING_STYLE=escape
cd /
exec awk '
function slurp(file,  line, all) {
  all = ""
  while ((getline line < file) > 0) all = all line " "
  close(file)
  return all
}
function first(file, prefix,  line) {
  while ((getline line < file) > 0) if (index(line, prefix) == 1) { close(file); return substr(line, length(prefix) + 1) }
  close(file)
  return ""
}
function group(file,  line, at, kind, memory) {
  memory = "-"
  while ((getline line < file) > 0) {
    at = index(line, ":"); line = substr(line, at + 1)
    at = index(line, ":"); kind = substr(line, 1, at - 1); line = substr(line, at + 1)
    if (kind == "name=systemd") { memory = line; break }
    if (kind == "memory" || (kind == "" && memory == "-")) memory = line
  }
  close(file)
  return memory
}
function status(file,  line, f) {
  name = ppid = uid = rss = swap = ""
  while ((getline line < file) > 0) {
    if (line ~ /^Name:/) name = substr(line, 7)
    else if (line ~ /^PPid:/) { split(line, f); ppid = f[2] }
    else if (line ~ /^Uid:/) { split(line, f); uid = f[3] }
    else if (line ~ /^VmRSS:/) { split(line, f); rss = f[2] }
    else if (line ~ /^VmSwap:/) { split(line, f); swap = f[2]; break }
  }
  close(file)
}
function keep(pid, size,  i) {
  if (size < 1024 || size > 4194304) return
  if (count == 40 && size <= size_of[big[40]]) return
  if (count < 40) count++
  for (i = count; i > 1 && size_of[big[i - 1]] < size; i--) big[i] = big[i - 1]
  big[i] = pid
}
BEGIN {
  print "btime " first("/proc/stat", "btime ")
  split(slurp("/proc/self/stat"), f, " "); self = f[1]
  for (i = 1; i < ARGC; i++) {
    pid = substr(ARGV[i], 7)
    if (pid == self) continue
    n = split(slurp(ARGV[i] "/stat"), part, ")")
    n = split(part[n], f, " ")
    if (n < 22 || f[21] == 0) continue
    status(ARGV[i] "/status")
    if (rss == "") continue
    print "p " pid, ppid, f[20], uid, rss, swap + 0
    print "n " name
    print "c " group(ARGV[i] "/cgroup")
    size_of[pid] = rss + 0; keep(pid, rss + 0)
    pids[++all] = pid
  }
  budget = 8388608
  for (i = 1; i <= count && (budget -= size_of[big[i]]) > 0; i++) {
    pss = first("/proc/" big[i] "/smaps_rollup", "Pss:")
    if (split(pss, f, " ") > 0) print "s " big[i], f[1]
  }
  while ((getline line < "/etc/passwd") > 0) if (split(line, f, ":") > 6) print "u " f[3], f[1]
  close("/etc/passwd")
  print "links " ENVIRON["mark"]; fflush()
  command = "xargs ls -nd 2>/dev/null"
  for (i = 1; i <= all; i++) print "/proc/" pids[i] "/exe /proc/" pids[i] "/cwd" | command
  close(command)
  print "commands " ENVIRON["mark"]; fflush()
  command = "xargs head -q -c 16384 2>/dev/null"
  print "/proc/self/environ /proc/self/environ" | command
  for (i = 1; i <= all; i++) print "/proc/" pids[i] "/cmdline /proc/self/environ" | command
  close(command)
}' /proc/[0-9]*
"""


_TICKS_PER_S = 100  # USER_HZ, fixed at 100 for programs on all of Linux's present architectures
_COMMAND_BYTES = 16384  # as `head` above


def parse(output: str) -> Processes | Unreadable:
    """Three parts: lines about processes, links of exe and cwd, command lines between marks."""
    refused = refusal(output)
    if refused is not None:
        return refused
    head, mark, rest = _table(output)
    links, found, commands = rest.partition(f"commands {mark}\n")
    if not found:
        raise Unparsable("no commands")
    argvs = _argvs(commands, mark, len(head.rows))
    places = _links(links)
    users = head.users
    processes = [
        row.process(head, argv, users.get(row.uid, str(row.uid)), places) for row, argv in zip(head.rows, argvs, strict=True)
    ]
    return Processes(_biggest_first(processes), head.boot_id)


def _biggest_first(processes: Iterable[Process]) -> tuple[Process, ...]:
    return tuple(sorted(processes, key=lambda process: (-process.memory_bytes, process.pid)))


@dataclass(slots=True)
class _Row:
    """What `stat`, `status` and `cgroup` say of one process."""

    pid: int
    ppid: int
    start_ticks: int
    uid: int
    rss_kib: int
    swap_kib: int
    name: str = ""
    cgroup: str = ""

    def process(self, head: _Head, argv: tuple[str, ...], user: str, places: Mapping[tuple[int, str], str]) -> Process:
        """The process, joined with what the other parts say of it."""
        pss = head.pss_kib.get(self.pid)
        exe = places.get((self.pid, "exe"))
        return Process(
            pid=self.pid,
            ppid=self.ppid,
            start_ticks=self.start_ticks,
            started_at=_started(head.btime_s, self.start_ticks),
            name=self.name,
            command=CommandLine(argv),
            uid=self.uid,
            user=user,
            rss_bytes=self.rss_kib * 1024,
            swap_bytes=self.swap_kib * 1024,
            pss_bytes=None if pss is None else pss * 1024,
            cgroup=self.cgroup,
            exe=None if exe is None else _undeleted(exe),
            cwd=places.get((self.pid, "cwd")),
        )


def _started(btime_s: int, ticks: int) -> datetime:
    try:
        return datetime.fromtimestamp(btime_s + ticks / _TICKS_PER_S, UTC)
    except (OverflowError, ValueError, OSError):
        raise Unparsable(f"start {ticks}") from None


def _undeleted(exe: str) -> str:
    """An upgraded program still runs from its old file: the kernel marks its path."""
    return exe.removesuffix(" (deleted)")


@dataclass(slots=True)
class _Head:
    """The first part: the machine's constants, the rows, PSS and users."""

    boot_id: str
    btime_s: int
    rows: list[_Row]
    pss_kib: dict[int, int]
    users: dict[int, str]


def _table(output: str) -> tuple[_Head, str, str]:
    """The first part, the mark, and all that follows it."""
    head, mark, at = _Head("", 0, [], {}, {}), "", 0
    while True:
        end = output.find("\n", at)
        if end < 0:
            raise Unparsable(output[at:])
        line = output[at:end]
        at = end + 1
        if mark and line == f"links {mark}":
            return head, mark, output[at:]
        kind, _, value = line.partition(" ")
        if kind == "mark":
            mark = value
        else:
            _take(head, kind, value)


def _take(head: _Head, kind: str, value: str) -> None:
    match kind:
        case "boot":
            head.boot_id = bare_boot_id(value)
        case "btime":
            head.btime_s = whole(value)
        case "p":
            head.rows.append(_row(value))
        case "n" if head.rows:
            head.rows[-1].name = unescape(value)
        case "c" if head.rows:
            head.rows[-1].cgroup = "" if value == "-" else value
        case "s" | "u":
            _extra(head, kind, value)
        case _:
            raise Unparsable(f"{kind} {value}")


def _row(value: str) -> _Row:
    numbers = [whole(number) for number in value.split(" ")]
    if len(numbers) != 6:  # noqa: PLR2004 - the fields of _Row that are numbers
        raise Unparsable(value)
    pid, ppid, ticks, uid, rss, swap = numbers
    return _Row(pid, ppid, ticks, uid, rss, swap)


def _extra(head: _Head, kind: str, value: str) -> None:
    number, _, rest = value.partition(" ")
    if kind == "s":
        head.pss_kib[whole(number)] = whole(rest)
    elif number.isascii() and number.isdigit():  # /etc/passwd may hold anything
        head.users.setdefault(int(number[:20]), rest)


_LINK = re.compile(r"l\S+ +\d+ +\d+ +\d+ +\d+ [^/]*/proc/(\d{1,10})/(exe|cwd) -> (.*)", re.ASCII)


def _links(text: str) -> dict[tuple[int, str], str]:
    """Where exe and cwd point. A link told twice is forged by a name with a line feed in it: neither is believed."""
    places: dict[tuple[int, str], str] = {}
    twice: set[tuple[int, str]] = set()
    for line in text.split("\n"):
        found = _LINK.fullmatch(line)
        if found is None:
            continue
        key = (int(found[1]), found[2])
        if key in places:
            twice.add(key)
        places[key] = unescape(found[3])
    return {key: place for key, place in places.items() if key not in twice}


def _argvs(text: str, mark: str, count: int) -> Iterator[tuple[str, ...]]:
    """The command lines between copies of the environment that holds the mark; the text starts with two copies."""
    token = f"mark={mark}\0"
    first = text.find(token)
    period = text.find(token, first + 1) - first
    blob = text[: max(period, 0)]
    pieces = text.split(blob) if first >= 0 and blob and text.startswith(blob * 2) else []
    if len(pieces) != count + 3:
        raise Unparsable("commands and processes do not agree")
    return map(_argv, pieces[2:-1])


def _argv(raw: str) -> tuple[str, ...]:
    """NUL-separated words; a program that names itself (setproctitle) leaves NULs behind its title."""
    words = raw.rstrip("\0")
    return tuple(words.split("\0")) if words else ()


def read_local() -> Processes | Unreadable:
    """This machine's processes by psutil; start ticks, swap and cgroup, which it does not tell, from /proc."""
    import psutil

    boot_id = bare_boot_id(read_proc("/proc/sys/kernel/random/boot_id") or "")
    if not boot_id:
        return unreadable("missing", "/proc")
    btime_s = round(psutil.boot_time())
    found: list[Process] = []
    for process in psutil.process_iter():
        try:
            one = _local(process, btime_s)
        except (psutil.Error, OSError):  # it ended while being read
            continue
        if one is not None:
            found.append(one)
    return Processes(_biggest_first(_with_pss(found)), boot_id)


def _local(process: psutil.Process, btime_s: int) -> Process | None:
    """One process of this machine; None for a kernel thread, a zombie, or one that ends just now."""
    proc = f"/proc/{process.pid}"
    status = dict(line.partition(":\t")[::2] for line in (read_proc(f"{proc}/status") or "").split("\n"))
    if "VmRSS" not in status:
        return None
    stat = read_proc(f"{proc}/stat")
    if stat is None:
        return None
    ticks = int(stat.rpartition(")")[2].split()[19])
    with process.oneshot():
        return Process(
            pid=process.pid,
            ppid=process.ppid(),
            start_ticks=ticks,
            started_at=_started(btime_s, ticks),
            # psutil's own name() puts argv's, which the program chooses, where comm is cut
            name=unescape(status.get("Name", "")),
            command=CommandLine(_argv(read_proc(f"{proc}/cmdline", _COMMAND_BYTES) or "")),
            uid=process.uids().effective,
            user=_user(process),
            rss_bytes=process.memory_info().rss,
            swap_bytes=int(status.get("VmSwap", "0").split()[0]) * 1024,
            pss_bytes=None,
            cgroup=_cgroup(read_proc(f"{proc}/cgroup") or ""),
            exe=_followed(f"{proc}/exe"),
            cwd=_followed(f"{proc}/cwd"),
        )


def _user(process: psutil.Process) -> str:
    uid = process.uids().effective
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _followed(link: str) -> str | None:
    try:
        place = str(Path(link).readlink())
    except OSError:
        return None
    return _undeleted(place) if link.endswith("/exe") else place


def _cgroup(text: str) -> str:
    """The path in systemd's own hierarchy, else in that of memory, else in the unified one: as the script chooses."""
    groups = {kind: path for _, kind, path in (line.split(":", 2) for line in text.splitlines() if line.count(":") > 1)}
    return next((groups[kind] for kind in ("name=systemd", "memory", "") if kind in groups), "")


def _with_pss(processes: Sequence[Process]) -> Iterator[Process]:
    """PSS for the same ones as in the script: the 40 biggest of 1 MiB to 4 GiB, 8 GiB in all."""
    left = 8 << 30
    big = [one for one in sorted(processes, key=lambda one: -one.rss_bytes) if 1 << 20 <= one.rss_bytes <= 4 << 30]
    pss: dict[int, int | None] = {}
    for one in big[:40]:
        left -= one.rss_bytes
        pss[one.pid] = _pss(one.pid) if left > 0 else None
    return (replace(one, pss_bytes=pss.get(one.pid)) for one in processes)


def _pss(pid: int) -> int | None:
    found = re.search(r"^Pss: +(\d+) kB$", read_proc(f"/proc/{pid}/smaps_rollup") or "", re.MULTILINE | re.ASCII)
    return int(found[1]) * 1024 if found else None


PROCESSES: Fact[Processes] = Fact("processes", SCRIPT, parse, cap_bytes=8 << 20, local=read_local)
