"""Where a stream goes on: a journal's cursor, or our own word for a place in the kernel's buffer or in a syslog file."""

from __future__ import annotations

import re
from dataclasses import dataclass

_JOURNAL = re.compile(r"[a-z]=[0-9a-f]+(?:;[a-z]=[0-9a-f]+){1,9}", re.ASCII)
_COUNT = re.compile(r";i=([0-9a-f]{1,16});", re.ASCII)
_KMSG = re.compile(r"kmsg:([0-9a-f]{0,32}):(\d{0,19}):(\d{1,19}):(\d{1,19})", re.ASCII)
_SYSLOG = re.compile(r"syslog:(\d{1,19})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """A cursor taken apart. `journal` is it where it is a journal's, `text` whatever it is; times in microseconds, since 1970
    and since boot; `number` counts the kernel's records of one boot (None where it was not told)."""

    text: str
    journal: str = ""
    realtime_us: int = 0
    boot_id: str = ""
    monotonic_us: int = 0
    number: int | None = None


def place(cursor: str | None) -> Place | None:
    """None for no cursor and for what is none."""
    text = cursor or ""
    if _JOURNAL.fullmatch(text):
        parts = dict(part.split("=", 1) for part in text.split(";"))
        boot_id = parts.get("b", "")
        realtime_us, monotonic_us = (int(parts.get(name, "0")[:16], 16) for name in ("t", "m"))
        return Place(text, text, realtime_us, boot_id if len(boot_id) <= 32 else "", monotonic_us)  # noqa: PLR2004 - 128 bits
    if found := _KMSG.fullmatch(text):
        return Place(text, "", int(found[4]), found[1], int(found[3]), int(found[2]) if found[2] else None)
    if found := _SYSLOG.fullmatch(text):
        return Place(text, "", int(found[1]))
    return None


def sequence(cursor: str) -> int:
    """A journal's own count, which tells apart entries of one microsecond (a traceback's lines); 0 where there is none."""
    found = _COUNT.search(cursor)
    return int(found[1], 16) if found else 0


def kernel_cursor(boot_id: str, number: int | None, monotonic_us: int, realtime_us: int) -> str:
    """A place in the kernel's buffer."""
    return f"kmsg:{boot_id}:{'' if number is None else number}:{monotonic_us}:{max(0, realtime_us)}"


def text_cursor(realtime_us: int) -> str:
    """A place in syslog files: by time, since they are rotated."""
    return f"syslog:{max(0, realtime_us)}"
