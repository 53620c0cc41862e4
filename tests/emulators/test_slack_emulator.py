"""The Slack emulator, driven by the real slack_bolt and slack_sdk over real sockets."""

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientError
from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond, AsyncSay
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from tests.emulators.faults import Call, Kind, Stage
from tests.emulators.slack import BOT_USER, TEAM, Slack
from tests.emulators.slack_blocks import blocks_seen, masked_links_in, pings_in, problems_of, seen
from tests.emulators.slack_socket import ACK_DEADLINE_S, RETRY_DELAYS_S

Body = dict[str, Any]
Block = Body


def button(label: str = "Approve", action_id: str = "approve", **more: object) -> Block:
    return {"type": "button", "text": {"type": "plain_text", "text": label}, "action_id": action_id, **more}


def section(text: str, kind: str = "mrkdwn") -> Block:
    return {"type": "section", "text": {"type": kind, "text": text}}


def actions(*elements: Block, **more: object) -> Block:
    return {"type": "actions", "elements": list(elements), **more}


def preformatted(text: str) -> Block:
    inner = {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]}
    return {"type": "rich_text", "elements": [inner]}


def client_of(slack: Slack, token: str | None = None, *, retries: bool = True) -> AsyncWebClient:
    client = AsyncWebClient(token=token or slack.bot_token, base_url=slack.base_url, timeout=5)
    if not retries:
        client.retry_handlers.clear()
    return client


@asynccontextmanager
async def emulator(
    *,
    ack_deadline_s: float = ACK_DEADLINE_S,
    retry_delays_s: Sequence[float] = RETRY_DELAYS_S,
    commands: frozenset[str] | None = None,
) -> AsyncIterator[Slack]:
    async with Slack(ack_deadline_s=ack_deadline_s, retry_delays_s=retry_delays_s, commands=commands) as slack:
        yield slack


@asynccontextmanager
async def bot(slack: Slack, prepare: Callable[[AsyncApp], None] = lambda _: None) -> AsyncIterator[AsyncApp]:
    """A real bolt app, connected."""
    app = AsyncApp(client=client_of(slack))
    prepare(app)
    connected = len(slack.sockets.live) + 1
    handler = AsyncSocketModeHandler(app, slack.app_token, ping_interval=0.1)
    await handler.connect_async()  # type: ignore[no-untyped-call]
    await slack.sockets.connected(connected)
    try:
        yield app
    finally:
        await handler.close_async()  # type: ignore[no-untyped-call]


async def refusal(slack: Slack, method: str, **params: object) -> dict[str, Any]:
    """What the Web API answers to a call that it refuses."""
    with pytest.raises(SlackApiError) as caught:
        await client_of(slack).api_call(method, json=params)
    data = caught.value.response.data
    assert isinstance(data, dict)
    return data


# Commands, presses, mentions


async def test_a_command_is_acked_and_answered() -> None:
    def prepare(app: AsyncApp) -> None:
        @app.command("/mem")
        async def mem(ack: AsyncAck, body: Body, client: AsyncWebClient) -> None:
            await ack()
            await client.chat_postMessage(channel=body["channel_id"], text=f"*{body['text']}* fine")

    async with emulator() as slack, bot(slack, prepare):
        delivery = await (await slack.slash("/mem", "a&b <prod>")).settled()
        message = await slack.wait_for(lambda: slack.channels["C0OPS"].from_bot)
        assert delivery.acked
        assert delivery.acked_ms is not None
        assert delivery.acked_ms < 3000
        assert message[0].shown() == "a&b <prod> fine"
        assert slack.counts == {"apps.connections.open": 1, "auth.test": 1, "chat.postMessage": 1}


async def test_an_ack_with_words_is_shown_to_one_person() -> None:
    def prepare(app: AsyncApp) -> None:
        @app.command(re.compile(".*"))
        async def anything(ack: AsyncAck) -> None:
            await ack("no such command")

    async with emulator() as slack, bot(slack, prepare):
        await (await slack.slash("/what")).settled()
        assert [(m.ephemeral_to, m.shown(), m.via) for m in slack.ephemerals] == [("U0ALICE", "no such command", "ack")]


