"""Which host? Buttons to choose from, where nobody said."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from handlers.reply import Button, Failure, Line, Reply, Title
from remote.text import Listing, Mono, T

MOST = 12
IN_A_ROW = 2  # more are cut on a phone


def button_rows(buttons: Sequence[Button]) -> tuple[tuple[Button, ...], ...]:
    """The buttons, two in a row."""
    return tuple(tuple(buttons[at : at + IN_A_ROW]) for at in range(0, len(buttons), IN_A_ROW))


def choose_host(command: str, hosts: Sequence[str], rest: Sequence[str] = (), *, kind: str = "which-host") -> Reply:
    """Ask for which of `hosts` the command is meant. `rest` are the words that follow the host."""
    question = T("Which host?")
    buttons = [Button(T("{host}", host=Mono(host)), shlex.join((f"/{command}", host, *rest)), "plain") for host in hosts[:MOST]]
    names = Listing(tuple(Mono(host) for host in hosts))
    line = Line(T("Name it: {usage}. I know {hosts}.", usage=Mono(shlex.join((f"/{command}", "HOST", *rest))), hosts=names))
    blocks = (Title(question), line) if hosts else (Title(T("No host can be seen from this chat."), "warning"),)
    return Reply(blocks, button_rows(buttons), error=Failure(kind, blocks[0].text))
