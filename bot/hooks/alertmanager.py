"""Prometheus Alertmanager: a webhook receiver.

https://prometheus.io/docs/alerting/latest/configuration/#webhook_config, version 4 of its body; who sends it shows a bearer
token (`http_config.authorization`), from loopback too.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from pydantic import Field

from bot.hooks.base import LABEL, TITLE, Outcome, Part, Question, Words, pid_in, short, validated
from bot.settings import AlertmanagerHookSettings, HookSettings


class _Alert(Part):
    status: str = Field(max_length=20)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, Words] = Field(default_factory=dict)
    starts_at: str = Field(alias="startsAt", min_length=1, max_length=40)
    fingerprint: str = Field(pattern=r"^[0-9a-f]{1,32}$")

    @property
    def name(self) -> str:
        """What people call it."""
        return self.labels.get("alertname", "")

    @property
    def said(self) -> str:
        """What it says."""
        return self.annotations.get("summary") or self.annotations.get("description") or ""


class _Hook(Part):
    alerts: tuple[_Alert, ...]


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """Implements `Source`."""

    settings: AlertmanagerHookSettings
    name: str = "alertmanager"
    shown: str = "Alertmanager"

    def proven(self, headers: Mapping[str, str], body: bytes) -> bool:
        """See `Source`: the token, compared in constant time."""
        del body
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        wanted = self.settings.token.get_secret_value().encode()
        same = hmac.compare_digest(wanted, token.strip().encode("utf-8", "replace"))
        return same and scheme.casefold() == "bearer"

    def questions(self, body: bytes) -> tuple[Question, ...]:
        """See `Source`. Alertmanager sends an alert again while it lasts; what is over asks nothing."""
        hook: _Hook = validated(_Hook, body)
        return tuple(self._of(alert) for alert in hook.alerts if alert.status == "firing")

    def link(self, subject: str, label: str) -> str:
        """See `Source`."""
        del subject
        if self.settings.base_url is None:
            return ""
        matcher = quote('{alertname="' + label.replace("\\", "\\\\").replace('"', '\\"') + '"}', safe="")
        return f"{self.settings.base_url}/#/alerts?filter={matcher}"

    @property
    def takes_notes(self) -> bool:
        """See `Source`: an alert has no place for them."""
        return False

    async def leave(self, subject: str, text: str) -> Outcome:
        """See `Source`."""
        del subject, text
        return Outcome(sent=False, why="an alert takes no notes")

    def _of(self, alert: _Alert) -> Question:
        return Question(
            id=f"alertmanager:{alert.fingerprint}:{alert.starts_at}:{alert.status}",
            host=self.settings.hosts.get(alert.labels.get(self.settings.label, "")),
            subject=alert.fingerprint,
            label=short(alert.name, LABEL) or alert.fingerprint,
            title=short(alert.said, TITLE),
            pid=pid_in(alert.said),
        )


def _open(settings: HookSettings) -> Alertmanager | None:
    return Alertmanager(settings.alertmanager) if settings.alertmanager else None


SOURCE = _open
