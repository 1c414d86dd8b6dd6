"""Batches and files of messages (HL7 v2.5.1 2.10.3): FHS, BHS, messages, BTS, FTS."""

from __future__ import annotations

import re

from msgspec import Struct

from .acknowledgement import new_control_id
from .delimiters import DEFAULT, Delimiters
from .message import NotHl7, Segment, read_delimiters

_BEGIN = re.compile(rb"(?:\A|[\r\n]+)[ \t\0]*(?=(?:MSH|FHS|BHS|BTS|FTS)[^A-Za-z0-9\r\n]|(?:BTS|FTS)(?:[\r\n]|\Z))")


class Batch(Struct, frozen=True):
    """A block that holds more than one message, or is a batch. `header` is FHS or BHS; empty where messages merely follow each other."""

    messages: tuple[bytes, ...]
    header: str = ""
    #: How many messages BTS-1 says there are; -1 if it says nothing.
    announced: int = -1

    @property
    def is_complete(self) -> bool:
        """Whether as many came as were announced."""
        return self.announced in (-1, len(self.messages))


def split(content: bytes) -> Batch | None:
    """The messages of a batch, or None if the block is one message. Of bytes: each message has its own character set."""
    if content[:3] == b"MSH" and content.find(b"\rMSH", 3) < 0 and content.find(b"\nMSH", 3) < 0:
        return None
    begins = [found.end() for found in _BEGIN.finditer(content)]
    if not begins:
        return None
    header, announced = "", -1
    messages: list[bytes] = []
    for begin, end in zip(begins, [*begins[1:], len(content)], strict=True):
        piece = content[begin:end]
        name = piece[:3]
        if name == b"MSH":
            messages.append(piece)
        elif name in (b"FHS", b"BHS"):
            header = header or re.split(r"[\r\n]", piece.decode("latin-1"), maxsplit=1)[0]
        elif name == b"BTS":
            count = re.match(rb"BTS[^A-Za-z0-9](\d{1,9})", piece)
            announced = (max(announced, 0) + int(count[1])) if count else announced
    return Batch(tuple(messages), header, announced) if header or len(messages) != 1 else None


def acknowledged(batch: Batch, acknowledgements: list[str], application: str = "HILUM", facility: str = "") -> str:
    """The batch of acknowledgements that answers a batch: BHS-11 and BHS-12 name the one that came."""
    try:
        delimiters, _ = read_delimiters(batch.header)
        header = Segment(batch.header, delimiters)
    except NotHl7:
        delimiters = DEFAULT
        header = Segment("BHS|^~\\&", delimiters)
    field = delimiters.field
    own = Delimiters.escaped
    receiver = header.raw(5) or own(delimiters, application), header.raw(6) or own(delimiters, facility)
    begin = ["BHS" + field + delimiters.encoding, *receiver, header.raw(3), header.raw(4), "", "", "", "", new_control_id(), header.raw(11)]
    return f"{field.join(begin).rstrip(field)}\r{''.join(acknowledgements)}BTS{field}{len(acknowledgements)}\r"
