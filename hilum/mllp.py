"""MLLP, the Minimal Lower Layer Protocol (HL7 v2.5.1 Appendix C.4, Transport Specification: MLLP 1): blocks, without sockets.

A block is VT, content, FS, CR. Like `h11`, the reader is fed with bytes as they come, and gives what they mean.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

START = b"\x0b"
END = b"\x1c\r"
_FS = 0x1C
#: What may be between blocks and means nothing.
_BLANK = b"\r\n\t \x1c\0"
#: What begins a message; after a start byte it is a new block, even within one that has not ended.
_BEGINNINGS = (b"MSH", b"FHS", b"BHS")
_LONGEST_BEGINNING = 4
#: Of a block that is too long, so much is kept, to answer it.
KEPT_BYTES = 4096


class Block(Struct, frozen=True):
    """What one block held. `problem` is empty for a whole one; else it says why `content` is a beginning only, and no message."""

    content: bytes
    #: `unterminated`, `too-long` or `garbage`.
    problem: str = ""
    size_bytes: int = 0
    #: Whether the carriage return after FS was missing.
    short_end: bool = False


def framed(content: bytes) -> bytes:
    """One block."""
    return START + content + END


class Reader:
    """Finds blocks in what a connection brings. Content over `max_bytes` is not kept: its beginning comes as `too-long` at its end.

    Between blocks only line ends and blanks are expected; else comes one `garbage` before the next block.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        #: Where in the buffer the search for the end goes on.
        self._looked = 0
        self._inside = False
        self._dropped = 0
        self._head = b""
        self._garbage = bytearray()
        self._garbage_bytes = 0

    @property
    def inside(self) -> bool:
        """Whether a block has begun and not ended."""
        return self._inside

    @property
    def held_bytes(self) -> int:
        """Bytes in memory."""
        return len(self._buffer)

    @property
    def garbage_bytes(self) -> int:
        """Bytes between blocks that mean nothing, since the last block."""
        return self._garbage_bytes

    @property
    def perhaps_ended(self) -> bool:
        """Whether the last byte is FS, so that only the carriage return is missing: some senders never send it (`end_here`)."""
        return self._inside and self._buffer[-1:] == b"\x1c"

    def feed(self, data: bytes) -> Iterator[Block]:
        """Take what came; the blocks that it ends. To be read to its end before the next."""
        self._buffer += data
        while True:
            if not self._inside and not self._begin():
                break
            found = self._end()
            if found is None:
                break
            yield from self._told_garbage()
            yield found
        if not self._inside and self._garbage_bytes > KEPT_BYTES:
            yield from self._told_garbage()

    def end_here(self) -> Iterator[Block]:
        """No carriage return came after FS, and nothing else: the block ends there."""
        if self.perhaps_ended:
            yield from self._told_garbage()
            yield self._block(len(self._buffer) - 1, len(self._buffer), short_end=True)

    def close(self) -> Iterator[Block]:
        """The connection has ended: what is left."""
        if self.perhaps_ended:
            yield from self.end_here()
        elif self._inside:
            yield from self._told_garbage()
            yield self._unterminated(len(self._buffer))
        else:
            self._begin()
            yield from self._told_garbage()

    def _begin(self) -> bool:
        """Go to the next start byte; whether there is one."""
        at = self._buffer.find(START)
        self._skip(bytes(self._buffer if at < 0 else self._buffer[:at]))
        del self._buffer[: at + 1 if at >= 0 else len(self._buffer)]
        self._inside, self._looked, self._dropped, self._head = at >= 0, 0, 0, b""
        return self._inside

    def _skip(self, between: bytes) -> None:
        strange = len(between.translate(None, _BLANK))
        if strange or self._garbage_bytes:
            self._garbage += (between if self._garbage_bytes else between.lstrip(_BLANK))[: KEPT_BYTES - len(self._garbage)]
            self._garbage_bytes += strange

    def _told_garbage(self) -> Iterator[Block]:
        if self._garbage_bytes:
            found = Block(bytes(self._garbage.rstrip(_BLANK)), "garbage", self._garbage_bytes)
            self._garbage.clear()
            self._garbage_bytes = 0
            yield found

    def _end(self) -> Block | None:
        """The block that ends in what came so far."""
        buffer = self._buffer
        while True:
            at = _next_of(buffer, self._looked)
            if at < 0:
                self._looked = len(buffer)
                self._drop(len(buffer))
                return None
            if buffer[at] == _FS:
                if at + 1 == len(buffer):
                    self._looked = at
                    self._drop(at)
                    return None
                follows = buffer[at + 1]
                if follows == 0x0D or (follows in b"\n\x0b" and not _wide(buffer)):
                    return self._block(at, at + (1 if follows == START[0] else 2), short_end=follows != 0x0D)
            else:
                beginning = bytes(buffer[at + 1 : at + _LONGEST_BEGINNING])
                if beginning in _BEGINNINGS:
                    return self._unterminated(at)
                if len(beginning) < 3 and any(each.startswith(beginning) for each in _BEGINNINGS):
                    self._looked = at
                    return None
            self._looked = at + 1

    def _drop(self, upto: int) -> None:
        """Keep no more of a block than may be."""
        if self._dropped or upto > self._max_bytes:
            self._head = self._beginning(upto)
            del self._buffer[:upto]
            self._dropped += upto
            self._looked -= upto

    def _beginning(self, end: int) -> bytes:
        return self._head + bytes(self._buffer[: min(end, KEPT_BYTES - len(self._head))])

    def _block(self, end: int, rest: int, *, short_end: bool) -> Block:
        size = self._dropped + end
        if size > self._max_bytes:
            found = Block(self._beginning(end), "too-long", size)
        else:
            found = Block(bytes(self._buffer[:end]), "", size, short_end)
        del self._buffer[:rest]
        self._inside = False
        return found

    def _unterminated(self, end: int) -> Block:
        found = Block(self._beginning(end), "unterminated", self._dropped + end)
        del self._buffer[:end]
        self._inside = False
        return found


def _wide(buffer: bytearray) -> bool:
    """Whether the characters have more than one byte each: then FS and VT may be halves of others."""
    return 0 in buffer[:4] or buffer.startswith((b"\xff\xfe", b"\xfe\xff"))


def _next_of(buffer: bytearray, begin: int) -> int:
    """Where the next FS or VT is; -1 if nowhere."""
    end = buffer.find(_FS, begin)
    start = buffer.find(START, begin, end if end >= 0 else len(buffer))
    return start if start >= 0 else end
