from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.connect.frames import Cleared, Decoder, Desync, Ended, Lines, Receiver, Started, compose, new_nonce, quoted

NONCE = "00112233445566778899aabbccddeeff"
OTHER = "f" * 32
# Output that looks as much like frames as output can that does not know the nonce.
FORGERIES = [
    b"\n",
    b"\n\n",
    f"\n{OTHER} 0 0\n".encode(),
    f"\n{NONCE[:-1]}".encode(),
    f"\n{NONCE[:-1]}0 0 0\n".encode(),
    f"{NONCE} 0 0\n".encode(),
    f"\n{NONCE}".encode(),
    b"\n0",
    b" 0 0\n",
]
outputs = st.lists(st.one_of(st.sampled_from(FORGERIES), st.binary(max_size=40)), max_size=6).map(b"".join)
honest = outputs.filter(lambda output: f"\n{NONCE} ".encode() not in b"\n" + output + b"\n")


def framed(parts: list[tuple[bytes, int]]) -> bytes:
    whole = f"\n{NONCE} +\n".encode()
    for k, (output, status) in enumerate(parts):
        whole += output + f"\n{NONCE} {k} {status}\n".encode()
    return whole


def chopped(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(at)]


@given(
    before=honest,
    parts=st.lists(st.tuples(honest, st.integers(0, 255)), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 10_000), max_size=30),
)
def test_outputs_come_back_to_the_byte_however_they_are_cut_up(
    before: bytes, parts: list[tuple[bytes, int]], cuts: list[int]
) -> None:
    receiver = Receiver(NONCE, [10_000] * len(parts))

    for chunk in chopped(before + framed(parts), cuts):
        receiver.feed(chunk)

    assert receiver.complete
    assert [(bytes(part.output), part.status) for part in receiver.parts] == parts


@given(parts=st.lists(st.tuples(honest, st.integers(0, 255)), min_size=1, max_size=4), data=st.data())
def test_a_cut_answer_is_never_complete(parts: list[tuple[bytes, int]], data: st.DataObject) -> None:
    whole = framed(parts)
    receiver = Receiver(NONCE, [10_000] * len(parts))

    receiver.feed(whole[: data.draw(st.integers(0, len(whole) - 1))])

    assert not receiver.complete


@given(output=honest, cap=st.integers(0, 60))
def test_no_more_than_the_cap_is_kept(output: bytes, cap: int) -> None:
    receiver = Receiver(NONCE, [cap])

    receiver.feed(framed([(output, 0)]))

    assert receiver.parts[0].output == output[:cap]
    assert receiver.parts[0].over is (len(output) > cap)


@given(output=honest, chunk=st.integers(1, 7))
def test_the_decoder_holds_back_no_more_than_a_frame_can_be_long(output: bytes, chunk: int) -> None:
    decoder, given_out = Decoder(NONCE), 0

    for at in range(0, len(output), chunk):
        given_out += sum(len(event) for event in decoder.feed(output[at : at + chunk]) if isinstance(event, bytes))

        assert at + chunk - given_out <= len(NONCE) + 2 + chunk


def test_an_order_to_end_a_section_is_answered_in_the_middle_of_its_output() -> None:
    decoder = Decoder(NONCE)

    events = decoder.feed(f"\n{NONCE} +\nhalf\n{NONCE} ! 0\nrest\n{NONCE} 0 137\n".encode())

    assert events == [Started(), b"half", Cleared(0), b"rest", Ended(0, 137)]


@pytest.mark.parametrize("tail", ["", "0", "x", "0 0 0", "-1 0", "! x", "+ ", "0 0" + " " * 40])
def test_a_frame_of_no_known_shape_ends_the_trust(tail: str) -> None:
    with pytest.raises(Desync):
        Decoder(NONCE).feed(f"\n{NONCE} {tail}\n".encode())


def test_a_frame_that_never_ends_ends_the_trust() -> None:
    with pytest.raises(Desync):
        Decoder(NONCE).feed(f"\n{NONCE} ".encode() + b"1" * 100)


@pytest.mark.parametrize(
    "answer",
    [
        f"\n{NONCE} 0 0\n",
        f"\n{NONCE} +\n\n{NONCE} +\n",
        f"\n{NONCE} +\n\n{NONCE} 1 0\n",
        f"\n{NONCE} +\n\n{NONCE} 0 0\n\n{NONCE} 0 0\n",
    ],
)
def test_frames_out_of_order_end_the_trust(answer: str) -> None:
    with pytest.raises(Desync):
        Receiver(NONCE, [100, 100]).feed(answer.encode())


def test_each_question_has_a_nonce_of_its_own_that_stands_in_its_text_only() -> None:
    nonce = new_nonce()

    assert nonce != new_nonce()
    assert len(nonce) == 32
    assert compose(nonce, ["true", "false"]).count(nonce) == 3


@given(st.text(alphabet=st.characters(exclude_characters="\0")))
def test_quoting_leaves_no_quote_open(text: str) -> None:
    assert quoted(text).replace("'\\''", "").count("'") == 2


@given(
    lines=st.lists(st.binary(max_size=120).filter(lambda line: b"\n" not in line), max_size=6), cuts=st.lists(st.integers(0, 500))
)
def test_a_stream_gives_its_lines_however_they_are_cut_up(lines: list[bytes], cuts: list[int]) -> None:
    reader, got = Lines(NONCE, 80), list[bytes]()

    for chunk in chopped(b"motd\n" + framed([(b"".join(line + b"\n" for line in lines), 0)]), cuts):
        got += reader.feed(chunk)

    assert got == [line[:80] for line in lines]
    assert reader.ended


def test_a_line_of_a_stream_is_given_out_with_its_newline_not_later() -> None:
    reader = Lines(NONCE, 100)
    reader.feed(f"\n{NONCE} +\n".encode())

    assert [reader.feed(data) for data in (b"on", b"e\n", b"\n", b"two\n")] == [[], [b"one"], [], [b"", b"two"]]


def test_a_last_line_without_newline_counts() -> None:
    reader = Lines(NONCE, 100)

    assert reader.feed(framed([(b"one\ntwo", 0)])) == [b"one", b"two"]
