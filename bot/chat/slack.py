"""Slack through slack-bolt in Socket Mode: no open port. Slash commands, mentions (also in threads), direct messages, buttons.

Who somebody is: `TEAM/USER`. People of the app's own team may stand in the settings as `USER` alone; somebody of another team
(Slack Connect) with the same user id never matches that. A guest of the own team is a member of it: Slack tells guests apart
only with a scope that this app does not ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

import aiohttp
import structlog
from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bot.chat.base import Address, ChatDown, Pressed, Sender, SendFailed, Typed
from bot.chat.blockkit import blocks, escape, plain_text, preview
from bot.clock import SystemClock
from bot.i18n import ENGLISH, render
from handlers.quoted import quoted
from remote.text import Listing, Mono, T, Text

if TYPE_CHECKING:
    from bot.chat.base import Inbox
    from handlers.command import Command
    from handlers.ports.clock import Clock
    from handlers.reply import Reply

log = structlog.get_logger(__name__)

Json: TypeAlias = Mapping[str, Any]

API = "https://slack.com/api/"
CALL_S = 30
CONNECT_S = 20.0
PING_S = 10.0
LOOK_S = 5.0
DEAF_S = 60.0  # the SDK reconnects by itself; after this long without a socket everything is built anew
PATIENCE_S = 60.0  # the longest pause between two tries to connect
STOP_S = 10.0
ANSWER_AGE_S = 25 * 60.0  # a response_url lives 30 minutes
ANSWERS_KEPT = 20
SCOPES = ("app_mentions:read", "chat:write", "commands", "im:history")
INVITE = "/invite @memwarden"

# What trying again does not cure; the words are Slack's (docs.slack.dev/reference/methods/chat.postMessage).
AUTH = frozenset(
    {
        "account_inactive",
        "invalid_auth",
        "missing_scope",
        "no_permission",
        "not_allowed_token_type",
        "not_authed",
        "token_expired",
        "token_revoked",
    }
)
NOT_HERE = frozenset({"channel_not_found", "not_in_channel"})
PERMANENT = NOT_HERE | {
    "cannot_dm_bot",
    "is_archived",
    "is_inactive",
    "no_text",
    "restricted_action",
    "restricted_action_read_only_channel",
    "restricted_action_thread_only_channel",
    "user_disabled",
    "user_not_found",
}
GONE = frozenset({"cant_update_message", "edit_window_closed", "message_not_found"})
BLOCKS = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long"})
THREAD = frozenset({"cannot_reply_to_message", "thread_not_found"})
# Slack may have done it all the same, says its documentation.
HALF_DONE = frozenset({"fatal_error", "internal_error"})
GATEWAY = frozenset({502, 504})


class Refused(SendFailed):
    """What Slack answered instead of doing it; `error` is its word, empty when there was none."""

    def __init__(self, error: str, why: str, *, retry_after_s: float = 0.0, maybe_shown: bool = False) -> None:
        """Sort the error."""
        super().__init__(
            why, permanent=error in PERMANENT, retry_after_s=retry_after_s, maybe_shown=maybe_shown, gone=error in GONE
        )
        self.error = error


@dataclass(frozen=True, slots=True)
class Me:
    """The app, as Slack knows it."""

    team: str
    user: str
    bot: str
    name: str
    team_name: str
    scopes: frozenset[str]


class Slack:
    """The Slack chat."""

    platform = "slack"

    def __init__(
        self, bot_token: str, app_token: str, *, base_url: str, commands: Mapping[str, Command], clock: Clock | None = None
    ) -> None:
        """`base_url` empty is Slack's own."""
        self._app_token = app_token
        self._commands = commands
        self._clock = clock or SystemClock()
        # No retry handlers: the SDK would send a message again whose answer was lost; that is the outbox's to decide.
        self._client = AsyncWebClient(bot_token, base_url or API, CALL_S, retry_handlers=[], logger=_quiet())
        self._me: Me | None = None
        self._inbox: Inbox | None = None
        self._app: AsyncApp | None = None
        self._socket: AsyncSocketModeHandler | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._at_work: set[asyncio.Task[Any]] = set()
        self._answers: dict[str, deque[tuple[str, datetime]]] = {}

    # Life

    async def start(self, inbox: Inbox) -> None:
        """Connect; where Slack cannot be reached, go on trying behind. Raises ChatDown for a token that Slack does not take."""
        self._inbox = inbox
        self._app = self._new_app()
        try:
            await self._connect()
        except (SendFailed, TimeoutError) as trouble:
            log.warning("slack cannot be reached yet", why=_why(trouble))
        self._keeper = asyncio.create_task(self._keep(), name="slack")

    async def stop(self) -> None:
        """Let what was received be acknowledged and taken, then disconnect. Messages can still be sent."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                while self._at_work:
                    await asyncio.wait(self._at_work)
        await self._disconnect()

    async def check(self) -> tuple[tuple[bool, Text], ...]:
        """The two tokens, and what the app may do."""
        lines: list[tuple[bool, Text]] = []
        try:
            me = await self._who_am_i()
        except (ChatDown, SendFailed) as trouble:
            lines.append((False, _words(trouble)))
        else:
            lines.append((True, T("Slack: {user} in {team}", user=Mono(me.name), team=Mono(me.team_name))))
            lines += _scopes(me.scopes)
        try:
            await self._new_link()
        except (ChatDown, SendFailed) as trouble:
            lines.append((False, _words(trouble)))
        else:
            lines.append((True, T("Slack: Socket Mode is on and the app token is good")))
        return tuple(lines)

    # The connection

    async def _keep(self) -> None:
        """See to it that there is a socket. The SDK reconnects, but for ever with a link that has expired if the network
        failed just after it was given (slack_sdk.socket_mode.aiohttp, `connect`)."""
        pause_s, deaf_s = 1.0, 0.0
        while True:
            if self._socket is not None:
                deaf_s = 0.0 if await self._socket.client.is_connected() else deaf_s + LOOK_S
                if deaf_s >= DEAF_S:
                    log.warning("slack's socket is lost, connecting anew")
                    await self._disconnect()
                await asyncio.sleep(LOOK_S)
                continue
            try:
                await self._connect()
                pause_s, deaf_s = 1.0, 0.0
                log.info("slack is connected")
            except (ChatDown, SendFailed, TimeoutError) as trouble:
                log.warning("slack cannot be reached", why=_why(trouble), pause_s=round(pause_s))
                await asyncio.sleep(pause_s * (0.75 + secrets.randbelow(500) / 1000))
                pause_s = min(PATIENCE_S, pause_s * 2)

    async def _connect(self) -> None:
        """One connection. Raises ChatDown, SendFailed, TimeoutError."""
        assert self._app is not None  # noqa: S101 - for the type checker: made by start()
        self._me = await self._who_am_i()
        link = await self._new_link()
        socket = AsyncSocketModeHandler(
            self._app, self._app_token, logger=_quiet(), web_client=self._client, ping_interval=PING_S
        )
        socket.client.wss_uri = link

        async def handle(client: Any, request: Any) -> None:  # noqa: ANN401 - the SDK's
            with self._busy():  # until it is acknowledged too
                await socket.handle(client, request)

        socket.client.socket_mode_request_listeners[:] = [handle]
        try:
            async with asyncio.timeout(CONNECT_S):
                await socket.connect_async()  # type: ignore[no-untyped-call]
        except BaseException:
            await socket.close_async()  # type: ignore[no-untyped-call]
            raise
        self._socket = socket

    async def _disconnect(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close_async()  # type: ignore[no-untyped-call]

    async def _who_am_i(self) -> Me:
        """Raises ChatDown, SendFailed."""
        try:
            answer = await _asked(self._client.auth_test())
        except Refused as refused:
            if refused.error in AUTH:
                raise ChatDown(_bad_bot_token(refused.error)) from refused
            raise
        scopes = str(answer.headers.get("x-oauth-scopes") or "")
        return Me(
            team=str(answer.get("team_id")),
            user=str(answer.get("user_id")),
            bot=str(answer.get("bot_id")),
            name=str(answer.get("user")),
            team_name=str(answer.get("team")),
            scopes=frozenset(scope.strip() for scope in scopes.split(",") if scope.strip()),
        )

    async def _new_link(self) -> str:
        """Where the next socket may connect. Raises ChatDown, SendFailed."""
        try:
            answer = await _asked(self._client.apps_connections_open(app_token=self._app_token))
        except Refused as refused:
            if refused.error in AUTH:
                raise ChatDown(_bad_app_token(refused.error)) from refused
            raise
        return str(answer.get("url"))

    def _new_app(self) -> AsyncApp:
        async def authorize() -> AuthorizeResult:
            me = self._me
            assert me is not None  # noqa: S101 - for the type checker: known before there is a socket
            return AuthorizeResult(
                enterprise_id=None, team_id=me.team, bot_user_id=me.user, bot_id=me.bot, bot_token=self._client.token
            )

        # Bolt would ask auth.test at the first event, and lose that event when the answer is lost.
        client = AsyncWebClient(None, self._client.base_url, CALL_S, retry_handlers=[], logger=_quiet())
        app = AsyncApp(name="memwarden", logger=_quiet(), client=client, authorize=authorize, request_verification_enabled=False)
        anything = re.compile(".*")
        app.command(anything)(self._on_command)
        app.action(anything)(self._on_press)
        app.event("app_mention")(self._on_mention)
        app.event("message")(self._on_message)
        return app

    # What comes in

    async def _on_command(self, ack: AsyncAck, body: dict[str, Any]) -> None:
        await ack()
        with self._busy():
            name, words = str(body["command"]).removeprefix("/"), _typed(str(body.get("text") or ""))
            # A command that is none of ours is the app's own name, whatever it was called: `/memwarden top`.
            text = f"/{name} {words}" if name in self._commands else words or "/help"
            channel = str(body["channel_id"])
            self._keep_answer(channel, str(body.get("response_url") or ""))
            sender = self._sender(str(body["user_id"]), str(body.get("user_name") or ""), body.get("team_id"))
            await self._take(f"slack:{body['trigger_id']}", sender, Address("slack", channel), text, self._clock.now())

    async def _on_mention(self, body: dict[str, Any]) -> None:
        event = body["event"]
        if not _direct(str(event.get("channel"))):  # there it comes as a message too
            await self._said(body, event)

    async def _on_message(self, body: dict[str, Any]) -> None:
        event = body["event"]
        if event.get("channel_type") == "im":
            await self._said(body, event)

    async def _said(self, body: Json, event: Json) -> None:
        """Words to the bot; what other programs say, and edits and the like, is not for it."""
        if event.get("bot_id") or event.get("subtype") or not event.get("user"):
            return
        with self._busy():
            address = Address("slack", str(event["channel"]), str(event.get("thread_ts") or ""))
            at = datetime.fromtimestamp(float(event["ts"]), UTC)
            text = _meant(event, self._me.user if self._me else "")
            sender = self._sender(str(event["user"]), "", *_teams(body, event))
            await self._take(f"slack:{body['event_id']}", sender, address, text or "/help", at)

    async def _take(self, event_id: str, sender: Sender, address: Address, text: str, at: datetime) -> None:
        assert self._inbox is not None  # noqa: S101 - for the type checker: nothing comes before start()
        await self._inbox.typed(Typed(event_id, sender, address, text, at, _direct(address.chat)))

    async def _on_press(self, ack: AsyncAck, body: dict[str, Any]) -> None:
        await ack()
        with self._busy():
            place, user, action = body["container"], body["user"], body["actions"][0]
            channel = str(place.get("channel_id") or body["channel"]["id"])
            address = Address("slack", channel, str(place.get("thread_ts") or ""))
            teams = (user.get("team_id"), (body.get("team") or {}).get("id"))
            sender = self._sender(str(user["id"]), str(user.get("username") or ""), *teams)
            assert self._inbox is not None  # noqa: S101 - as above
            toast = await self._inbox.pressed(
                Pressed(
                    f"slack:{body['trigger_id']}",
                    sender,
                    address,
                    str(place["message_ts"]),
                    str(action.get("value") or ""),
                    datetime.fromtimestamp(float(action["action_ts"]), UTC),
                    _direct(channel),
                )
            )
            if toast is not None:
                await self._whisper(address, str(user["id"]), toast.text)

    async def _whisper(self, to: Address, user: str, text: str) -> None:
        """The short answer to a press, for one person; it matters to nobody else when it is lost."""
        thread = to.thread or None
        with contextlib.suppress(SendFailed):
            await _asked(self._client.chat_postEphemeral(channel=to.chat, user=user, text=escape(text), thread_ts=thread))

    def _sender(self, user: str, shown: str, *teams: object) -> Sender:
        """Who it is. One sign of another team is enough to be of that team; no sign at all is nobody."""
        told = [str(team) for team in teams if team]
        if not told or self._me is None:
            return Sender(user, shown, anonymous=True)
        team = next((team for team in told if team != self._me.team), self._me.team)
        return Sender(f"{team}/{user}", shown, home=team == self._me.team)

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        """What stop() waits for."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: bolt runs listeners in tasks
        if task in self._at_work:
            yield
            return
        self._at_work.add(task)
        try:
            yield
        finally:
            self._at_work.discard(task)

    # What goes out

    async def send(self, to: Address, reply: Reply, tokens: Mapping[str, str], *, again: bool = False) -> str:
        """Post a message; gives its ts. See bot/chat/base.py."""
        now = self._clock.now()
        message = {
            "text": preview(reply, to.language, now),
            "blocks": blocks(reply, to.language, tokens, now, again=again),
        }
        try:
            posted = await self._post(to, message, lambda: {"text": plain_text(reply, to.language, now)})
        except Refused as refused:
            link = self._answer(to.chat) if refused.error in NOT_HERE and not to.thread else None
            if link is None:
                raise
            return await self._respond(link, reply, to.language)
        self._answers.pop(to.chat, None)  # the bot is a member here
        return str(posted.get("ts"))

    async def edit(self, to: Address, message_id: str, reply: Reply, tokens: Mapping[str, str]) -> None:
        """Replace a message. See bot/chat/base.py."""
        if message_id.startswith("response:"):
            raise SendFailed("an answer where the app is no member cannot be edited", gone=True)
        now = self._clock.now()
        text, body = preview(reply, to.language, now), blocks(reply, to.language, tokens, now)
        try:
            # Text and blocks both: one without the other takes the other away.
            await _asked(self._client.chat_update(channel=to.chat, ts=message_id, text=text, blocks=body))
        except Refused as refused:
            if refused.error not in BLOCKS:
                raise
            log.warning("slack refused the blocks of an edit", why=str(refused))
            text = plain_text(reply, to.language, now)
            await _asked(self._client.chat_update(channel=to.chat, ts=message_id, text=text, blocks=[]))

    async def _post(self, to: Address, message: Json, plain: Callable[[], Json]) -> AsyncSlackResponse:
        """Post it; once more as plain text where Slack refuses the blocks, outside the thread where that is gone."""
        place: dict[str, Any] = {"channel": to.chat, "unfurl_links": False, "unfurl_media": False}
        if to.thread:
            place["thread_ts"] = to.thread
        for _ in range(2):
            try:
                return await _asked(self._client.chat_postMessage(**place, **message))
            except Refused as refused:
                if refused.error in BLOCKS:
                    log.warning("slack refused the blocks of a message", why=str(refused))
                    message = plain()
                elif refused.error in THREAD:
                    place.pop("thread_ts", None)
                else:
                    raise
        return await _asked(self._client.chat_postMessage(**place, **message))

    # Commands typed where the bot is no member

    def _keep_answer(self, channel: str, link: str) -> None:
        if link:
            self._answers.setdefault(channel, deque(maxlen=ANSWERS_KEPT)).append((link, self._clock.now()))

    def _answer(self, channel: str) -> str | None:
        """The oldest response_url that waits for an answer in this channel."""
        kept = self._answers.get(channel, deque())
        while kept:
            link, at = kept.popleft()
            if (self._clock.now() - at).total_seconds() < ANSWER_AGE_S:
                return link
        return None

    async def _respond(self, link: str, reply: Reply, language: str) -> str:
        """Answer a command by its response_url, for its asker only, and say how to be heard by all."""
        hint = render(T("Only you see this, because I am not in this channel: {invite}", invite=Mono(INVITE)), language)
        text = f"{plain_text(reply, language, self._clock.now())}\n{escape(hint)}"
        client = AsyncWebhookClient(link, CALL_S, retry_handlers=[], logger=_quiet())
        try:
            answer = await client.send(text=text, response_type="ephemeral")
        except (aiohttp.ClientError, TimeoutError, OSError) as trouble:
            raise SendFailed(f"response_url: {_why(trouble)}", permanent=True) from trouble
        if answer.status_code != 200:  # noqa: PLR2004 - HTTP's; it does not raise
            raise SendFailed(f"response_url: {answer.status_code} {answer.body[:100]}", permanent=True)
        return f"response:{uuid4().hex}"


