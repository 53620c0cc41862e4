"""Slack's Web API over HTTP: checks of token and scope, the methods that a chat bot calls, and faults on the way."""

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import web

from tests.emulators.faults import Call, Fault, Faults, Kind, Stage
from tests.emulators.slack_blocks import Json, parsed_blocks
from tests.emulators.slack_world import (
    BOT_ID,
    BOT_USER,
    TEAM,
    Channel,
    Content,
    File,
    Message,
    Refused,
    World,
)

#: What deploy's manifest asks for.
DEFAULT_SCOPES = frozenset({"commands", "chat:write", "app_mentions:read", "im:history", "files:write"})
TRIGGER_AGE_MAX_S = 3
NESTED = ("blocks", "files", "view", "metadata", "attachments")


@dataclass
class Asked:
    """One API call and its outcome; `error` is Slack's word for it or the fault's kind."""

    call: Call
    at: float
    error: str | None = None
    done: bool = False

    @property
    def method(self) -> str:
        """The method's name."""
        return self.call.method

    @property
    def params(self) -> Mapping[str, Any]:
        """What was sent."""
        return self.call.params


class WebApi:
    """Answers `/api/METHOD`, uploads and response_urls over a World."""

    def __init__(self, world: World, faults: Faults, *, bot_token: str, app_token: str) -> None:
        self.world = world
        self.faults = faults
        self.bot_token = bot_token
        self.app_token = app_token
        self.scopes: set[str] = set(DEFAULT_SCOPES)
        self.auth_error: str | None = None  # token_revoked, account_inactive…
        self.rates: dict[str, tuple[int, float]] = {}  # method: so many calls in so many seconds, a channel
        self.calls: list[Asked] = []
        self.counts: Counter[str] = Counter()
        self.base = ""
        self.new_link: Callable[[], str] = lambda: ""
        self._recent: dict[tuple[str, str], list[float]] = {}
        self._methods = self._table()

    def routes(self) -> list[web.AbstractRouteDef]:
        """Where it listens."""
        return [
            web.route("*", "/api/{method}", self._api),
            web.post("/upload/{file}", self._upload),
            web.post("/response/{url}", self._response),
        ]

    # HTTP

    async def _api(self, request: web.Request) -> web.StreamResponse:
        params, malformed = await parsed(request)
        call = Call(len(self.calls) + 1, request.match_info["method"], params)
        asked = Asked(call, self.world.now())
        self.calls.append(asked)
        self.counts[call.method] += 1
        try:
            return await self._played(request, asked, malformed)
        finally:
            asked.done = True
            self.world.changed()

    async def _played(self, request: web.Request, asked: Asked, malformed: str | None) -> web.StreamResponse:
        await self.faults.reach(Stage.BEFORE, asked.call)
        fault = self.faults.take(asked.call)
        if fault is not None:
            asked.error = fault.kind.value
            if (early := await self._early(request, fault)) is not None:
                return early
        answer = self._answer(request, asked, malformed)
        await self.faults.reach(Stage.TAKEN, asked.call)
        if fault is not None and fault.kind is Kind.CUT_AFTER:
            return cut(request)
        if fault is not None and fault.kind is Kind.GARBAGE:
            answer = web.Response(text='{"ok": tr', content_type="application/json")
        await send(request, answer)
        await self.faults.reach(Stage.ANSWERED, asked.call)
        return answer

    async def _early(self, request: web.Request, fault: Fault) -> web.Response | None:
        """The answer of a fault that takes nothing."""
        match fault.kind:
            case Kind.CUT_BEFORE:
                return cut(request)
            case Kind.RATE_LIMITED:
                return ratelimited(fault.seconds)
            case Kind.SERVER_ERROR:
                return web.Response(status=fault.status, text="<html>Server Error</html>", content_type="text/html")
            case Kind.DELAY:
                await asyncio.sleep(fault.seconds)
        return None

    def _answer(self, request: web.Request, asked: Asked, malformed: str | None) -> web.Response:
        if (wait_s := self._over_rate(asked)) is not None:
            asked.error = "ratelimited"
            return ratelimited(wait_s)
        try:
            body = {"ok": True} | self._call(request, asked.call, malformed)
        except Refused as refused:
            asked.error = refused.error
            body = {"ok": False, "error": refused.error} | refused.extra
        return web.json_response(body, headers={"x-oauth-scopes": ",".join(sorted(self.scopes))})

    def _over_rate(self, asked: Asked) -> float | None:
        if asked.method not in self.rates:
            return None
        most, within_s = self.rates[asked.method]
        now = time.monotonic()
        key = (asked.method, str(asked.params.get("channel")))
        recent = [at for at in self._recent.get(key, []) if now - at < within_s]
        self._recent[key] = recent
        if len(recent) >= most:
            return within_s - (now - recent[0])
        recent.append(now)
        return None

    def _call(self, request: web.Request, call: Call, malformed: str | None) -> dict[str, Any]:
        if malformed:
            raise Refused(malformed)
        method = self._methods.get(call.method)
        if method is None:
            raise Refused("unknown_method", req_method=call.method)
        self._authorise(request, call, method)
        return method.run(call.params)

    def _authorise(self, request: web.Request, call: Call, method: "Method") -> None:
        header = request.headers.get("Authorization", "")
        token = header.removeprefix("Bearer ").strip() or str(call.params.get("token", ""))
        if not token:
            raise Refused("not_authed")
        if token not in (self.bot_token, self.app_token):
            raise Refused("invalid_auth")
        if self.auth_error:
            raise Refused(self.auth_error)
        if (token == self.app_token) is not method.app_level:
            raise Refused("not_allowed_token_type")
        needed = method.scope(call.params) if callable(method.scope) else method.scope
        if needed and needed not in self.scopes:
            raise Refused("missing_scope", needed=needed, provided=",".join(sorted(self.scopes)))

    async def _upload(self, request: web.Request) -> web.Response:
        file = self.world.files.get(request.match_info["file"])
        if file is None:
            return web.Response(status=HTTPStatus.NOT_FOUND, text="file_not_found")
        if request.content_type.startswith("multipart/"):
            form = await request.post()
            part = next(iter(form.values()))
            file.data = part.file.read() if isinstance(part, web.FileField) else str(part).encode()
        else:
            file.data = await request.read()
        if len(file.data) != file.length:
            file.data = None
            return web.Response(status=HTTPStatus.BAD_REQUEST, text="length mismatch")
        return web.Response(text=f"OK - {file.length}")

    async def _response(self, request: web.Request) -> web.Response:
        params, malformed = await parsed(request)
        if malformed:
            return web.json_response({"ok": False, "error": malformed}, status=HTTPStatus.BAD_REQUEST)
        response = self.world.respond(request.match_info["url"], params)
        if response.error is None:
            return web.Response(text="ok")
        gone = response.error in ("expired_url", "used_url")
        status = HTTPStatus.NOT_FOUND if gone else HTTPStatus.BAD_REQUEST
        return web.json_response({"ok": False, "error": response.error}, status=status)

    # Methods

    def _table(self) -> "dict[str, Method]":
        return {
            "api.test": Method(lambda _: {}),
            "auth.test": Method(self._auth_test),
            "apps.connections.open": Method(lambda _: {"url": self.new_link()}, app_level=True),
            "chat.postMessage": Method(self._post_message, "chat:write"),
            "chat.postEphemeral": Method(self._post_ephemeral, "chat:write"),
            "chat.update": Method(self._update, "chat:write"),
            "chat.delete": Method(self._delete, "chat:write"),
            "chat.getPermalink": Method(self._permalink),
            "conversations.info": Method(self._info, self._reading("read")),
            "conversations.history": Method(self._history, self._reading("history")),
            "conversations.replies": Method(self._replies, self._reading("history")),
            "users.info": Method(self._user, "users:read"),
            "files.getUploadURLExternal": Method(self._upload_url, "files:write"),
            "files.completeUploadExternal": Method(self._complete_upload, "files:write"),
            "views.open": Method(self._view),
        }

    def _reading(self, what: str) -> Callable[[Json], str]:
        def scope(params: Json) -> str:
            channel = self.world.channels.get(str(params.get("channel")))
            if channel is None:
                return f"channels:{what}"
            kind = "im" if channel.im else "groups" if channel.private else "channels"
            return f"{kind}:{what}"

        return scope

    def _auth_test(self, _: Json) -> dict[str, Any]:
        return {
            "url": "https://home.slack.com/",
            "team": "Home",
            "user": "memwarden",
            "team_id": TEAM,
            "user_id": BOT_USER,
            "bot_id": BOT_ID,
            "is_enterprise_install": False,
        }

    def _post_message(self, params: Json) -> dict[str, Any]:
        channel = self.world.writable(params.get("channel"))
        content = self._content(params)
        thread_ts = self.world.thread(channel, params.get("thread_ts"))
        message = self.world.post(channel, BOT_USER, content, thread_ts=thread_ts)
        return {"channel": channel.id, "ts": message.ts, "message": message.as_api() | {"subtype": "bot_message"}}

    def _content(self, params: Json) -> Content:
        if params.get("attachments"):
            raise Refused("emulator_knows_no_attachments")
        return self.world.content(params)

    def _post_ephemeral(self, params: Json) -> dict[str, Any]:
        channel = self.world.writable(params.get("channel"))
        user = str(params.get("user"))
        if user not in self.world.users:
            raise Refused("user_not_found")
        if user not in channel.members:
            raise Refused("user_not_in_channel")
        thread_ts = self.world.thread(channel, params.get("thread_ts"))
        message = self.world.post_ephemeral(channel.id, user, self._content(params), thread_ts=thread_ts)
        return {"message_ts": message.ts}

    def _own(self, params: Json, foreign: str) -> tuple[Channel, Message]:
        """The channel and the bot's message that the call is about."""
        channel = self.world.visible(params.get("channel"))
        message = channel.find(params.get("ts"))
        if message is None:
            raise Refused("message_not_found")
        if message.user != BOT_USER:
            raise Refused(foreign)
        return channel, message

    def _update(self, params: Json) -> dict[str, Any]:
        channel, message = self._own(params, "cant_update_message")
        if channel.archived:
            raise Refused("is_inactive")
        self.world.edit(message, self._content(params))
        return {"channel": channel.id, "ts": message.ts, "text": message.text, "message": message.as_api()}

    def _delete(self, params: Json) -> dict[str, Any]:
        channel, message = self._own(params, "cant_delete_message")
        self.world.delete(message)
        return {"channel": channel.id, "ts": message.ts}

    def _permalink(self, params: Json) -> dict[str, Any]:
        channel = self.world.visible(params.get("channel"))
        message = channel.find(params.get("message_ts"))
        if message is None:
            raise Refused("message_not_found")
        path = message.ts.replace(".", "")
        return {"channel": channel.id, "permalink": f"https://home.slack.com/archives/{channel.id}/p{path}"}

    def _info(self, params: Json) -> dict[str, Any]:
        channel = self.world.visible(params.get("channel"))
        body: dict[str, Any] = {"id": channel.id, "is_archived": channel.archived, "is_im": channel.im}
        if channel.im:
            return {"channel": body | {"user": next(iter(channel.members - {BOT_USER}))}}
        flags = {"is_private": channel.private, "is_member": BOT_USER in channel.members}
        return {"channel": body | flags | {"name": channel.name, "is_ext_shared": channel.shared}}

    def _history(self, params: Json) -> dict[str, Any]:
        channel = self._readable(params)
        top = [m.as_api() for m in channel.messages if m.thread_ts in (None, m.ts)]
        return {"messages": top[::-1][: int(params.get("limit") or 100)], "has_more": False}

    def _replies(self, params: Json) -> dict[str, Any]:
        channel = self._readable(params)
        if channel.find(params.get("ts")) is None:
            raise Refused("thread_not_found")
        thread = [m.as_api() for m in channel.messages if params.get("ts") in (m.ts, m.thread_ts)]
        return {"messages": thread, "has_more": False}

    def _readable(self, params: Json) -> Channel:
        channel = self.world.visible(params.get("channel"))
        if BOT_USER not in channel.members:
            raise Refused("not_in_channel")
        return channel

    def _user(self, params: Json) -> dict[str, Any]:
        user = self.world.users.get(str(params.get("user")))
        if user is None:
            raise Refused("user_not_found")
        flags = {"is_bot": user.bot, "is_restricted": user.guest, "is_stranger": user.team != TEAM}
        return {"user": {"id": user.id, "team_id": user.team, "name": user.name, "locale": user.locale, **flags}}

    def _upload_url(self, params: Json) -> dict[str, Any]:
        length = str(params.get("length", ""))
        if not params.get("filename") or not length.isdigit() or length == "0":
            raise Refused("invalid_arguments")
        file = File(f"F{self.world.number()}", str(params["filename"]), int(length))
        self.world.files[file.id] = file
        return {"upload_url": f"{self.base}/upload/{file.id}", "file_id": file.id}

    def _complete_upload(self, params: Json) -> dict[str, Any]:
        listed = parsed_blocks(params.get("files")) or []
        files = [self.world.files.get(str(item.get("id"))) for item in listed]
        uploaded = [file for file in files if file is not None and file.data is not None]
        if not listed or len(uploaded) != len(listed):
            raise Refused("file_not_found")
        for file, item in zip(uploaded, listed, strict=True):
            file.title = str(item.get("title") or file.name)
        if params.get("channel_id"):
            self._share(params, uploaded)
        return {"files": [{"id": file.id, "title": file.title} for file in uploaded]}

    def _share(self, params: Json, files: list[File]) -> None:
        channel = self.world.writable(params["channel_id"])
        thread_ts = self.world.thread(channel, params.get("thread_ts"))
        content = Content(str(params.get("initial_comment") or ""))
        message = self.world.post(channel, BOT_USER, content, thread_ts=thread_ts, via="file")
        message.files = [file.id for file in files]

    def _view(self, params: Json) -> dict[str, Any]:
        issued_at = self.world.triggers.get(str(params.get("trigger_id")))
        if issued_at is None:
            raise Refused("invalid_trigger_id")
        if self.world.now() - issued_at > TRIGGER_AGE_MAX_S:
            raise Refused("expired_trigger_id")
        view = params.get("view")
        if not isinstance(view, dict) or view.get("type") != "modal" or not view.get("blocks"):
            raise Refused("invalid_arguments")
        del self.world.triggers[str(params["trigger_id"])]
        self.world.views.append(view)
        return {"view": view | {"id": f"V{self.world.number()}"}}


