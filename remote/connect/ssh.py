"""A host over SSH: one connection, opened on first use and again when lost, several shells on it."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import asyncssh

from remote.connect.base import Target
from remote.connect.exchange import LinkCut
from remote.connect.host import ShellHost
from remote.connect.hostkeys import HostKeys, host_keys, refusal
from remote.connect.pipe import Pipe
from remote.connect.supervise import start_command
from remote.errors import HostError
from remote.text import Mono, Span, T

KEEPALIVE_S = 15
KEEPALIVE_COUNT = 3
WINDOW_BYTES = 1 << 18
FIRST_BACKOFF_S = 1.0
LAST_BACKOFF_S = 120.0
CLOSE_S = 2.0
# aes128-gcm costs a quarter less CPU a packet than asyncssh's first choice.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr", "aes128-ctr")
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")

asyncssh.set_log_level(logging.ERROR)


class _SshPipe(Pipe, asyncssh.SSHClientSession[bytes]):
    """A channel's stdin and stdout; stderr is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype is None:
            self.feed(data)

    def eof_received(self) -> bool:
        self.feed_end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.cut = exc is not None
        self.feed_end()

    def write(self, data: bytes) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(data)

    def end_input(self) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write_eof()

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self.feed_end()

    def _pause(self) -> None:
        if self._channel is not None:
            self._channel.pause_reading()

    def _resume(self) -> None:
        if self._channel is not None:
            self._channel.resume_reading()


class _Client(asyncssh.SSHClient):
    """Judges the host's key and sees the connection end."""

    def __init__(self, keys: HostKeys) -> None:
        self._keys = keys
        self.offered: asyncssh.SSHKey | None = None
        self.lost = False

    def validate_host_public_key(
        self,
        host: str,  # noqa: ARG002 - the keys are one host's already
        addr: str,  # noqa: ARG002
        port: int,  # noqa: ARG002
        key: asyncssh.SSHKey,
    ) -> bool:
        self.offered = key
        return self._keys.accepts(key)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh's signature
        self.lost = True


class _Connection:
    """An open connection and what is known of it."""

    def __init__(self, ssh: asyncssh.SSHClientConnection, client: _Client) -> None:
        self.ssh = ssh
        self._client = client
        self.dropped = False

    @property
    def usable(self) -> bool:
        return not self._client.lost and not self.dropped

    @property
    def fingerprint(self) -> str:
        offered = self._client.offered
        return "" if offered is None else offered.get_fingerprint("sha256")


