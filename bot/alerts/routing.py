"""Which chats are told about a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.chat.base import Address

if TYPE_CHECKING:
    from bot.settings import Settings


def told_about(settings: Settings, host: str) -> tuple[Address, ...]:
    """The chats with `alerts = true` that see the host; the console when no chat is configured at all."""
    places = tuple(
        Address(chat.platform, chat.address, chat.topic, chat.language or settings.language)
        for name, chat in settings.chats.items()
        if chat.alerts and host in settings.seen_from(name)
    )
    if places or settings.chats:
        return places
    return (Address("console", "console", language=settings.language),)
