"""What one process is made of: bot/app.py builds it; whoever gets an `App` finds the other parts there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot.chat.base import Chat
    from bot.dispatch import Desk, Dispatcher
    from bot.hosts import Fleet
    from bot.outbox import Outbox
    from bot.people import People
    from bot.plans import PlanBook
    from bot.runner import Runner
    from bot.settings import Settings
    from bot.store import Store
    from handlers.command import Command
    from handlers.ports.clock import Clock


@dataclass(frozen=True)
class App:
    """The parts of one process, built and connected but not started."""

    settings: Settings
    clock: Clock
    store: Store
    people: People
    fleet: Fleet
    outbox: Outbox
    book: PlanBook
    runner: Runner
    dispatcher: Dispatcher
    desk: Desk
    chats: Mapping[str, Chat]
    commands: Mapping[str, Command]
    status: int = 0
