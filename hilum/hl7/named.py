"""Which patients and orders a message names, whatever it is about: by these it is found."""

from __future__ import annotations

from msgspec import Struct

from .message import Message

#: Where identifiers of patients stand (HL7 v2.5.1 3.4.2, 3.4.9), and numbers of orders: placer, filler and accession numbers
#: (4.5.1, 4.5.3, IHE's and v2.5.1's IPC, 9.6.1, 10.6.1).
_PATIENTS = (("PID", (3, 2)), ("MRG", (1, 4)))
_ORDERS = (("ORC", (2, 3)), ("OBR", (2, 3, 18)), ("IPC", (1,)), ("TXA", (14, 15)), ("SCH", (1, 2, 26, 27)))
#: So many of each are kept, each of so many characters.
_MOST, _LONGEST = 100, 400


class Named(Struct, frozen=True, kw_only=True):
    """The identifiers of patients and the numbers of orders, each once, in the order in which they come."""

    patient_ids: tuple[str, ...]
    order_numbers: tuple[str, ...]


class Document(Struct, frozen=True, kw_only=True):
    """What an MDM message says of its document (HL7 v2.5.1 9.6.1)."""

    #: TXA-2, such as `DI` (table 0270), and TXA-12.
    kind: str
    number: str
    #: TXA-17, such as `AU` for authenticated (table 0271).
    status: str


def named(message: Message) -> Named:
    """What a message names."""
    return Named(patient_ids=_values(message, _PATIENTS), order_numbers=_values(message, _ORDERS))


def document_of(message: Message) -> Document:
    """What TXA says; empty where it says nothing."""
    return Document(kind=message.get("TXA-2"), number=message.get("TXA-12"), status=message.get("TXA-17"))


def _values(message: Message, places: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[str, ...]:
    fields = dict(places)
    found: dict[str, None] = {}
    for segment in message.all:
        for number in fields.get(segment.name, ()):
            for repetition in segment.field(number):
                value = repetition[0][0].strip() if repetition and repetition[0] else ""
                if value and value != '""' and len(value) <= _LONGEST and len(found) < _MOST:
                    found[value] = None
    return tuple(found)
