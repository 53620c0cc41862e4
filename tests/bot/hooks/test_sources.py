"""Sources: who is believed, and what their bodies ask."""

from __future__ import annotations

import ast
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bot.hooks
from bot.hooks.base import NotUnderstood, Question, Source, pid_in
from bot.settings import HookSettings
from tests.bot.hooks.world import ALERT_TOKEN, settings
from tests.emulators.sentry import Sentry

SENTRY = Sentry()


def hook_settings(**more: Any) -> HookSettings:  # noqa: ANN401 - settings
    found = settings("sqlite:///x.db", SENTRY, **more).hooks
    assert found is not None
    return found


def source(name: str, **more: Any) -> Source:  # noqa: ANN401 - settings
    return bot.hooks.sources(hook_settings(**more))[name]


def asked(body: bytes, **more: Any) -> tuple[Question, ...]:  # noqa: ANN401 - settings
    return source("sentry", **more).questions(body)


ALERT: dict[str, Any] = {
    "status": "firing",
    "labels": {"alertname": "HostOomKillDetected", "instance": "203.0.113.7:9100"},
    "annotations": {"summary": "Host OOM kill detected", "description": "more"},
    "startsAt": "2026-11-23T23:50:58.828Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus.example.org:9090/graph",
    "fingerprint": "1a30ba71cca2921f",
}


def alerts(*some: dict[str, Any]) -> bytes:
    return json.dumps({"version": "4", "status": "firing", "alerts": some}).encode()


def test_every_source_is_found_by_its_file() -> None:
    files = {
        path.stem
        for path in Path(bot.hooks.__file__).parent.glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and any(isinstance(name, ast.Name) and name.id == "SOURCE" for name in node.targets)
    }

    assert files == {"sentry", "alertmanager"} == set(bot.hooks.sources(hook_settings()))


def test_only_what_is_set_is_there() -> None:
    only = hook_settings().model_copy(update={"alertmanager": None})

    assert set(bot.hooks.sources(only)) == {"sentry"}


def test_sentry_proves_itself_by_the_signature_of_the_raw_body() -> None:
    body = SENTRY.issue()
    right = hmac.new(SENTRY.secret.encode(), body, hashlib.sha256).hexdigest()

    assert source("sentry").proven({"Sentry-Hook-Signature": right}, body)
    for wrong in ("", right[:-1], right.upper(), f"sha256={right}", right + " ", "\udcff", "é" * 64):
        assert not source("sentry").proven({"Sentry-Hook-Signature": wrong}, body)
    for other in (b"", body + b" ", json.dumps(json.loads(body), indent=1).encode()):
        assert not source("sentry").proven({"Sentry-Hook-Signature": right}, other)
    assert not source("sentry").proven({}, body)


@pytest.mark.parametrize(
    "header", ["", "Bearer", f"Basic {ALERT_TOKEN}", f"Bearer {ALERT_TOKEN}x", f"Bearer x{ALERT_TOKEN}", ALERT_TOKEN]
)
def test_alertmanager_proves_itself_by_its_token(header: str) -> None:
    assert source("alertmanager").proven({"Authorization": f"Bearer {ALERT_TOKEN}"}, b"")
    assert not source("alertmanager").proven({"Authorization": header}, b"")
    assert not source("alertmanager").proven({}, b"")


def test_an_issue_asks_about_its_project_s_host() -> None:
    assert asked(SENTRY.issue()) == (
        Question(
            id="sentry:issue:1170820242:created",
            host="prod",
            subject="1170820242",
            label="TEACHING-PANEL-9",
            title="Worker (pid:415) was sent SIGKILL! Perhaps out of memory?",
            pid=415,
        ),
    )


def test_an_event_asks_too() -> None:
    (question,) = asked(SENTRY.event())

    assert (question.id, question.host) == ("sentry:event:e4874d664c3540c1a32eab185f12c5ab", "prod")
    assert (question.subject, question.pid) == ("1170820242", 415)
    assert asked(SENTRY.event().replace(b'"event":', b'"error":').replace(b"triggered", b"created"))[0] == question