async def test_a_command_without_ack_in_time_fails_for_the_person() -> None:
    def prepare(app: AsyncApp) -> None:
        @app.command("/slow")
        async def slow(ack: AsyncAck) -> None:
            await release.wait()
            await ack()

    release = asyncio.Event()
    async with emulator(ack_deadline_s=0.1) as slack, bot(slack, prepare):
        delivery = await (await slack.slash("/slow")).settled()
        release.set()
        assert delivery.failure == "dispatch_failed"
        assert delivery.shown_to_user == '/slow failed with the error "dispatch_failed"'


async def test_a_command_that_nobody_registered_or_hears_fails() -> None:
    async with emulator(ack_deadline_s=0.1, commands=frozenset({"/mem"})) as slack:
        assert (await (await slack.slash("/mem")).settled()).failure == "dispatch_failed"
        assert (await (await slack.slash("/nope")).settled()).failure == "not_a_valid_command"
        async with bot(slack):
            assert (await (await slack.slash("/mem")).settled()).failure == "dispatch_failed"


async def test_a_press_carries_what_slack_sends() -> None:
    pressed: list[dict[str, Any]] = []

    def prepare(app: AsyncApp) -> None:
        @app.action("approve")
        async def approve(ack: AsyncAck, body: Body, respond: AsyncRespond) -> None:
            await ack()
            pressed.append(body)
            await respond(text="Approved by bob", replace_original=True)

    async with emulator() as slack, bot(slack, prepare) as app:
        slack.world.add_user("U0EVE", "eve", team="T0ELSE", guest=True)
        confirm = {name: {"type": "plain_text", "text": name} for name in ("title", "text", "confirm", "deny")}
        blocks = [section("Stop it?"), actions(button(style="danger", value="p1", confirm=confirm), block_id="plan")]
        await app.client.chat_postMessage(channel="C0OPS", text="Stop it?", blocks=blocks)
        message = slack.channels["C0OPS"].messages[0]
        shown = message.button("Approve")
        assert (shown.action_id, shown.value, shown.style, shown.confirm) == ("approve", "p1", "danger", confirm)

        delivery = await (await slack.press(message, "Approve", "U0EVE")).settled()
        await slack.wait_for(lambda: message.edits)
        body = pressed[0]
        assert delivery.acked
        assert (body["user"]["id"], body["user"]["team_id"], body["team"]["id"]) == ("U0EVE", "T0ELSE", "T0ELSE")
        action = body["actions"][0]
        assert (action["action_id"], action["value"], action["block_id"]) == ("approve", "p1", "plan")
        assert (body["channel"]["id"], body["message"]["ts"], bool(body["trigger_id"])) == ("C0OPS", message.ts, True)
        assert message.shown() == "Approved by bob"
        assert message.edits[0].shown == "Stop it?\n[Approve]"
        assert message.buttons == []
        with pytest.raises(LookupError):
            await slack.press(message, "Approve")
        assert (await (await slack.press_button(message, shown, "U0EVE", team=TEAM)).settled()).acked
        await slack.wait_for(lambda: len(slack.responses) == 2)
        assert [response.error for response in slack.responses] == [None, None]


async def test_an_ephemeral_button_is_pressed_by_its_reader_only() -> None:
    async with emulator() as slack:
        slack.world.add_user("U0BOB")
        await client_of(slack).chat_postEphemeral(channel="C0OPS", user="U0ALICE", text="x", blocks=[actions(button())])
        with pytest.raises(PermissionError):
            await slack.press(slack.ephemerals[0], "Approve", "U0BOB")
        delivery = await slack.press(slack.ephemerals[0], "Approve", "U0ALICE")
        assert delivery.payload["container"]["is_ephemeral"]
        assert "message" not in delivery.payload
        assert delivery.shown_to_user == "This app is not responding."


async def test_mentions_come_from_channel_and_thread() -> None:
    heard: list[dict[str, Any]] = []

    def prepare(app: AsyncApp) -> None:
        @app.event("app_mention")
        async def mentioned(event: Body, say: AsyncSay) -> None:
            heard.append(event)
            await say(text="here", thread_ts=event.get("thread_ts") or event["ts"])

    async with emulator() as slack, bot(slack, prepare):
        await (await slack.mention("mem a&b")).settled()
        first = slack.channels["C0OPS"].messages[0]
        await slack.wait_for(lambda: len(slack.bot_messages) == 1)
        await (await slack.mention("top", thread_ts=first.ts)).settled()
        await slack.wait_for(lambda: len(slack.bot_messages) == 2)
        assert heard[0]["text"] == f"<@{BOT_USER}> mem a&amp;b"
        assert "thread_ts" not in heard[0]
        assert heard[1]["thread_ts"] == first.ts
        assert {message.thread_ts for message in slack.bot_messages} == {first.ts}


