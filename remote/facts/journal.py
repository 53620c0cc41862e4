"""The journal: entries with what makes them trustworthy, for kills and for /logs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from remote.errors import Unparsable
from remote.facts.base import Fact, Unreadable
from remote.facts.reading import decimal, refusal


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal entry. Only fields with a leading `_` in the journal are the kernel's or journald's own word.

    `transport`, `pid`, `system_unit`, `cgroup`, `uid`, `comm`, `exe`, `invocation` (the unit's, `_SYSTEMD_INVOCATION_ID`),
    `login_uid` (who logged in, `_AUDIT_LOGINUID`; None when nobody did) and `audit_type` (`_AUDIT_TYPE`) come from such
    trusted fields. `unit`, `identifier`, `message_id`, `facility` are chosen by the sender. `source` is `journal`, `kmsg`
    (the kernel's own buffer) or `syslog` (a text file, where nothing is trusted: `transport` and `pid` are empty).
    `monotonic_us` is the kernel's own time (_SOURCE_MONOTONIC_TIMESTAMP) where there is one, else journald's. `extra` holds
    UNIT_RESULT, EXIT_CODE, EXIT_STATUS…
    """

    cursor: str
    at: datetime
    boot_id: str
    monotonic_us: int
    message: str
    transport: str = ""
    facility: int | None = None
    identifier: str = ""
    pid: int | None = None
    uid: int | None = None
    cgroup: str = ""
    system_unit: str = ""
    unit: str = ""
    message_id: str = ""
    invocation: str = ""
    comm: str = ""
    exe: str = ""
    login_uid: int | None = None
    audit_type: int | None = None
    source: str = "journal"
    extra: tuple[tuple[str, str], ...] = field(default=())

    @property
    def from_kernel(self) -> bool:
        """Said by the kernel: a user's write to /dev/kmsg has another facility (systemd src journald-kmsg.c)."""
        return self.transport == "kernel" and self.facility == 0

    @property
    def from_systemd(self) -> bool:
        """Said by PID 1 itself."""
        return self.pid == 1 and self.transport != "kernel"


@dataclass(frozen=True, slots=True)
class Journal:
    """Entries, oldest first. `partial` says why others may be missing, as words: `own` (only our own messages may be
    read), `volatile` (it forgets at each boot), `cut` (too long, some were left out), `dmesg` (no journal: the kernel's buffer),
    `syslog` (no journal: text files). `last_cursor` is the journal's newest entry's, read before the others. `first_writers`
    maps an invocation of a unit to the pid that wrote first in it, which is its main process: for lines of the past."""

    entries: tuple[Entry, ...]
    partial: str = ""
    last_cursor: str = ""
    first_writers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Speaker:
    """A process whose lines about its children count: the main process of a unit, in one invocation of it."""

    unit: str
    pid: int
    invocation: str = ""


_FIELDS = (
    "MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_FACILITY", "SYSLOG_IDENTIFIER", "UNIT", "_TRANSPORT", "_PID", "_UID", "_COMM",
    "_EXE", "_AUDIT_LOGINUID", "_AUDIT_TYPE", "_SYSTEMD_INVOCATION_ID", "_SYSTEMD_CGROUP", "_SYSTEMD_UNIT",
    "_SOURCE_MONOTONIC_TIMESTAMP", "UNIT_RESULT", "EXIT_CODE", "EXIT_STATUS", "N_RESTARTS", "N_PROCESSES", "INVOCATION_ID",
)  # fmt: skip
_EXTRA = ("PRIORITY", "_COMM", "UNIT_RESULT", "EXIT_CODE", "EXIT_STATUS", "N_RESTARTS", "N_PROCESSES", "INVOCATION_ID")

