"""A Host one can ask: what the rest of the house sees of a connection, over SSH or on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from remote.facts.base import Answers, Fact


@dataclass(frozen=True, slots=True)
class Target:
    """How to reach a host. `address` "local" is this machine.

    `host_keys` are public key lines (`ssh-ed25519 AAAA…`); `known_hosts` is a path, parsed once. `jump` is the
    target to tunnel through. `key` is a private key's path; None means the agent and the default keys.
    """

    name: str
    address: str
    port: int = 22
    user: str = "root"
    key: str | None = None
    host_keys: tuple[str, ...] = ()
    known_hosts: str | None = None
    jump: Target | None = None
    connect_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Done:
    """What one command of a plan's channel came to: exit status and output (stdout and stderr together)."""

    status: int
    output: str = field(repr=False)


class Conversation(Protocol):
    """A shell of its own on the host for one plan: commands run one after the other, lines come as they appear."""

    async def run(self, script: str, *, deadline_s: float, cap_bytes: int = 65536) -> Done:
        """Run `script` (POSIX sh) in a subshell. Raises HostError when the link ends first: then it is unknown
        whether it ran to its end."""
        ...


class Host(Protocol):
    """A host one can ask. All methods raise HostError; none blocks beyond its deadline."""

    @property
    def target(self) -> Target:
        """How it is reached."""
        ...

    @property
    def host_key(self) -> str:
        """Fingerprint (`SHA256:…`) of the key it proved, `local` for this machine; empty before the first contact."""
        ...

    async def ask(self, *facts: Fact[Any]) -> Answers:
        """Ask all facts at once: the quick ones in one network round trip, the slow ones beside them."""
        ...

    async def sample(self, *facts: Fact[Any]) -> Answers:
        """As `ask`, down the sampler's own channel, so that sampling never queues behind a person's question."""
        ...

    def stream(self, script: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Run a script that prints lines for ever; gives each line without its newline (over-long lines are cut at
        1 MiB). The script ends when the context does, and on the target when the link is cut."""
        ...

    def converse(self) -> AbstractAsyncContextManager[Conversation]:
        """A shell of its own for a plan."""
        ...

    async def close(self) -> None:
        """End all channels and the connection."""
        ...