async def test_a_mention_where_the_bot_is_no_member_is_not_delivered() -> None:
    async with emulator() as slack:
        slack.world.add_channel("C0ELSE", "else", member=False)
        assert (await slack.mention("mem", channel="C0ELSE")).failure == "not_in_channel"


async def test_a_stranger_over_slack_connect_is_told_by_his_team() -> None:
    async with emulator() as slack:
        slack.world.add_user("U0EVE", team="T0ELSE")
        slack.world.add_channel("C0SHARED", "shared", shared=True)
        payload = (await slack.mention("mem", "U0EVE", "C0SHARED")).payload
        assert payload["is_ext_shared_channel"]
        assert (payload["team_id"], payload["event"]["user_team"]) == (TEAM, "T0ELSE")
        assert (await slack.slash("/mem", user="U0EVE")).payload["team_id"] == "T0ELSE"


async def test_a_direct_chat_tells_the_bot_of_its_own_messages_too() -> None:
    heard: list[dict[str, Any]] = []

    def prepare(app: AsyncApp) -> None:
        @app.event("message")
        async def message(event: Body, say: AsyncSay) -> None:
            heard.append(event)
            if event.get("user") == "U0ALICE":
                sent = await say("hello")
                await app.client.chat_update(channel=sent["channel"], ts=sent["ts"], text="hello again")

    async with emulator() as slack, bot(slack, prepare):
        await (await slack.dm("mem")).settled()
        await slack.wait_for(lambda: [m for m in slack.bot_messages if m.shown() == "hello again"])
        await slack.wait_for(lambda: [d for d in slack.deliveries if d.label == "echo" and d.acked][1:])
        echoes = [delivery.payload["event"] for delivery in slack.deliveries if delivery.label == "echo"]
        assert [event.get("subtype") for event in echoes] == [None, "message_changed"]
        assert [event["channel_type"] for event in heard] == ["im"]  # bolt hides its own


# Refusals


@pytest.mark.parametrize(
    ("blocks", "problem"),
    [
        ([section("x" * 3001)], "must be less than 3001 characters [json-pointer:/blocks/0/text/text]"),
        ([section("")], "must be more than 0 characters [json-pointer:/blocks/0/text/text]"),
        ([{"type": "section"}], "missing required field: text [json-pointer:/blocks/0]"),
        ([{"type": "divider"}] * 51, "no more than 50 items allowed [json-pointer:/blocks]"),
        (
            [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}] * 11}],
            "no more than 10 items allowed [json-pointer:/blocks/0/fields]",
        ),
        (
            [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x" * 2001}]}],
            "must be less than 2001 characters [json-pointer:/blocks/0/fields/0/text]",
        ),
        (
            [{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}],
            "must be less than 151 characters [json-pointer:/blocks/0/text/text]",
        ),
        ([{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}], "must be a plain_text object"),
        (
            [{"type": "context", "elements": [{"type": "mrkdwn", "text": "x"}] * 11}],
            "no more than 10 items allowed [json-pointer:/blocks/0/elements]",
        ),
        (
            [actions(*(button(action_id=f"a{n}") for n in range(26)))],
            "no more than 25 items allowed [json-pointer:/blocks/0/elements]",
        ),
        ([actions()], "no fewer than 1 items allowed"),
        ([actions(button("x" * 76))], "must be less than 76 characters [json-pointer:/blocks/0/elements/0/text/text]"),
        ([actions(button(value="x" * 2001))], "must be less than 2001 characters [json-pointer:/blocks/0/elements/0/value]"),
        ([actions(button(action_id="x" * 256))], "must be less than 256 characters"),
        ([actions(button(style="success"))], "must be one of: primary, danger"),
        ([actions(button(), button())], "`action_id` approve already exists"),
        ([actions(button(confirm={"title": {"type": "plain_text", "text": "x" * 101}}))], "must be less than 101 characters"),
        ([actions(button(confirm={}))], "missing required field: deny"),
        ([section("x") | {"block_id": "b"}, section("y") | {"block_id": "b"}], "`block_id` b already exists"),
        ([section("x") | {"block_id": "b" * 256}], "must be less than 256 characters"),
        ([section("x") | {"colour": "red"}], "invalid additional property: colour"),
        ([{"type": "keyboard"}], "unsupported type: keyboard [json-pointer:/blocks/0/type]"),
        ([{"type": "table", "rows": [[{"type": "raw_text", "text": "x"}]]}] * 2, "only 1 table block(s) allowed"),
        ([{"type": "table", "rows": [[{"type": "raw_text", "text": "x"}] * 21]}], "no more than 20 items allowed"),
        ([{"type": "rich_text", "elements": [{"type": "text", "text": "x"}]}], "unsupported type: text"),
        ([{"type": "image", "image_url": "https://e.org/x.png"}], "missing required field: alt_text"),
    ],
)
async def test_blocks_beyond_the_limits_are_refused(blocks: list[Block], problem: str) -> None:
    async with emulator() as slack:
        answer = await refusal(slack, "chat.postMessage", channel="C0OPS", text="x", blocks=blocks)
        assert answer["error"] == "invalid_blocks"
        assert any(found.startswith(problem) for found in answer["errors"])
        assert any(found.startswith(f"[ERROR] {problem}") for found in answer["response_metadata"]["messages"])
        assert slack.bot_messages == []


