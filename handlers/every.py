"""Several hosts at once: each answers for itself, one that fails is a line and not the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from handlers.cards.failure import host_failed, host_trouble
from handlers.reply import Block, Button, HostAnswer, Reply
from remote.errors import HostError


@dataclass(frozen=True, slots=True)
class Part:
    """One host's part of a reply: what scripts get, what people see, what they may press."""

    data: object
    blocks: tuple[Block, ...]
    buttons: tuple[tuple[Button, ...], ...] = ()


async def every(hosts: Sequence[str], look: Callable[[str], Awaitable[Part]]) -> Reply:
    """Run `look` for all hosts side by side. A HostError is that host's answer; the order is the one asked.

    Buttons are those of a single host: beside several answers nobody could tell which one they are for.
    """
    parts = await asyncio.gather(*(_one(host, look) for host in hosts))
    blocks = tuple(block for part, _ in parts for block in part.blocks)
    buttons = parts[0][0].buttons if len(parts) == 1 else ()
    return Reply(blocks, buttons, hosts=tuple(answer for _, answer in parts))


async def alone(host: str, look: Callable[[], Awaitable[Reply]]) -> Reply:
    """The reply of `look`, which is about one host; a HostError is that host's answer."""
    try:
        return await look()
    except HostError as error:
        return Reply(host_failed(host, error), hosts=(host_trouble(host, error),))


async def _one(host: str, look: Callable[[str], Awaitable[Part]]) -> tuple[Part, HostAnswer]:
    try:
        part = await look(host)
    except HostError as error:
        return Part(None, host_failed(host, error)), host_trouble(host, error)
    return part, HostAnswer(host, part.data)
