"""What a step of a plan is. A step is data first: what a person approves is exactly what runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from remote.facts.processes import Processes
from remote.text import Text, dump, load_text

Params = Mapping[str, str | int | bool | tuple[str, ...] | tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Step:
    """One change. `kind` names its remedy, `target` the unit or process, `params` all that its scripts need.

    `commands` and `undo` are the exact commands as shown and run (sudo is put before them by the runner where it is
    needed); `undo` is empty when it cannot be undone, and `cannot_undo` then says what is lost. `check` is a script that exits 0
    when the step may still run (it re-reads the precondition: unit files' hash, process identity), `holds` one that exits 0
    when the step's effect is there (asked after applying, and after a cut link: it tells which steps hold).
    `busy` exits 0 while what the step began still goes on without it (systemd's job outlives the systemctl that asked for it).
    `undone` is the opposite of `holds`: it exits 0 when all is as it was before; `undo_text` says in words what undo does.
    `deadline_s` bounds the commands. None of the scripts may contain a secret or a raw command line.
    """

    kind: str
    target: str
    text: Text
    commands: tuple[str, ...]
    undo: tuple[str, ...]
    check: str
    holds: str
    undone: str = ""
    busy: str = ""
    undo_text: Text | None = None
    frees_bytes: int = 0
    interrupts: Text | None = None
    cannot_undo: Text | None = None
    deadline_s: float = 60.0
    params: Params = field(default_factory=dict)

    def canonical(self) -> dict[str, Any]:
        """What the digest covers: what it does and what it was drawn from, never wording."""
        return {
            "kind": self.kind,
            "target": self.target,
            "params": dict(self.params),
            "commands": self.commands,
            "undo": self.undo,
            "check": self.check,
            "holds": self.holds,
            "undone": self.undone,
            "busy": self.busy,
        }


@dataclass(frozen=True, slots=True)
class Draft:
    """A plan before it has an id: the steps in order, why, and what it was drawn from (`basis`: boot id, host key…).

    `verify` is a script that exits 0 when the whole plan has reached its end (its output is shown when it does not).
    """

    host: str
    reason: Text
    steps: tuple[Step, ...]
    basis: Mapping[str, str]
    verify: str
    frees_bytes: int
    findings: tuple[Text, ...] = ()
    undoes: str | None = None

    @property
    def digest(self) -> str:
        """sha256 (hex) over host, basis and steps in canonical JSON."""
        body = {
            "host": self.host,
            "basis": dict(sorted(self.basis.items())),
            "undoes": self.undoes,
            "verify": self.verify,
            "steps": [step.canonical() for step in self.steps],
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Remedy:
    """One kind of step, found by its file. `order` is its place within a plan: extra beats and workers, strays, … the web last.

    `same` looks once more, right before the step, at what a script on the host cannot see: given the processes as they
    are now and the key of the digests, whether the step's target is still what was shown.
    """

    kind: str
    title: Text
    order: int
    same: Callable[[Step, Processes, bytes], bool] | None = field(default=None, compare=False)


class CannotDraft(Exception):  # noqa: N818 - an answer: no plan can be drawn, and why
    """There is something to fix, but no plan that would be safe; carries the reason."""

    def __init__(self, text: Text) -> None:
        """Keep the sentence."""
        super().__init__(text.msgid)
        self.text = text


def invert(step: Step) -> Step | None:
    """The step that takes this one back; None when it cannot be."""
    if not step.undo or step.undo_text is None:
        return None
    return Step(
        kind=step.kind,
        target=step.target,
        text=step.undo_text,
        commands=step.undo,
        undo=step.commands,
        check="",
        holds=step.undone,
        undone=step.holds,
        busy=step.busy,
        undo_text=step.text,
        deadline_s=step.deadline_s,
        params={**step.params, "undoes": True},
    )


def dump_draft(draft: Draft) -> dict[str, Any]:
    """The draft as JSON for a row; `load_draft` gives back an equal one."""
    return {
        "host": draft.host,
        "reason": dump(draft.reason),
        "basis": dict(draft.basis),
        "verify": draft.verify,
        "frees_bytes": draft.frees_bytes,
        "findings": [dump(f) for f in draft.findings],
        "undoes": draft.undoes,
        "steps": [_dump_step(step) for step in draft.steps],
    }


def load_draft(data: Mapping[str, Any]) -> Draft:
    """The draft that `dump_draft` wrote."""
    return Draft(
        host=data["host"],
        reason=load_text(data["reason"]),
        basis=data["basis"],
        verify=data["verify"],
        frees_bytes=data["frees_bytes"],
        findings=tuple(load_text(f) for f in data["findings"]),
        undoes=data["undoes"],
        steps=tuple(_load_step(step) for step in data["steps"]),
    )


def _dump_step(step: Step) -> dict[str, Any]:
    return {
        **step.canonical(),
        "text": dump(step.text),
        "undo_text": step.undo_text and dump(step.undo_text),
        "frees_bytes": step.frees_bytes,
        "deadline_s": step.deadline_s,
        "interrupts": step.interrupts and dump(step.interrupts),
        "cannot_undo": step.cannot_undo and dump(step.cannot_undo),
    }


def _tuples(value: Any) -> Any:  # noqa: ANN401 - JSON
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


def _load_step(data: Mapping[str, Any]) -> Step:
    return Step(
        kind=data["kind"],
        target=data["target"],
        text=load_text(data["text"]),
        commands=tuple(data["commands"]),
        undo=tuple(data["undo"]),
        check=data["check"],
        holds=data["holds"],
        undone=data["undone"],
        busy=data["busy"],
        undo_text=load_text(data["undo_text"]) if data["undo_text"] else None,
        frees_bytes=data["frees_bytes"],
        interrupts=load_text(data["interrupts"]) if data["interrupts"] else None,
        cannot_undo=load_text(data["cannot_undo"]) if data["cannot_undo"] else None,
        deadline_s=data["deadline_s"],
        params={name: _tuples(value) for name, value in data["params"].items()},
    )