async def test_blocks_at_the_limits_are_taken() -> None:
    blocks = [
        section("x" * 3000),
        {"type": "header", "text": {"type": "plain_text", "text": "x" * 150}},
        actions(button("x" * 75, "a" * 255, value="v" * 2000), block_id="b" * 255),
        preformatted("1.9G 12% postgres"),
        {"type": "table", "rows": [[{"type": "raw_text", "text": "a"}, {"type": "raw_text", "text": "b"}]]},
        *[{"type": "divider"}] * 45,
    ]
    assert len(blocks) == 50
    async with emulator() as slack:
        await client_of(slack).chat_postMessage(channel="C0OPS", text="x", blocks=blocks)
        assert "1.9G 12% postgres\na | b" in slack.bot_messages[0].shown()


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({}, "no_text"),
        ({"text": "x" * 40_001}, "msg_too_long"),
        ({"text": "x", "blocks": [section("x" * 2900)] * 5}, "msg_blocks_too_long"),
        ({"text": "x", "blocks": "{"}, "invalid_blocks_format"),
        ({"text": "x", "channel": "C0NOWHERE"}, "channel_not_found"),
        ({"text": "x", "channel": "#ops"}, "channel_not_found"),
        ({"text": "x", "channel": "C0ELSE"}, "not_in_channel"),
        ({"text": "x", "channel": "G0SECRET"}, "channel_not_found"),
        ({"text": "x", "channel": "C0OLD"}, "is_archived"),
        ({"text": "x", "thread_ts": "1.000000"}, "thread_not_found"),
    ],
)
async def test_what_may_not_be_posted_is_refused(params: dict[str, Any], error: str) -> None:
    async with emulator() as slack:
        slack.world.add_channel("C0ELSE", "else", member=False)
        slack.world.add_channel("G0SECRET", "secret", member=False, private=True)
        slack.world.add_channel("C0OLD", "old", archived=True)
        assert (await refusal(slack, "chat.postMessage", **{"channel": "C0OPS"} | params))["error"] == error
        assert [(call.method, call.error) for call in slack.calls] == [("chat.postMessage", error)]


async def test_only_its_own_standing_messages_are_edited_and_deleted() -> None:
    async with emulator() as slack:
        theirs = slack.say("mine")
        client = client_of(slack)
        sent = await client.chat_postMessage(channel="C0OPS", text="x", blocks=[section("x")])
        place = {"channel": "C0OPS", "ts": sent["ts"]}
        assert (await refusal(slack, "chat.update", channel="C0OPS", ts=theirs.ts, text="y"))["error"] == "cant_update_message"
        assert (await refusal(slack, "chat.delete", channel="C0OPS", ts=theirs.ts))["error"] == "cant_delete_message"
        assert (await refusal(slack, "chat.update", **place))["error"] == "no_text"
        await client.chat_update(**place, text="y")
        assert slack.bot_messages[0].blocks == []
        assert [edit.shown for edit in slack.bot_messages[0].edits] == ["x"]
        await client.chat_delete(**place)
        assert slack.channels["C0OPS"].deleted[0].deleted
        assert (await refusal(slack, "chat.update", **place, text="z"))["error"] == "message_not_found"


