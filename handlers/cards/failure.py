"""How wrong use, refusals and hosts that do not answer are said."""

from __future__ import annotations

from typing import TypeVar

from handlers.cards.choose import choose_host
from handlers.command import Command, Refused, Usage
from handlers.reply import Block, Failure, HostAnswer, Line, Reply, Title
from handlers.request import Request
from remote.errors import HostError
from remote.facts.base import Answers, Fact, Unreadable
from remote.facts.units import UNITS, Units
from remote.text import Mono, T, Text

A = TypeVar("A")

_ABSENT = {"missing", "unsupported"}


def refusal(error: Usage | Refused, command: Command | None, request: Request) -> Reply:
    """What wrong use or a refusal is answered with: a message when it was typed, a toast when it was pressed."""
    if isinstance(error, Usage):
        return _wrong_use(error, command, request)
    if error.kind == "which-host" and not request.pressed:
        return choose_host(request.command, request.room.hosts, request.words)
    failure = Failure(error.kind, error.text)
    if request.pressed:
        return Reply(toast=error.text, error=failure)
    return Reply((Title(error.text, "warning"),), error=failure)


def _wrong_use(error: Usage, command: Command | None, request: Request) -> Reply:
    failure = Failure("usage", error.text)
    if request.pressed:
        return Reply(toast=error.text, error=failure)
    blocks: tuple[Block, ...] = (Title(error.text, "warning"),)
    if command is not None:
        blocks += (Line(T("Use: {usage}", usage=Mono(command.usage))),)
        if command.examples:
            blocks += (Line(T("For example: {example}", example=Mono(command.examples[0]))),)
    return Reply(blocks, error=failure)


def host_failed(host: str, error: HostError) -> tuple[Block, ...]:
    """The lines for a host that did not answer, or that lacks what the command needs."""
    if error.kind == "unreadable":
        return (Title(error.text, "warning"),)
    return (Title(T("{host} did not answer", host=Mono(host)), "critical"), Line(error.text))


def host_trouble(host: str, error: HostError) -> HostAnswer:
    """The answer of a host that did not answer."""
    return HostAnswer(host, None, Failure(error.kind, error.text))


def unreadable(host: str, why: Unreadable) -> HostError:
    """A fact that the whole command needs could not be read: the host's answer is an error."""
    return HostError("unreadable", T("{host} could not be read: {why}", host=Mono(host), why=why.why))


def needed(host: str, answers: Answers, fact: Fact[A], absent: Text | None = None) -> A:
    """The answer to a fact that the command cannot do without. Raises HostError, in the words of `absent` where the host has no
    such thing."""
    answer = answers[fact]
    if isinstance(answer, Unreadable):
        raise HostError("unreadable", absent) if absent and answer.kind in _ABSENT else unreadable(host, answer)
    return answer


def needed_units(host: str, answers: Answers) -> Units:
    """The units, for a command that changes some. Raises HostError."""
    return needed(host, answers, UNITS, T("There is no systemd on {host}, so I can propose no fix there.", host=Mono(host)))
