"""Lines of logs that are no journal: the kernel's buffer, and the text files of a syslog daemon."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

from remote.errors import Unparsable
from remote.facts._journal_entry import EPOCH, Entry
from remote.facts._journal_place import Place, kernel_cursor, place, text_cursor
from remote.facts.reading import bare_boot_id, decimal

_MICROSECOND = timedelta(microseconds=1)
_KMSG = re.compile(r"(\d{1,4}),(\d{1,19}),(\d{1,19}),[^;]{0,40};(.*)", re.ASCII | re.DOTALL)
_DMESG = re.compile(r"<(\d{1,4})>\[ *(\d{1,10})\.(\d{6})\] (.*)", re.ASCII | re.DOTALL)
_HEX = re.compile(r"((?:\\x[0-9a-f]{2})+)", re.ASCII)
# `Nov 25 10:12:46 host TAG text` of old, and `2026-11-25T10:12:46.123456+00:00 host TAG text` of rsyslog today.
_CLASSIC = re.compile(r"([A-Z][a-z]{2}) +(\d{1,2}) (\d{2}):(\d{2}):(\d{2}) \S{1,255} (.*)", re.ASCII | re.DOTALL)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)) \S{1,255} (.*)", re.ASCII | re.DOTALL)
_TAG = re.compile(r"([^\s:\[\]]{1,64})(?:\[(\d{1,10})\])?: ?(.*)", re.DOTALL)
_UPTIME = re.compile(r"\[ *(\d{1,10})\.(\d{6})\] ?(.*)", re.ASCII | re.DOTALL)
_OCTAL = re.compile(r"#(0[0-3][0-7]|177)", re.ASCII)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ZONE = re.compile(r"([+-])(\d\d)(\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Clock:
    """When a log was read that counts from boot: `now` and `boot_at` by the host's own clock."""

    now: datetime
    boot_at: datetime
    boot_id: str

    @classmethod
    def of(cls, now: str, uptime: str, boot_id: str) -> Clock:
        """Of seconds since 1970, seconds since boot, and the boot's id. Raises Unparsable."""
        try:
            at = EPOCH + timedelta(seconds=decimal(now))
            boot_at = at - timedelta(seconds=decimal(uptime))
        except OverflowError:
            raise Unparsable(now) from None
        return cls(at, boot_at, bare_boot_id(boot_id))

    def at(self, monotonic_us: int) -> datetime | None:
        """The time of what happened so long after boot; None when there is none such."""
        try:
            return self.boot_at + timedelta(microseconds=monotonic_us)
        except OverflowError:
            return None


def _microseconds(at: datetime) -> int:
    return (at - EPOCH) // _MICROSECOND


def kernel_entry(clock: Clock, line: str) -> Entry | None:
    """An entry of a record of /dev/kmsg or of a line of `dmesg -r`; None for what is none (a record's further lines)."""
    if found := _KMSG.fullmatch(line):
        text = _HEX.sub(_bytes, found[4])
        return _kernel(clock, int(found[1]), int(found[2]), int(found[3]), text)
    if found := _DMESG.fullmatch(line):
        return _kernel(clock, int(found[1]), None, int(found[2] + found[3]), found[4])
    return None


def _bytes(found: re.Match[str]) -> str:
    return bytes.fromhex(found[1].replace("\\x", "")).decode("utf-8", "replace")


def _kernel(clock: Clock, priority: int, number: int | None, monotonic_us: int, text: str) -> Entry | None:
    at = clock.at(monotonic_us)
    if at is None:
        return None
    facility = priority >> 3
    return Entry(
        cursor=kernel_cursor(clock.boot_id, number, monotonic_us, _microseconds(at)),
        at=at,
        boot_id=clock.boot_id,
        monotonic_us=monotonic_us,
        message=text.encode("utf-8", "replace").decode(),
        transport="kernel",
        facility=facility,
        identifier="" if facility else "kernel",
        source="kmsg",
    )