# What may tell of a kill, as an extended regular expression for grep -E and for PCRE2 alike, over the raw JSON too: so no
# quote and no backslash in it. It narrows on the host what is sent; who may be believed is judged afterwards.
_TELLINGS = (
    # the kernel
    "[Oo]ut of [Mm]emory", "oom-kill:", "Killed process", "killed as a result of limit", "oom_reaper:", "invoked oom-killer",
    "memory: usage [0-9]+kB",
    "memory.oom.group", "Manual OOM execution", "OOM victim", "Missed [0-9]+ kernel",
    # systemd, and its own OOM daemon
    "killed by the OOM killer", "systemd-oomd killed", "(Main|Control) process exited", "Failed with result",
    "Scheduled restart job", "Killing process", "timed out", "Watchdog timeout", "Start request repeated", "Sending SIG",
    "Killed /", "Suppressed [0-9]+ messages",
    # earlyoom, nohang
    "sending SIG", "escalating to SIGKILL", "low memory! at or below", "corrective action",
    # people
    "COMMAND=.*(kill|systemctl|docker)",
    # gunicorn, celery, uWSGI, php-fpm, PostgreSQL, Redis, puma, rq, dramatiq, supervisord, nginx
    "was sent (SIG|code)", "was terminated (due to|by) signal", "WORKER TIMEOUT", "exited with .signal", "WorkerLostError",
    "(Hard|Soft) time limit", "exceeding memory limit", "(Warm|Cold) shutdown", "killed by signal", "HARAKIRI", "NO MERCY",
    "exited on signal", "terminated by (signal|SIGKILL)", "[Tt]erminating timed out worker", "Work-horse terminated",
    "exited unexpectedly",
)  # fmt: skip

# What every script here starts with. The hint about hidden messages comes only without -q, and json and cat imply -q.
# --output-fields is in systemd 236 and later, --grep where PCRE2 was built in (Debian 12 has it).
_START = r"""
command -v journalctl >/dev/null 2>&1 || { echo '! missing journalctl'; exit 0; }
hint=$(journalctl -n 0 --no-pager 2>&1 >/dev/null)
case $hint in
  *'not seeing messages'*) echo '= own' ;;
  *'insufficient permissions'*|*'ermission denied'*) none=denied ;;
  *'No journal files'*) none=missing ;;
esac
read -r machine </etc/machine-id
[ -d "/var/log/journal/$machine" ] || echo '= volatile'
version=$(journalctl --version)
number=${version#systemd }
number=${number%%[!0-9]*}
fields=
[ "${number:-0}" -ge 236 ] && fields='--output-fields=@FIELDS@'
telling='@TELLING@'
case $version in *+PCRE2*) pcre=1 ;; *) pcre= ;; esac
""".replace("@FIELDS@", ",".join(_FIELDS)).replace("@TELLING@", "|".join(_TELLINGS))

# Without the journal the kernel's own buffer is better than nothing (its raw form tells who wrote a line).
_KILLS = (
    _START
    + r"""
if [ -n "$none" ]; then
  lines=$(dmesg -r 2>/dev/null) || { echo "! $none the journal"; exit 0; }
  read -r up rest </proc/uptime
  read -r boot </proc/sys/kernel/random/boot_id
  printf '= dmesg %s %s %s\n' "$(date +%s)" "$up" "$boot"
  printf '%s\n' "$lines" | grep -E "$telling" | tail -n 2000
  exit 0
fi
echo '= last'
journalctl -n 1 -o json --no-pager --output-fields=_TRANSPORT 2>/dev/null
echo '= entries'
set -- _TRANSPORT=kernel + _PID=1 + _SYSTEMD_UNIT=systemd-oomd.service
journalctl -o json --no-pager --since=@SINCE@ $fields "$@" 2>/dev/null |
  grep -E "MESSAGE. ?: ?\[|$telling" | tail -n 4000
set -- journalctl -o json --no-pager --since=@SINCE@ $fields _TRANSPORT=stdout _TRANSPORT=syslog
if [ -n "$pcre" ]; then
  timeout 20 "$@" --grep="$telling" 2>/dev/null
  [ $? = 124 ] && echo '= cut'
else
  timeout 20 "$@" 2>/dev/null | grep -E "$telling"
fi | tail -n 4000
exit 0
"""
)

_UNIT_LOG = (
    _START
    + r"""
[ -z "$none" ] || { echo "! $none the journal"; exit 0; }
echo '= entries'
journalctl -o json --no-pager -n @LINES@ $fields -u '@UNIT@' 2>/dev/null
exit 0
"""
)

