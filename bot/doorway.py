"""A Unix socket beside the store, so that `memwarden ask` speaks through the process that runs on it.

One line of JSON in (`{"as": NAME, "text": "/mem prod", "json": true}`), lines of JSON out: `{"progress": "…"}` and at the end
`{"done": {…envelope…}, "shown": "…", "complaint": "…"}`. The peer must be the service's own user or root.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import socket
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from bot import ask
from bot.chat.console import plain
from bot.i18n import render
from bot.store import StoreError, path_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bot.parts import App
    from remote.text import Text

log = structlog.get_logger(__name__)

LONGEST_PATH = 100  # sun_path holds 108 bytes
LINE_LIMIT = 16 << 20
TAKEN = "store: another memwarden runs on it already; stop that one, or give this one another store"


def socket_path(store_url: str) -> Path:
    """Where the socket of a store is: beside it, or under a short name where the path would be too long."""
    store = path_of(store_url)
    name = hashlib.sha256(store_url.encode()).hexdigest()[:16]
    if store is None:
        return Path(os.environ.get("XDG_RUNTIME_DIR", "/run")) / f"memwarden-{name}.sock"
    beside = store.resolve().with_name(f"{store.name}.sock")
    if len(os.fsencode(beside)) <= LONGEST_PATH:
        return beside
    return Path(f"/tmp/memwarden-{os.getuid()}-{name}/s")  # noqa: S108 - made 0700 and checked by its owner


class Doorway:
    """The listening end."""

    def __init__(self, app: App) -> None:
        """Nothing listens before `open`."""
        self._app = app
        self._path = socket_path(app.settings.store)
        self._server: asyncio.Server | None = None
        self._held = -1

    async def open(self) -> None:
        """Listen; a socket that a crash left behind is replaced. Raises StoreError when another process runs on the store."""
        if self._path.parent.name.startswith("memwarden-"):
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            if not _private(self._path.parent):
                raise StoreError(f"store: {self._path.parent} belongs to somebody else or is open to others; remove it")
        self._hold()
        if await _answers(self._path):
            raise StoreError(TAKEN)
        self._path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._visit, self._path, limit=LINE_LIMIT)
        finally:
            os.umask(old)

    def _hold(self) -> None:
        """Of two that start at once one looks, unlinks and binds. The lock goes with the process (flock(2))."""
        self._held = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as held:
            raise StoreError(TAKEN) from held

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            if _peer(writer) not in {os.geteuid(), 0}:
                await _say(writer, {"complaint": "only the service's own user or root may ask here"})
            else:
                await self._converse(reader, writer)
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = json.loads(await reader.readline())
            person, text, as_json = ask.who(self._app.settings, asked.get("as")), str(asked["text"]), bool(asked.get("json"))
        except (ValueError, KeyError, AttributeError):
            await _say(writer, {"complaint": "that is not a question"})
            return
        except ask.NotAllowed as trouble:
            await _say(writer, {"complaint": str(trouble)})
            return
        language = ask.console_language(self._app.settings, person)

        async def progress(step: Text) -> None:
            await _say(writer, {"progress": render(step, language, self._app.clock.now())})

        request, reply = await ask.answer(self._app, person, text, progress)
        shown = "" if as_json else plain(reply, language, self._app.clock.now())
        await _say(
            writer,
            {
                "done": ask.envelope(request.command if request else "", reply),
                "shown": shown,
                "complaint": ask.complaint(reply, language),
            },
        )


async def through(store_url: str, person: str | None, text: str, *, as_json: bool) -> AsyncIterator[dict[str, Any]]:
    """What the running process says to a question. Raises ConnectionError (also FileNotFoundError) when none runs."""
    path = socket_path(store_url)
    if path.parent.name.startswith("memwarden-") and not _private(path.parent):
        raise ConnectionRefusedError(f"{path.parent} belongs to somebody else or is open to others")
    reader, writer = await asyncio.open_unix_connection(path, limit=LINE_LIMIT)
    try:
        await _say(writer, {"as": person, "text": text, "json": as_json})
        while (line := await reader.readline()).endswith(b"\n"):
            yield json.loads(line)
    finally:
        writer.close()


def _private(folder: Path) -> bool:
    """Whether a folder under /tmp is this user's alone: anybody could have made one of that name first."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return True  # nobody listens there
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


async def _answers(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


async def _say(writer: asyncio.StreamWriter, what: dict[str, Any]) -> None:
    writer.write(json.dumps(what).encode() + b"\n")
    await writer.drain()


def _peer(writer: asyncio.StreamWriter) -> int:
    """The uid at the other end, from the kernel (SO_PEERCRED, unix(7))."""
    raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])
