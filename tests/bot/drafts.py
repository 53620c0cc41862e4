"""Drafts of plain shell steps that leave their marks in a directory, and Requests to decide on them."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from handlers.request import Person, Request, Role, Room
from remote.remedies.base import Draft, Step
from remote.text import Mono, T
from tests.clock import NOW

HOST = "prod"


def touching(place: Path, name: str, **more: Any) -> Step:  # noqa: ANN401
    """A step that makes the file `name`, and each time it runs (or is undone) adds a line to `log`."""
    file, log = shlex.quote(str(place / name)), shlex.quote(str(place / "log"))
    step = Step(
        kind="restart-unit",
        target=name,
        text=T("Make {name}", name=Mono(name)),
        commands=(f"echo do {name} >>{log}", f"touch {file}"),
        undo=(f"echo undo {name} >>{log}", f"rm -f {file}"),
        check="true",
        holds=f"[ -e {file} ]",
        undone=f"[ ! -e {file} ]",
        undo_text=T("Remove {name}", name=Mono(name)),
        deadline_s=20.0,
    )
    return replace(step, **more)


def draft(*steps: Step, host: str = HOST, verify: str = "true", root: str = "uid", **more: Any) -> Draft:  # noqa: ANN401
    """A plan of these steps."""
    return Draft(
        host=host, reason=T("A test"), steps=steps, basis={"boot_id": "b", "root": root}, verify=verify, frees_bytes=0, **more
    )


def plain(name: str = "a", **more: Any) -> Draft:  # noqa: ANN401
    """A plan of one step that nobody runs."""
    return draft(touching(Path("/nowhere"), name), **more)


def request(name: str = "anna", role: Role = "approver", hosts: tuple[str, ...] = (HOST,), command: str = "approve") -> Request:
    """What somebody in the ops chat asks."""
    return Request(f"event:{name}", Person(name, name, role), Room("ops", "console", hosts), command, (), NOW, "en")
