"""What becomes of the bytes of a message: the event that says it came, or why it is not taken. Without sockets and disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import msgspec
from msgspec import Struct

from hilum.events import MessageFinding, MessageReceived, MessageRefused, encode
from hilum.hl7.acknowledgement import Answer, Problem
from hilum.hl7.charset import Decoded, decode
from hilum.hl7.envelope import VERSIONS, Envelope, envelope_of, envelope_of_beginning
from hilum.hl7.message import NotHl7, parse
from hilum.hl7.validation import Fault
from hilum.hl7_sections import Hl7Sender, Validation

from .refusals import REFUSALS
from .repeats import DIGEST_BYTES, key_of
from .senders import UNKNOWN, Senders

#: A text that takes more than this as JSON is cut: an event has 1,000,000 bytes.
MOST_TEXT_BYTES = 800_000
#: Messages that are shorter fit in any case, whatever is in them.
_SURELY_FITS = 100_000
#: Bytes that a message's text does not tell are in the event up to so many; of more, in the object store.
_MOST_RAW_BYTES = 100_000
_REFUSED_BYTES = 65_536

#: What may be odd about a message that is taken: its code, and one sentence.
FINDINGS: dict[str, str] = {
    "segment-broken": "A line begins with no segment's name; it is read as going on with the segment before.",
    "encoding-characters-missing": "MSH-2 has fewer than four encoding characters; what it lacks means nothing in the message.",
    "character-set-missing": "MSH-18 is empty, and the message is not in ASCII: it is read as UTF-8 if it is that, else as Windows-1252.",
    "character-set-unknown": "MSH-18 names a character set that Hilum cannot read.",
    "character-set-escape-unknown": "An escape sequence for a character set (ISO 2022) is none that Hilum can read.",
    "character-invalid": "The message has bytes that are not in its character set; they are read as U+FFFD, and kept as they came.",
    "control-id-missing": "MSH-10 is empty: repeats cannot be recognised.",
    "control-id-changed": "A message with other content came before with this control id.",
    "message-type-missing": "MSH-9 is empty: nothing can be made of the message.",
    "version-unknown": "MSH-12 names no version of HL7 v2 that Hilum knows.",
    "processing-id": "MSH-11 is not `P`: the message is for training or debugging.",
    "batch-incomplete": "BTS-1 says another number of messages than came in the batch.",
    "end-short": "The block ended with FS, without the carriage return behind it.",
}
_PATHS = {
    "encoding-characters-missing": "MSH-2",
    "character-set-missing": "MSH-18",
    "character-set-unknown": "MSH-18",
    "control-id-missing": "MSH-10",
    "control-id-changed": "MSH-10",
    "message-type-missing": "MSH-9",
    "version-unknown": "MSH-12",
    "processing-id": "MSH-11",
    "batch-incomplete": "BTS-1",
}


class Kept(Struct, array_like=True):
    """What the journal keeps of one message: the event, how a repeat is recognised, and the bytes if they must be kept, too."""

    #: `r` for `MessageReceived`, `x` for `MessageRefused`.
    kind: str
    event: bytes
    key: str = ""
    digest: bytes = b""
    raw: bytes = b""


class Examined(Struct, kw_only=True):
    """A message that was read, or why it cannot be."""

    content: bytes
    peer: str
    decoded: Decoded
    envelope: Envelope
    text: str = ""
    odd: tuple[str, ...] = ()
    sender_name: str = ""
    sender: Hl7Sender = UNKNOWN
    validation: Validation = "off"
    #: Why it is refused; empty if it is not.
    reason: str = ""
    problems: tuple[Problem, ...] = ()
    size_bytes: int = 0
    sha256: bytes = b""

    @property
    def answer(self) -> Answer | None:
        """What is to be said of it, once it is durable."""
        return REFUSALS[self.reason].answer if self.reason else Answer.ACCEPT

    @property
    def key(self) -> str:
        """Under what it is remembered."""
        return key_of(self.envelope)

    @property
    def digest(self) -> bytes:
        """By what its content is told from another's."""
        return self.sha256[:DIGEST_BYTES]