class SshLink:
    """Shells of one host over one connection. Who asks while it is being opened shares the attempt."""

    def __init__(self, target: Target, jump: SshLink | None, jitter: Callable[[], float] = random.random) -> None:
        """Nothing is opened or read yet."""
        self._target = target
        self._jump = jump
        self._jitter = jitter
        self._keys: HostKeys | None = None
        self._login: _Login | None = None
        self._connection: _Connection | None = None
        self._attempt: asyncio.Task[_Connection] | None = None
        self._failures = 0
        self._failure: HostError | None = None
        self._not_before = 0.0
        self._host_key = ""
        self.users = 1
        """How many hosts it serves; a jump host's link is shared."""
        self.plans = 0

    @property
    def target(self) -> Target:
        """What it leads to."""
        return self._target

    @property
    def host_key(self) -> str:
        """Fingerprint of the key the host proved; empty before."""
        return self._host_key

    async def open(self, mark: str, *, background: bool) -> Pipe:
        """A new shell, on a new connection when the present one turns out to be dead. Raises HostError."""
        try:
            return await self._session(await self.connection(background=background), mark)
        except LinkCut:
            return await self._session(await self.connection(background=background), mark)

    async def _session(self, connection: _Connection, mark: str) -> Pipe:
        pipe = _SshPipe()
        try:
            async with asyncio.timeout(self._target.connect_timeout_s):
                await connection.ssh.create_session(
                    lambda: pipe, start_command(mark), encoding=None, window=WINDOW_BYTES, request_pty=False
                )
        except TimeoutError as error:
            self.drop()
            raise HostError(
                "timeout", T("{host} did not open a session in time; the connection was dropped.", host=self._target.name)
            ) from error
        except asyncssh.ChannelOpenError as error:
            if not connection.usable:
                raise LinkCut(self._target.name, started=False) from error
            raise HostError(
                "busy",
                T("{host} opens no more sessions. Look at MaxSessions in its sshd_config.", host=self._target.name),
            ) from error
        except (asyncssh.Error, OSError) as error:
            self.drop()
            raise LinkCut(self._target.name, started=False) from error
        except asyncio.CancelledError:
            pipe.close()
            raise
        return pipe

    async def connection(self, *, background: bool) -> _Connection:
        """The open connection, connecting if need be; in the background only as often as the backoff allows."""
        if self._connection is not None and self._connection.usable:
            return self._connection
        if background and self._failure is not None and asyncio.get_running_loop().time() < self._not_before:
            raise self._failure
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._connect(background=background))
            self._attempt.add_done_callback(self._attempt_done)
        # Shielded: others may be waiting for the same attempt.
        return await asyncio.shield(self._attempt)

    def _attempt_done(self, attempt: asyncio.Task[_Connection]) -> None:
        self._attempt = None
        if attempt.cancelled():
            return
        error = attempt.exception()
        if error is None:
            self._failures, self._failure = 0, None
            self._connection = attempt.result()
            self._host_key = self._connection.fingerprint
        elif isinstance(error, HostError):
            delay_s = min(FIRST_BACKOFF_S * 2**self._failures, LAST_BACKOFF_S) * (0.5 + self._jitter())
            self._failures, self._failure = min(self._failures + 1, 16), error
            self._not_before = asyncio.get_running_loop().time() + delay_s

    async def _connect(self, *, background: bool) -> _Connection:
        if self._keys is None:
            self._keys = host_keys(self._target)
        if self._login is None:
            self._login = _Login.of(self._target)
        tunnel = None if self._jump is None else (await self._jump.connection(background=background)).ssh
        algorithms = self._keys.algorithms()
        try:
            return await self._attempt_once(self._keys, self._login, tunnel, algorithms)
        except asyncssh.KeyExchangeFailed as error:
            if not algorithms:
                raise self._unreachable(T("no common algorithms")) from error
        # The host has no key of the pinned type any more: see what it has, to say so. It is refused in any case.
        try:
            return await self._attempt_once(self._keys, self._login, tunnel, ())
        except asyncssh.KeyExchangeFailed as error:
            raise self._unreachable(T("no common algorithms")) from error

    async def _attempt_once(
        self, keys: HostKeys, login: _Login, tunnel: asyncssh.SSHClientConnection | None, algorithms: Sequence[str]
    ) -> _Connection:
        client = _Client(keys)
        try:
            async with asyncio.timeout(self._target.connect_timeout_s):
                ssh = await asyncssh.connect(
                    self._target.address,
                    self._target.port,
                    tunnel=tunnel,
                    client_factory=lambda: client,
                    server_host_key_algs=list(algorithms) or (),
                    **login.options(),
                )
        except asyncssh.KeyExchangeFailed:
            raise
        except TimeoutError as error:
            raise self._timeout() from error
        except asyncssh.HostKeyNotVerifiable as error:
            raise self._refusal(keys, client, error) from error
        except asyncssh.PermissionDenied as error:
            raise login.refused(self._target) from error
        except (asyncssh.Error, OSError) as error:
            raise self._unreachable(_reason(error)) from error
        return _Connection(ssh, client)

    def _refusal(self, keys: HostKeys, client: _Client, error: asyncssh.HostKeyNotVerifiable) -> HostError:
        if client.offered is None:
            return self._unreachable(Mono(error.reason[:100]))
        return refusal(self._target, keys, client.offered)

    def _timeout(self) -> HostError:
        return HostError(
            "timeout",
            T(
                "{host} ({address}) did not let us in within {limit}. Is it up, and does a firewall drop the connection?",
                host=self._target.name,
                address=Mono(f"{self._target.address}:{self._target.port}"),
                limit=Span(self._target.connect_timeout_s),
            ),
        )

    def _unreachable(self, reason: Any) -> HostError:  # noqa: ANN401 - any value of a Text
        return HostError(
            "unreachable",
            T(
                "{host} ({address}) cannot be reached: {reason}.",
                host=self._target.name,
                address=Mono(f"{self._target.address}:{self._target.port}"),
                reason=reason,
            ),
        )

    def drop(self) -> None:
        """Do not use the present connection again, and end it; but not under a plan: only what hangs is ended then."""
        if self._connection is not None and not self.plans:
            self._connection.dropped = True
            self._connection.ssh.abort()
            self._connection = None

    async def close(self) -> None:
        """End the connection and the way to it, once the last user closes it."""
        self.users -= 1
        if self.users > 0:
            return
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.dropped = True
            connection.ssh.close()
            await _closed(connection.ssh)
        if self._jump is not None:
            await self._jump.close()


