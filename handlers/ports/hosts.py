"""The hosts one may ask."""

from __future__ import annotations

from typing import Any, Protocol

from handlers.request import Request
from remote.facts.base import Answers, Fact
from remote.policy import Policy


class Hosts(Protocol):
    """The hosts of the settings, as far as the room of the request sees them."""

    def choose(self, request: Request, words: tuple[str, ...]) -> tuple[str, ...]:
        """The hosts that `words` name (hosts, groups, `@group`, `all`), in the order asked, a group's in the settings'
        order. No words: the room's only host. Raises Usage for an unknown name (saying the nearest), Refused `which-host` when
        none is named and the room sees several (the process answers with buttons to choose from)."""
        ...

    def visible(self, request: Request) -> tuple[str, ...]:
        """All hosts of the room, in the settings' order."""
        ...

    def groups(self, host: str) -> tuple[str, ...]:
        """The groups a host is in."""
        ...

    def address(self, host: str) -> str:
        """`user@address:port` for people; `this machine` is the word for `local`."""
        ...

    def policy(self, host: str) -> Policy:
        """How the host is judged and mended."""
        ...

    def host_key(self, host: str) -> str:
        """Fingerprint of the key the host proved; empty before the first contact."""
        ...

    def key(self) -> bytes:
        """The secret that seals command lines in plans (`Seen.key`); one a store."""
        ...

    async def ask(self, host: str, *facts: Fact[Any]) -> Answers:
        """Read facts. Raises HostError."""
        ...
