"""Sentry: webhooks of an internal integration.

https://docs.sentry.io/organization/integrations/integration-platform/webhooks/: the signature is the hex HMAC-SHA256 of the body
under the integration's Client Secret. `Sentry-Hook-Resource` and `Sentry-Hook-Timestamp` are not signed, so nothing is read
from them: what a body is about stands in it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from bot.hooks.base import LABEL, TITLE, Id, Outcome, Part, Question, Words, pid_in, short, validated
from bot.settings import HookSettings, SentryHookSettings

# An issue that was resolved, assigned or archived asks nothing; one that came back does.
ASKING = {"created", "unresolved", "triggered"}
_SLUG = re.compile(r"/projects/[^/]{1,100}/([\w-]{1,100})/events/", re.ASCII)

IssueId = Annotated[Id, Field(pattern=r"^[0-9]{1,20}$")]


class _Project(Part):
    id: Id = ""
    slug: Words = ""


class _Metadata(Part):
    value: Words = ""


class _Issue(Part):
    id: IssueId
    short_id: Words = Field("", alias="shortId")
    title: Words = ""
    metadata: _Metadata = _Metadata()
    project: _Project = _Project()
    last_seen: Words = Field("", alias="lastSeen")


class _Event(Part):
    event_id: str = Field(pattern=r"^[0-9a-f-]{32,36}$")
    issue_id: IssueId
    title: Words = ""
    message: Words = ""
    metadata: _Metadata = _Metadata()
    project: Id = ""
    url: Words = ""


class _Data(Part):
    issue: _Issue | None = None
    event: _Event | None = None
    error: _Event | None = None


class _Hook(Part):
    action: str = Field(max_length=40)
    data: _Data


@dataclass(frozen=True, slots=True)
class Sentry:
    """Implements `Source`."""

    settings: SentryHookSettings
    name: str = "sentry"
    shown: str = "Sentry"

    def proven(self, headers: Mapping[str, str], body: bytes) -> bool:
        """See `Source`: the body's HMAC, compared in constant time."""
        digest = hmac.new(self.settings.secret.get_secret_value().encode(), body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(digest.encode(), headers.get("Sentry-Hook-Signature", "").encode("utf-8", "replace"))

    def questions(self, body: bytes) -> tuple[Question, ...]:
        """See `Source`."""
        hook: _Hook = validated(_Hook, body)
        if hook.action not in ASKING:
            return ()
        event = hook.data.event or hook.data.error
        if event is not None:
            return self._wanted(self._of_event(event), event.title, event.message, event.metadata.value)
        issue = hook.data.issue
        return () if issue is None else self._wanted(self._of_issue(hook.action, issue), issue.title, issue.metadata.value)

    def link(self, subject: str, label: str) -> str:
        """See `Source`."""
        del label
        return f"{self.settings.base_url}{self._organization}/issues/{subject}/"

    @property
    def takes_notes(self) -> bool:
        """See `Source`."""
        return self.settings.token is not None

    async def leave(self, subject: str, text: str) -> Outcome:
        """See `Source`. The path without an organization is deprecated in Sentry, but there."""
        if self.settings.token is None:
            return Outcome(sent=False, why="no token")
        from bot.hooks.notes import post

        url = f"{self.settings.base_url}/api/0{self._organization}/issues/{subject}/comments/"
        return await post(url, self.settings.token.get_secret_value(), text)

    @property
    def _organization(self) -> str:
        return f"/organizations/{self.settings.organization}" if self.settings.organization else ""

    def _of_issue(self, action: str, issue: _Issue) -> Question:
        # An issue is created once, and may come back again and again.
        again = f":{issue.last_seen[:40]}" if action != "created" else ""
        return Question(
            id=f"sentry:issue:{issue.id}:{action}{again}",
            host=self._host(issue.project.slug, issue.project.id),
            subject=issue.id,
            label=short(issue.short_id, LABEL) or f"#{issue.id}",
            title=short(issue.title or issue.metadata.value, TITLE),
            pid=pid_in(issue.title, issue.metadata.value),
        )

    def _of_event(self, event: _Event) -> Question:
        slug = _SLUG.search(event.url)
        return Question(
            id=f"sentry:event:{event.event_id}",
            host=self._host(slug[1] if slug else "", event.project),
            subject=event.issue_id,
            label=f"#{event.issue_id}",
            title=short(event.title or event.message or event.metadata.value, TITLE),
            pid=pid_in(event.title, event.message, event.metadata.value),
        )

    def _host(self, *names: str) -> str | None:
        return next((self.settings.hosts[name] for name in names if name in self.settings.hosts), None)

    def _wanted(self, question: Question, *texts: str) -> tuple[Question, ...]:
        """The question, if the settings want to hear of its kind. `texts` are as they were sent: the question's title is cut."""
        said = "\n".join(texts).casefold()
        wanted = not self.settings.words or any(word.casefold() in said for word in self.settings.words)
        return (question,) if wanted else ()


def _open(settings: HookSettings) -> Sentry | None:
    return Sentry(settings.sentry) if settings.sentry else None


SOURCE = _open
