"""What `--json` prints when nothing was asked: the same one object as always. It imports nothing heavy."""

from __future__ import annotations

import json
from typing import Any

import typer


def refusal(text: str, *, kind: str, command: str = "") -> None:
    """`--json` prints one object, always, refusals too."""
    empty: dict[str, Any] = {
        "command": command,
        "ok": False,
        "error": {"kind": kind, "text": text},
        "hosts": [],
        "data": {},
        "buttons": [],
    }
    typer.echo(json.dumps(empty, ensure_ascii=False))