async def test_an_ephemeral_message_cannot_be_updated() -> None:
    async with emulator() as slack:
        slack.world.add_user("U0LATE")
        sent = await client_of(slack).chat_postEphemeral(channel="C0OPS", user="U0ALICE", text="x")
        answer = await refusal(slack, "chat.update", channel="C0OPS", ts=sent["message_ts"], text="y")
        assert answer["error"] == "message_not_found"
        answer = await refusal(slack, "chat.postEphemeral", channel="C0OPS", user="U0LATE", text="y")
        assert answer["error"] == "user_not_in_channel"


async def test_tokens_scopes_and_methods_are_checked() -> None:
    async with emulator() as slack:
        answer = await refusal(slack, "users.info", user="U0ALICE")
        assert (answer["error"], answer["needed"]) == ("missing_scope", "users:read")
        assert (await refusal(slack, "chat.shout"))["error"] == "unknown_method"
        assert (await refusal(slack, "apps.connections.open"))["error"] == "not_allowed_token_type"
        with pytest.raises(SlackApiError, match="invalid_auth"):
            await client_of(slack, "xoxb-wrong").auth_test()
        slack.api.auth_error = "token_revoked"
        assert (await refusal(slack, "auth.test"))["error"] == "token_revoked"


async def test_auth_test_tells_the_scopes_in_a_header() -> None:
    async with emulator() as slack:
        answer = await client_of(slack).auth_test()
        assert (answer["team_id"], answer["user_id"]) == (TEAM, BOT_USER)
        assert "chat:write" in answer.headers["x-oauth-scopes"].split(",")


async def test_json_that_is_none_is_refused() -> None:
    async with emulator() as slack, aiohttp.ClientSession(headers={"Authorization": f"Bearer {slack.bot_token}"}) as http:
        for body, error in (("{", "invalid_json"), ("[]", "json_not_object")):
            headers = {"Content-Type": "application/json"}
            async with http.post(slack.base_url + "chat.postMessage", data=body, headers=headers) as answer:
                assert (await answer.json())["error"] == error


async def test_readings_need_their_scopes_and_then_answer() -> None:
    async with emulator() as slack:
        slack.api.scopes |= {"users:read", "channels:read", "channels:history", "im:read"}
        client = client_of(slack)
        first = slack.say("first")
        await client.chat_postMessage(channel="C0OPS", text="reply", thread_ts=first.ts)
        assert (await client.users_info(user="U0ALICE"))["user"]["name"] == "alice"
        assert (await client.conversations_info(channel="C0OPS"))["channel"]["is_member"]
        assert [m["text"] for m in (await client.conversations_history(channel="C0OPS"))["messages"]] == ["first"]
        replies = await client.conversations_replies(channel="C0OPS", ts=first.ts)
        assert [m["text"] for m in replies["messages"]] == ["first", "reply"]
        link = await client.chat_getPermalink(channel="C0OPS", message_ts=first.ts)
        assert link["permalink"].endswith("/C0OPS/p" + first.ts.replace(".", ""))
        await client.chat_postMessage(channel="U0ALICE", text="psst")
        assert (await client.conversations_info(channel="D0ALICE"))["channel"]["user"] == "U0ALICE"


async def test_a_file_is_uploaded_in_three_steps() -> None:
    async with emulator() as slack:
        await client_of(slack).files_upload_v2(channel="C0OPS", content="png", filename="chart.png", initial_comment="Chart")
        message = slack.bot_messages[0]
        assert (message.text, message.via) == ("Chart", "file")
        assert slack.world.files[message.files[0]].data == b"png"


async def test_a_view_needs_a_fresh_trigger() -> None:
    async with emulator(ack_deadline_s=0.1) as slack:
        trigger = (await slack.slash("/mem")).payload["trigger_id"]
        view = {"type": "modal", "title": {"type": "plain_text", "text": "x"}, "blocks": [section("x")]}
        await client_of(slack).views_open(trigger_id=trigger, view=view)
        assert (await refusal(slack, "views.open", trigger_id=trigger, view=view))["error"] == "invalid_trigger_id"
        late = (await slack.slash("/mem")).payload["trigger_id"]
        slack.world.advance(4)
        assert (await refusal(slack, "views.open", trigger_id=late, view=view))["error"] == "expired_trigger_id"