async def _asked(call: Awaitable[AsyncSlackResponse]) -> AsyncSlackResponse:
    """The answer of a call. Raises Refused for what Slack refuses, and for a connection that failed."""
    try:
        return await call
    except SlackApiError as trouble:
        raise _refused(trouble) from trouble
    except aiohttp.ClientConnectorError as trouble:
        raise Refused("", f"no connection: {_why(trouble)}") from trouble
    except (aiohttp.ClientError, TimeoutError, OSError) as trouble:
        raise Refused("", f"the answer was lost: {_why(trouble)}", maybe_shown=True) from trouble


def _refused(trouble: SlackApiError) -> Refused:
    answer = trouble.response
    if not isinstance(answer, AsyncSlackResponse):  # what came back was no JSON: it was taken, perhaps
        return Refused("", "Slack's answer could not be read", maybe_shown=True)
    error = str(answer.get("error") or "") if isinstance(answer.data, dict) else ""
    more = answer.get("errors") or answer.get("needed") or "" if error else ""
    wait_s = _seconds(answer.headers.get("Retry-After"))
    lost = error in HALF_DONE or (not error and answer.status_code in GATEWAY)
    return Refused(error, f"{error or answer.status_code} {more}".strip()[:300], retry_after_s=wait_s, maybe_shown=lost)