@dataclass(slots=True)
class KernelLog:
    """The kernel's buffer from a place on: what was read before is passed over."""

    clock: Clock
    number: int = -1
    monotonic_us: int = 0

    @classmethod
    def after(cls, clock: Clock, cursor: str) -> KernelLog:
        """Behind the cursor's record where it is of this boot, else from the oldest on.

        A journal's cursor may be up to a minute later than the kernel's word. The wall's clock says nothing: the buffer's
        stands still while a machine sleeps.
        """
        log, known = cls(clock), place(cursor)
        if known is None or known.boot_id != clock.boot_id:
            return log
        if known.journal:
            log.monotonic_us = known.monotonic_us - 60_000_000
        else:
            log.number, log.monotonic_us = -1 if known.number is None else known.number, known.monotonic_us
        return log

    def read(self, line: str) -> Entry | None:
        """The entry of a line, unless it was read before."""
        entry = kernel_entry(self.clock, line)
        here = None if entry is None else place(entry.cursor)
        if entry is None or here is None or self._old(here):
            return None
        self.number = self.number if here.number is None else here.number
        return entry

    def _old(self, here: Place) -> bool:
        if here.number is None or self.number < 0:
            return here.monotonic_us < self.monotonic_us
        return here.number <= self.number


@dataclass(slots=True)
class TextLog:
    """Syslog files from a time on. Several may hold the same line: it is told once."""

    clock: Clock
    zone: timezone = UTC
    since: datetime = EPOCH
    _told: deque[str] = field(default_factory=lambda: deque(maxlen=512))

    @classmethod
    def after(cls, clock: Clock, zone: str, cursor: str) -> TextLog:
        """From the second of the cursor's time on; from now without one. `zone` is as `date +%z` writes it."""
        known = place(cursor)
        since = clock.now if known is None else EPOCH + timedelta(microseconds=min(known.realtime_us, 1 << 55))
        return cls(clock, _zone(zone), since.replace(microsecond=0))

    @classmethod
    def all(cls, clock: Clock, zone: str) -> TextLog:
        """From the oldest line on."""
        return cls(clock, _zone(zone))

    def read(self, line: str) -> Entry | None:
        """The entry of a line; None for one that was read before, and for what is none."""
        if line in self._told:
            return None
        entry = text_entry(self.clock, self.zone, line)
        if entry is None or entry.at < self.since:
            return None
        self._told.append(line)
        return entry


def _zone(text: str) -> timezone:
    found = _ZONE.fullmatch(text)
    if found is None:
        return UTC
    minutes = int(found[2]) * 60 + int(found[3])
    return timezone(timedelta(minutes=min(minutes, 1439) * (-1 if found[1] == "-" else 1)))


def text_entry(clock: Clock, zone: timezone, line: str) -> Entry | None:
    """An entry of a line of a syslog file; nothing in it is trusted: whoever may log chooses its tag and its text."""
    dated = _dated(clock, zone, line)
    if dated is None:
        return None
    at, rest = dated
    tag, text = "", rest
    if found := _TAG.fullmatch(rest):
        tag, text = found[1], found[3]
    monotonic_us = 0
    if tag == "kernel" and (counted := _UPTIME.fullmatch(text)):
        monotonic_us, text = int(counted[1] + counted[2]), counted[3]
    message = _OCTAL.sub(lambda code: chr(int(code[1], 8)), text)
    return Entry(
        cursor=text_cursor(_microseconds(at)),
        at=at,
        boot_id="",
        monotonic_us=monotonic_us,
        message=message.encode("utf-8", "replace").decode(),
        identifier=tag.encode("utf-8", "replace").decode(),
        source="syslog",
    )


def _dated(clock: Clock, zone: timezone, line: str) -> tuple[datetime, str] | None:
    try:
        if found := _RFC3339.fullmatch(line):
            return datetime.fromisoformat(found[1]).astimezone(UTC), found[2]
        if found := _CLASSIC.fullmatch(line):
            return _classic(clock, zone, found), found[6]
    except (ValueError, OverflowError):
        return None
    return None


def _classic(clock: Clock, zone: timezone, found: re.Match[str]) -> datetime:
    """Without a year it is the last such day that is not to come (a day for clocks that differ). Raises ValueError."""
    month = _MONTHS.index(found[1]) + 1
    latest = clock.now + timedelta(days=1)
    for year in range(latest.year, latest.year - 9, -1):  # 29 February
        try:
            at = datetime(year, month, int(found[2]), int(found[3]), int(found[4]), int(found[5]), tzinfo=zone).astimezone(UTC)
        except (ValueError, OverflowError):
            continue
        if at <= latest:
            return at
    raise ValueError(found[0])
