"""Kills as rows keep them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from remote.findings.kill import Kill, Member
from remote.text import dump, load_text


def dump_kill(kill: Kill) -> dict[str, Any]:
    """The kill as JSON, lists for tuples, as the row gives it back."""
    data = {**asdict(kill), "at": kill.at.isoformat(), "advice": dump(kill.advice)}
    return data | {"evidence": list(kill.evidence), "members": list(data["members"])}


def load_kill(data: dict[str, Any]) -> Kill:
    """What `dump_kill` kept, of this version or an older one."""
    known = {
        "at": datetime.fromisoformat(data["at"]),
        "advice": load_text(data["advice"]),
        "evidence": tuple(data["evidence"]),
        "members": tuple(Member(**member) for member in data.get("members", ())),
    }
    return Kill(**{**data, **known})
