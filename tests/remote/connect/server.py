"""An SSH server in this process (asyncssh's own) that runs the machine's real shells, and login shells gone wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import asyncssh

from remote.connect.base import Target

CLIENT_KEY = asyncssh.generate_private_key("ssh-ed25519")
HOST_KEY = asyncssh.generate_private_key("ssh-ed25519")


def line_of(key: asyncssh.SSHKey) -> str:
    """A public key as a settings line has it."""
    return key.export_public_key().decode().strip()


@dataclass
class LoginServer:
    """A host: `login` is what the account's login shell does with the command it is given (`$0`)."""

    login: str = 'eval "$0"'
    shell: Sequence[str] = ("/bin/sh",)
    port: int = 0
    key_path: str = ""
    sessions: int = 0
    """How many sessions were ever opened."""
    children: set[int] = field(default_factory=set)

    _handlers: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def open_sessions(self) -> int:
        """How many are open now."""
        return len(self.children)

    async def handle(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """One session: the login shell with the session's stdin and stdout."""
        self.sessions += 1
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)
        command = process.command or ""
        # As sshd does: the account's shell is given the command; /bin/sh is replaced by the shell under test.
        if command.endswith("/bin/sh"):
            command = command.removesuffix("/bin/sh") + shlex.join(self.shell)
        out, into = os.pipe()
        child = await asyncio.create_subprocess_exec(
            "/bin/bash",
            "-c",
            self.login,
            command,
            stdin=asyncio.subprocess.PIPE,
            stdout=into,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "HOME": "/"},
        )
        os.close(into)
        self.children.add(child.pid)
        assert child.stdin is not None
        stdout = asyncio.StreamReader()
        reading, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stdout), os.fdopen(out, "rb")
        )
        pumps = [
            asyncio.create_task(_pump_in(process, child.stdin)),
            asyncio.create_task(_pump_out(stdout, process)),
        ]
        try:
            await asyncio.wait(pumps[1:])
            # Nobody reads any more: what still writes gets SIGPIPE, as under sshd.
            reading.close()
            process.exit(await child.wait() & 0xFF)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.children.discard(child.pid)

    async def settle(self) -> None:
        """Wait until all sessions are over; those that are not soon are ended."""
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=2)
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)
        for task in tuple(self._handlers):
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    def target(self, **changes: object) -> Target:
        """How to reach it."""
        values: dict[str, object] = {
            "name": "prod",
            "address": "127.0.0.1",
            "port": self.port,
            "user": "ops",
            "key": self.key_path,
            "host_keys": (line_of(HOST_KEY),),
        }
        return Target(**(values | changes))  # type: ignore[arg-type]


async def _pump_in(process: asyncssh.SSHServerProcess[bytes], stdin: asyncio.StreamWriter) -> None:
    """As sshd: the child's stdin ends when the channel or the connection does."""
    try:
        while data := await process.stdin.read(65536):
            stdin.write(data)
            await stdin.drain()
    except (asyncssh.Error, OSError):
        pass
    finally:
        stdin.close()


async def _pump_out(stdout: asyncio.StreamReader, process: asyncssh.SSHServerProcess[bytes]) -> None:
    try:
        while data := await stdout.read(65536):
            process.stdout.write(data)
            await process.stdout.drain()
    except (asyncssh.Error, OSError):
        pass


class _Accounts(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:  # noqa: ARG002 - asyncssh's signature
        return True

    def connection_requested(self, *_: object) -> bool:
        return True  # a jump host

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == "ops" and key == CLIENT_KEY.convert_to_public()


@contextlib.asynccontextmanager
async def ssh_server(
    key_path: str,
    *,
    login: str = 'eval "$0"',
    shell: Sequence[str] = ("/bin/sh",),
    host_key: asyncssh.SSHKey = HOST_KEY,
) -> AsyncIterator[LoginServer]:
    """Serve on a free port of loopback until the block ends."""
    host = LoginServer(login, shell, key_path=key_path)
    acceptor = await asyncssh.create_server(
        _Accounts,
        "127.0.0.1",
        0,
        server_host_keys=[host_key],
        process_factory=host.handle,
        encoding=None,
    )
    host.port = acceptor.get_port()
    try:
        yield host
    finally:
        acceptor.close()
        await host.settle()
        await acceptor.wait_closed()