def examine(content: bytes, peer: str, senders: Senders, odd: tuple[str, ...] = ()) -> Examined:
    """Read a message. `odd` has codes of what is known to be odd already."""
    default = senders.character_set_of(peer)
    found = _examined(content, peer, senders, odd, default)
    own = found.sender.character_set
    if own and own != default and not found.decoded.declared and not content.isascii():
        return _examined(content, peer, senders, odd, own)  # only now is it known whose message it is
    return found


def _examined(content: bytes, peer: str, senders: Senders, odd: tuple[str, ...], default: str) -> Examined:
    decoded = decode(content, default)
    try:
        message = parse(decoded.text)
    except NotHl7 as error:
        reason = {1: "field-separator", 2: "encoding-characters"}.get(error.field, "no-header")
        problem = Problem(code=error.code, sentence=str(error), segment=error.segment, field=error.field)
        return _refused(content, peer, senders, decoded, reason, problem, len(content))
    envelope = envelope_of(message)
    found = Examined(
        content=content,
        peer=peer,
        decoded=decoded,
        envelope=envelope,
        text=message.text,
        odd=(*odd, *message.odd, *decoded.odd, *_odd(envelope)),
        size_bytes=len(content),
        sha256=hashlib.sha256(content).digest(),
    )
    sender = senders.find(peer, envelope)
    if sender is None:
        return refused(found, "sender-unknown")
    found.sender_name, found.sender = sender
    found.validation = senders.validation_of(found.sender)
    if found.sender.processing_ids and envelope.processing_id not in found.sender.processing_ids:
        return refused(found, "processing-id", Problem(code="202", sentence=REFUSALS["processing-id"].sentence, segment="MSH", field=11))
    return found


def examine_beginning(beginning: bytes, peer: str, senders: Senders, reason: str, size_bytes: int) -> Examined:
    """What there is of something that is no whole message, for the reason given."""
    refusal = REFUSALS[reason]
    problem = Problem(code=refusal.condition, sentence=refusal.sentence)
    return _refused(beginning, peer, senders, decode(beginning), reason, problem, size_bytes)


def refused(examined: Examined, reason: str, *problems: Problem) -> Examined:
    """The same message, not taken."""
    refusal = REFUSALS[reason]
    examined.reason = reason
    examined.problems = problems or (Problem(code=refusal.condition, sentence=refusal.sentence),)
    return examined


def judged(examined: Examined, faults: list[Fault]) -> Examined:
    """The message of a sender whose validation is strict, once it was held against the grammar."""
    problems = [
        Problem(code=fault.condition, sentence=fault.sentence, segment=fault.segment, field=fault.field) for fault in faults if fault.grave
    ]
    for code, condition in (("character-set-unknown", "103"), ("character-invalid", "102")):
        if code in examined.odd:
            problems.append(Problem(code=condition, sentence=FINDINGS[code], segment="MSH", field=18))
    if not problems:
        return examined
    unsupported = any(problem.code in ("200", "201", "203") for problem in problems)
    return refused(examined, "message-unsupported" if unsupported else "grammar", *problems[:10])