# A cursor that is not in the journal any more (vacuumed, another machine's) is no error for journalctl: it seeks to the
# nearest time or gives nothing for ever (systemd#6213), so it is tried first. --after-cursor together with a filter loses
# an entry before v256 (systemd#30288), so the cursor is inclusive and the reader drops that entry.
_WATCH = (
    _START
    + r"""
[ -z "$none" ] || { echo "! $none the journal"; exit 0; }
cursor='@CURSOR@'
if [ -n "$cursor" ]; then
  case $(journalctl -n 1 -o json --no-pager --cursor="$cursor" --output-fields=_TRANSPORT 2>/dev/null) in
    *"$cursor"*) set -- --no-tail --cursor="$cursor" ;;
    *) echo '= lost'; set -- --no-tail --since=@SINCE@ ;;
  esac
else
  last=$(journalctl -n 1 -o json --no-pager --output-fields=_TRANSPORT 2>/dev/null)
  printf '%s\n' "$last"
  cursor=${last#*__CURSOR}
  cursor=${cursor#*:*\"}
  cursor=${cursor%%\"*}
  set -- --no-tail --cursor="$cursor"
  [ -n "$last" ] || set -- -n 0
fi
if [ -n "$pcre" ]; then
  exec journalctl -f -o json --no-pager $fields "$@" --grep="$telling"
elif echo x | grep --line-buffered x >/dev/null 2>&1; then
  journalctl -f -o json --no-pager $fields "$@" | grep --line-buffered -E "MESSAGE. ?: ?\[|$telling"
else
  exec journalctl -f -o json --no-pager $fields "$@" _TRANSPORT=kernel + _PID=1 + _SYSTEMD_UNIT=systemd-oomd.service
fi
"""
)


def parse_entry(line: bytes) -> Entry | None:
    """One line of `journalctl -o json`; None for what is no entry. A value may be text, null, bytes or several."""
    try:
        raw = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict):
        return None
    values = {str(name): _value(value) for name, value in raw.items()}
    at = _moment(values.get("__REALTIME_TIMESTAMP", ""))
    if at is None or not values.get("__CURSOR"):
        return None
    return _entry(values, at)


def _entry(values: Mapping[str, str], at: datetime) -> Entry:
    monotonic = _number(values.get("_SOURCE_MONOTONIC_TIMESTAMP", ""))
    if monotonic is None:
        monotonic = _number(values.get("__MONOTONIC_TIMESTAMP", "")) or 0
    return Entry(
        cursor=values["__CURSOR"],
        at=at,
        boot_id=values.get("_BOOT_ID", ""),
        monotonic_us=monotonic,
        message=values.get("MESSAGE", ""),
        transport=values.get("_TRANSPORT", ""),
        facility=_number(values.get("SYSLOG_FACILITY", "")),
        identifier=values.get("SYSLOG_IDENTIFIER", ""),
        pid=_number(values.get("_PID", "")),
        uid=_number(values.get("_UID", "")),
        cgroup=values.get("_SYSTEMD_CGROUP", ""),
        system_unit=values.get("_SYSTEMD_UNIT", ""),
        unit=values.get("UNIT", ""),
        message_id=values.get("MESSAGE_ID", ""),
        invocation=values.get("_SYSTEMD_INVOCATION_ID", ""),
        comm=values.get("_COMM", ""),
        exe=values.get("_EXE", ""),
        login_uid=_login(_number(values.get("_AUDIT_LOGINUID", ""))),
        audit_type=_number(values.get("_AUDIT_TYPE", "")),
        extra=tuple((name, values[name]) for name in _EXTRA if name in values),
    )


_NOBODY = 0xFFFFFFFF  # what the kernel keeps for who never logged in


def _login(uid: int | None) -> int | None:
    return None if uid == _NOBODY else uid


def _value(value: object) -> str:
    """A field's text: bytes come as a list of numbers, a repeated field as a list of values, an over-long one as null."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # JSON may hold half of a surrogate pair
    if not isinstance(value, list):
        return ""
    if value and all(type(one) is int and 0 <= one <= 255 for one in value):  # noqa: PLR2004 - a byte
        return bytes(value).decode("utf-8", "replace")
    return next((text for text in (_value(one) for one in value if not isinstance(one, int)) if text), "")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None  # noqa: PLR2004 - 64 bits


def _moment(microseconds: str) -> datetime | None:
    number = _number(microseconds)
    try:
        return None if number is None else _EPOCH + timedelta(microseconds=number)
    except OverflowError:
        return None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def kills_since(since: datetime) -> Fact[Journal]:
    """All entries from `since` (aware) on that may tell of a kill. Slow: it goes through the journal.

    The script starts at the full hour, so that a question asked again and again is the same text for the shell.
    """
    start_s = int(since.timestamp()) // 3600 * 3600
    script = _KILLS.replace("@SINCE@", f"@{start_s}")
    return Fact("kills", script, lambda output: _since(parse(output), since), slow=True, deadline_s=45.0, cap_bytes=8 << 20)


def _since(answer: Journal | Unreadable, since: datetime) -> Journal | Unreadable:
    if isinstance(answer, Unreadable):
        return answer
    return replace(answer, entries=tuple(entry for entry in answer.entries if entry.at >= since))


def unit_log(unit: str, lines: int) -> Fact[Journal]:
    """The last `lines` (1 to 500) entries of one unit. Raises ValueError for what is no unit's name."""
    if not _UNIT.fullmatch(unit):
        raise ValueError("not a unit's name")
    script = _UNIT_LOG.replace("@LINES@", str(min(max(lines, 1), 500))).replace("@UNIT@", unit)
    return Fact("log", script, parse, slow=True, deadline_s=20.0)


