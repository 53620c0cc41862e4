"""Faults that an emulator plays on API calls, and places where a chaos test may stop one.

An emulator makes a `Call` of each request, asks `Faults.take` for its fault, and announces the stages with `Faults.reach`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What goes wrong with one call."""

    RATE_LIMITED = "429"
    SERVER_ERROR = "5xx"
    CUT_BEFORE = "cut-before"  # the connection dies and nothing was taken
    CUT_AFTER = "cut-after"  # it was taken and is shown, but the answer is lost
    DELAY = "delay"
    GARBAGE = "garbage"  # taken, answered with something that is not JSON


class Stage(StrEnum):
    """Where a call stands."""

    BEFORE = "before"
    TAKEN = "taken"
    ANSWERED = "answered"


@dataclass(frozen=True)
class Call:
    """One API call; `ordinal` counts all calls of the emulator from 1."""

    ordinal: int
    method: str
    params: Mapping[str, Any]


#: The call's ordinal, a method's name, or a predicate.
When = int | str | Callable[[Call], bool]
Hook = Callable[[Call], Awaitable[None]]


def matches(when: When, call: Call) -> bool:
    """Whether the call is the one meant."""
    if isinstance(when, int):
        return call.ordinal == when
    if isinstance(when, str):
        return call.method == when
    return when(call)


@dataclass
class Fault:
    """A fault that waits for its calls; `times` counts down, None is for ever."""

    when: When
    kind: Kind
    times: int | None = 1
    after: int = 0  # calls that match and still pass unharmed first
    seconds: float = 1  # how long to delay, or Retry-After
    status: int = 503
    struck: list[Call] = field(default_factory=list)

    def strikes(self, call: Call) -> bool:
        """Whether it hits this call; counts it when so."""
        if self.times == 0 or not matches(self.when, call):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        self.struck.append(call)
        return True


class Hold:
    """Stops the first call that reaches a stage until released, so that a test may kill the bot just there."""

    def __init__(self, when: When) -> None:
        self.when = when
        self.call: Call | None = None
        self._reached = asyncio.Event()
        self._released = asyncio.Event()

    async def stop(self, call: Call) -> None:
        """Stand here if this is the call meant."""
        if self.call is None and matches(self.when, call):
            self.call = call
            self._reached.set()
            await self._released.wait()

    async def reached(self, timeout_s: float = 5) -> Call:
        """The call, once it stands here.

        Raises:
            TimeoutError: No such call came in time.
        """
        async with asyncio.timeout(timeout_s):
            await self._reached.wait()
        assert self.call is not None
        return self.call

    def release(self) -> None:
        """Let the call go on."""
        self._released.set()


class Faults:
    """The faults planned for an emulator, and its hooks by stage."""

    def __init__(self) -> None:
        self._planned: list[Fault] = []
        self._hooks: dict[Stage, list[Hook]] = {stage: [] for stage in Stage}
        self._holds: list[Hold] = []

    def on(
        self,
        when: When,
        kind: Kind | str,
        *,
        times: int | None = 1,
        after: int = 0,
        seconds: float = 1,
        status: int = 503,
    ) -> Fault:
        """Plan a fault; the first planned that matches strikes, one a call."""
        fault = Fault(when, Kind(kind), times, after, seconds, status)
        self._planned.append(fault)
        return fault

    def clear(self) -> None:
        """Forget faults and hooks, release what is held."""
        self._planned.clear()
        for hooks in self._hooks.values():
            hooks.clear()
        for hold in self._holds:
            hold.release()
        self._holds.clear()

    def hook(self, stage: Stage | str, hook: Hook) -> None:
        """Call `hook` whenever a call reaches the stage."""
        self._hooks[Stage(stage)].append(hook)

    def hold(self, when: When, stage: Stage | str) -> Hold:
        """Stop the next call that matches at this stage."""
        hold = Hold(when)
        self._holds.append(hold)
        self.hook(stage, hold.stop)
        return hold

    def take(self, call: Call) -> Fault | None:
        """The fault that strikes this call; to be asked once a call."""
        return next((fault for fault in self._planned if fault.strikes(call)), None)

    async def reach(self, stage: Stage, call: Call) -> None:
        """Run the hooks of a stage."""
        for hook in tuple(self._hooks[stage]):
            await hook(call)
