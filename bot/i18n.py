"""Words in a person's language: Texts become strings here and nowhere else.

`python -m bot.i18n --compile` makes the `.mo` files, `--check` fails for anything untranslated or stale, `--update` brings
the template and the catalogues to what the code says.
"""

from __future__ import annotations

import gettext
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote.text import Listing, Mono, Percent, Size, Span, T, Text, Value, When

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog

log = logging.getLogger(__name__)

DOMAIN = "memwarden"
ENGLISH = "en"
LANGUAGES = (ENGLISH, "ru")
SOURCES = ("bot", "handlers", "remote")
KEYWORDS: Mapping[str, tuple[int, ...]] = {"T": (1,), "N": (1, 2)}

_PLACE = re.compile(r"\{(\w+)\}")
_COUNTED = frozenset({"n", "what"})  # places whose values say how many (`what` in cards/verdict.py)
_KIB = 1024
_STEPS = ("B", "K", "M", "G", "T")
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400
_EXACT_S = 600  # below this the seconds count: systemd's 90 s are not 1 min
_FEW = 10  # below this many GiB one decimal is worth its place


def render(  # noqa: C901 - one line a kind of value
    value: Value, language: str, now: datetime | None = None, *, short: bool = False
) -> str:
    """The value in `language`. `now` says which day is today (a date is shown otherwise); `short` is for tables' cells.

    Never raises: an unknown language, a missing translation or a place without a value falls back to English or itself.
    """
    match value:
        case str():
            return value
        case Text():
            return _text(value, language, now, short=short)
        case Mono(literal):
            return literal
        case Size(size_bytes):
            return _short_size(size_bytes, language) if short else _size(size_bytes, language)
        case Percent(percent, digits):
            shown = _number(percent, language, digits)
            return f"{shown}%" if short else _text(T("{number}%", number=shown), language, now)
        case When(at):
            return _when(at, language, now, short=short)
        case Span(span_s):
            return _span(span_s, language)
        case Listing(items):
            return _listing([render(item, language, now, short=short) for item in items], language)
        case float():
            return _number(value, language, 1)
        case int():
            return str(value)


def plain(value: Value) -> str:
    """The value in English without a today: for logs and scripts."""
    return render(value, ENGLISH)


def _text(text: Text, language: str, now: datetime | None, *, short: bool = False) -> str:
    sentence = _translated(text, language)
    values = dict(text.values)

    def fill(place: re.Match[str]) -> str:
        name = place.group(1)
        return render(values[name], language, now, short=short) if name in values else place.group(0)

    # One pass: what a hostile value says is never read as a place.
    return _PLACE.sub(fill, sentence)


def _translated(text: Text, language: str) -> str:
    catalogue = _catalogue(language)
    if text.plural is None:
        # The empty msgid is the catalogue's own header.
        return catalogue.gettext(text.msgid) if text.msgid else ""
    return catalogue.ngettext(text.msgid, text.plural, text.count)


@lru_cache(maxsize=8)
def _catalogue(language: str) -> gettext.NullTranslations:
    if language == ENGLISH or language not in LANGUAGES:
        return gettext.NullTranslations()
    compiled = files("bot") / "locales" / language / "LC_MESSAGES" / f"{DOMAIN}.mo"
    try:
        with compiled.open("rb") as source:
            return gettext.GNUTranslations(source)
    except (OSError, ValueError) as trouble:
        log.warning("no words for %s, English is used: %s (`python -m bot.i18n --compile` makes them)", language, trouble)
        return gettext.NullTranslations()


def _locale(language: str) -> str:
    return language if language in LANGUAGES else ENGLISH


def _number(number: float, language: str, digits: int) -> str:
    shown = f"{number:.{digits}f}"
    return shown if "." not in shown or _locale(language) == ENGLISH else shown.replace(".", _decimal_sign(language))


@lru_cache(maxsize=8)
def _decimal_sign(language: str) -> str:
    # Late: babel's locale data is memory that a bot which only speaks English never needs.
    from babel.numbers import get_decimal_symbol

    return get_decimal_symbol(_locale(language))


def _scaled(size_bytes: int, least: int) -> tuple[float, int]:
    """The number in the largest unit that keeps it at 1 or more (at least `least`), and that unit's step."""
    number, step = float(size_bytes), 0
    while step < len(_STEPS) - 1 and (step < least or round(abs(number)) >= _KIB):
        number, step = number / _KIB, step + 1
    return number, step


