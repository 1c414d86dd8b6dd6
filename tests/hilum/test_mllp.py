from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from hilum.mllp import KEPT_BYTES, Block, Reader, framed

MESSAGE = b"MSH|^~\\&|A|B|||20260101||ADT^A08|1|P|2.5\rPID|1\r"
#: What a message may hold: MLLP keeps VT and FS out of it.
contents = st.binary(max_size=300).map(lambda raw: raw.replace(b"\x0b", b"").replace(b"\x1c", b""))


def fed(data: bytes, *cuts: int, max_bytes: int = 10_000) -> list[Block]:
    reader = Reader(max_bytes)
    found: list[Block] = []
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for begin, end in itertools.pairwise(edges):
        found += reader.feed(data[begin:end])
    return found + list(reader.close())


def whole(content: bytes, *, short_end: bool = False) -> Block:
    return Block(content, size_bytes=len(content), short_end=short_end)


@given(st.lists(contents, max_size=5), st.lists(st.integers(0, 1500), max_size=8))
def test_blocks_are_found_however_they_are_cut(blocks: list[bytes], cuts: list[int]) -> None:
    assert fed(b"".join(map(framed, blocks)), *cuts) == [whole(content) for content in blocks]


@given(st.binary(max_size=600), st.lists(st.integers(0, 600), max_size=8))
def test_what_comes_in_one_piece_or_in_many_is_the_same(data: bytes, cuts: list[int]) -> None:
    assert fed(data, *cuts) == fed(data)


@given(st.lists(st.sampled_from([b"\x0b", b"\x1c", b"\r", b"MSH", b"M", b"S", b"x" * 40, b"\n", b"FHS"]), max_size=30))
def test_odd_streams_cut_at_every_byte_give_what_they_give_whole(pieces: list[bytes]) -> None:
    data = b"".join(pieces)

    assert fed(data, *range(len(data)), max_bytes=50) == fed(data, max_bytes=50)


def test_a_block_that_another_interrupts_is_unterminated() -> None:
    assert fed(b"\x0bMSH|^~\\&|half" + framed(MESSAGE)) == [Block(b"MSH|^~\\&|half", "unterminated", 13), whole(MESSAGE)]


def test_a_start_byte_in_a_text_is_text() -> None:
    text = MESSAGE + b"NTE|1||a\x0bb\r"

    assert fed(framed(text)) == [whole(text)]


def test_a_block_that_the_connection_ends_is_unterminated() -> None:
    assert fed(b"\x0b" + MESSAGE) == [Block(MESSAGE, "unterminated", len(MESSAGE))]


def test_an_end_without_its_carriage_return_ends_a_block() -> None:
    assert fed(b"\x0b" + MESSAGE + b"\x1c") == [whole(MESSAGE, short_end=True)]
    assert fed(b"\x0b" + MESSAGE + b"\x1c" + framed(MESSAGE)) == [whole(MESSAGE, short_end=True), whole(MESSAGE)]


def test_a_reader_tells_that_only_the_carriage_return_is_missing() -> None:
    reader = Reader(1000)
    assert list(reader.feed(b"\x0b" + MESSAGE + b"\x1c")) == []

    assert reader.perhaps_ended
    assert list(reader.end_here()) == [whole(MESSAGE, short_end=True)]
    assert not reader.inside


def test_garbage_between_blocks_is_told_once() -> None:
    assert fed(b"hello" + framed(MESSAGE) + b"\r\n" + framed(MESSAGE)) == [Block(b"hello", "garbage", 5), whole(MESSAGE), whole(MESSAGE)]


def test_a_message_without_a_start_byte_is_garbage() -> None:
    assert fed(MESSAGE) == [Block(MESSAGE.rstrip(), "garbage", len(MESSAGE) - 2)]


def test_a_block_over_the_limit_keeps_its_beginning_and_the_next_is_read() -> None:
    long = MESSAGE + b"x" * 100_000

    assert fed(framed(long) + framed(MESSAGE), 50, 20_000, max_bytes=9000) == [
        Block(long[:KEPT_BYTES], "too-long", len(long)),
        whole(MESSAGE),
    ]


def test_a_block_over_the_limit_is_not_held_in_memory() -> None:
    reader = Reader(1000)
    list(reader.feed(b"\x0b"))

    for _ in range(1000):
        list(reader.feed(b"x" * 1000))

    assert reader.held_bytes < 3000


def test_halves_of_wide_characters_end_no_block() -> None:
    text = "MSH|^~\\&|\u0a1c\u0b1c\r".encode("utf-16-le")

    assert fed(framed(text)) == [whole(text)]
