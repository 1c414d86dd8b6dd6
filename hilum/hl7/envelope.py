"""What a message's header says (MSH, HL7 v2.5.1 2.15.9), also of one that cannot be read further."""

from __future__ import annotations

from msgspec import Struct

from .delimiters import DEFAULT, Delimiters
from .message import HEADERS, Message, NotHl7, Segment, read_delimiters

#: Versions of table 0104 for which there is a grammar.
VERSIONS = ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2")
#: Message codes that acknowledge: they are never acknowledged themselves (2.9.2).
ACKNOWLEDGEMENTS = ("ACK", "MCF")


class Envelope(Struct, frozen=True, kw_only=True):
    """The header, without escape sequences. Of MSH-3 to MSH-6 `_raw` has the field as it was written."""

    delimiters: Delimiters = DEFAULT
    sending_application: str = ""
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    sender_raw: tuple[str, str] = ("", "")
    receiver_raw: tuple[str, str] = ("", "")
    message_time: str = ""
    code: str = ""
    trigger: str = ""
    structure: str = ""
    control_id: str = ""
    control_id_raw: str = ""
    processing_id: str = ""
    version: str = ""
    #: MSH-15 and MSH-16: `AL`, `NE`, `ER`, `SU`, or empty.
    accept: str = ""
    application: str = ""
    character_set: str = ""

    @property
    def enhanced(self) -> bool:
        """Whether the sender wants the enhanced acknowledgement mode (2.9.3)."""
        return bool(self.accept or self.application)


def envelope_of(message: Message) -> Envelope:
    """The envelope of a message that was read."""
    return _of_segment(message.all[0], message.trigger)


def envelope_of_beginning(text: str) -> Envelope:
    """As much of the envelope as can be read in a message's beginning; all empty if nothing can."""
    line = text.lstrip("\ufeff\r\n\t \x00").replace("\n", "\r").split("\r", 1)[0]
    if line[:3] not in HEADERS:
        return Envelope()
    try:
        delimiters, _ = read_delimiters(line)
    except NotHl7:
        # The field separator may still be one; nothing within fields is told apart then.
        separator = line[3:4]
        if not separator or separator.isalnum() or separator.isspace():
            return Envelope()
        delimiters = Delimiters(separator, "", "", "", "")
    return _of_segment(Segment(line, delimiters), "")


def _of_segment(header: Segment, trigger: str) -> Envelope:
    raws = header.raws()
    raws += [""] * (21 - len(raws))
    delimiters = header.delimiters

    def first(raw: str) -> str:
        if delimiters.repetition:
            raw = raw.split(delimiters.repetition, 1)[0]
        return delimiters.unescape(_part(raw, delimiters, 0))

    return Envelope(
        delimiters=delimiters,
        sending_application=first(raws[3]),
        sending_facility=first(raws[4]),
        receiving_application=first(raws[5]),
        receiving_facility=first(raws[6]),
        sender_raw=(raws[3], raws[4]),
        receiver_raw=(raws[5], raws[6]),
        message_time=first(raws[7]),
        code=first(raws[9]),
        trigger=delimiters.unescape(_part(raws[9], delimiters, 1)) or trigger,
        structure=delimiters.unescape(_part(raws[9], delimiters, 2)),
        control_id=first(raws[10]),
        control_id_raw=raws[10],
        processing_id=first(raws[11]),
        version=first(raws[12]),
        accept=first(raws[15]).upper(),
        application=first(raws[16]).upper(),
        character_set=raws[18].replace(delimiters.repetition, "~") if delimiters.repetition else raws[18],
    )


def _part(raw: str, delimiters: Delimiters, position: int) -> str:
    if not delimiters.component:
        return raw if position == 0 else ""
    parts = raw.split(delimiters.component)
    part = parts[position] if position < len(parts) else ""
    return part.split(delimiters.subcomponent, 1)[0] if delimiters.subcomponent else part