# systemd.unit(5): ASCII letters, digits and `:-_.\@`, at most 255; no leading `-`, which would be an option.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,254}", re.ASCII)
_CURSOR = re.compile(r"[a-z]=[0-9a-f]+(?:;[a-z]=[0-9a-f]+){1,9}", re.ASCII)


def watch_script(cursor: str | None) -> str:
    """A script that prints entries as they come, from `cursor` on (inclusive: drop the entry that has it) or from now.

    Without a cursor its first entry has no message, only the cursor that it goes on from. When the cursor is not in the journal
    any more it prints `= lost` and starts a minute before the cursor's own time: entries may come twice. Lines that are
    no entry give None from `parse_entry`.
    """
    known = cursor if cursor and _CURSOR.fullmatch(cursor) else ""
    parts = dict(part.split("=", 1) for part in known.split(";") if part)
    microseconds = int(parts.get("t", "0")[:16], 16)
    since_s = max(0, microseconds // 1_000_000 - 60)
    return _WATCH.replace("@CURSOR@", known).replace("@SINCE@", f"@{since_s}")


def parse(output: str) -> Journal | Unreadable:
    """Lines `= WORD` about the journal itself, and entries; each entry once, oldest first."""
    refused = refusal(output)
    if refused is not None:
        return refused
    partial: list[str] = []
    section, last, clock = "", "", None
    entries: dict[str, Entry] = {}
    for line in output.split("\n"):
        if line.startswith("= "):
            section, _, rest = line.removeprefix("= ").partition(" ")
            clock = _Clock.read(rest) if section == "dmesg" else clock
            partial += [section] if section in _PARTIAL else []
            continue
        entry = parse_entry(line.encode("utf-8", "surrogateescape")) if clock is None else clock.kernel_line(line)
        if entry is None:
            continue
        if section == "last":
            last = entry.cursor
        else:
            entries.setdefault(entry.cursor or f"{entry.monotonic_us} {entry.message}", entry)
    ordered = sorted(entries.values(), key=lambda entry: (entry.at, entry.monotonic_us))
    return Journal(tuple(ordered), " ".join(partial), last)


_PARTIAL = {"own", "volatile", "cut", "dmesg"}
_KERNEL_LINE = re.compile(r"<(\d{1,3})>\[ *(\d{1,10})\.(\d{6})\] (.*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Clock:
    """When the kernel's buffer was read: its times count from boot."""

    boot_at: datetime
    boot_id: str

    @classmethod
    def read(cls, text: str) -> _Clock:
        """Of `NOW UPTIME BOOT_ID`."""
        try:
            now, uptime, boot_id = text.split(" ")
            boot_at = _EPOCH + timedelta(seconds=decimal(now) - decimal(uptime))
        except (ValueError, OverflowError):
            raise Unparsable(text) from None
        return cls(boot_at, boot_id.replace("-", ""))  # as the journal writes it

    def kernel_line(self, line: str) -> Entry | None:
        """An entry of `<6>[   12.345678] text`, where the number holds facility and priority."""
        found = _KERNEL_LINE.fullmatch(line)
        if found is None:
            return None
        monotonic_us = int(found[2] + found[3])
        return Entry(
            cursor="",
            at=self.boot_at + timedelta(microseconds=monotonic_us),
            boot_id=self.boot_id,
            monotonic_us=monotonic_us,
            message=found[4],
            transport="kernel",
            facility=int(found[1]) >> 3,
            identifier="kernel",
        )
