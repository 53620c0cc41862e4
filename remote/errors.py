"""What can go wrong with a host, as typed errors that say what failed and what to try."""

from __future__ import annotations

from remote.text import Text


class HostError(Exception):
    """A host could not be asked or changed. `kind` is a stable word for scripts; `text` is for people.

    Kinds: `unreachable`, `login-refused`, `host-key-unknown`, `host-key-changed`, `no-shell`, `timeout`,
    `cut` (the link ended in mid-answer), `flood` (the host streamed without end), `busy`, `refused`.
    """

    def __init__(self, kind: str, text: Text) -> None:
        """Keep the stable `kind` and the sentence for people."""
        super().__init__(kind)
        self.kind = kind
        self.text = text


class Unparsable(ValueError):  # noqa: N818 - reads as what it says: the output was unparsable
    """A fact's script printed something its parser does not understand; carries the first bad line."""

    def __init__(self, line: str) -> None:
        """Keep the offending line, shortened: it comes from the host."""
        super().__init__(line[:200])
        self.line = line[:200]