async def _closed(ssh: asyncssh.SSHClientConnection) -> None:
    try:
        async with asyncio.timeout(CLOSE_S):
            await ssh.wait_closed()
    except (TimeoutError, asyncssh.Error, OSError):
        ssh.abort()


def _reason(error: Exception) -> Any:  # noqa: ANN401 - any value of a Text
    """Why it failed, in words, as far as they are ours."""
    match error:
        case ConnectionRefusedError():
            return T("nothing listens there")
        case socket.gaierror():
            return T("its name is not known to DNS")
        case asyncssh.ChannelOpenError():
            return T("the jump host could not reach it")
        case asyncssh.ConnectionLost() | ConnectionResetError():
            return T("it closed the connection during login")
        case OSError(strerror=str(words)):
            return Mono(words)
        case asyncssh.Error(reason=reason):
            return Mono("".join(char for char in reason if char.isprintable())[:100])
        case _:
            return Mono(type(error).__name__)


class _Login:
    """Who we are on a host: keys are read once."""

    def __init__(self, target: Target, keys: Sequence[asyncssh.SSHKeyPair], agent: str | None) -> None:
        self._user = target.user
        self._keys = keys
        self._agent = agent

    @classmethod
    def of(cls, target: Target) -> _Login:
        """Read the target's key, or the default ones. Raises HostError `login-refused` for a key that cannot be read."""
        if target.key is None:
            return cls(target, _default_keys(), os.environ.get("SSH_AUTH_SOCK") or None)
        path = Path(target.key).expanduser()
        try:
            return cls(target, asyncssh.load_keypairs(str(path)), None)
        except OSError as error:
            words = Mono(error.strerror or type(error).__name__)
            raise _bad_key(target, path, words) from error
        except ValueError as error:
            # asyncssh says both with the same kinds of error; only its words tell them apart.
            locked = any(word in str(error).lower() for word in ("passphrase", "encrypt"))
            reason = T("it has a passphrase, use the agent") if locked else T("it is not a private key")
            raise _bad_key(target, path, reason) from error

    def options(self) -> dict[str, Any]:
        """What every connection is opened with: nothing from ~/.ssh/config, no forwarding, public keys only."""
        return {
            "config": None,
            "username": self._user,
            "client_keys": list(self._keys) or None,
            "agent_path": self._agent,
            "agent_forwarding": False,
            "preferred_auth": "publickey",
            "gss_host": None,
            "x509_trusted_certs": None,
            "known_hosts": ([], [], []),
            "encryption_algs": list(CIPHERS),
            "compression_algs": None,
            "keepalive_interval": KEEPALIVE_S,
            "keepalive_count_max": KEEPALIVE_COUNT,
            "connect_timeout": None,
        }

    def refused(self, target: Target) -> HostError:
        """What to do when the host does not know us."""
        return HostError(
            "login-refused",
            T(
                "{host} refuses the login of {user}. Put the bot's public key into its authorized_keys, "
                "or name another user or key in [hosts.{section}].",
                host=target.name,
                user=Mono(target.user),
                section=target.name,
            ),
        )


def _bad_key(target: Target, path: Path, reason: Any) -> HostError:  # noqa: ANN401 - any value of a Text
    return HostError(
        "login-refused",
        T("The key {path} for {host} cannot be used: {reason}.", path=Mono(str(path)), host=target.name, reason=reason),
    )


def _default_keys() -> Sequence[asyncssh.SSHKeyPair]:
    """The keys that ssh tries by itself, those without a passphrase."""
    pairs: list[asyncssh.SSHKeyPair] = []
    for name in DEFAULT_KEYS:
        path = Path("~/.ssh", name).expanduser()
        try:
            pairs += asyncssh.load_keypairs(str(path))
        except (OSError, ValueError):
            continue
    return pairs


_jumps: WeakValueDictionary[Target, SshLink] = WeakValueDictionary()
"""Fifty hosts behind one jump host share one connection to it."""


def ssh_host(target: Target) -> ShellHost:
    """A host over SSH, through its jump hosts."""
    return ShellHost(SshLink(target, _jump(target.jump)))


def _jump(target: Target | None) -> SshLink | None:
    if target is None:
        return None
    link = _jumps.get(target)
    if link is None or link.users <= 0:
        link = _jumps[target] = SshLink(target, _jump(target.jump))
    else:
        link.users += 1
    return link
