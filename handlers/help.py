"""/help: what can be asked, and how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from handlers.command import Command, Usage
from handlers.ports.commands import Commands
from handlers.reply import Block, Button, Code, Line, Reply, Title
from handlers.request import Request, Role
from remote.text import Mono, T, Text


@dataclass(frozen=True, slots=True)
class CommandRow:
    """One command."""

    name: str
    usage: str
    summary: Text
    examples: tuple[str, ...]
    role: Role


@dataclass(frozen=True, slots=True)
class HelpData:
    """The JSON of /help."""

    commands: tuple[CommandRow, ...]


async def run(request: Request, *, commands: Commands) -> Reply:
    """All commands, or one with its examples."""
    match request.words:
        case ():
            shown = tuple(one for one in commands.all() if not one.hidden)
            return Reply(tuple(_all(shown)), _buttons(), data=_data(shown))
        case (word,):
            one = commands.find(word.removeprefix("/"))
            if one is None:
                raise Usage(_unknown(word, commands))
            return Reply(tuple(_one(one)), data=_data((one,)))
        case _:
            raise Usage(T("One command at a time, please."))


def _data(shown: tuple[Command, ...]) -> HelpData:
    return HelpData(tuple(CommandRow(one.name, one.usage, one.summary, one.examples, one.role) for one in shown))


def _all(shown: tuple[Command, ...]) -> Iterator[Block]:
    yield Title(T("What you can ask me"))
    for one in shown:
        yield Line(T("{usage}: {summary}", usage=Mono(one.usage), summary=one.summary))
    yield Line(T("HOST is a host, a group like {group}, or {all}. Leave it out where only one can be seen.",
                 group=Mono("@web"), all=Mono("all")))  # fmt: skip


def _one(one: Command) -> Iterator[Block]:
    yield Title(T("{usage}", usage=Mono(one.usage)))
    yield Line(one.summary)
    if one.examples:
        yield Code(one.examples)


def _buttons() -> tuple[tuple[Button, ...], ...]:
    return ((Button(T("Hosts"), "/hosts"), Button(T("Plans"), "/plans")),)


def _unknown(word: str, commands: Commands) -> Text:
    shown = Mono(f"/{word.removeprefix('/')[:32]}")
    near = get_close_matches(word.removeprefix("/"), [one.name for one in commands.all()], 1, 0.5)
    if near:
        return T("There is no command {word}. Did you mean {near}?", word=shown, near=Mono(f"/{near[0]}"))
    return T("There is no command {word}. {help} lists them.", word=shown, help=Mono("/help"))


COMMAND = Command("help", T("What can be asked, and how"), "/help [COMMAND]", run, ("/help", "/help fix"))
