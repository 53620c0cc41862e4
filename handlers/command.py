"""What a command is, and how wrong use is said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from handlers.reply import Reply
from handlers.request import Role
from remote.text import Text


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `run(request, *, port…)` names the ports it needs as keyword-only parameters; the process looks at the
    annotations once and hands them over (`prepare` in bot/dispatch.py).

    `usage` is the line that wrong use is answered with (`/top HOST [COUNT]`); `role` the least role that may use it.
    `effects` marks one that changes something: an event of it that is old (typed while the process was away) does not act.
    `hidden` ones (`/approve`, `/details`…) are left out of a chat's command menu. `open` ones answer a stranger in private.
    """

    name: str
    summary: Text
    usage: str
    run: Callable[..., Awaitable[Reply]] = field(compare=False)
    examples: tuple[str, ...] = ()
    role: Role = "viewer"
    hidden: bool = False
    open: bool = False
    effects: bool = False


class Usage(Exception):  # noqa: N818 - "wrong use", answered with the right use; not a failure
    """The words after the command make no sense; carries why. The reply shows it with the command's usage line."""

    def __init__(self, text: Text) -> None:
        """Keep the sentence."""
        super().__init__(text.msgid)
        self.text = text


class Refused(Exception):  # noqa: N818 - an answer, not a failure of ours
    """The request makes sense but is not allowed or not possible now. `kind` is for scripts."""

    def __init__(self, kind: str, text: Text) -> None:
        """Keep the stable `kind` and the sentence."""
        super().__init__(kind)
        self.kind = kind
        self.text = text
