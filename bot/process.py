"""A whole process: `memwarden run` on every chat, `memwarden ask` for one question."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from bot import (
    _lean,  # first, for its effect
    ask,
    logs,
)
from bot.app import build, serve
from bot.chat.base import ChatDown
from bot.chat.console import Console, plain
from bot.doorway import through
from bot.i18n import render
from bot.parts import App
from bot.refusal import refusal
from bot.store import StoreError
from handlers import discover

if TYPE_CHECKING:
    from bot.chat.base import Chat
    from bot.settings import Settings
    from remote.text import Text

FAILED = 1
USAGE = 2


def run(settings: Settings, person: str | None) -> int:
    """Run until told to stop. Gives the exit status; one line on stderr when it cannot start."""
    _lean.one_arena()
    # At a terminal the log would write into the conversation: only what must be seen does.
    logs.configure("warning" if settings.log == "info" and sys.stdin.isatty() else settings.log)
    try:
        return asyncio.run(_run(settings, person))
    except StoreError as trouble:
        sys.stderr.write(f"{trouble}\n")
        return FAILED
    except ChatDown as trouble:
        sys.stderr.write(f"{render(trouble.text, settings.language)}\n")
        return FAILED


async def _run(settings: Settings, person: str | None) -> int:
    stop = asyncio.Event()
    try:
        chats = _chats(settings, person, stop)
    except ask.NotAllowed as trouble:
        sys.stderr.write(f"{trouble}\n")
        return USAGE
    async with build(settings, chats) as app:
        await serve(app, stop)
    return app.status


def remote_chats(settings: Settings) -> dict[str, Chat]:
    """The chats of the settings but the console; a platform that is not configured is not even imported."""
    chats: dict[str, Chat] = {}
    commands = discover()
    if settings.telegram is not None:
        from bot.chat.telegram import Telegram

        one = settings.telegram
        chats["telegram"] = Telegram(one.token.get_secret_value(), api_base=one.api_base, light=one.light, commands=commands)
    if settings.slack is not None:
        from bot.chat.slack import Slack

        two = settings.slack
        chats["slack"] = Slack(
            two.bot_token.get_secret_value(), two.app_token.get_secret_value(), base_url=two.base_url, commands=commands
        )
    return chats


def _chats(settings: Settings, person: str | None, stop: asyncio.Event) -> dict[str, Chat]:
    """Every chat to run. The console is one of them when somebody has it and stdin is a terminal, or when there is no other."""
    chats = remote_chats(settings)
    terminal = sys.stdin is not None and sys.stdin.isatty()
    somebody = person is not None or any(one.console for one in settings.people.values())
    if (terminal and somebody) or not chats:
        name = ask.who(settings, person)
        language = ask.console_language(settings, name)
        on_end = None if chats else stop.set
        chats["console"] = Console(person=name, terminal=terminal, language=language, on_end=on_end, commands=discover())
    return chats


async def ask_once(settings: Settings, person: str | None, text: str, *, as_json: bool) -> int:
    """Ask through the running process, or alone. Gives the exit status."""
    logs.configure("warning")
    try:
        name = ask.who(settings, person)
    except ask.NotAllowed as trouble:
        return _refuse(str(trouble), as_json=as_json)
    try:
        async for said in through(settings.store, name, text, as_json=as_json):
            if "progress" in said:
                sys.stderr.write(f"{said['progress']}\n")
            elif "done" in said:
                return _print(said["done"], said["shown"], said["complaint"], as_json=as_json)
            else:
                return _refuse(str(said.get("complaint")), as_json=as_json)
        return _refuse("the running memwarden ended in mid-answer", as_json=as_json)
    except (ConnectionError, FileNotFoundError):
        pass
    except PermissionError:
        return _refuse("a memwarden runs on this store; only its own user or root may ask it", as_json=as_json)
    except StoreError as trouble:
        return _refuse(str(trouble), as_json=as_json)
    try:
        async with build(settings, {}) as app:
            return await _alone(app, name, text, as_json=as_json)
    except StoreError as trouble:
        return _refuse(str(trouble), as_json=as_json)


async def _alone(app: App, person: str, text: str, *, as_json: bool) -> int:
    language = ask.console_language(app.settings, person)

    async def progress(step: Text) -> None:
        sys.stderr.write(f"{render(step, language, app.clock.now())}\n")

    request, reply = await ask.answer(app, person, text, progress)
    await app.runner.drain(0)
    shown = plain(reply, language, app.clock.now())
    return _print(ask.envelope(request.command if request else "", reply), shown, ask.complaint(reply, language), as_json=as_json)


def _print(envelope: dict[str, Any], shown: str, complaint: str, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(envelope, ensure_ascii=False) + "\n")
    elif envelope["error"] is None:
        sys.stdout.write(f"{shown}\n")
    if complaint:
        sys.stderr.write(f"{' '.join(complaint.split())}\n")
    error = envelope["error"]
    if error is not None and error["kind"] == "usage":
        return USAGE
    return 0 if envelope["ok"] else FAILED


def _refuse(text: str, *, as_json: bool) -> int:
    if as_json:
        refusal(text, kind="refused")
    sys.stderr.write(f"{text}\n")
    return FAILED
