"""The journal: entries with what makes them trustworthy, for kills and for /logs, as they come and of the past."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from remote.errors import Unparsable
from remote.facts._journal_entry import Entry, parse_entry
from remote.facts._journal_lines import Clock, KernelLog, TextLog
from remote.facts._journal_place import Place, place, sequence
from remote.facts._journal_scripts import (
    ALONE,
    CLOCK,
    FOLLOW,
    INSTEAD,
    NARROW,
    PAST_INSTEAD,
    SEEK,
    SIFT,
    SIFT_PROGRAMS,
    SILENT,
    START,
    SYSTEM_MATCHES,
    SYSTEM_TELLINGS,
    WRITERS,
)
from remote.facts.base import Fact, Unreadable
from remote.facts.reading import pid_number, refusal, unit_name

__all__ = [
    "Entry",
    "Journal",
    "Notice",
    "Speaker",
    "WatchReader",
    "kills_since",
    "parse",
    "parse_entry",
    "programs_watch",
    "system_watch",
    "unit_log",
]


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
    """A process whose lines about its children count: the main process of a unit, in one invocation of it. `children`: what they
    say of themselves is wanted too (gunicorn's workers tell that they boot and exit, and its master may tell nothing)."""

    unit: str
    pid: int
    invocation: str = ""
    children: bool = False


@dataclass(frozen=True, slots=True)
class Notice:
    """What a stream says of itself.

    `own`: only our own messages may be read. `volatile`: the journal forgets at each boot. `lost`: the cursor's place is gone, so
    some may be missing and some may come twice; the detail is `gone` (vacuumed, another machine's), `future` (the clock
    was set back), `unreadable` (a broken entry was passed over) or `overrun` (the kernel wrote faster than we read).
    `kmsg`: no journal, the kernel's own buffer is read: nothing that systemd or a program says. `syslog`: text files, where
    nothing proves who wrote a line. `none`: nothing of all that can be read, only counters are left; the detail says why.
    `begin`: the detail is the cursor to go on from, where none was given. `cut`: the log's reader ended by itself; go on from the
    last cursor.
    """

    word: str
    detail: str = ""


_WORDS = {"own", "volatile", "lost", "kmsg", "syslog", "none", "cut", "begin"}
_KEPT_CURSORS = 8192


class WatchReader:
    """Reads what a stream's script prints; made anew for each run of it, since it keeps where that run stands."""

    def __init__(self, cursor: str | None = None) -> None:
        """`cursor` is the one the script was given: its own entry comes again, and is passed over."""
        self._seen: dict[str, None] = {cursor: None} if cursor else {}
        self._log: KernelLog | TextLog | None = None

    def read(self, line: bytes) -> Entry | Notice | None:
        """What a line says: an entry not read before in this run, a word about the stream, or nothing. Takes any bytes."""
        if isinstance(self._log, TextLog):
            return self._log.read(line.decode("utf-8", "replace"))  # a text file may hold a line like a notice
        if line.startswith(b"= "):
            return self._notice(line[2:].decode("utf-8", "replace"))
        if isinstance(self._log, KernelLog):
            return self._log.read(line.decode("utf-8", "replace"))
        return self._fresh(parse_entry(line))

    def _fresh(self, entry: Entry | None) -> Entry | None:
        if entry is None or entry.cursor in self._seen:
            return None
        self._seen[entry.cursor] = None
        if len(self._seen) > _KEPT_CURSORS:
            del self._seen[next(iter(self._seen))]
        return entry

    def _notice(self, text: str) -> Notice | None:
        word, _, detail = text.partition(" ")
        if word not in _WORDS:
            return None
        if word in {"kmsg", "syslog"}:
            try:
                self._log = _log(word, detail.split(" "))
            except Unparsable:
                return None
            return Notice(word)
        if word == "begin":
            self._seen[detail] = None
        return Notice(word, detail)


def _log(word: str, clock: Sequence[str]) -> KernelLog | TextLog:
    """What a script said before a log that is no journal: now, uptime, boot (, zone) and the cursor. Raises Unparsable."""
    match word, list(clock):
        case "kmsg", [now, uptime, boot_id, cursor]:
            return KernelLog.after(Clock.of(now, uptime, boot_id), cursor)
        case "syslog", [now, uptime, boot_id, zone, cursor]:
            return TextLog.after(Clock.of(now, uptime, boot_id), zone, cursor)
    raise Unparsable(" ".join(clock))


_TELLING = re.compile(r"[ !#-&(-\[\]-~]{1,400}", re.ASCII)  # printable, no quote and no backslash
_NOBODY = "_SYSTEMD_UNIT=-"


def system_watch(cursor: str | None) -> str:
    """A script that prints for ever what kernel, systemd and those who may kill say, from `cursor` on or from now.

    `WatchReader` reads it. Where the journal cannot be read it follows the kernel's buffer or syslog files, and says so.
    """
    known = place(cursor)
    # In one journal alone: of several that are written at once, what comes second may be sorted first, and passed over.
    start = START + "every=\n" + CLOCK + NARROW + _telling(SYSTEM_TELLINGS)
    return start + INSTEAD.replace("@PLACE@", known.text if known else "") + _seek(known, SYSTEM_MATCHES) + FOLLOW


def programs_watch(cursor: str | None, speakers: Sequence[Speaker], tellings: Sequence[str]) -> str:
    """A script that prints for ever what these main processes say of their children, and nothing else of their units.

    `tellings` are parts of an extended regular expression, one of which a line must match (`remote.services.tellings`); no
    quote, no backslash, and no `^` or `$`, since a host without PCRE2 looks through raw JSON. Without speakers it only tells
    where to begin, and waits. Raises ValueError for what is no unit, no pid or no such expression.
    """
    matches = " + ".join(_match(speaker) for speaker in speakers) or _NOBODY
    start = START + CLOCK + NARROW + _telling(_checked(tellings))
    return start + ALONE + _seek(place(cursor), matches) + (FOLLOW if speakers else SILENT)


def _match(speaker: Speaker) -> str:
    pid = pid_number(speaker.pid)
    one = "" if speaker.children else f" _PID={pid}"
    return f"'_SYSTEMD_UNIT={unit_name(speaker.unit)}'{one}"


def _checked(tellings: Sequence[str]) -> Sequence[str]:
    for telling in tellings:
        if not _TELLING.fullmatch(telling):
            raise ValueError("not a telling")
        re.compile(telling)
    return tellings


def _telling(tellings: Iterable[str]) -> str:
    return f"telling='{'|'.join(tellings)}'\n"


def _seek(known: Place | None, matches: str) -> str:
    values = {
        "@CURSOR@": known.journal if known else "",
        "@SINCE@": str(max(0, known.realtime_us // 1_000_000 - 60)) if known else "",
        "@BOOT@": known.boot_id if known else "",
        "@MONOTONIC@": str(known.monotonic_us // 1_000_000) if known else "0",
        "@MATCHES@": matches,
    }
    return _filled(SEEK, values)


def _filled(script: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        script = script.replace(name, value)
    return script


# `timeout` says 124, that of busybox 143.
_KILLS = r"""
echo '= last'
journalctl -n 1 -o json --no-pager $brief 2>/dev/null
echo '= entries'
look() {
  timeout 15 journalctl -r -o json --no-pager --since=@SINCE@ $fields "$@" 2>/dev/null
  case $? in 124|143) echo '= cut' ;; esac
}
if [ "$pcre" ]; then look --case-sensitive=yes --grep="$telling" @MATCHES@
else look @MATCHES@ | grep -E "^= cut|MESSAGE. ?: ?[[]|$telling"; fi | sift
programs='@PROGRAMS@'
set -- $every _TRANSPORT=stdout _TRANSPORT=syslog _TRANSPORT=journal
lines=$(
  if [ "$pcre" ]; then look --case-sensitive=yes --grep="$programs" "$@"
  else look "$@" | grep -E "^= cut|$programs"; fi | sift_programs
)
printf '%s\n' "$lines"
"""

_UNIT_LOG = (
    START
    + r"""
[ -z "$none" ] || { echo "! $none"; exit 0; }
echo '= entries'
journalctl -o json --no-pager -n @LINES@ $fields $every -u '@UNIT@' 2>/dev/null
exit 0
"""
)


def kills_since(since: datetime, tellings: Sequence[str]) -> Fact[Journal]:
    """All entries from `since` (aware) on that may tell of a kill. Slow: it goes through the journal.

    The script starts at the full hour, so that a question asked again and again is the same text for the shell. `tellings` are as
    `programs_watch` has them. Raises ValueError for what is none.
    """
    start_s = int(since.timestamp()) // 3600 * 3600
    values = {
        "@SINCE@": f"@{start_s}",
        "@MATCHES@": SYSTEM_MATCHES,
        "@PROGRAMS@": "|".join(_checked(tellings)),
    }
    start = START + CLOCK + _telling(SYSTEM_TELLINGS) + SIFT + SIFT_PROGRAMS
    script = start + 'if [ -z "$none" ]; then\n' + _filled(_KILLS, values) + WRITERS + "fi\n" + PAST_INSTEAD
    return Fact("kills", script, lambda output: _since(parse(output), since), slow=True, deadline_s=45.0, cap_bytes=8 << 20)


def _since(answer: Journal | Unreadable, since: datetime) -> Journal | Unreadable:
    if isinstance(answer, Unreadable):
        return answer
    return replace(answer, entries=tuple(entry for entry in answer.entries if entry.at >= since))


def unit_log(unit: str, lines: int) -> Fact[Journal]:
    """The last `lines` (1 to 500) entries of one unit. Raises ValueError for what is no unit's name."""
    script = _UNIT_LOG.replace("@LINES@", str(min(max(lines, 1), 500))).replace("@UNIT@", unit_name(unit))
    return Fact("log", script, parse, slow=True, deadline_s=20.0)


def parse(output: str) -> Journal | Unreadable:
    """Lines `= WORD` about the journal itself, and entries; each entry once, oldest first."""
    refused = refusal(output)
    if refused is not None:
        return refused
    answer = _Answer()
    for line in output.split("\n"):
        answer.take(line)
    entries = sorted(answer.entries.values(), key=lambda entry: (entry.at, entry.monotonic_us, sequence(entry.cursor)))
    return Journal(tuple(entries), " ".join(dict.fromkeys(answer.partial)), answer.last, _first_writers(answer.writers))


_PARTIAL = {"own", "volatile", "cut", "dmesg", "syslog"}


@dataclass(slots=True)
class _Answer:
    """What a script about the past has said so far."""

    entries: dict[str, Entry] = field(default_factory=dict)
    writers: list[Entry] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    last: str = ""
    section: str = ""
    log: KernelLog | TextLog | None = None

    def take(self, line: str) -> None:
        """One line of it."""
        if line.startswith("= ") and not isinstance(self.log, TextLog):
            self._begin(*line.removeprefix("= ").partition(" "))
            return
        raw = line.encode("utf-8", "surrogateescape")
        entry = parse_entry(raw) if self.log is None else self.log.read(raw.decode("utf-8", "replace"))
        if entry is None:
            return
        match self.section:
            case "last":
                self.last = entry.cursor
            case "writers":
                self.writers.append(entry)
            case _:
                self.entries.setdefault(f"{entry.cursor} {entry.message}" if self.log else entry.cursor, entry)

    def _begin(self, word: str, _: str, rest: str) -> None:
        self.partial += [word] if word in _PARTIAL else []
        if word == "cut":
            return
        self.section = word
        if word == "dmesg":
            self.log = KernelLog(Clock.of(*_words(rest, 3)))
        elif word == "syslog":
            now, uptime, boot_id, zone = _words(rest, 4)
            self.log = TextLog.all(Clock.of(now, uptime, boot_id), zone)
        else:
            self.log = None


def _words(text: str, count: int) -> list[str]:
    words = text.split(" ")
    if len(words) != count:
        raise Unparsable(text)
    return words


def _first_writers(entries: Sequence[Entry]) -> dict[str, int]:
    """By invocation, of the first lines of some: who wrote first, where systemd's word of the start is there too."""
    started = {value for entry in entries if entry.from_systemd for name, value in entry.extra if name == "INVOCATION_ID"}
    first: dict[str, int] = {}
    for entry in entries:
        if entry.invocation in started and entry.pid is not None and not entry.from_systemd:
            first.setdefault(entry.invocation, entry.pid)
    return first
