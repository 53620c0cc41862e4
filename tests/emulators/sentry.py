"""Sentry: an organization with issues, its comments' endpoint, and an internal integration that sends signed webhooks.

It refuses what the real one refuses, in the same words:
https://github.com/getsentry/sentry/blob/master/src/sentry/issues/endpoints/group_notes.py,
https://github.com/getsentry/sentry/blob/master/src/sentry/sentry_apps/api/serializers/app_platform_event.py.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import ClientSession, ClientTimeout, web

from tests.emulators.faults import Call, Faults, Kind, Stage

WEBHOOK_TIMEOUT_S = 1.0  # what the real one waits for an answer
TWICE_S = 3600.0


@dataclass(frozen=True)
class Comment:
    """One comment as people see it."""

    issue: str
    text: str
    at: float


@dataclass
class Sentry:
    """The world, and its HTTP. `scopes` are the token's."""

    organization: str = "acme"
    project: str = "teaching-panel"
    secret: str = "c" * 64
    token: str = "sntryi_" + "a" * 32
    scopes: frozenset[str] = frozenset({"event:read", "event:write"})
    issues: set[str] = field(default_factory=lambda: {"1170820242"})
    comments: list[Comment] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    url: str = ""

    def texts(self, issue: str = "1170820242") -> list[str]:
        """The comments at an issue."""
        return [comment.text for comment in self.comments if comment.issue == issue]

    def issue(self, action: str = "created", issue: str = "1170820242", **more: Any) -> bytes:  # noqa: ANN401 - JSON
        """The body of an issue's webhook."""
        body: dict[str, Any] = {
            "id": issue,
            "shortId": "TEACHING-PANEL-9",
            "title": "Worker (pid:415) was sent SIGKILL! Perhaps out of memory?",
            "culprit": "gunicorn.error",
            "firstSeen": "2026-11-23T23:50:57.391000Z",
            "lastSeen": "2026-11-23T23:50:57.391000Z",
            "permalink": None,
            "logger": None,
            "metadata": {"title": "Worker (pid:415) was sent SIGKILL! Perhaps out of memory?"},
            "project": {"id": "1", "name": "Teaching Panel", "platform": "python", "slug": self.project},
            "status": "unresolved",
            "web_url": f"https://{self.organization}.sentry.io/issues/{issue}/",
            "url": f"https://sentry.io/api/0/organizations/{self.organization}/issues/{issue}/",
            **more,
        }
        return self._body(action, {"issue": body})

    def event(self, event_id: str = "e4874d664c3540c1a32eab185f12c5ab", issue: str = "1170820242", **more: Any) -> bytes:  # noqa: ANN401 - JSON
        """The body of an alert rule's webhook."""
        body: dict[str, Any] = {
            "event_id": event_id,
            "issue_id": issue,
            "issue_url": f"https://sentry.io/api/0/issues/{issue}/",
            "level": "error",
            "message": "Worker (pid:415) was sent SIGKILL! Perhaps out of memory?",
            "metadata": {"title": "Worker (pid:415) was sent SIGKILL! Perhaps out of memory?"},
            "project": 1,
            "tags": [["level", "error"]],
            "title": "Worker (pid:415) was sent SIGKILL! Perhaps out of memory?",
            "url": f"https://sentry.io/api/0/projects/{self.organization}/{self.project}/events/{event_id}/",
            "web_url": f"https://sentry.io/organizations/{self.organization}/issues/{issue}/events/{event_id}/",
            **more,
        }
        return self._body("triggered", {"event": body, "triggered_rule": "Workers that died"})

    def headers(self, body: bytes, resource: str = "issue") -> dict[str, str]:
        """What goes before a webhook's body."""
        return {
            "Content-Type": "application/json",
            "Request-ID": uuid4().hex,
            "Sentry-Hook-Resource": resource,
            "Sentry-Hook-Timestamp": str(int(time.time())),
            "Sentry-Hook-Signature": hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest(),
        }

    async def send(self, url: str, body: bytes, *, within_s: float = 20.0) -> int:
        """Send a webhook; gives the status. Sentry waits WEBHOOK_TIMEOUT_S; a machine that is busy with tests may need longer.
        Raises TimeoutError."""
        timeout = ClientTimeout(total=within_s)
        async with (
            ClientSession(timeout=timeout) as session,
            session.post(url, data=body, headers=self.headers(body), allow_redirects=False) as answer,
        ):
            await answer.read()
            return answer.status

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Listen on loopback; `url` is where."""
        app = web.Application()
        app.router.add_route("*", "/api/0/organizations/{organization}/issues/{issue}/{what:comments|notes}/", self._comment)
        app.router.add_route("*", "/api/0/issues/{issue}/{what:comments|notes}/", self._comment)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        try:
            yield
        finally:
            await runner.cleanup()

    def _body(self, action: str, data: Mapping[str, Any]) -> bytes:
        actor = {"id": "sentry", "name": "Sentry", "type": "application"}
        installation = {"uuid": "a8e5d37a-696c-4c54-adb5-b3f28d64c7de"}
        return json.dumps({"action": action, "actor": actor, "data": data, "installation": installation}).encode()

    async def _comment(self, request: web.Request) -> web.Response:
        call = Call(len(self.calls) + 1, request.method, {**request.match_info, "body": await request.text()})
        self.calls.append(call)
        fault = self.faults.take(call)
        await self.faults.reach(Stage.BEFORE, call)
        if fault is not None and fault.kind is Kind.RATE_LIMITED:
            return web.json_response({"detail": "Too many."}, status=429, headers={"Retry-After": str(int(fault.seconds))})
        if fault is not None and fault.kind is Kind.SERVER_ERROR:
            return web.json_response({"detail": "Internal Error"}, status=fault.status)
        if fault is not None and fault.kind is Kind.CUT_BEFORE:
            return _cut(request)
        answer = self._take(request, call)
        await self.faults.reach(Stage.TAKEN, call)
        return _cut(request) if fault is not None and fault.kind is Kind.CUT_AFTER else answer

    def _take(self, request: web.Request, call: Call) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"detail": "Invalid token"}, status=401)
        if "event:write" not in self.scopes:
            return web.json_response({"detail": "You do not have permission to perform this action."}, status=403)
        issue = call.params["issue"]
        if issue not in self.issues or call.params.get("organization", self.organization) != self.organization:
            return web.json_response({"detail": "The requested resource does not exist"}, status=404)
        if request.method != "POST":
            return web.json_response({"detail": f'Method "{request.method}" not allowed.'}, status=405)
        if request.content_type != "application/json":
            return web.json_response({"detail": "Unsupported media type in request."}, status=415)
        return self._keep(issue, call.params["body"])

    def _keep(self, issue: str, body: str) -> web.Response:
        try:
            text = json.loads(body)["text"]
        except (ValueError, KeyError, TypeError):
            return web.json_response({"text": ["This field is required."]}, status=400)
        if not isinstance(text, str) or not text.strip():
            return web.json_response({"text": ["This field may not be blank."]}, status=400)
        now = time.time()
        if any(one.issue == issue and one.text == text and now - one.at < TWICE_S for one in self.comments):
            return web.json_response({"detail": "You have already posted that comment."}, status=400)
        self.comments.append(Comment(issue, text, now))
        return web.json_response({"id": str(len(self.comments)), "type": "note", "data": {"text": text}}, status=201)


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