@pytest.mark.parametrize("action", ["resolved", "assigned", "archived", "ignored", "deleted", "anything"])
def test_what_is_over_asks_nothing(action: str) -> None:
    assert asked(SENTRY.issue(action)) == ()


@pytest.mark.parametrize(
    "data",
    [
        {"installation": {"status": "pending", "uuid": "x"}},
        {"comment": "hello", "issue_id": 1170820242, "project_slug": "teaching-panel"},
        {"metric_alert": {"id": "4"}},
        {},
    ],
)
def test_other_resources_ask_nothing(data: dict[str, Any]) -> None:
    assert asked(json.dumps({"action": "created", "data": data}).encode()) == ()


def test_an_issue_that_comes_back_asks_anew_each_time() -> None:
    first, second = (asked(SENTRY.issue("unresolved", lastSeen=f"2026-11-2{day}T00:00:00Z"))[0].id for day in (4, 5))

    assert len({first, second, asked(SENTRY.issue())[0].id}) == 3


@pytest.mark.parametrize(
    ("body", "host"),
    [
        (SENTRY.issue(project={"id": "7", "slug": "other"}), None),
        (SENTRY.issue(project={"id": 42, "slug": "renamed"}), "prod"),
        (SENTRY.issue(project={"id": "42", "slug": None}), "prod"),
        (SENTRY.issue(project={}), None),
        (SENTRY.event(url="https://sentry.io/api/0/projects/acme/other/events/x/"), None),
        (SENTRY.event(url=None, project=42), "prod"),
        (SENTRY.event(url="https://evil.example/prod", project="prod"), None),
    ],
)
def test_the_host_is_found_in_the_settings_only(body: bytes, host: str | None) -> None:
    assert [question.host for question in asked(body)] == [host]


def test_words_narrow_what_is_asked() -> None:
    words = ("sigkill", "out of memory")

    assert len(asked(SENTRY.issue(), words=words)) == 1
    assert len(asked(SENTRY.issue(title="ReferenceError: blooopy is not defined", metadata={}))) == 1
    assert asked(SENTRY.issue(title="ReferenceError: blooopy is not defined", metadata={}), words=words) == ()


LOST = {"type": "WorkerLostError", "value": "Worker exited prematurely: signal 9 (SIGKILL) Job: 3."}
LONG = f"{'x' * 160} SIGKILL"  # a title that is kept is shorter


@pytest.mark.parametrize(
    "said",
    [
        {"title": "WorkerLostError", "message": "", "metadata": LOST},
        {"title": LONG, "message": "", "metadata": {}},
        {"title": "password=sigkill", "message": "", "metadata": {}},  # the kept one is redacted
    ],
)
@pytest.mark.parametrize("body", [SENTRY.issue, SENTRY.event])
def test_words_are_looked_for_in_all_that_was_sent(body: Callable[..., bytes], said: dict[str, Any]) -> None:
    assert len(asked(body(**said), words=("SIGKILL",))) == 1
    assert asked(body(**said), words=("MemoryError",)) == ()


def test_a_word_may_stand_in_an_event_s_message_alone() -> None:
    assert len(asked(SENTRY.event(title="x", message="was sent SIGKILL", metadata={}), words=("SIGKILL",))) == 1


def test_text_of_a_hook_is_redacted_and_short() -> None:
    (question,) = asked(SENTRY.issue(title=f"password=hunter22 \x1b[31m{'x' * 5000}", shortId="A\nB"))

    assert "hunter22" not in question.title
    assert len(question.title) <= 160
    assert question.title.isprintable()
    assert question.label == "A B"


def test_links_lead_to_the_settings_address_only() -> None:
    assert source("sentry").link("1170820242", "x") == "https://sentry.example.com/organizations/acme/issues/1170820242/"
    assert source("sentry", organization="").link("1", "x") == "https://sentry.example.com/issues/1/"
    link = source("alertmanager").link("1a", 'Odd" & name')
    assert link == "https://alerts.example.com/#/alerts?filter=%7Balertname%3D%22Odd%5C%22%20%26%20name%22%7D"


