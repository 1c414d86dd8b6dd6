from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.stow.multipart import MAX_PREAMBLE_BYTES, MalformedError, MultipartParser, PartBegin, PartData, TooManyPartsError

BOUNDARY = b"a-boundary"
Parts = list[tuple[dict[str, str], bytes]]


def parsed(pieces: list[bytes], *, boundary: bytes = BOUNDARY, max_parts: int = 100, max_header_bytes: int = 1000) -> Parts:
    """The parts of a body that comes in these pieces."""
    parser = MultipartParser(boundary, max_parts=max_parts, max_header_bytes=max_header_bytes)
    found: list[tuple[dict[str, str], bytearray]] = []
    for piece in pieces:
        for event in parser.feed(piece):
            if isinstance(event, PartBegin):
                found.append((event.headers, bytearray()))
            elif isinstance(event, PartData):
                found[-1][1].extend(event.data)
    parser.finish()
    return [(headers, bytes(data)) for headers, data in found]


def body(*parts: bytes, boundary: bytes = BOUNDARY) -> bytes:
    """Parts with one header field each."""
    begun = b"".join(b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts)
    return begun + b"--" + boundary + b"--\r\n"


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    """`whole` in pieces."""
    edges = [0, *sorted({place % (len(whole) + 1) for place in places}), len(whole)]
    return [whole[begin:end] for begin, end in itertools.pairwise(edges)]


#: Bytes in which beginnings of the boundary are frequent.
nearly = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--", b"\r\n--a-bound", b"x", b"\0" * 9]), max_size=20).map(b"".join)


@given(st.lists(nearly | st.binary(max_size=50), max_size=5), st.lists(st.integers(0, 2000), max_size=30))
def test_the_parts_are_the_same_in_whatever_pieces_the_body_comes(contents: list[bytes], places: list[int]) -> None:
    whole = body(*contents)
    expected = [({"content-type": "application/dicom"}, content) for content in contents]
    assert parsed(cut(whole, places)) == expected
    assert parsed([whole[n : n + 1] for n in range(len(whole))]) == expected


@given(nearly | st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_whatever_comes_is_parts_or_malformed(garbage: bytes, places: list[int]) -> None:
    for whole in (garbage, b"--a-boundary\r\n" + garbage):
        with suppress(MalformedError):
            parsed(cut(whole, places))


@given(st.integers(0, 100))
def test_a_body_that_is_cut_off_anywhere_is_malformed(place: int) -> None:
    whole = body(b"data").removesuffix(b"--\r\n")
    with pytest.raises(MalformedError, match=r"it ends before its last boundary|it has no boundary"):
        parsed([whole[: place % len(whole)]])


@pytest.mark.parametrize(
    ("whole", "contents"),
    [
        (b"A preamble.\r\n--a-boundary\r\n\r\nx\r\n--a-boundary--", [b"x"]),
        (b"\r\n--a-boundary\r\n\r\nx\r\n--a-boundary--", [b"x"]),
        (b"--a-boundary \t \r\n\r\nx\r\n--a-boundary--", [b"x"]),
        (b"--a-boundary\r\n\r\nx\r\n--a-boundary--\r\nAn epilogue\r\n--a-boundary\r\n", [b"x"]),
        (b"--a-boundary\r\nA: b\r\n\r\n--a-boundary--", [b""]),
        (b"--a-boundary\r\nA: b\r\n\r\n\r\n--a-boundary--", [b""]),
        (b"--a-boundary\r\n\r\n\r\n\r\n--a-boundary--", [b"\r\n"]),
        (b"--a-boundary--", []),
    ],
)
def test_what_the_standard_allows_around_parts_is_allowed(whole: bytes, contents: list[bytes]) -> None:
    assert [data for _, data in parsed([whole])] == contents
    assert [data for _, data in parsed([whole[n : n + 1] for n in range(len(whole))])] == contents


def test_header_names_have_no_case_lines_may_be_folded_and_the_first_counts() -> None:
    [(headers, _)] = parsed([b"--a-boundary\r\nCONTENT-Type: a/b;\r\n c=d\r\ncontent-type: z/z\r\nX:y\r\n\r\n\r\n--a-boundary--"])

    assert headers == {"content-type": "a/b; c=d", "x": "y"}


@pytest.mark.parametrize(
    ("whole", "says"),
    [
        (b"", "it has no boundary"),
        (b"--another\r\n\r\nx\r\n--another--", "it has no boundary"),
        (b"--a-boundaryx\r\n\r\nx", "a line begins with its boundary and goes on otherwise"),
        (b"--a-boundary" + b" " * 100, "a line begins with its boundary and goes on otherwise"),
        (b"--a-boundary\nA: b\n\nx\n--a-boundary--", "a line begins with its boundary and goes on otherwise"),
        (b"--a-boundary\r\nno field\r\n\r\n", "a part's header has a line that is no field"),
        (b"--a-boundary\r\n: b\r\n\r\n", "a part's header has a line that is no field"),
        (b"--a-boundary\r\nA: " + b"x" * 2000, "a part's header is longer than 1000 bytes"),
        (b"--a-boundary\r\nA: " + b"x" * 2000 + b"\r\n\r\n", "a part's header is longer than 1000 bytes"),
        (b"x" * (MAX_PREAMBLE_BYTES + 100), "its boundary does not come"),
    ],
)
def test_what_is_malformed_is_said_in_words(whole: bytes, says: str) -> None:
    with pytest.raises(MalformedError, match=says):
        parsed([whole])


def test_more_parts_than_are_taken_are_refused() -> None:
    assert len(parsed([body(b"x", b"y")], max_parts=2)) == 2
    with pytest.raises(TooManyPartsError):
        parsed([body(b"x", b"y", b"z")], max_parts=2)


def test_what_is_kept_between_pieces_does_not_grow() -> None:
    parser = MultipartParser(BOUNDARY, max_parts=1, max_header_bytes=1000)
    list(parser.feed(b"--a-boundary\r\n\r\n"))
    for _ in range(100):
        given_on = sum(len(event.data) for event in parser.feed(b"\r\n--a-" * 1000) if isinstance(event, PartData))
        assert given_on > 5900
        assert len(parser._kept) < 20
