"""The hosts port: names to hosts, hosts to open connections."""

from __future__ import annotations

import asyncio
import difflib
from typing import TYPE_CHECKING, Any

from handlers.command import Refused, Usage
from remote.connect import open_host
from remote.connect.base import Target
from remote.errors import HostError
from remote.text import Listing, Mono, T

if TYPE_CHECKING:
    from bot.settings import Settings
    from handlers.request import Request
    from remote.connect.base import Host
    from remote.facts.base import Answers, Fact
    from remote.policy import Policy
    from remote.text import Text


class Fleet:
    """Every host of the settings, opened on first use. It is the `Hosts` port of the commands."""

    def __init__(self, settings: Settings, key: bytes) -> None:
        """Nothing is connected yet. `key` is the store's secret."""
        self._settings = settings
        self._key = key
        self._open: dict[str, Host] = {}

    def host(self, name: str) -> Host:
        """The connection to a host, made when it is first asked."""
        if name not in self._open:
            self._open[name] = open_host(self._target(name))
        return self._open[name]

    def choose(self, request: Request, words: tuple[str, ...]) -> tuple[str, ...]:
        """See handlers/ports/hosts.py."""
        visible = self.visible(request)
        if not words:
            if len(visible) == 1:
                return visible
            raise Refused("which-host", T("Which host?"))
        for word in words:
            if not set(self._settings.expand((word,))) & set(visible):
                raise Usage(self._unknown(word, visible))
        chosen = self._settings.expand(words)
        return tuple(name for name in chosen if name in visible)

    def visible(self, request: Request) -> tuple[str, ...]:
        """See handlers/ports/hosts.py."""
        return request.room.hosts

    def groups(self, host: str) -> tuple[str, ...]:
        """See handlers/ports/hosts.py."""
        return self._settings.hosts[host].groups

    def address(self, host: str) -> str:
        """See handlers/ports/hosts.py."""
        one = self._settings.hosts[host]
        return "local" if one.address == "local" else f"{one.user}@{one.address}:{one.port}"

    def policy(self, host: str) -> Policy:
        """See handlers/ports/hosts.py."""
        return self._settings.policy(host)

    def host_key(self, host: str) -> str:
        """See handlers/ports/hosts.py."""
        return self._open[host].host_key if host in self._open else ""

    def key(self) -> bytes:
        """See handlers/ports/hosts.py."""
        return self._key

    async def ask(self, host: str, *facts: Fact[Any]) -> Answers:
        """See handlers/ports/hosts.py."""
        return await self.host(host).ask(*facts)

    async def ask_within(self, limit_s: float, host: str, *facts: Fact[Any]) -> Answers:
        """Ask, and wait no longer than that. Raises HostError, of the kind `timeout` when it takes longer."""
        try:
            async with asyncio.timeout(limit_s):
                return await self.ask(host, *facts)
        except TimeoutError:
            raise HostError("timeout", T("{host} did not answer in time.", host=Mono(host))) from None

    async def close(self) -> None:
        """End all connections."""
        for host in self._open.values():
            await host.close()

    def _target(self, name: str) -> Target:
        one = self._settings.hosts[name]
        return Target(
            name=name,
            address=one.address,
            port=one.port,
            user=one.user,
            key=one.key,
            host_keys=one.host_key,
            known_hosts=one.known_hosts,
            jump=self._target(one.jump) if one.jump else None,
            connect_timeout_s=one.connect_timeout,
        )

    def _unknown(self, word: str, visible: tuple[str, ...]) -> Text:
        groups = sorted({group for host in visible for group in self._settings.hosts[host].groups})
        near = difflib.get_close_matches(word.removeprefix("@"), [*visible, *groups], 1, 0.5)
        known = Listing(tuple(Mono(name) for name in visible))
        if not word.startswith("@"):
            if near:
                return T("There is no host {word}. Did you mean {near}?", word=Mono(word), near=Mono(near[0]))
            return T("There is no host {word}. I know {hosts}.", word=Mono(word), hosts=known)
        if near:
            return T("There is no group {word}. Did you mean {near}?", word=Mono(word), near=Mono(near[0]))
        if groups:
            known = Listing(tuple(Mono(f"@{name}") for name in groups))
        return T("There is no group {word}. I know {names}.", word=Mono(word), names=known)
