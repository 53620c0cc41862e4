"""What no healthy host does: sections that will not die, orders that hit the next section, frames out of order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from remote.connect.exchange import Exchange, LinkCut, Section, Unresponsive
from remote.connect.pipe import HIGH_WATER_BYTES, Pipe

NONCE = "00112233445566778899aabbccddeeff"


class Wire(Pipe):
    """The near end of a channel; `obey` stands for the shell and is told each order."""

    def __init__(self, obey: Callable[[Wire], None]) -> None:
        super().__init__()
        self._obey = obey
        self.orders = 0
        self.flow: list[str] = []

    def write(self, data: bytes) -> None:
        assert b"mw_reap" in data
        self.orders += 1
        self._obey(self)

    def end_input(self) -> None:
        self.flow.append("end")

    def close(self) -> None:
        self.flow.append("close")
        self.feed_end()

    def frame(self, tail: str) -> None:
        """A frame comes in."""
        self.feed(f"\n{NONCE} {tail}\n".encode())

    def _pause(self) -> None:
        self.flow.append("pause")

    def _resume(self) -> None:
        self.flow.append("resume")


def exchange(wire: Wire, *sections: Section) -> Exchange:
    return Exchange(wire, "prod", NONCE, sections, grace_s=0.1)


STUCK = Section("stuck", 0.05, 100)
PATIENT = Section("patient", 5, 100)


async def test_the_next_section_hit_in_place_of_the_victim_is_asked_again() -> None:
    def obey(wire: Wire) -> None:
        # The victim had just ended by itself; the order ended section 1.
        wire.frame("0 0")
        wire.frame("! 0")
        wire.frame("1 137")
        wire.feed(b"whole")
        wire.frame("2 0")

    wire = Wire(obey)
    wire.frame("+")

    outcomes = await exchange(wire, STUCK, PATIENT, PATIENT).outcomes()

    assert [outcome and (outcome.ended, outcome.output) for outcome in outcomes] == [
        ("timeout", b""),
        None,
        (None, b"whole"),
    ]


async def test_the_next_section_hit_but_ended_well_is_not_believed() -> None:
    def obey(wire: Wire) -> None:
        wire.frame("0 0")
        wire.frame("! 0")
        wire.feed(b"perhaps half")
        wire.frame("1 0")

    wire = Wire(obey)
    wire.frame("+")

    outcomes = await exchange(wire, STUCK, PATIENT).outcomes()

    assert outcomes[1] is None


async def test_a_section_that_will_not_die_costs_its_own_answer_and_the_shell() -> None:
    wire = Wire(lambda wire: wire.frame("! 1"))
    wire.frame("+")
    wire.feed(b"first")
    wire.frame("0 0")
    asked = exchange(wire, PATIENT, STUCK, PATIENT)

    outcomes = await asked.outcomes()

    assert asked.abandoned
    assert [outcome and outcome.ended for outcome in outcomes] == [None, "timeout", None]
    assert outcomes[0] is not None
    assert outcomes[2] is None


@pytest.mark.parametrize(("printed", "kind"), [(b"", "timeout"), (b"x" * 101, "flood")])
async def test_a_shell_that_does_not_obey_is_unresponsive(printed: bytes, kind: str) -> None:
    wire = Wire(lambda _: None)
    wire.frame("+")
    wire.feed(printed)

    with pytest.raises(Unresponsive) as caught:
        await exchange(wire, STUCK).outcomes()

    assert (caught.value.kind, wire.orders) == (kind, 1)


async def test_a_shell_that_never_starts_is_unresponsive() -> None:
    wire = Wire(lambda _: None)

    with pytest.raises(Unresponsive):
        await exchange(wire, STUCK).outcomes()

    assert wire.orders == 0


@pytest.mark.parametrize("tail", ["1 0", "what", "+"])
async def test_frames_out_of_order_are_a_cut(tail: str) -> None:
    wire = Wire(lambda _: None)
    wire.frame("+")
    wire.frame(tail)

    with pytest.raises(LinkCut) as caught:
        await exchange(wire, PATIENT).outcomes()

    assert caught.value.kind == "cut"


async def test_a_sender_nobody_reads_is_stopped_and_let_go_on_by_the_reader() -> None:
    wire = Wire(lambda _: None)
    wire.feed(b"x" * HIGH_WATER_BYTES)
    wire.feed(b"y")

    data = await wire.read()

    assert (len(data), wire.flow) == (HIGH_WATER_BYTES + 1, ["pause", "resume"])


async def test_a_pipe_that_does_not_end_in_time_is_closed() -> None:
    wire = Wire(lambda _: None)

    await wire.finish(0.05)

    assert wire.flow == ["end", "close"]


async def test_closing_wakes_the_reader() -> None:
    wire = Wire(lambda _: None)
    reading = asyncio.create_task(wire.read())
    await asyncio.sleep(0)

    await wire.finish(5)

    assert await reading == b""