def kept(examined: Examined, receipt: UUID, received_at: datetime, bucket: str, *, changed: bool = False) -> Kept:
    """What the journal is to keep of a message."""
    if examined.reason:
        return _kept_refused(examined, receipt, received_at)
    envelope, decoded = examined.envelope, examined.decoded
    text = _fitting(examined.text)
    whole = len(text) == len(examined.text)
    told = whole and not decoded.lossy and tells(text, decoded.used, examined.content)
    raw = examined.content if whole and not (decoded.lossy or told) and examined.size_bytes <= _MOST_RAW_BYTES else b""
    must_keep = not (told or raw)
    odd = (*examined.odd, "control-id-changed") if changed else examined.odd
    event = MessageReceived(
        message_id=str(receipt),
        received_at=received_at,
        sender=examined.sender_name,
        peer=examined.peer,
        sending_application=envelope.sending_application,
        sending_facility=envelope.sending_facility,
        receiving_application=envelope.receiving_application,
        receiving_facility=envelope.receiving_facility,
        control_id=envelope.control_id,
        code=envelope.code,
        trigger=envelope.trigger,
        structure=envelope.structure,
        version=envelope.version,
        processing_id=envelope.processing_id,
        character_set=decoded.declared,
        message_time=envelope.message_time,
        sha256=examined.sha256.hex(),
        size_bytes=examined.size_bytes,
        text=text,
        text_cut=not whole,
        read_as=decoded.used,
        raw=raw,
        bucket=bucket if must_keep else "",
        object_key=object_key(receipt, received_at) if must_keep else "",
        changed_under_control_id=changed,
        findings=tuple(MessageFinding(code=code, sentence=FINDINGS[code], path=_PATHS.get(code, "")) for code in odd),
    )
    return Kept("r", encode(event), examined.key, examined.digest, examined.content if must_keep else b"")


def tells(text: str, read_as: str, content: bytes) -> bool:
    """Whether `text`, written as what the bytes were read as, is just these bytes."""
    try:
        return text.encode(read_as) == content
    except (UnicodeEncodeError, LookupError):  # `iso2022` is no codec of Python's
        return False


def object_key(receipt: UUID, received_at: datetime) -> str:
    """Where the bytes of a message are in the object store."""
    return f"hl7/{received_at.astimezone(UTC):%Y/%m/%d}/{receipt}.hl7"


def _kept_refused(examined: Examined, receipt: UUID, received_at: datetime) -> Kept:
    envelope, refusal = examined.envelope, REFUSALS[examined.reason]
    answer = refusal.answer
    said = "" if answer is None else "C" + answer.value[1] if envelope.accept in ("AL", "ER") else answer.value
    event = MessageRefused(
        message_id=str(receipt),
        received_at=received_at,
        sender=examined.sender_name,
        peer=examined.peer,
        control_id=envelope.control_id[:200],
        code=envelope.code[:20],
        trigger=envelope.trigger[:20],
        reason=examined.reason,
        sentence=" ".join(dict.fromkeys(problem.sentence for problem in examined.problems)) or refusal.sentence,
        acknowledgement=said,
        size_bytes=examined.size_bytes,
        text=examined.decoded.text[:_REFUSED_BYTES],
    )
    return Kept("x", encode(event))


def _refused(content: bytes, peer: str, senders: Senders, decoded: Decoded, reason: str, problem: Problem, size_bytes: int) -> Examined:
    envelope = envelope_of_beginning(decoded.text)
    found = Examined(
        content=content, peer=peer, decoded=decoded, envelope=envelope, reason=reason, problems=(problem,), size_bytes=size_bytes
    )
    found.sender_name, found.sender = senders.find(peer, envelope) or ("", UNKNOWN)
    return found


def _odd(envelope: Envelope) -> Iterator[str]:
    if not envelope.control_id:
        yield "control-id-missing"
    if not envelope.code:
        yield "message-type-missing"
    if envelope.version not in VERSIONS:
        yield "version-unknown"
    if envelope.processing_id not in ("P", ""):
        yield "processing-id"


def _fitting(text: str) -> str:
    """The text, or its first segments as far as they fit into an event."""
    if len(text) <= _SURELY_FITS or len(msgspec.json.encode(text)) <= MOST_TEXT_BYTES:
        return text
    left, fitting = MOST_TEXT_BYTES, []
    for segment in text.split("\r"):
        left -= len(msgspec.json.encode(segment)) + 2
        if left < 0:
            break
        fitting.append(segment + "\r")
    return "".join(fitting)
