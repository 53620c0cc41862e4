"""Which host key is the right one, and what to say about another. Parsed once, not per connection."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import asyncssh

from remote.connect.base import Target
from remote.errors import HostError
from remote.text import Listing, Mono, T

_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")
"""What an `ssh-rsa` key signs with; SHA-1 is not among it."""


@dataclass(frozen=True, slots=True)
class HostKeys:
    """The keys a target may prove, and those it must never."""

    trusted: tuple[asyncssh.SSHKey, ...]
    revoked: tuple[asyncssh.SSHKey, ...] = ()

    def algorithms(self) -> list[str]:
        """Signature algorithms of the trusted keys, so that the server proves one of them and not another of its own."""
        names: list[str] = []
        for key in self.trusted:
            name = key.get_algorithm()
            names += [n for n in (_RSA_SIGNATURES if name == "ssh-rsa" else (name,)) if n not in names]
        return names

    def accepts(self, key: asyncssh.SSHKey) -> bool:
        """Whether `key` is one of the trusted and not revoked."""
        return key in self.trusted and key not in self.revoked


def host_keys(target: Target) -> HostKeys:
    """The target's keys from its settings and its known_hosts. Raises HostError `host-key-unknown` for unreadable ones."""
    trusted = [_pinned(target, line) for line in target.host_keys]
    if target.known_hosts is None:
        return HostKeys(tuple(trusted))
    known = _known_hosts(target, os.path.expanduser(target.known_hosts))  # noqa: PTH111 - a path of the settings
    # The name is matched as it is written, never what DNS makes of it; a key without the port serves too, as ssh has it.
    found, _, revoked, *_ = asyncssh.match_known_hosts(known, target.address, target.address, target.port)
    return HostKeys((*trusted, *found), tuple(revoked))


def _pinned(target: Target, line: str) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_public_key(line)
    except asyncssh.KeyImportError as error:
        raise HostError(
            "host-key-unknown",
            T(
                'The host_key of {host} in the settings is not a public key: {line}. It looks like "ssh-ed25519 AAAA…".',
                host=target.name,
                line=Mono(line[:80]),
            ),
        ) from error


def _known_hosts(target: Target, path: str) -> asyncssh.SSHKnownHosts:
    try:
        return _parsed(path, os.stat(path).st_mtime_ns)  # noqa: PTH116 - a path of the settings
    except (OSError, ValueError) as error:
        raise HostError(
            "host-key-unknown",
            T("The known_hosts file {path} of {host} cannot be read.", path=Mono(path), host=target.name),
        ) from error


@lru_cache(maxsize=16)
def _parsed(path: str, changed_ns: int) -> asyncssh.SSHKnownHosts:  # noqa: ARG001 - a changed file is another entry
    return asyncssh.read_known_hosts(path)


def refusal(target: Target, keys: HostKeys, offered: asyncssh.SSHKey) -> HostError:
    """The error for a key that is not the right one: both fingerprints and what to do."""
    got = Mono(offered.get_fingerprint("sha256"))
    line = Mono(settings_line(offered))
    if offered in keys.revoked:
        return HostError(
            "host-key-changed",
            T("{host} proved the key {got}, which known_hosts marks as revoked. Do not connect.", host=target.name, got=got),
        )
    if not keys.trusted:
        return HostError(
            "host-key-unknown",
            T(
                "The key of {host} is not known. It offers {got}. Compare that with `ssh-keygen -lf` on the host itself; "
                "if it is the same, add to [hosts.{section}]: {line}",
                host=target.name,
                got=got,
                section=target.name,
                line=line,
            ),
        )
    return HostError(
        "host-key-changed",
        T(
            "The key of {host} has changed: it offers {got}, but {expected} is expected. Somebody may be in between, or "
            "the host was set up anew. If you know why, put into [hosts.{section}]: {line}",
            host=target.name,
            got=got,
            expected=_fingerprints(keys.trusted),
            section=target.name,
            line=line,
        ),
    )


def settings_line(key: asyncssh.SSHKey) -> str:
    """The settings' line that pins `key`."""
    algorithm, data = key.export_public_key().decode("ascii").split()[:2]
    return f'host_key = "{algorithm} {data}"'


def _fingerprints(keys: Sequence[asyncssh.SSHKey]) -> Listing:
    return Listing(tuple(Mono(key.get_fingerprint("sha256")) for key in keys))