def _seconds(header: object) -> float:
    with contextlib.suppress(ValueError):
        return max(0.0, float(str(header)))
    return 0.0


def _why(trouble: BaseException) -> str:
    if isinstance(trouble, ChatDown):
        return render(trouble.text, ENGLISH)
    return str(trouble) or type(trouble).__name__


def _typed(text: str, me: str = "") -> str:
    """What a person typed, out of what Slack made of it: the mention of the bot, links and entities."""
    if me:
        text = re.sub(rf"^.*?<@{re.escape(me)}(?:\|[^>]*)?>[:,]?", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<(?:[^<>|]*\|)?([^<>|]*)>", r"\1", text)
    text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return " ".join(text.strip().strip("`").split())


def _meant(event: Json, me: str) -> str:
    """The command after the mention; without one a log line of a kill, before the mention or in a message that was shared."""
    said = str(event.get("text") or "")
    command = _typed(said, me)
    if command:
        return command
    shared = [str(one.get("text") or "") for one in event.get("attachments") or () if isinstance(one, dict)]
    return next((line for line in map(_typed, (said, *shared)) if quoted(line) is not None), "")


def _teams(body: Json, event: Json) -> tuple[object, ...]:
    """Every sign of the team that the author of an event is of."""
    told = (event.get("user_team"), event.get("source_team"), event.get("team"))
    if any(told) or body.get("is_ext_shared_channel"):
        return told
    return (body.get("team_id"),)


def _direct(channel: str) -> bool:
    """Whether this is a chat of two."""
    return channel.startswith("D")


def _bad_bot_token(error: str) -> Text:
    return T(
        "Slack does not take the bot token ({error}). Copy it from the app's page {page} into {key}.",
        error=Mono(error),
        page=Mono("OAuth & Permissions"),
        key=Mono("[slack] bot_token"),
    )


def _bad_app_token(error: str) -> Text:
    return T(
        "Slack does not take the app token ({error}). It needs the scope {scope}; make it on the app's page {page} and put it "
        "into {key}.",
        error=Mono(error),
        scope=Mono("connections:write"),
        page=Mono("Basic Information"),
        key=Mono("[slack] app_token"),
    )


def _words(trouble: ChatDown | SendFailed) -> Text:
    if isinstance(trouble, ChatDown):
        return trouble.text
    return T("Slack cannot be reached: {why}", why=str(trouble))


def _scopes(granted: frozenset[str]) -> list[tuple[bool, Text]]:
    missing = tuple(Mono(scope) for scope in SCOPES if scope not in granted)
    if not granted or not missing:  # the header is not documented: without it nothing is said
        return []
    return [
        (
            False,
            T(
                "Slack: the app lacks {scopes}. Take the manifest in {file} and install the app again.",
                scopes=Listing(missing),
                file=Mono("deploy/slack-manifest.yaml"),
            ),
        )
    ]


class _OneLine(logging.Filter):
    """A network that fails is a line, not a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the traceback."""
        record.exc_info = None
        return True


def _quiet() -> logging.Logger:
    """The logger for Slack's SDKs. Its level is its own: at DEBUG they log whole payloads."""
    logger = logging.getLogger("memwarden.slack")
    if not logger.filters:
        logger.addFilter(_OneLine())
        logger.setLevel(logging.WARNING)
    return logger