def test_a_firing_alert_asks() -> None:
    assert source("alertmanager").questions(alerts(ALERT)) == (
        Question(
            id="alertmanager:1a30ba71cca2921f:2026-11-23T23:50:58.828Z:firing",
            host="prod",
            subject="1a30ba71cca2921f",
            label="HostOomKillDetected",
            title="Host OOM kill detected",
        ),
    )


def test_alerts_that_are_over_or_about_others() -> None:
    over = {**ALERT, "status": "resolved"}
    other = {**ALERT, "labels": {"instance": "prod", "alertname": "x"}}

    assert source("alertmanager").questions(alerts(over)) == ()
    assert [question.host for question in source("alertmanager").questions(alerts(other, ALERT))] == [None, "prod"]


@pytest.mark.parametrize(
    ("text", "pid"),
    [
        ("Worker (pid:689792) was sent SIGKILL! Perhaps out of memory?", 689792),
        ("Process 'ForkPoolWorker-1' pid:632 exited with 'signal 9 (SIGKILL)'", 632),
        ("killed pid 12", 12),
        ("rapid: 5", None),
        ("pid:12345678901", None),
        ("pid:٣", None),
        ("", None),
    ],
)
def test_the_process_that_a_text_names(text: str, pid: int | None) -> None:
    assert pid_in(text) == pid


NOT_SENTRY_S = [
    b"", b"null", b"[]", b"{}", b'{"action":"created"}', b'{"action":1,"data":{}}', b'{"action":"created","data":[]}',
    b"\xff\xfe", b"[" * 100_000, b'{"action":"created","data":{"issue":{"id":"../../1"}}}',
    b'{"action":"created","data":{"issue":{"id":"1","title":"\\ud800"}}}',
    b'{"action":"created","data":{"issue":{"id":' + b"9" * 5000 + b"}}}",
    b'{"action":"triggered","data":{"event":{"event_id":"x","issue_id":"1"}}}',
]  # fmt: skip


@pytest.mark.parametrize("body", NOT_SENTRY_S)
@pytest.mark.parametrize("name", ["sentry", "alertmanager"])
def test_what_a_source_does_not_send_is_not_understood(name: str, body: bytes) -> None:
    with pytest.raises(NotUnderstood) as caught:
        source(name).questions(body)

    assert str(caught.value) == "not what this source sends"


KEYS = st.sampled_from(
    [
        "action", "data", "issue", "event", "error", "id", "shortId", "title", "metadata", "value", "project", "slug", "lastSeen",
        "event_id", "issue_id", "message", "url", "alerts", "status", "labels", "annotations", "startsAt", "fingerprint",
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_understood_or_not(body: bytes) -> None:
    for name in ("sentry", "alertmanager"):
        assert survives(source(name), body)


@given(st.dictionaries(st.sampled_from(["id", "shortId", "title", "metadata", "project", "lastSeen"]), JSON))
def test_any_issue_is_understood_or_not(more: dict[str, Any]) -> None:
    assert survives(
        source("sentry"), SENTRY.issue(**{"issue": "1", **{key: value for key, value in more.items() if key != "id"}})
    )


@given(st.dictionaries(st.sampled_from(["status", "labels", "annotations", "startsAt", "fingerprint"]), JSON))
def test_any_alert_is_understood_or_not(more: dict[str, Any]) -> None:
    assert survives(source("alertmanager"), alerts({**ALERT, **more}))


def survives(one: Source, body: bytes) -> bool:
    try:
        questions = one.questions(body)
    except NotUnderstood:
        return True
    return all(
        len(question.title.splitlines()) < 2
        and len(question.title) <= 160
        and len(question.label) <= 60
        and len(question.id) < 200
        for question in questions
    )
