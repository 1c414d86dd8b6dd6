"""The rows of HL7 messages, and what commands ask of them. They hold patient data: shown, never logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from msgspec import Raw, Struct
from psycopg.rows import dict_row

from hilum.database import AWAY, away, connect
from hilum.database.merges import same_person
from hilum.database.rows import Insert
from hilum.errors import NotFound
from hilum.events import MessageReceived, MessageRefused, MessageValidated
from hilum.hl7.message import NotHl7, parse
from hilum.hl7.named import Named, document_of, named

#: Longer values of a header are cut where they are looked for: an index of PostgreSQL takes 2,704 bytes.
LONGEST_TEXT = 400


class MessageRow(Struct, frozen=True, kw_only=True):
    """A message, or something that was not taken as one."""

    message_id: str
    received_at: datetime
    sender: str | None
    peer: str | None
    sending_application: str | None = None
    sending_facility: str | None = None
    receiving_application: str | None = None
    receiving_facility: str | None = None
    control_id: str | None
    code: str | None
    trigger: str | None
    structure: str | None = None
    version: str | None = None
    character_set: str | None = None
    message_time: str | None = None
    sha256: str | None = None
    size_bytes: int
    text: str
    text_cut: bool = False
    read_as: str | None = None
    raw: bytes | None = None
    bucket: str | None = None
    object_key: str | None = None
    changed_under_control_id: bool = False
    findings: Raw | None = None
    replays: str | None = None
    refused: str | None = None
    sentence: str | None = None
    acknowledgement: str | None = None
    patient_ids: tuple[str, ...] = ()
    order_numbers: tuple[str, ...] = ()


class GrammarRow(Struct, frozen=True, kw_only=True):
    """What the grammar does not allow in a message."""

    message_id: str
    grammar: Raw
    validated_at: datetime


_COLUMNS = [column for column in MessageRow.__struct_fields__ if column != "message_id"]
#: A message's row may be there already, made by what validation found.
insert_message = Insert(
    "hl7_message",
    MessageRow,
    f"WHERE true ON CONFLICT (message_id) DO UPDATE SET {', '.join(f'{each} = EXCLUDED.{each}' for each in _COLUMNS)}"
    " WHERE hl7_message.received_at IS NULL",
)
insert_grammar = Insert(
    "hl7_message",
    GrammarRow,
    "WHERE true ON CONFLICT (message_id) DO UPDATE SET grammar = EXCLUDED.grammar, validated_at = EXCLUDED.validated_at",
)


def write_messages(connection: psycopg.Connection, events: Sequence[MessageReceived | MessageRefused | MessageValidated]) -> None:
    """Write what events say of messages; the same in whatever order, and however often, they are read."""
    messages = {event.message_id: _row(event) for event in events if not isinstance(event, MessageValidated)}
    grammar = {event.message_id: _grammar(event) for event in events if isinstance(event, MessageValidated)}
    insert_message(connection, [messages[each] for each in sorted(messages)])
    insert_grammar(connection, [grammar[each] for each in sorted(grammar)])


def _row(event: MessageReceived | MessageRefused) -> MessageRow:
    if isinstance(event, MessageRefused):
        return MessageRow(
            message_id=event.message_id,
            received_at=event.received_at,
            sender=_short(event.sender),
            peer=_short(event.peer),
            control_id=_short(event.control_id),
            code=_short(event.code),
            trigger=_short(event.trigger),
            size_bytes=event.size_bytes,
            text=event.text,
            text_cut=len(event.text) < event.size_bytes,
            refused=event.reason,
            sentence=event.sentence,
            acknowledgement=event.acknowledgement or None,
        )
    names = _named(event.text)
    return MessageRow(
        message_id=event.message_id,
        received_at=event.received_at,
        sender=_short(event.sender),
        peer=_short(event.peer),
        sending_application=_short(event.sending_application),
        sending_facility=_short(event.sending_facility),
        receiving_application=_short(event.receiving_application),
        receiving_facility=_short(event.receiving_facility),
        control_id=_short(event.control_id),
        code=_short(event.code),
        trigger=_short(event.trigger),
        structure=_short(event.structure),
        version=_short(event.version),
        character_set=_short(event.character_set),
        message_time=_short(event.message_time),
        sha256=event.sha256,
        size_bytes=event.size_bytes,
        text=event.text,
        text_cut=event.text_cut,
        read_as=event.read_as or None,
        raw=event.raw or None,
        bucket=event.bucket or None,
        object_key=event.object_key or None,
        changed_under_control_id=event.changed_under_control_id,
        findings=Raw(msgspec.json.encode(event.findings)) if event.findings else None,
        replays=event.replays or None,
        patient_ids=names.patient_ids,
        order_numbers=names.order_numbers,
    )


def _named(text: str) -> Named:
    try:
        return named(parse(text))
    except NotHl7:  # the receiver took it for one: it is found by what else is known of it
        return Named(patient_ids=(), order_numbers=())


def _grammar(event: MessageValidated) -> GrammarRow:
    return GrammarRow(message_id=event.message_id, grammar=Raw(msgspec.json.encode(event.findings)), validated_at=event.validated_at)


def _short(text: str) -> str | None:
    return text[:LONGEST_TEXT] or None


# What commands ask


class Line(Struct, frozen=True, kw_only=True):
    """A message in a line."""

    message_id: str
    received_at: datetime | None
    sender: str | None
    peer: str | None
    sending_application: str | None
    control_id: str | None
    code: str | None
    trigger: str | None
    version: str | None
    size_bytes: int | None
    #: How many things are odd, by what came and by its grammar.
    findings: int
    refused: str | None
    sentence: str | None
    acknowledgement: str | None
    replays: str | None


class DocumentOfOrder(Struct, frozen=True, kw_only=True):
    """A message about a document (MDM) that names an order: TXA-2, TXA-12 and TXA-17 of it."""

    message_id: str
    received_at: datetime
    trigger: str | None
    kind: str
    number: str
    status: str


_LIST = """
SELECT message_id, received_at, sender, peer, sending_application, control_id, code, trigger, version, size_bytes,
       coalesce(jsonb_array_length(findings), 0) + coalesce(jsonb_array_length(grammar), 0) AS findings,
       refused, sentence, acknowledgement, replays
