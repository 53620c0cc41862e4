"""The words after a command: hosts, counts, units, plans."""

from __future__ import annotations

import re
from datetime import timedelta
from difflib import get_close_matches

from handlers.cards.host import short_unit
from handlers.command import Refused, Usage
from handlers.ports.hosts import Hosts
from handlers.request import Request
from remote.facts.units import Unit, Units
from remote.text import Mono, T

SHOWN = 64  # of a word that made no sense
LONGEST = timedelta(days=3660)

_NUMBER = re.compile(r"-?\d+", re.ASCII)
_SPAN = re.compile(r"(\d{1,6})([mhdw])", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def names(request: Request, hosts: Hosts) -> tuple[str, ...]:
    """What a word may name from here, whatever it looks like: the hosts and their groups."""
    visible = hosts.visible(request)
    return (*visible, *(group for host in visible for group in hosts.groups(host)))


def split_number(words: tuple[str, ...], known: tuple[str, ...] = ()) -> tuple[tuple[str, ...], int | None]:
    """The words without a number at their end, and that number. A host (`known`) with digits for a name stays a host. Raises
    Usage for a number below zero, and for one before other words."""
    rest, last = _split(words, known, _NUMBER)
    if last.startswith("-"):
        raise Usage(T("{number} is below zero.", number=Mono(last[:SHOWN])))
    return rest, int(last[:18]) if last else None


def _split(words: tuple[str, ...], known: tuple[str, ...], *looks: re.Pattern[str]) -> tuple[tuple[str, ...], str]:
    """The words without the last one, and that one, where it looks so and names no host; else all of them, and nothing."""
    at = next(
        (n for n, word in enumerate(words) if word not in known and any(look.fullmatch(word.lower()) for look in looks)), None
    )
    if at is None:
        return words, ""
    if words[at + 1 :]:
        raise Usage(T("{word} comes last, after everything else.", word=Mono(words[at][:SHOWN])))
    return words[:at], words[at].lower()


def split_window(words: tuple[str, ...], known: tuple[str, ...] = ()) -> tuple[tuple[str, ...], timedelta | None]:
    """The words without a length of time at their end (`30m`, `24h`, `7d`, `2w`), and that length. A host (`known`) of such a
    name stays a host. Raises Usage for one that is nothing, for more than ten years, for a number without its unit, and for
    one before other words."""
    rest, last = _split(words, known, _SPAN, _NUMBER)
    if not last:
        return words, None
    found = _SPAN.fullmatch(last)
    window = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < window <= LONGEST:
        raise Usage(
            T("{word} is no length of time that I can look back. Say it like 30m, 24h, 7d or 2w.", word=Mono(last[:SHOWN]))
        )
    return rest, window


def within(number: int | None, default: int, most: int) -> int:
    """A count that was asked for. Raises Usage unless it is between 1 and `most`."""
    if number is None:
        return default
    if not 1 <= number <= most:
        raise Usage(T("{number} is not between 1 and {most}.", number=number, most=most))
    return number


def one_host(request: Request, hosts: Hosts, words: tuple[str, ...]) -> str:
    """The single host that the words name. Raises Usage for several, Refused `which-host` for none."""
    chosen = hosts.choose(request, words)
    if len(chosen) != 1:
        raise Usage(T("One host at a time, please: {word} names {n}.", word=Mono(" ".join(words)[:SHOWN]), n=len(chosen)))
    return chosen[0]


def host_and_unit(request: Request, hosts: Hosts, words: tuple[str, ...]) -> tuple[str, str]:
    """`HOST UNIT`, or `UNIT` alone where the chat sees one host. Raises Usage."""
    match words:
        case (host, unit):
            return one_host(request, hosts, (host,)), unit
        case (word,):
            visible = hosts.visible(request)
            if word in visible:
                raise Usage(T("Which unit on {host}?", host=Mono(word)))
            if len(visible) == 1:
                return visible[0], word
            raise Refused("which-host", T("Which host?"))
        case ():
            raise Usage(T("Which unit?"))
        case _:
            raise Usage(T("One host and one unit, please."))


def known_unit(host: str, units: Units, name: str) -> Unit:
    """The unit of this name or alias. Raises Refused, naming the nearest."""
    unit = units.by_name(name)
    if unit is not None:
        return unit
    # Compared without their common ending, which would make all names alike.
    names = {short_unit(alias): known.id for known in units.all for alias in known.names}
    near = get_close_matches(short_unit(name), names, 1, 0.6)
    word = Mono(name[:SHOWN])
    if near:
        text = T("There is no unit {unit} on {host}. Did you mean {near}?", unit=word, host=Mono(host), near=Mono(names[near[0]]))
        raise Refused("not-found", text)
    raise Refused("not-found", T("There is no unit {unit} on {host}.", unit=word, host=Mono(host)))


def one_plan(words: tuple[str, ...]) -> str:
    """The plan's id or code. Raises Usage."""
    if len(words) != 1:
        raise Usage(T("Which plan? {plans} lists them.", plans=Mono("/plans")))
    return words[0]
