"""Who asks, where, and in what words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Role = Literal["stranger", "viewer", "approver", "admin"]
RANK: dict[Role, int] = {"stranger": 0, "viewer": 1, "approver": 2, "admin": 3}


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody the settings name. `id` is the settings' key (linked accounts are one person), `shown` what a card calls
    them. A platform account that cannot be told apart (anonymous admin, channel) has role `stranger`."""

    id: str
    shown: str
    role: Role
    language: str | None = None

    def may(self, role: Role) -> bool:
        """Whether this person's role is at least `role`."""
        return RANK[self.role] >= RANK[role]


@dataclass(frozen=True, slots=True)
class Room:
    """A known chat: the settings' key, its platform and the hosts that can be seen from it (in the settings' order)."""

    id: str
    platform: str
    hosts: tuple[str, ...]
    private: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One command, typed or pressed. `event_id` is the platform's own id of the event, the same when it comes twice.

    `words` are what followed the command. `pressed` is true for a button. `reply_key` names the message that the button was on.
    """

    event_id: str
    person: Person
    room: Room
    command: str
    words: tuple[str, ...]
    at: datetime
    language: str
    pressed: bool = False
    reply_key: str = ""
