"""Reach a host: over SSH (asyncssh, only here) or this machine.

`open_host` is all others need; asyncssh is imported only when a target needs it.
"""

from __future__ import annotations

from remote.connect.base import Conversation, Done, Host, Target

__all__ = ["Conversation", "Done", "Host", "Target", "open_host"]


def open_host(target: Target) -> Host:
    """The host behind `target`. Nothing is opened before the first question."""
    if target.address == "local":
        from remote.connect.local import local_host

        return local_host(target)
    from remote.connect.ssh import ssh_host

    return ssh_host(target)