FROM hl7_message
WHERE received_at IS NOT NULL
  AND (%(refused)s::boolean IS NULL OR (refused IS NOT NULL) = %(refused)s)
  AND (NOT %(findings)s OR findings IS NOT NULL OR grammar IS NOT NULL)
  AND (%(kind)s = '' OR code = %(kind)s OR code || '^' || trigger = %(kind)s)
  AND (%(sender)s = '' OR sender = %(sender)s OR sending_application = %(sender)s OR peer = %(sender)s)
  AND (%(control_id)s = '' OR control_id = %(control_id)s)
  AND (%(since)s::timestamptz IS NULL OR received_at >= %(since)s)
  AND (%(patient)s = '' OR patient_ids && array_append(ARRAY(SELECT value FROM ({same}) AS same), %(patient)s))
  AND (%(order)s = '' OR order_numbers @> ARRAY[%(order)s])
ORDER BY received_at DESC, message_id DESC LIMIT %(limit)s
""".replace("{same}", same_person("%(patient)s"))
# Numbers of one kind may be numbers of another kind elsewhere: so the patient is to be the order's, too, if the message names one.
_DOCUMENTS = """
SELECT message_id, received_at, trigger, text FROM hl7_message
WHERE received_at IS NOT NULL AND code = 'MDM' AND refused IS NULL AND order_numbers && %(numbers)s::text[]
  AND (patient_ids = '{}' OR patient_ids && %(patients)s::text[])
ORDER BY received_at DESC, message_id DESC LIMIT 50
"""


def list_messages(
    dsn: str,
    *,
    limit: int,
    kind: str = "",
    sender: str = "",
    control_id: str = "",
    since: datetime | None = None,
    refused: bool | None = None,
    findings: bool = False,
    patient: str = "",
    order: str = "",
) -> list[Line]:
    """The newest messages that fit. `kind` is `ADT` or `ADT^A08`; `refused` None: whether or not. Raises `TryAgain`.

    `patient` is an identifier, and finds all whom merges make one with that patient; `order` any number of an order.
    """
    given = {
        "limit": limit,
        "kind": kind,
        "sender": sender,
        "control_id": control_id,
        "since": since,
        "refused": refused,
        "findings": findings,
        "patient": patient,
        "order": order,
    }
    return [msgspec.convert(row, Line) for row in _rows(dsn, _LIST, given)]


def documents_of(dsn: str, numbers: Sequence[str], patients: Sequence[str]) -> list[DocumentOfOrder]:
    """Messages about documents that name one of these orders' numbers and one of these patients, newest first. Raises `TryAgain`."""
    found = []
    for row in _rows(dsn, _DOCUMENTS, {"numbers": list(numbers), "patients": list(patients)}):
        said = document_of(parse(row.pop("text")))
        found.append(DocumentOfOrder(**row, kind=said.kind, number=said.number, status=said.status))
    return found


def find_message(dsn: str, which: str) -> dict[str, Any]:
    """All columns of a message, by its id or, if only one has it, its control id. Raises `NotFound` and `TryAgain`."""
    query = "SELECT * FROM hl7_message WHERE message_id = %(which)s OR control_id = %(which)s ORDER BY received_at DESC LIMIT 2"
    found = _rows(dsn, query, {"which": which})
    if not found:
        raise NotFound("There is no such message.", fix="`hilum hl7 list` shows what there is; the index may be some seconds behind.")
    if len(found) > 1 and found[0]["message_id"] != which:
        raise NotFound("Several messages have this control id.", fix="Give a message's id; `hilum hl7 list --control-id` shows them.")
    return dict(found[0])


def _rows(dsn: str, query: str, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        with connect(dsn) as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.encode(), given).fetchall()
    except AWAY as error:
        raise away(dsn, error) from None
