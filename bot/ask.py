"""One command from the console person: answered here, or by the process that runs on this store (bot/doorway.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bot.dispatch import make_request
from bot.i18n import render
from handlers.cards.plan import plan_card, plan_data
from handlers.ports.plans import FINAL
from handlers.reply import Failure, HostAnswer, Line, Reply, plain_json
from handlers.request import Person, Request, Room
from remote.text import Mono, T, Text

if TYPE_CHECKING:
    from bot.parts import App
    from bot.settings import Settings

LOOK_S = 0.2


class NotAllowed(Exception):  # noqa: N818 - an answer, in one line
    """Nobody may ask from here under that name."""


def who(settings: Settings, name: str | None) -> str:
    """The console person of this name, or the only one. Raises NotAllowed."""
    consoles = [person for person, one in settings.people.items() if one.console]
    if not consoles:
        raise NotAllowed("nobody in the settings has `console = true`, so nobody may ask from here")
    if name is None and len(consoles) == 1:
        return consoles[0]
    if name is None:
        raise NotAllowed(f"several people have a console; say who you are with --as: {', '.join(consoles)}")
    if name not in consoles:
        raise NotAllowed(f"{name!r} has no console in the settings; --as takes one of: {', '.join(consoles)}")
    return name


def console_language(settings: Settings, person: str) -> str:
    """The language of who asks at a console: their own, else the console chat's, else the general one."""
    named = _console_chat(settings)
    return settings.people[person].language or (named and settings.chats[named].language) or settings.language


def _console_chat(settings: Settings) -> str | None:
    """The name of the settings' console chat."""
    return next((name for name, chat in settings.chats.items() if chat.console), None)


def console_room(settings: Settings) -> Room:
    """The console's view: its own chat's hosts where the settings have one, else all."""
    named = _console_chat(settings)
    return Room(named or "console", "console", settings.seen_from(named) if named else tuple(settings.hosts), private=True)


def console_request(app: App, person: str, text: str) -> Request | None:
    """The Request of a line that the console person typed."""
    language = console_language(app.settings, person)
    return make_request(
        f"console:{uuid4().hex}",
        Person(person, person, app.settings.people[person].role, language),
        console_room(app.settings),
        text,
        app.clock.now(),
        language,
    )


async def answer(app: App, person: str, text: str, progress: Callable[[Text], Awaitable[None]]) -> tuple[Request | None, Reply]:
    """Answer a line; when it started a plan, wait for that plan's end and answer with it."""
    request = console_request(app, person, text)
    if request is None:
        failure = Failure("usage", T("Say a command, like {example}.", example=Mono("/mem")))
        return None, Reply((Line(failure.text),), error=failure)
    reply = await app.dispatcher.answer(request)
    return request, (await settled(app, reply, progress) if reply.settles else reply)


async def settled(app: App, reply: Reply, progress: Callable[[Text], Awaitable[None]]) -> Reply:
    """The reply once the plan that it started has reached a final state."""
    shown: set[tuple[int, str]] = set()
    while True:
        plan = await app.book.get(reply.settles)
        for n, (step, record) in enumerate(zip(plan.draft.steps, plan.steps, strict=True)):
            if record.state != "waiting" and (n, record.state) not in shown:
                shown.add((n, record.state))
                await progress(
                    T("Step {n} of {all}: {text}: {state}", n=n + 1, all=len(plan.steps), text=step.text, state=record.state)
                )
        if plan.state in FINAL:
            break
        await asyncio.sleep(LOOK_S)
    card = plan_card(plan, app.clock.now())
    failure = None
    if plan.state not in {"verified", "undone"}:
        failure = Failure(plan.state, T("Plan {plan} ended as {state}.", plan=Mono(plan.code), state=Mono(plan.state)))
    data = plan_data(plan, app.clock.now())
    return Reply(
        card.blocks, card.buttons, hosts=(HostAnswer(plan.draft.host, data, failure),), error=None, settles=reply.settles
    )


def envelope(command: str, reply: Reply) -> dict[str, Any]:
    """The one JSON object of `--json`, in English."""

    def english(text: Text) -> str:
        return render(text, "en")

    def failure(one: Failure | None) -> dict[str, str] | None:
        return None if one is None else {"kind": one.kind, "text": english(one.text)}

    return {
        "command": command,
        "ok": reply.ok,
        "error": failure(reply.error),
        "hosts": [
            {"host": one.host, "ok": one.error is None, "error": failure(one.error), "data": plain_json(one.data, english) or {}}
            for one in reply.hosts
        ],
        "data": plain_json(reply.data, english) if reply.data is not None else {},
        "buttons": [{"label": english(button.label), "command": button.command} for row in reply.buttons for button in row],
    }


def complaint(reply: Reply, language: str) -> str:
    """What went wrong, in one line; empty when nothing did."""
    if reply.error is not None:
        return render(reply.error.text, language)
    return "; ".join(f"{one.host}: {render(one.error.text, language)}" for one in reply.hosts if one.error is not None)
