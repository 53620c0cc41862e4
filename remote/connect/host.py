"""A host over shells: facts become sections, outcomes become answers. How a shell is reached is a Link's business."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from remote.connect.base import Conversation, Done, Target
from remote.connect.exchange import LinkCut, Outcome, Section, Unresponsive
from remote.connect.pipe import Pipe
from remote.connect.shell import GRACE_S, Shell, open_shell
from remote.errors import HostError, Unparsable
from remote.facts.base import Answers, Fact, Unreadable
from remote.text import Mono, Size, Span, T

MAX_EXTRA_CHANNELS = 3
"""Streams and plans at a time: with the fast, the slow and the sampler's channel that makes 6 of sshd's 10."""
HELLO_S = 6.0


class Link(Protocol):
    """A way to open shells on one host."""

    @property
    def target(self) -> Target:
        """What it leads to."""
        ...

    @property
    def host_key(self) -> str:
        """Fingerprint of the key the host proved; empty before."""
        ...

    async def open(self, mark: str, *, background: bool) -> Pipe:
        """A new shell, connecting first if need be; `background` keeps to the backoff after failures. Raises HostError."""
        ...

    plans: int
    """How many plans run over the connection: a question that hangs must not cut them."""

    def drop(self) -> None:
        """Do not use the present connection again, unless a plan runs over it."""
        ...

    async def close(self) -> None:
        """End the connection."""
        ...


class _Channel:
    """One lane to the host: its shell is opened on first use and again when lost; its questions queue."""

    def __init__(self, link: Link, *, background: bool = False) -> None:
        self._link = link
        self._background = background
        self._lock = asyncio.Lock()
        self._shell: Shell | None = None

    async def ask(self, sections: Sequence[Section]) -> list[Outcome]:
        async with self._lock:
            done: dict[int, Outcome] = {}
            stale = self._shell is not None
            while missing := [k for k in range(len(sections)) if k not in done]:
                try:
                    got = await self._pass([sections[k] for k in missing])
                except LinkCut as cut:
                    if cut.started or not stale:
                        raise
                    # A link that lay idle had died unnoticed; nothing was answered, so asking anew is safe.
                    stale = False
                    continue
                done |= {k: outcome for k, outcome in zip(missing, got, strict=True) if outcome is not None}
            return [done[k] for k in range(len(sections))]

    async def _pass(self, sections: Sequence[Section]) -> list[Outcome | None]:
        if self._shell is None or not self._shell.alive:
            self._shell = None
            self._shell = await _shell(self._link, background=self._background)
        try:
            return await self._shell.ask(sections)
        except Unresponsive:
            self._link.drop()
            raise

    async def close(self) -> None:
        shell, self._shell = self._shell, None
        if shell is not None and shell.alive:
            await shell.close()


async def _shell(link: Link, *, background: bool, marked: bool = True) -> Shell:
    pipe = await link.open(secrets.token_hex(16) if marked else "", background=background)
    return await open_shell(pipe, link.target.name, hello_s=HELLO_S, grace_s=GRACE_S)


class _Conversation:
    """A plan's shell."""

    def __init__(self, shell: Shell, host: str) -> None:
        self._shell = shell
        self._host = host

    async def run(self, script: str, *, deadline_s: float, cap_bytes: int = 65536) -> Done:
        """See `Conversation.run`. Over its deadline the script is ended: HostError `timeout`."""
        section = Section(script, deadline_s, cap_bytes, merged=True, shorten=True)
        outcome = (await self._shell.ask([section]))[0]
        if outcome is None or outcome.ended is not None:
            raise HostError(
                "timeout",
                T("A command on {host} took longer than {deadline} and was ended.", host=self._host, deadline=Span(deadline_s)),
            )
        return Done(outcome.status, outcome.output.decode("utf-8", "backslashreplace"))


