from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from remote.connect import Host, Target, open_host
from remote.facts.base import Fact, Unreadable
from tests.emulators.proxy import Proxy, proxied
from tests.remote.connect.server import CLIENT_KEY, LoginServer, ssh_server

SHELLS: list[tuple[str, ...]] = [
    ("/bin/sh",),
    *((path,) for name in ("dash", "bash") if (path := shutil.which(name))),
    *((path, "ash") for path in [shutil.which("busybox")] if path),
]
"""The shells of this machine that a target may have as its /bin/sh."""


def fact(script: str, *, deadline_s: float = 5.0, cap_bytes: int = 1 << 20, slow: bool = False) -> Fact[str]:
    """A fact that answers with what its script printed."""
    return Fact(script, script, str, slow=slow, deadline_s=deadline_s, cap_bytes=cap_bytes)


async def said(host: Host, script: str, *, deadline_s: float = 5.0, cap_bytes: int = 1 << 20) -> str | Unreadable:
    """What one script printed on the host."""
    one = fact(script, deadline_s=deadline_s, cap_bytes=cap_bytes)
    answer = (await host.ask(one))[one]
    return answer  # noqa: RET504 - mypy infers the fact's type only so


def running(argument: str) -> list[int]:
    """Pids of the processes that have `argument` in their command line (a zombie has none)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if argument.encode() in argv:
                found.append(int(entry.name))
    return found


async def eventually(true: Callable[[], bool], within_s: float = 5.0) -> bool:
    """Whether it becomes true in time."""
    until = time.monotonic() + within_s
    while not true():
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.02)
    return True


def unlikely_seconds() -> str:
    """A time to sleep that nobody else sleeps: it names a test's processes."""
    return f"97{int.from_bytes(os.urandom(5), 'big')}"


@pytest.fixture
def key_path(tmp_path: Path) -> str:
    path = tmp_path / "id_ed25519"
    CLIENT_KEY.write_private_key(str(path))
    return str(path)


@pytest.fixture
async def server(key_path: str) -> AsyncIterator[LoginServer]:
    """A host of this machine's /bin/sh."""
    async with ssh_server(key_path) as host:
        yield host


@pytest.fixture
async def proxy(server: LoginServer) -> AsyncIterator[Proxy]:
    """What lies between us and the server."""
    async with proxied(server.port) as between:
        yield between


Opener = Callable[[Target], Host]


@pytest.fixture
async def opened() -> AsyncIterator[Opener]:
    """Opens hosts that are closed after the test."""
    hosts: list[Host] = []

    def open_one(target: Target) -> Host:
        hosts.append(open_host(target))
        return hosts[-1]

    yield open_one
    closing: Sequence[Awaitable[None]] = [host.close() for host in hosts]
    await asyncio.gather(*closing)
