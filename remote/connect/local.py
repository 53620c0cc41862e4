"""This machine as a host: psutil where a fact has a local reading, a local shell for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from remote.connect.base import Target
from remote.connect.host import ShellHost
from remote.connect.pipe import Pipe
from remote.connect.supervise import environment
from remote.errors import HostError, Unparsable
from remote.facts.base import Answers, Fact, Unreadable
from remote.text import Mono, Span, T

END_S = 3.0


class _ProcessPipe(Pipe, asyncio.SubprocessProtocol):
    """A local process's stdin and stdout."""

    def __init__(self) -> None:
        super().__init__()
        self._process: asyncio.SubprocessTransport | None = None
        loop = asyncio.get_running_loop()
        self._closing: asyncio.Future[None] = loop.create_future()
        self._exited: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._process = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - only stdout is a pipe
        self.feed(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        if fd == 1:
            self.feed_end()

    def process_exited(self) -> None:
        _settle(self._exited)
        _settle(self._closing)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self.feed_end()

    def write(self, data: bytes) -> None:
        stdin = self._transport(0)
        if stdin is not None and not stdin.is_closing():
            cast("asyncio.WriteTransport", stdin).write(data)

    def end_input(self) -> None:
        stdin = self._transport(0)
        if stdin is not None:
            stdin.close()

    def close(self) -> None:
        # The end of its stdin makes the shell end all it started; killing the shell would keep it from that.
        self.end_input()
        stdout = self._transport(1)
        if stdout is not None:
            stdout.close()
        self.feed_end()
        _settle(self._closing)

    async def gone(self) -> None:
        """Wait until the pipe is closed and then until the shell is gone; END_S later by force."""
        try:
            await self._closing
            async with asyncio.timeout(END_S):
                await self._exited
        except TimeoutError:
            pass
        finally:
            if self._process is not None:
                self._process.close()

    def _pause(self) -> None:
        stdout = self._transport(1)
        if stdout is not None:
            cast("asyncio.ReadTransport", stdout).pause_reading()

    def _resume(self) -> None:
        stdout = self._transport(1)
        if stdout is not None and not stdout.is_closing():
            cast("asyncio.ReadTransport", stdout).resume_reading()

    def _transport(self, fd: int) -> asyncio.BaseTransport | None:
        return None if self._process is None else self._process.get_pipe_transport(fd)


class LocalLink:
    """Shells of this machine, as the user the bot runs as."""

    def __init__(self, target: Target) -> None:
        """Nothing is started yet."""
        self._target = target
        self._waits: set[asyncio.Task[None]] = set()
        self._pipes: set[_ProcessPipe] = set()
        self.plans = 0

    @property
    def target(self) -> Target:
        """What it leads to."""
        return self._target

    @property
    def host_key(self) -> str:
        """There is no key to prove."""
        return "local"

    async def open(self, mark: str, *, background: bool) -> Pipe:  # noqa: ARG002 - there is nothing to back off from
        """Start a shell in a session of its own (a Ctrl-C at the bot's terminal is not for it)."""
        try:
            _, pipe = await asyncio.get_running_loop().subprocess_exec(
                _ProcessPipe,
                "/bin/sh",
                stderr=asyncio.subprocess.DEVNULL,
                env=environment(mark),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            reason = Mono(error.strerror or type(error).__name__)
            raise HostError("no-shell", T("/bin/sh cannot be started here: {reason}", reason=reason)) from error
        self._pipes.add(pipe)
        wait = asyncio.create_task(self._collect(pipe))
        self._waits.add(wait)
        wait.add_done_callback(self._waits.discard)
        return pipe

    async def _collect(self, pipe: _ProcessPipe) -> None:
        await pipe.gone()
        self._pipes.discard(pipe)

    def drop(self) -> None:
        """End all shells, but not under a plan."""
        if not self.plans:
            self._end()

    def _end(self) -> None:
        for pipe in tuple(self._pipes):
            pipe.close()

    async def close(self) -> None:
        """End all shells and wait until they are gone."""
        self._end()
        await asyncio.gather(*self._waits)


class LocalHost(ShellHost):
    """This machine. Facts with a local reading are read in a thread, the others by a local shell, at the same time."""

    async def ask(self, *facts: Fact[Any]) -> Answers:
        """See `Host.ask`."""
        return await _both(super().ask, facts)

    async def sample(self, *facts: Fact[Any]) -> Answers:
        """See `Host.sample`."""
        return await _both(super().sample, facts)


async def _both(shell: Callable[..., Awaitable[Answers]], facts: Sequence[Fact[Any]]) -> Answers:
    here = [fact for fact in facts if fact.local is not None]
    there = [fact for fact in facts if fact.local is None]
    values = asyncio.gather(*(_read(fact) for fact in here))
    try:
        answers = await shell(*there) if there else Answers({})
    finally:
        read = await values
    return answers | Answers(dict(zip(here, read, strict=True)))


async def _read(fact: Fact[Any]) -> Any:  # noqa: ANN401 - the fact's own type
    """The fact's local reading, or why there is none."""
    assert fact.local is not None  # noqa: S101 - chosen by it
    try:
        async with asyncio.timeout(fact.deadline_s):
            return await asyncio.to_thread(fact.local)
    except TimeoutError:
        return Unreadable("timeout", T("it took longer than {deadline}", deadline=Span(fact.deadline_s)))
    except PermissionError as error:
        return Unreadable("denied", T("reading {path} is not permitted", path=Mono(str(error.filename))))
    except OSError as error:
        return Unreadable("failed", T("reading failed: {reason}", reason=Mono(error.strerror or type(error).__name__)))
    except Unparsable as unparsable:
        return Unreadable("garbled", T("{line} is not understood", line=Mono(unparsable.line)))
    except (ValueError, LookupError) as error:
        # As over SSH: what a process or a file holds may be anything, and one fact's surprise must not hide the others.
        return Unreadable("garbled", T("reading failed: {reason}", reason=Mono(type(error).__name__)))


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def local_host(target: Target) -> LocalHost:
    """This machine as a host."""
    return LocalHost(LocalLink(target))