class ShellHost:
    """A Host asked through shells that stay open."""

    def __init__(self, link: Link) -> None:
        """Nothing is opened before the first question."""
        self._link = link
        self._fast = _Channel(link)
        self._slow = _Channel(link)
        self._sampler = _Channel(link, background=True)
        self._extra = 0

    @property
    def target(self) -> Target:
        """How it is reached."""
        return self._link.target

    @property
    def host_key(self) -> str:
        """Fingerprint of the key it proved; empty before the first contact."""
        return self._link.host_key

    async def ask(self, *facts: Fact[Any]) -> Answers:
        """Ask all facts at once; a lane that fails makes its facts unreadable unless it was the only one."""
        quick = [fact for fact in facts if not fact.slow]
        slow = [fact for fact in facts if fact.slow]
        lanes = [(lane, its) for lane, its in ((self._fast, quick), (self._slow, slow)) if its]
        if len(lanes) == 1:
            return await _answers(*lanes[0])
        return await _together(lanes)

    async def sample(self, *facts: Fact[Any]) -> Answers:
        """As `ask`, down the sampler's channel."""
        return await _answers(self._sampler, facts) if facts else Answers({})

    @asynccontextmanager
    async def _opened(self, *, background: bool, marked: bool) -> AsyncIterator[Shell]:
        if self._extra >= MAX_EXTRA_CHANNELS:
            raise HostError("busy", T("{host} is busy with other plans and streams. Try again soon.", host=self.target.name))
        self._extra += 1
        try:
            shell = await _shell(self._link, background=background, marked=marked)
            try:
                yield shell
            finally:
                await shell.close()
        finally:
            self._extra -= 1

    def stream(self, script: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Run a script that prints lines for ever."""
        return self._stream(script)

    @asynccontextmanager
    async def _stream(self, script: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._opened(background=True, marked=True) as shell:
            yield shell.lines(script)

    def converse(self) -> AbstractAsyncContextManager[Conversation]:
        """A shell of its own for a plan; what it starts on purpose outlives it when it detaches itself."""
        return self._converse()

    @asynccontextmanager
    async def _converse(self) -> AsyncIterator[Conversation]:
        self._link.plans += 1
        try:
            async with self._opened(background=False, marked=False) as shell:
                yield _Conversation(shell, self.target.name)
        finally:
            self._link.plans -= 1

    async def close(self) -> None:
        """End all channels and the connection."""
        await asyncio.gather(self._fast.close(), self._slow.close(), self._sampler.close())
        await self._link.close()


async def _together(lanes: Sequence[tuple[_Channel, Sequence[Fact[Any]]]]) -> Answers:
    results = await asyncio.gather(*(_answers(*lane) for lane in lanes), return_exceptions=True)
    answers, failures = Answers({}), []
    for (_, facts), result in zip(lanes, results, strict=True):
        match result:
            case Answers():
                answers |= result
            case HostError():
                failures.append(result)
                kind = "timeout" if result.kind == "timeout" else "failed"
                answers |= Answers({fact: Unreadable(kind, result.text) for fact in facts})
            case _:
                raise result
    if failures and len(failures) == len(lanes):
        raise failures[0]
    return answers


async def _answers(channel: _Channel, facts: Sequence[Fact[Any]]) -> Answers:
    sections = [Section(fact.script, fact.deadline_s, fact.cap_bytes) for fact in facts]
    outcomes = await channel.ask(sections)
    return Answers({fact: answer(fact, outcome) for fact, outcome in zip(facts, outcomes, strict=True)})


def answer(fact: Fact[Any], outcome: Outcome) -> Any:  # noqa: ANN401 - the fact's own type
    """What a section's outcome says: the fact's answer or why there is none."""
    match outcome.ended:
        case "timeout":
            return Unreadable("timeout", T("it took longer than {deadline} and was ended", deadline=Span(fact.deadline_s)))
        case "flood":
            return Unreadable("flood", T("it printed more than {cap} and was ended", cap=Size(fact.cap_bytes)))
    if outcome.status != 0:
        return Unreadable("failed", T("its script ended with status {status}", status=outcome.status))
    try:
        return fact.parse(outcome.output.decode("utf-8", "backslashreplace"))
    except Unparsable as unparsable:
        return Unreadable("garbled", T("it printed {line}, which is not understood", line=Mono(unparsable.line)))
    except (ValueError, LookupError):
        # Output comes from the host and may hold anything: one fact's surprise must not hide the others.
        return Unreadable("garbled", T("what it printed is not understood"))
