"""Read a multipart body (RFC 2046 5.1.1, RFC 2387) as it comes, without a socket and without keeping it.

The parsers of form uploads do not fit: they want a Content-Disposition in each part, or refuse the preamble and the padding
behind a boundary that RFC 2046 and PS3.18 8.6.1 allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from msgspec import Struct

#: Spaces and tabs that may stand behind a boundary.
MAX_PADDING_BYTES = 64
#: What may stand before the first boundary.
MAX_PREAMBLE_BYTES = 64 * 1024


class MalformedError(ValueError):
    """The body is no multipart body with this boundary. The text says what and holds no value of it."""


class TooManyPartsError(ValueError):
    """There are more parts than are taken."""


class PartBegin(Struct, frozen=True):
    """A part begins; its header fields by their names in lower case, the first of each name."""

    headers: dict[str, str]


class PartData(Struct, frozen=True):
    """The next bytes of the part. They are good until the parser is fed again."""

    data: memoryview


class PartEnd(Struct, frozen=True):
    """The part is complete."""


Event = PartBegin | PartData | PartEnd


class _At(Enum):
    PREAMBLE = auto()
    BOUNDARY = auto()  # behind it
    HEADERS = auto()
    BODY = auto()
    EPILOGUE = auto()


class MultipartParser:
    """`feed` it the body in pieces of any size, then `finish`. It keeps less than the larger of a part's header and a boundary."""

    def __init__(self, boundary: bytes, *, max_parts: int, max_header_bytes: int) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._max_parts = max_parts
        self._max_header_bytes = max_header_bytes
        self._at = _At.PREAMBLE
        self._kept = b"\r\n"  # a body may begin with its first boundary
        self._parts = 0
        self._preamble_bytes = 0
        self._not_data = 0  # the line end before a body, which may be the boundary's too

    def feed(self, data: bytes) -> Iterator[Event]:
        """What is complete with `data`. Raises `MalformedError` and `TooManyPartsError`; it is of no more use then."""
        buffer = self._kept + data if self._kept else data
        self._kept = b""
        view = memoryview(buffer)
        position = 0
        while position < len(buffer):
            if self._at is _At.BODY:
                found = buffer.find(self._delimiter, position)
                end = found if found >= 0 else max(position, len(buffer) - len(self._delimiter) + 1)
                begin = min(position + self._not_data, end)
                self._not_data -= begin - position
                if begin < end:
                    yield PartData(view[begin:end])
                position = end
                if found < 0:
                    break
                yield PartEnd()
                position += len(self._delimiter)
                self._at = _At.BOUNDARY
            elif self._at is _At.PREAMBLE:
                found = buffer.find(self._delimiter, position)
                end = found if found >= 0 else max(position, len(buffer) - len(self._delimiter) + 1)
                self._preamble_bytes += end - position
                if self._preamble_bytes > MAX_PREAMBLE_BYTES:
                    raise MalformedError("its boundary does not come")
                position = end
                if found < 0:
                    break
                position += len(self._delimiter)
                self._at = _At.BOUNDARY
            elif self._at is _At.BOUNDARY:
                if (after := self._behind_boundary(buffer, position)) < 0:
                    break
                position = after
            elif self._at is _At.HEADERS:
                end = buffer.find(b"\r\n\r\n", position)
                if (end if end >= 0 else len(buffer)) - position > self._max_header_bytes:
                    raise MalformedError(f"a part's header is longer than {self._max_header_bytes} bytes")
                if end < 0:
                    break
                yield PartBegin(_fields(buffer[position + 2 : end]))
                position = end + 2
                self._not_data = 2
                self._at = _At.BODY
            else:
                return  # the epilogue means nothing
        self._kept = buffer[position:]

    def finish(self) -> None:
        """The body is over. Raises `MalformedError` if its last boundary did not come."""
        if self._at is not _At.EPILOGUE:
            raise MalformedError("it ends before its last boundary" if self._parts else "it has no boundary")

    def _behind_boundary(self, buffer: bytes, position: int) -> int:
        """Where to go on behind a boundary, -1 if there is not enough yet."""
        if buffer.startswith(b"--", position):
            self._at = _At.EPILOGUE
            return len(buffer)
        line_end = position
        while buffer[line_end : line_end + 1] in (b" ", b"\t"):
            line_end += 1
        rest = buffer[line_end : line_end + 2]
        if line_end - position > MAX_PADDING_BYTES or (rest and not b"\r\n".startswith(rest) and (rest != b"-" or line_end > position)):
            raise MalformedError("a line begins with its boundary and goes on otherwise")
        if len(rest) < 2:
            return -1
        self._parts += 1
        if self._parts > self._max_parts:
            raise TooManyPartsError
        self._at = _At.HEADERS
        return line_end


def _fields(head: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in head.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n") if head else []:
        name, colon, value = line.partition(b":")
        if not colon or not name.strip():
            raise MalformedError("a part's header has a line that is no field")
        fields.setdefault(name.decode("latin-1").strip().lower(), value.decode("latin-1").strip())
    return fields
