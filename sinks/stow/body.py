"""The body of a STOW-RS request (PS3.18 10.5.1): Part 10 files one after the other, streamed, its length known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

#: No data set holds this: it is random, and as good as any boundary may be (RFC 2046 5.1.1).
BOUNDARY = "hilum-6a1f0c7e2b5d4938a7c4e1d09b83f256"
CONTENT_TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
_HEAD = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
_TAIL = f"--{BOUNDARY}--\r\n".encode()
#: In pieces of at most so many bytes.
PIECE_BYTES = 2**20


def length_of(sizes_bytes: Iterable[int]) -> int:
    """Bytes of a body with files of these sizes."""
    return sum(len(_HEAD) + size + 2 for size in sizes_bytes) + len(_TAIL)


def body_of(files: Iterable[Iterable[bytes | memoryview]]) -> Iterator[bytes | memoryview]:
    """The body; each file comes in pieces. Raises what they raise."""
    for file in files:
        yield _HEAD
        yield from file
        yield b"\r\n"
    yield _TAIL


def frame(file: bytes) -> bytes:
    """The body of a request with this one file."""
    return _HEAD + file + b"\r\n" + _TAIL
