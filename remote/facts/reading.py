"""What the parsers of several facts share: a script's own refusal, numbers, and where a local reader finds its files."""

from __future__ import annotations

import re
from pathlib import Path

from remote.errors import Unparsable
from remote.facts.base import Unreadable
from remote.text import Mono, T, Text


def _why(kind: str, thing: str) -> Text:
    match kind:
        case "denied":
            return T("no permission to read {thing}", thing=Mono(thing))
        case "missing":
            return T("{thing} is not there", thing=Mono(thing))
        case "unsupported":
            return T("this host does not offer {thing}", thing=Mono(thing))
        case _:
            return T("{thing} could not be read", thing=Mono(thing))


def unreadable(kind: str, thing: str) -> Unreadable:
    """An `Unreadable` of this kind about `thing` (a path or a program)."""
    return Unreadable(kind, _why(kind, thing))


def refusal(output: str) -> Unreadable | None:
    """What a script said by a first line `! KIND THING`: that it could not read, and why."""
    first = output.split("\n", 1)[0].split(" ", 2)
    if first[0] != "!":
        return None
    kind, thing = (*first[1:], "", "")[:2]
    return unreadable(kind if kind in {"denied", "missing", "unsupported"} else "failed", thing[:200])


def bare_boot_id(text: str) -> str:
    """A boot's id as the journal writes it: /proc/sys/kernel/random/boot_id has dashes, `_BOOT_ID` has none."""
    return text.strip().replace("-", "")[:32]


def whole(text: str) -> int:
    """A decimal integer of at most 20 digits (a kernel's counter has no more). Raises Unparsable."""
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 21):  # noqa: PLR2004 - said above
        raise Unparsable(text)
    return int(text)


def decimal(text: str) -> float:
    """A plain decimal number (`12.50`), no exponent, nan or infinity. Raises Unparsable."""
    digits = text.replace(".", "", 1)
    if not (text.isascii() and digits.isdigit() and len(text) <= 40):  # noqa: PLR2004 - longer is no number of the kernel
        raise Unparsable(text)
    return float(text)


# systemd.unit(5): ASCII letters, digits and `:-_.\@`, at most 255; no leading `-`, which would be an option.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,254}", re.ASCII)
PIDS = range(1, 1 << 22)  # the kernel's PID_MAX_LIMIT


def is_unit_name(name: str) -> bool:
    """Whether a unit can be called so; then it is safe between single quotes of a script."""
    return _UNIT.fullmatch(name) is not None


def unit_name(name: str) -> str:
    """The name as it is. Raises ValueError for what is no unit's name."""
    if not is_unit_name(name):
        raise ValueError("not a unit's name")
    return name


def pid_number(pid: int) -> int:
    """The number as it is. Raises ValueError for what is no pid."""
    if pid not in PIDS:
        raise ValueError("not a pid")
    return int(pid)


# `\xd0` is neither's: a byte that is no text was decoded so (`backslashreplace`), and stays told as that.
_ESCAPE = re.compile(r"((?:\\[0-7]{3})+)|\\(?!x[0-9a-f]{2})(.)", re.DOTALL | re.ASCII)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def unescape(text: str) -> str:
    r"""Undo the escapes of the kernel (`\n`, `\\`) and of ls (`\ `, `\303\244`: the bytes of one character)."""
    return _ESCAPE.sub(_unescaped, text)


def _unescaped(found: re.Match[str]) -> str:
    if found[2] is not None:
        return _ESCAPED.get(found[2], found[2])
    return bytes(int(code, 8) & 0xFF for code in found[1].split("\\")[1:]).decode("utf-8", "surrogateescape")


def read_proc(path: str, most_bytes: int | None = None) -> str | None:
    """A file of this machine's /proc as a channel would give it; None where it is missing, vanished or may not be read."""
    try:
        # Not `surrogateescape`: comm is cut at 15 bytes, in the middle of a character too, and no store takes a surrogate.
        return Path(path).read_bytes()[:most_bytes].decode("utf-8", "backslashreplace")
    except OSError:  # psi=0 gives EOPNOTSUPP, a vanished process ESRCH
        return None