async def test_a_response_url_ends_after_five_uses_or_half_an_hour() -> None:
    async with emulator(ack_deadline_s=0.1) as slack:
        webhook = AsyncWebhookClient((await slack.slash("/mem")).payload["response_url"])
        assert [(await webhook.send(text=f"{n}")).status_code for n in range(6)] == [200] * 5 + [404]
        assert [message.shown() for message in slack.ephemerals] == ["0", "1", "2", "3", "4"]
        assert slack.responses[-1].error == "used_url"
        old = AsyncWebhookClient((await slack.slash("/mem")).payload["response_url"])
        assert (await old.send(text="x" * 40_001)).body == '{"ok": false, "error": "msg_too_long"}'
        await old.send(text="to all", response_type="in_channel")
        assert slack.bot_messages[0].shown() == "to all"
        slack.world.advance(30 * 60 + 1)
        assert (await old.send(text="late")).status_code == 404


# What a person sees, and who is called


@pytest.mark.parametrize(
    ("text", "pings"),
    [
        ("<!channel> and <!here>", ["<!channel>", "<!here>"]),
        ("<@U0ALICE> <!subteam^S1|ops> <!everyone>", ["<@U0ALICE>", "<!subteam^S1|ops>", "<!everyone>"]),
        ("&lt;!channel&gt; @channel", []),
        ("`<!channel>`", ["<!channel>"]),
    ],
)
async def test_what_would_call_people_is_recorded(text: str, pings: list[str]) -> None:
    async with emulator() as slack:
        await client_of(slack).chat_postMessage(channel="C0OPS", text=text)
        await client_of(slack).chat_postMessage(channel="C0OPS", text="x", blocks=[section(text)])
        await client_of(slack).chat_postMessage(
            channel="C0OPS", text="x", blocks=[section(text, "plain_text"), preformatted(text)]
        )
        assert [message.pings for message in slack.bot_messages] == [pings, pings, []]
        assert slack.pings == pings * 2


def test_link_names_calls_by_bare_names() -> None:
    assert pings_in("ask @here", link_names=True) == ["@here"]
    assert pings_in("me@here.org") == []


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("*bold* _it_ ~no~ *_both_*", "bold it no both"),
        ("a*b*c snake_case_name 2 * 3 * 4", "a*b*c snake_case_name 2 * 3 * 4"),
        ("`*code*` ```\n*pre*\n```", "*code* \n*pre*\n"),
        ("<https://e.org|safe> <https://e.org> <!date^1^{time}|14:02>", "safe https://e.org 14:02"),
        ("&lt;b&gt; &amp;amp; <!channel>", "<b> &amp; @channel"),
    ],
)
def test_mrkdwn_is_shown_as_a_person_sees_it(raw: str, shown: str) -> None:
    assert seen(raw) == shown


def test_masked_links_are_found() -> None:
    assert masked_links_in("<https://evil|safe> <https://e.org> <@U1|x>") == ["https://evil|safe"]


def test_every_kind_of_block_is_shown() -> None:
    blocks: list[Block] = [
        {"type": "section", "fields": [{"type": "mrkdwn", "text": "*a*"}], "accessory": button("Go")},
        {"type": "context", "elements": [{"type": "plain_text", "text": "*db1*"}]},
        {"type": "divider"},
        {"type": "markdown", "text": "**b**"},
        {"type": "image", "image_url": "https://e.org/x", "alt_text": "chart"},
    ]
    assert problems_of(blocks) == []
    assert blocks_seen(blocks) == "a\n[Go]\n*db1*\n———\n**b**\n(chart)"


# Faults


async def test_429_is_retried_by_the_sdk_after_its_time() -> None:
    async with emulator() as slack:
        client = client_of(slack)
        client.retry_handlers.append(AsyncRateLimitErrorRetryHandler(max_retry_count=1))
        slack.faults.on(1, "429", seconds=1)
        started = time.monotonic()
        await client.chat_postMessage(channel="C0OPS", text="x")
        assert time.monotonic() - started >= 1
        assert [call.error for call in slack.calls] == ["429", None]
        assert len(slack.bot_messages) == 1


async def test_a_rate_is_kept_a_channel() -> None:
    async with emulator() as slack:
        slack.world.add_channel("C0TWO", "two")
        slack.api.rates["chat.postMessage"] = (1, 60)
        await client_of(slack).chat_postMessage(channel="C0OPS", text="x")
        await client_of(slack).chat_postMessage(channel="C0TWO", text="x")
        with pytest.raises(SlackApiError) as caught:
            await client_of(slack).chat_postMessage(channel="C0OPS", text="y")
        assert caught.value.response["error"] == "ratelimited"
        assert 55 < int(caught.value.response.headers["Retry-After"]) <= 60


