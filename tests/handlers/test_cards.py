"""Memory incidents, refusals; widths and words of every card in both languages."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from bot.chat.layout import GAP, WIDTH, table_lines
from bot.i18n import LANGUAGES, plain, render
from handlers import discover
from handlers.cards.choose import choose_host
from handlers.cards.failure import refusal
from handlers.cards.host import tone, uses
from handlers.cards.memory import MemoryIncident, memory_card
from handlers.cards.plan import details_card, plan_card
from handlers.cards.timetable import timetable
from handlers.command import Refused, Usage
from handlers.every import Part, every
from handlers.reply import HostAnswer, Line, Reply, Table, Title
from remote.errors import HostError
from remote.findings.base import Finding
from remote.policy import GIB
from remote.text import Mono, Size, Span, T, Text
from tests.handlers.ports import NOW, Desk, TestClock, TestCommands, TestHosts, TestPlans, make_request
from tests.handlers.shown import flat, texts, words
from tests.handlers.test_kill_card import CAUSES, kill_cards
from tests.handlers.test_plan_card import STATES
from tests.handlers.worlds import CALM, MEMORY, PROCESSES, SECRET, UNITS, kill, world


def incident(**more: object) -> MemoryIncident:
    base = MemoryIncident("warning", NOW - timedelta(minutes=5), None, 94.5, MEMORY)
    return replace(base, **more)  # type: ignore[arg-type]


def test_a_memory_incident_from_its_first_sign_to_its_end() -> None:
    opened = memory_card("prod", incident(uses=uses(PROCESSES, UNITS), advice=(T("Nothing to do."),)), NOW)
    assert words(opened).startswith("prod: memory is high, 93% used, 145 MiB free")
    assert "Since 13:57 UTC (5 min)" in words(opened)
    assert "teaching_panel" in words(opened)
    assert opened.loud
    worse = memory_card("prod", incident(level="critical"), NOW)
    assert "prod: memory is critical" in words(worse)
    over = memory_card("prod", incident(closed_at=NOW, memory=CALM), NOW)
    assert "prod: memory is fine again, 27% used, 1.5 GiB free" in words(over)
    assert "It lasted 5 min, from 13:57 UTC to 14:02 UTC" in words(over)
    assert "Worst: 94.5%" in words(over)
    assert not over.loud


def test_wrong_use_shows_the_right_use() -> None:
    command = discover()["top"]
    usage = Usage(T("{number} is not between 1 and {most}.", number=0, most=5))
    reply = refusal(usage, command, make_request("/top 0"))
    assert words(reply).splitlines() == ["0 is not between 1 and 5.", "Use: /top [HOST…] [COUNT]", "For example: /top prod"]
    assert reply.error is not None
    assert reply.error.kind == "usage"
    assert not reply.ok
    assert words(refusal(usage, None, make_request("/top 0"))) == "0 is not between 1 and 5."
    assert words(refusal(usage, replace(command, examples=()), make_request("/top 0"))).endswith("[COUNT]")


def test_a_refused_press_is_a_toast_and_no_message() -> None:
    for error in (Refused("role", T("That needs the role approver or admin.")), Usage(T("Which unit?"))):
        reply = refusal(error, discover()["approve"], make_request("/approve x", pressed=True))
        assert reply.toast == error.text
        assert not reply.blocks
        assert not reply.ok
    typed = refusal(Refused("role", T("That needs the role approver or admin.")), None, make_request("/approve x"))
    assert typed.toast is None
    assert words(typed) == "That needs the role approver or admin."


def test_no_host_named_is_answered_with_buttons() -> None:
    request = make_request("/logs celery 20", hosts=("prod", "web", "db"))
    reply = refusal(Refused("which-host", T("Which host?")), None, request)
    assert [[button.command for button in row] for row in reply.buttons] == [
        ["/logs prod celery 20", "/logs web celery 20"], ["/logs db celery 20"],
    ]  # fmt: skip
    assert "Name it: /logs HOST celery 20. I know prod, web and db." in words(reply)
    [[button]] = choose_host("logs", ("prod",), (r"srv-my\x2dapp.service", "20")).buttons
    assert button.command == r"/logs prod 'srv-my\x2dapp.service' 20"
    assert reply.error is not None
    assert reply.error.kind == "which-host"
    assert "No host can be seen" in words(choose_host("mem", ()))


async def test_each_host_answers_for_itself_in_the_order_asked() -> None:
    async def look(host: str) -> Part:
        if host == "web":
            raise HostError("timeout", T("Which host?"))
        return Part(host, (Line(T("{host}", host=host)),))

    reply = await every(("db", "web", "prod"), look)
    assert reply.hosts[0] == HostAnswer("db", "db")
    assert [answer.error is None for answer in reply.hosts] == [True, False, True]
    assert words(reply).splitlines() == ["db", "web did not answer", "Which host?", "prod"]


async def all_cards() -> list[Reply]:
    """One of every reply."""
    clock = TestClock()
    plans = TestPlans(clock)
    desk = Desk(
        TestHosts({"prod": world(), "web": HostError("timeout", T("Which host?"))}), plans, clock, TestCommands(discover())
    )
    asked = [
        "/mem prod", "/mem all", "/top prod", "/duplicates prod", "/services prod", "/why prod", "/why prod 7", "/why 7",
        "/kills prod", "/hosts", "/fix prod", "/plans", "/help", "/help fix", "/start", "/whoami", "/restart prod celery",
    ]  # fmt: skip
    replies = [await desk.ask(make_request(line, hosts=("prod", "web"))) for line in asked]
    replies += kill_cards()
    listed = tuple(kill(cause=cause, at=NOW - timedelta(hours=7 * n)) for n, cause in enumerate(CAUSES))
    replies.append(Reply(tuple(timetable(listed, NOW))))
    replies += [plan_card(plan, NOW) for plan in STATES.values()] + [details_card(plan, NOW) for plan in STATES.values()]
    replies += [
        memory_card("prod", one, NOW) for one in (incident(), incident(level="critical"), incident(closed_at=NOW, memory=CALM))
    ]
    replies += [choose_host("mem", ("prod", "web")), choose_host("mem", ())]
    return replies


def room(table: Table, language: str) -> int:
    """The columns that are left for the last one."""
    rows = [[render(cell, language, NOW, short=True) for cell in row] for row in (table.head, *table.rows) if row]
    return WIDTH - sum(max(wcswidth(row[at]) for row in rows) + len(GAP) for at in range(len(rows[0]) - 1))


@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_table_fits_a_phone(language: str) -> None:
    found = 0
    for reply in await all_cards():
        for block in flat(reply):
            if isinstance(block, Table) and block.rows:
                found += 1
                lines = table_lines(block, language, NOW)
                assert max(wcswidth(line) for line in lines) <= WIDTH, lines
                # Numbers are never cut; a name keeps enough to be known.
                numbers = [render(cell, language, NOW, short=True) for row in block.rows for cell in row[:-1]]
                assert not [number for number in numbers if number not in "\n".join(lines)]
                assert room(block, language) >= 12, lines
    assert found >= 5


@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_title_fits_the_push_preview_and_every_label_its_button(language: str) -> None:
    for reply in await all_cards():
        for block in reply.blocks:
            if isinstance(block, Title):
                assert len(render(block.text, language, NOW)) <= 100
        for row in reply.buttons:
            assert len(row) <= 2
            assert all(len(render(button.label, language, NOW)) <= 20 for button in row)


async def test_no_secret_is_in_any_card() -> None:
    for reply in await all_cards():
        assert SECRET not in words(reply)
        assert SECRET not in repr(reply)


def leftovers(text: Text, language: str) -> str:
    """The sentence in `language` when it is still the English one, or has a place that was not filled."""
    shown, english = render(text, language, NOW), plain(text)
    skeleton = text.msgid
    for name, _ in text.values:
        skeleton = skeleton.replace(f"{{{name}}}", "")
    # A process id is called that in both.
    skeleton = skeleton.replace("pid", "")
    has_words = any(letter.isalpha() for letter in skeleton)
    if has_words and shown == render(text, "en", NOW):
        return english
    return shown if "{" in shown else ""


async def test_every_card_is_whole_in_russian() -> None:
    left = {found for reply in await all_cards() for text in texts(reply) if (found := leftovers(text, "ru"))}
    # What is a name in both languages.
    assert left <= {"PSS", "RSS", "UTC", "max", "W", "AE", "pid", "%"}


@given(st.text(), st.integers(min_value=0, max_value=1 << 50))
def test_a_hostile_name_is_only_a_name(name: str, size: int) -> None:
    text = T("{host}: {free} {other}", host=Mono(name), free=Size(size), other=Span(size))
    assert render(text, "en", NOW).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("severities", "expected"),
    [((), "plain"), (("info",), "plain"), (("info", "warning"), "warning"), (("warning", "critical"), "critical")],
)
def test_a_title_is_as_bad_as_the_worst_finding(severities: tuple[str, ...], expected: str) -> None:
    findings = [Finding("x", severity, T("x")) for severity in severities]  # type: ignore[arg-type]
    assert tone(findings) == expected


def test_memory_outside_units_is_grouped_by_cleaned_name() -> None:
    found = uses(PROCESSES, UNITS)
    assert [use.pss_bytes for use in found] == sorted((use.pss_bytes for use in found), reverse=True)
    assert sum(use.pss_bytes for use in found) == sum(process.memory_bytes for process in PROCESSES.all) < GIB
    assert next(use for use in found if use.unit is None).count == 1
