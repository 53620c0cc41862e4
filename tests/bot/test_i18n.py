"""Texts in English and Russian, and the catalogues they come from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import write_mo
from hypothesis import given
from hypothesis import strategies as st

from bot import i18n
from bot.i18n import LANGUAGES, complaints, main, plain, render
from remote.policy import GIB, MIB
from remote.text import Listing, Mono, N, Percent, Size, Span, T, Text, Value, When

NOW = datetime(2026, 11, 23, 14, 2, tzinfo=UTC)
NBSP = "\u00a0"


@pytest.mark.parametrize(
    ("value", "english", "russian", "short"),
    [
        (Size(2 * GIB), "2.0 GiB", f"2,0{NBSP}ГиБ", "2.0G"),
        (Size(int(1.9 * GIB)), "1.9 GiB", f"1,9{NBSP}ГиБ", "1.9G"),
        (Size(512 * MIB), "512 MiB", f"512{NBSP}МиБ", "512M"),
        (Size(GIB - 1), "1.0 GiB", f"1,0{NBSP}ГиБ", "1.0G"),
        (Size(31 * GIB), "31.0 GiB", f"31,0{NBSP}ГиБ", "31G"),
        (Size(3 << 40), "3.0 TiB", f"3,0{NBSP}ТиБ", "3.0T"),
        (Size(0), "0 MiB", f"0{NBSP}МиБ", "0M"),
        (Percent(93.4), "93%", f"93{NBSP}%", "93%"),
        (Percent(12.34, 1), "12.3%", f"12,3{NBSP}%", "12.3%"),
        (Span(59), "59 s", f"59{NBSP}с", "59 s"),
        (Span(60), "1 min", f"1{NBSP}мин", "1 min"),
        (Span(90), "1 min 30 s", f"1{NBSP}мин 30{NBSP}с", "1 min 30 s"),
        (Span(599.4), "9 min 59 s", f"9{NBSP}мин 59{NBSP}с", "9 min 59 s"),
        (Span(599.6), "10 min", f"10{NBSP}мин", "10 min"),
        (Span(659), "10 min", f"10{NBSP}мин", "10 min"),
        (Span(180), "3 min", f"3{NBSP}мин", "3 min"),
        (Span(3600), "1 h", f"1{NBSP}ч", "1 h"),
        (Span(7500), "2 h 5 min", f"2{NBSP}ч 5{NBSP}мин", "2 h 5 min"),
        (Span(86400), "1 d", f"1{NBSP}д", "1 d"),
        (Span(93600), "1 d 2 h", f"1{NBSP}д 2{NBSP}ч", "1 d 2 h"),
        (Span(-5), "0 s", f"0{NBSP}с", "0 s"),
        (When(NOW), "14:02 UTC", "14:02 UTC", "14:02"),
        (When(NOW - timedelta(days=2)), "21 Nov, 14:02 UTC", "21 нояб, 14:02 UTC", "21 Nov 14:02"),
        (When(NOW.replace(year=2025)), "23 Nov 2025, 14:02 UTC", None, "23 Nov 14:02"),
        (When(NOW.astimezone(timezone(timedelta(hours=5)))), "14:02 UTC", "14:02 UTC", "14:02"),
        (Mono("celery.service"), "celery.service", "celery.service", "celery.service"),
        (Listing(()), "", "", ""),
        (Listing(("a",)), "a", "a", "a"),
        (Listing(("a", "b", Mono("c"))), "a, b and c", "a, b и c", "a, b and c"),
        ("{word}", "{word}", "{word}", "{word}"),
        (7, "7", "7", "7"),
        (1.5, "1.5", "1,5", "1.5"),
        (Text(""), "", "", ""),
    ],
)  # fmt: skip
def test_every_kind_of_value_has_words(value: Value, english: str, russian: str | None, short: str) -> None:
    assert render(value, "en", NOW) == english
    assert render(value, "en", NOW, short=True) == short
    if russian is not None:
        assert render(value, "ru", NOW) == russian


def test_a_moment_has_its_date_where_no_today_is_known() -> None:
    assert plain(When(NOW)) == "23 Nov 2026, 14:02 UTC"


@pytest.mark.parametrize(
    ("n", "russian"),
    [
        (1, "прошла 1 минута"), (2, "прошли 2 минуты"), (5, "прошло 5 минут"), (11, "прошло 11 минут"),
        (21, "прошла 21 минута"), (104, "прошли 104 минуты"),
    ],
)  # fmt: skip
def test_russian_has_three_forms(n: int, russian: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = tmp_path / "locales" / "ru" / "LC_MESSAGES"
    at.mkdir(parents=True)
    catalogue = Catalog(locale="ru")
    catalogue.add(("{n} minute", "{n} minutes"), ("прошла {n} минута", "прошли {n} минуты", "прошло {n} минут"))
    with (at / "memwarden.mo").open("wb") as sink:
        write_mo(sink, catalogue)
    monkeypatch.setattr(i18n, "files", lambda _package: tmp_path)
    i18n._catalogue.cache_clear()
    try:
        assert render(N("{n} minute", "{n} minutes", n), "ru") == russian
    finally:
        i18n._catalogue.cache_clear()


@pytest.mark.parametrize(
    ("one", "many", "forms", "fault"),
    [
        ("{n} cat", "{n} cats", ("{n} кот", "{n} кота", "{n} котов"), False),
        ("a cat", "{n} cats", ("{n} кот", "{n} кота", "{n} котов"), False),
        ("a cat", "{n} cats", ("кот", "{n} кота", "{n} котов"), True),
        ("a cat", "{n} cats", ("коты", "коты", "коты"), True),
        ("it is {a}", "the biggest is {a}", ("это {a}", "больший — {a}", "больший — {a}"), True),
        ("extra: {a}", "extras: {a}", ("лишнее: {a}", "лишнее: {a}", "лишнее: {a}"), False),
        ("{what} was killed", "{what} were killed", ("убит {what}", "убито {what}", "убито {what}"), False),
    ],
)  # fmt: skip
def test_what_russian_says_of_one_it_says_of_twenty_one(one: str, many: str, forms: tuple[str, ...], fault: bool) -> None:  # noqa: FBT001
    loose = i18n._one_is_loose("ru")
    faults = list(i18n._faults(Message((one, many), forms), one_is_loose=loose))

    assert bool(faults) is fault, faults
    assert not any("number" in words for words in i18n._faults(Message((one, many), forms))), "in other languages"
    assert not i18n._one_is_loose("en")


def test_english_has_two() -> None:
    assert plain(N("{n} unit", "{n} units", 1)) == "1 unit"
    assert plain(N("{n} unit", "{n} units", 3)) == "3 units"


@pytest.mark.parametrize("language", ["ru", "en", "xx", ""])
def test_what_nobody_translated_falls_back_to_english(language: str) -> None:
    assert render(T("A sentence of no catalogue, {place} and {nothing}", place=1), language) == (
        "A sentence of no catalogue, 1 and {nothing}"
    )


@given(st.text(), st.sampled_from(LANGUAGES))
def test_a_value_is_never_read_as_a_place(word: str, language: str) -> None:
    assert render(T("{host}", host=Mono(word), other="{host}"), language) == word


def test_a_missing_catalogue_is_english(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    i18n._catalogue.cache_clear()
    monkeypatch.setattr(i18n, "files", lambda _package: tmp_path)
    try:
        assert render(T("Approve"), "ru") == "Approve"
        assert "no words for ru" in caplog.text
    finally:
        i18n._catalogue.cache_clear()


def test_the_catalogues_are_whole() -> None:
    assert complaints() == []


def test_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "--check" in capsys.readouterr().err


def test_check_names_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for source in i18n.SOURCES:
        (tmp_path / source).mkdir()
    (tmp_path / "handlers" / "x.py").write_text('T("one {a}")\nN("{n} cat", "{n} cats", 2)\nT("kept")\n')
    monkeypatch.setattr(i18n, "_root", lambda: tmp_path)
    assert main(["--update"]) == 0
    assert main(["--check"]) == 1
    assert "ru: untranslated: 'kept'" in capsys.readouterr().err
    po = tmp_path / "bot" / "locales" / "ru" / "LC_MESSAGES" / "memwarden.po"
    words = po.read_text(encoding="utf-8").replace('msgid "kept"\nmsgstr ""', 'msgid "kept"\nmsgstr "оставлено"')
    words = words.replace('msgid "one {a}"\nmsgstr ""', 'msgid "one {a}"\nmsgstr "раз {b}"')
    for at, form in enumerate(("кот", "кота", "котов")):
        words = words.replace(f'msgstr[{at}] ""', f'msgstr[{at}] "{{n}} {form}"')
    po.write_text(words, encoding="utf-8")
    po.write_text(words.replace("раз {b}", "раз {a}").replace('{n} кот"', 'кот"'), encoding="utf-8")
    assert main(["--check"]) == 1
    assert capsys.readouterr().err == "ru: no number, though 21 has this form too, in 'кот': '{n} cat'\n"
    po.write_text(words, encoding="utf-8")
    assert main(["--check"]) == 1
    assert capsys.readouterr().err == "ru: other places in 'раз {b}': 'one {a}'\n"
    po.write_text(words.replace("раз {b}", "раз {a}"), encoding="utf-8")
    assert main(["--check"]) == 0
    assert main(["--compile"]) == 0
    assert po.with_suffix(".mo").exists()
    (tmp_path / "handlers" / "x.py").write_text('T("new")\nN("{n} cat", "{n} cats", 2)\nT("kept")\n')
    assert main(["--check"]) == 1
    assert set(capsys.readouterr().err.splitlines()) == {
        "template: missing: 'new'", "template: stale: 'one {a}'", "ru: missing: 'new'", "ru: stale: 'one {a}'",
    }  # fmt: skip