@pytest.mark.parametrize(
    ("kind", "caught", "shown"),
    [
        (Kind.SERVER_ERROR, SlackApiError, 0),
        (Kind.CUT_BEFORE, ClientError, 0),
        (Kind.CUT_AFTER, ClientError, 1),
        (Kind.GARBAGE, SlackApiError, 1),
    ],
)
async def test_a_fault_strikes_once(kind: Kind, caught: type[Exception], shown: int) -> None:
    async with emulator() as slack:
        client = client_of(slack, retries=False)
        fault = slack.faults.on("chat.postMessage", kind)
        with pytest.raises(caught):
            await client.chat_postMessage(channel="C0OPS", text="x")
        assert len(slack.bot_messages) == shown
        assert [call.ordinal for call in fault.struck] == [1]
        await client.chat_postMessage(channel="C0OPS", text="x")
        assert [call.error for call in slack.calls] == [kind.value, None]


async def test_a_lost_answer_is_shown_twice_by_the_sdks_own_retry() -> None:
    async with emulator() as slack:
        slack.faults.on(lambda call: call.params.get("text") == "x", Kind.CUT_AFTER)
        await client_of(slack).chat_postMessage(channel="C0OPS", text="x")
        assert [message.text for message in slack.bot_messages] == ["x", "x"]


async def test_a_delay_outlasts_the_clients_patience() -> None:
    async with emulator() as slack:
        slack.faults.on("chat.postMessage", "delay", seconds=0.3)
        client = client_of(slack)
        client.timeout = 0.1  # type: ignore[assignment]
        with pytest.raises(TimeoutError):
            await client.chat_postMessage(channel="C0OPS", text="x")
        await slack.wait_for(lambda: slack.bot_messages)  # taken all the same


async def test_a_fault_may_let_some_calls_pass() -> None:
    async with emulator() as slack:
        slack.faults.on("auth.test", "5xx", after=1, times=None)
        client = client_of(slack)
        await client.auth_test()
        for _ in range(2):
            with pytest.raises(SlackApiError):
                await client.auth_test()
        slack.faults.clear()
        await client.auth_test()


async def test_stages_are_told_and_a_call_may_be_held() -> None:
    async with emulator() as slack:
        stages: list[tuple[Stage, int]] = []

        def note(stage: Stage) -> None:
            async def hook(call: Call) -> None:
                stages.append((stage, len(slack.bot_messages)))

            slack.faults.hook(stage, hook)

        for stage in Stage:
            note(stage)
        hold = slack.faults.hold("chat.postMessage", Stage.TAKEN)
        posting = asyncio.create_task(client_of(slack).chat_postMessage(channel="C0OPS", text="x"))
        assert (await hold.reached()).params["text"] == "x"
        assert len(slack.bot_messages) == 1
        assert not posting.done()
        hold.release()
        await posting
        await slack.wait_for(lambda: slack.calls[0].done)
        assert stages == [(Stage.BEFORE, 0), (Stage.TAKEN, 1), (Stage.ANSWERED, 1)]


async def test_wait_for_tells_what_was_shown_instead() -> None:
    async with emulator() as slack:
        slack.say("hello")
        with pytest.raises(AssertionError, match="#ops U0ALICE: hello"):
            await slack.wait_for(lambda: slack.bot_messages, 0.05)


# Sockets


def counting(heard: list[str]) -> Callable[[AsyncApp], None]:
    def prepare(app: AsyncApp) -> None:
        @app.event("app_mention")
        async def mentioned(body: Body) -> None:
            heard.append(body["event_id"])

    return prepare


async def test_the_same_envelope_and_the_same_event_come_twice() -> None:
    heard: list[str] = []
    async with emulator() as slack, bot(slack, counting(heard)):
        delivery = await (await slack.mention("mem")).settled()
        await slack.sockets.resend(delivery)
        await slack.wait_for(lambda: delivery.attempts[0].acks == 2)
        await slack.sockets.redeliver(delivery)
        await slack.wait_for(lambda: delivery.attempts[1].acks == 1)
        assert delivery.attempts[1].retry == 1
        assert heard == [delivery.payload["event_id"]] * 3  # bolt leaves it to the app


async def test_an_event_is_retried_until_a_bot_is_there() -> None:
    heard: list[str] = []
    async with emulator(retry_delays_s=(0, 0.05, 60)) as slack:
        delivery = await slack.mention("mem")
        await slack.wait_for(lambda: len(delivery.attempts) == 3)
        assert [attempt.socket for attempt in delivery.attempts] == [None, None, None]
        async with bot(slack, counting(heard)):
            await slack.sockets.redeliver(delivery)
            await delivery.settled()
            assert delivery.acked
            assert heard == [delivery.payload["event_id"]]