def _size(size_bytes: int, language: str) -> str:
    number, step = _scaled(size_bytes, 2)
    shown = _number(number, language, 0 if step == 2 else 1)  # noqa: PLR2004 - whole MiB, tenths of GiB
    match _STEPS[step]:
        case "M":
            return _text(T("{number} MiB", number=shown), language, None)
        case "G":
            return _text(T("{number} GiB", number=shown), language, None)
        case _:
            return _text(T("{number} TiB", number=shown), language, None)


def _short_size(size_bytes: int, language: str) -> str:
    number, step = _scaled(size_bytes, 2)
    tenths = _STEPS[step] != "M" and abs(number) < _FEW
    return f"{_number(number, language, 1 if tenths else 0)}{_STEPS[step]}"


def _when(at: datetime, language: str, now: datetime | None, *, short: bool) -> str:
    moment = at.astimezone(UTC)
    clock = f"{moment:%H:%M}"
    if now is not None and moment.date() == now.astimezone(UTC).date():
        return clock if short else _text(T("{clock} UTC", clock=clock), language, None)
    from babel.dates import format_date

    same_year = now is not None and moment.year == now.astimezone(UTC).year
    date = format_date(moment.date(), "d MMM" if same_year or short else "d MMM y", locale=_locale(language)).replace(".", "")
    return f"{date} {clock}" if short else _text(T("{date}, {clock} UTC", date=date, clock=clock), language, None)


def _span(span_s: float, language: str) -> str:
    whole_s = max(0, round(span_s))
    days, hours, minutes = whole_s // _DAY_S, whole_s % _DAY_S // _HOUR_S, whole_s % _HOUR_S // _MINUTE_S
    if whole_s < _MINUTE_S:
        text = T("{seconds} s", seconds=whole_s)
    elif whole_s < _EXACT_S and whole_s % _MINUTE_S:
        text = T("{minutes} min {seconds} s", minutes=minutes, seconds=whole_s % _MINUTE_S)
    elif whole_s < _HOUR_S:
        text = T("{minutes} min", minutes=minutes)
    elif whole_s < _DAY_S:
        text = T("{hours} h {minutes} min", hours=hours, minutes=minutes) if minutes else T("{hours} h", hours=hours)
    else:
        text = T("{days} d {hours} h", days=days, hours=hours) if hours else T("{days} d", days=days)
    return _text(text, language, None)


def _listing(items: list[str], language: str) -> str:
    if len(items) < 2:  # noqa: PLR2004 - one thing is no list
        return "".join(items)
    # Not babel's format_list: its locale data weighs 3 MB, for one word.
    return _text(T("{items} and {last}", items=", ".join(items[:-1]), last=items[-1]), language, None)


# The catalogues, for developers: babel is needed, and a checkout.


def _root() -> Path:
    return Path(__file__).resolve().parent.parent


def _template_path() -> Path:
    return _root() / "bot" / "locales" / f"{DOMAIN}.pot"


def _catalogue_paths() -> Iterator[tuple[str, Path]]:
    for language in LANGUAGES:
        if language != ENGLISH:
            yield language, _root() / "bot" / "locales" / language / "LC_MESSAGES" / f"{DOMAIN}.po"


def extract() -> Catalog:
    """Every msgid of the sources, as a template."""
    from babel.messages.catalog import Catalog
    from babel.messages.extract import extract_from_dir

    # No date and no line numbers: the template changes when a sentence does, and only then.
    template = Catalog(project=DOMAIN, fuzzy=False, creation_date=datetime(2026, 1, 1, tzinfo=UTC))
    found = [
        (f"{source}/{name}", message)
        for source in SOURCES
        for name, _line, message, _comments, _context in extract_from_dir(
            _root() / source, method_map=[("**.py", "python")], keywords=dict(KEYWORDS), comment_tags=()
        )
    ]
    for name, message in sorted(found, key=lambda one: (one[0], str(one[1]))):
        template.add(message, locations=[(name, 0)])
    return template


def _read(path: Path, language: str | None = None) -> Catalog:
    from babel.messages.pofile import read_po

    with path.open("rb") as source:
        return read_po(source, locale=language, abort_invalid=True)