@dataclass(frozen=True)
class Method:
    """A method, and the token and scope it asks for."""

    run: Callable[[Json], dict[str, Any]]
    scope: str | Callable[[Json], str] | None = None
    app_level: bool = False


async def parsed(request: web.Request) -> tuple[dict[str, Any], str | None]:
    """A request's parameters, from JSON, form or query, and Slack's word for what is wrong with them."""
    if request.content_type == "application/json":
        try:
            body = json.loads(await request.text())
        except ValueError:
            return {}, "invalid_json"
        return (body, None) if isinstance(body, dict) else ({}, "json_not_object")
    form = dict(request.query) | {key: str(value) for key, value in (await request.post()).items()}
    return {key: _nested(key, value) for key, value in form.items()}, None


def _nested(key: str, value: str) -> object:
    if key not in NESTED:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def ratelimited(seconds: float) -> web.Response:
    """429, to come again in so many seconds (Slack says whole ones)."""
    headers = {"Retry-After": str(math.ceil(seconds))}
    return web.json_response({"ok": False, "error": "ratelimited"}, status=HTTPStatus.TOO_MANY_REQUESTS, headers=headers)


def cut(request: web.Request) -> web.Response:
    """Let the connection die without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def send(request: web.Request, answer: web.Response) -> None:
    """Send an answer now, whoever still listens."""
    try:
        await answer.prepare(request)
        await answer.write_eof()
    except ConnectionError:
        return