async def test_an_event_that_nobody_takes_is_dropped_in_the_end() -> None:
    async with emulator(retry_delays_s=(0, 0, 0)) as slack:
        delivery = await (await slack.mention("mem")).settled()
        assert (delivery.failure, len(delivery.attempts), delivery.shown_to_user) == ("event_dropped", 4, None)


@pytest.mark.parametrize("reason", ["refresh_requested", "warning"])
async def test_a_bot_told_to_connect_anew_does(reason: str) -> None:
    heard: list[str] = []
    async with emulator() as slack, bot(slack, counting(heard)):
        await slack.sockets.disconnect(reason)
        await slack.wait_for(lambda: slack.sockets.connections == 2 and slack.sockets.live)
        assert (await (await slack.mention("mem")).settled()).acked
        assert slack.counts["apps.connections.open"] == 2


async def test_a_bot_whose_socket_died_connects_anew() -> None:
    heard: list[str] = []
    async with emulator() as slack, bot(slack, counting(heard)):
        slack.sockets.drop()
        assert slack.sockets.live == []
        assert (await (await slack.slash("/mem")).settled()).failure == "dispatch_failed"
        await slack.wait_for(lambda: slack.sockets.connections == 2 and slack.sockets.live)
        assert (await (await slack.mention("mem")).settled()).acked


async def test_each_event_goes_to_one_of_several_sockets() -> None:
    one: list[str] = []
    two: list[str] = []
    async with emulator() as slack, bot(slack, counting(one)), bot(slack, counting(two)):
        deliveries = [await (await slack.mention(f"{n}")).settled() for n in range(6)]
        await slack.wait_for(lambda: all(delivery.acked for delivery in deliveries))
        assert (len(one), len(two)) == (3, 3)
        assert not set(one) & set(two)
        assert {delivery.attempts[0].socket for delivery in deliveries} == {1, 2}


async def test_a_link_opens_once_and_ten_sockets_are_enough() -> None:
    async with emulator() as slack, aiohttp.ClientSession() as http:
        links = [slack.sockets.new_link() for _ in range(11)]
        sockets = [await http.ws_connect(link) for link in links]
        first = [await socket.receive_json() for socket in sockets]
        assert [message["type"] for message in first] == ["hello"] * 10 + ["disconnect"]
        assert first[-1]["reason"] == "too_many_websockets"
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await http.ws_connect(links[0])


# A process of its own


async def test_another_process_is_driven_over_its_control_port() -> None:
    command = [sys.executable, "-m", "tests.emulators.slack", "--port", "0", "--control-port", "0"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        ready = json.loads(await process.stdout.readline())
        async with aiohttp.ClientSession() as http:

            async def do(what: str, **arguments: object) -> Body:
                async with http.post(ready["control_url"], json={"do": what, **arguments}) as answer:
                    body: Body = await answer.json()
                    return body

            client = AsyncWebClient(token=ready["bot_token"], base_url=ready["base_url"])
            hold = (await do("hold", when="chat.postMessage", stage="taken"))["hold"]
            posting = asyncio.create_task(client.chat_postMessage(channel="C0OPS", text="x", blocks=[actions(button())]))
            assert (await do("held", hold=hold))["method"] == "chat.postMessage"
            assert not posting.done()
            await do("release", hold=hold)
            await posting
            (message,) = (await do("wait", text="[Approve]"))["messages"]
            press = await do("press", ts=message["ts"], button="approve")
            assert press["failure"] == "dispatch_failed"
            assert "no button" in (await do("press", ts=message["ts"], button="nope"))["error"]
            await do("add_user", user="U0EVE", name="eve", team="T0ELSE")
            await do("slash", command="/mem", user="U0EVE")
            await do("fault", when="auth.test", kind="5xx")
            with pytest.raises(SlackApiError):
                await client.auth_test()
            state = await do("state")
            assert state["counts"] == {"chat.postMessage": 1, "auth.test": 1}
            assert [delivery["label"] for delivery in state["deliveries"]] == ["Approve", "/mem"]
            assert state["refused"] == [{"method": "auth.test", "error": "5xx"}]
    finally:
        process.terminate()
        assert await process.wait() == 0