def _write(path: Path, catalogue: Catalog) -> None:
    from babel.messages.pofile import write_po

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as sink:
        write_po(
            sink,
            catalogue,
            width=120,
            omit_header=False,
            sort_by_file=False,
            sort_output=True,
            include_lineno=False,
            ignore_obsolete=True,
        )


def update() -> None:
    """Bring the template and every catalogue to what the sources say; new sentences wait there untranslated."""
    from babel.messages.catalog import Catalog

    template = extract()
    _write(_template_path(), template)
    for language, path in _catalogue_paths():
        catalogue = _read(path, language) if path.exists() else Catalog(locale=language, project=DOMAIN, fuzzy=False)
        catalogue.update(template, no_fuzzy_matching=True)
        catalogue.fuzzy = False
        _write(path, catalogue)


def compile_catalogues() -> None:
    """Make the `.mo` files that `render` reads."""
    from babel.messages.mofile import write_mo

    for language, path in _catalogue_paths():
        fresh = path.with_suffix(".mo.new")
        with fresh.open("wb") as sink:
            write_mo(sink, _read(path, language))
        # Renamed at once: a bot that runs from this checkout never reads half a catalogue.
        fresh.replace(path.with_suffix(".mo"))
    _catalogue.cache_clear()


def complaints() -> list[str]:
    """What is wrong with the catalogues, one line each: missing, stale, untranslated, fuzzy, other places."""
    wanted = extract()
    found = _differences(wanted, _read(_template_path()), "template")
    for language, path in _catalogue_paths():
        catalogue = _read(path, language)
        found += _differences(wanted, catalogue, language)
        loose = _one_is_loose(language)
        found += [
            f"{language}: {words}: {_first(message)!r}"
            for message in catalogue
            if message.id
            for words in _faults(message, one_is_loose=loose)
        ]
    return found


def _one_is_loose(language: str) -> bool:
    """Whether the form for one thing is said of more too, as Russian says it of 21 and 101."""
    from babel import Locale

    form = Locale.parse(language).plural_form
    return any(form(n) == form(1) for n in range(2, 200))


def _differences(wanted: Catalog, there: Catalog, name: str) -> list[str]:
    ours = {_key(message) for message in wanted if message.id}
    theirs = {_key(message) for message in there if message.id}
    missing = [f"{name}: missing: {key[0]!r}" for key in sorted(ours - theirs)]
    return missing + [f"{name}: stale: {key[0]!r}" for key in sorted(theirs - ours)]


def _key(message: Any) -> tuple[str, ...]:  # noqa: ANN401 - babel's Message has no generic types
    return message.id if isinstance(message.id, tuple) else (message.id,)


def _first(message: Any) -> str:  # noqa: ANN401 - as above
    return _key(message)[0]


def _faults(message: Any, *, one_is_loose: bool = False) -> Iterator[str]:  # noqa: ANN401 - as above
    forms = message.string if isinstance(message.string, tuple) else (message.string,)
    if message.fuzzy:
        yield "fuzzy"
    if not all(forms):
        yield "untranslated"
        return
    places = {place for part in _key(message) for place in _PLACE.findall(part)}
    for form in forms:
        # A form for one thing may say the number in words, in a language that says it of one thing alone (below).
        if set(_PLACE.findall(form)) | {"n"} != places | {"n"} or (len(forms) == 1 and set(_PLACE.findall(form)) != places):
            yield f"other places in {form!r}"
    if one_is_loose and len(forms) > 1 and not _counts(forms, places):
        yield f"no number, though 21 has this form too, in {forms[0]!r}"


def _counts(forms: Sequence[str], places: set[str]) -> bool:
    """Whether the first form tells how many there are, or all are the same and none needs to."""
    return bool(_COUNTED & set(_PLACE.findall(forms[0]))) or ("n" not in places and len(set(forms)) == 1)


def main(arguments: list[str]) -> int:
    """What the developers' flags do; the exit status."""
    match arguments:
        case ["--compile"]:
            compile_catalogues()
        case ["--update"]:
            update()
        case ["--check"]:
            found = complaints()
            sys.stderr.writelines(f"{line}\n" for line in found)
            return 1 if found else 0
        case _:
            sys.stderr.write("python -m bot.i18n --compile | --check | --update\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
