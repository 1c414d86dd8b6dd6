"""What senders may get wrong, and what becomes of it: `test_hl7_bad_input.py` sends it, `docs/reference/hl7.md` shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hilum.mllp import END, START, framed

from .example import Example


def _message(
    control_id: str = "M1",
    *,
    encoding: str = "|^~\\&",
    kind: str = "ADT^A08^ADT_A01",
    version: str = "2.5",
    charset: str = "",
    name: str = "Synthetic^Sam",
    accept: str = "|",
    more: str = "",
) -> bytes:
    header = f"MSH{encoding}|RIS|NORTH|HILUM|NORTH|20260102100000||{kind}|{control_id}|P|{version}|||{accept}||{charset}\r"
    return (header + f"EVN|A08|20260102100000\rPID|1||SYNTH0001^^^NORTH^MR||{name}\rPV1|1|O\r{more}").encode("latin-1")


def _one(content: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter((framed(content),))


def _raw(*pieces: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter(pieces)


def _fifty_megabytes() -> Iterator[bytes]:
    yield START + _message("LONG") + b"OBX|1|ED|PDF||"
    for _ in range(50):
        yield b"A" * 2**20
    yield b"\r" + END


STRICT = {"validation": "strict"}
_KEPT = "It is kept and told as `hl7.message.received.v1`, with the finding."
_SHOWN = "It is kept for people: `hilum hl7 list --refused`."

EXAMPLES: tuple[Example, ...] = (
    Example(
        title="No MSH", sent=_one(b"PID|1||SYNTH0001\r"), answers=("AE",), condition="100", place="MSH", kept=("no-header",), outcome=_SHOWN
    ),
    Example(title="An empty block", sent=_one(b""), answers=("AE",), condition="100", place="MSH", kept=("no-header",), outcome=_SHOWN),
    Example(
        title="MSH-1 is no separator",
        sent=_one(b"MSHA^~\\&ARIS\r"),
        answers=("AE",),
        condition="102",
        place="MSH-1",
        kept=("field-separator",),
        outcome=_SHOWN,
    ),
    Example(
        title="MSH-2 has a character twice",
        sent=_one(_message(encoding="|^^\\&")),
        answers=("AE",),
        condition="102",
        place="MSH-2",
        kept=("encoding-characters",),
        outcome=_SHOWN,
    ),
    Example(
        title="MSH-2 is missing",
        sent=_one(_message(encoding="")),
        answers=("AE",),
        condition="102",
        place="MSH-2",
        kept=("encoding-characters",),
        outcome=_SHOWN,
    ),
    Example(
        title="MSH-2 has fewer than four characters",
        sent=_one(_message(encoding="|^~")),
        answers=("AA",),
        kept=("received",),
        findings=("encoding-characters-missing",),
        outcome=_KEPT,
    ),
    Example(
        title="A version that there is not",
        sent=_one(_message(version="9.9")),
        answers=("AA",),
        kept=("received",),
        findings=("version-unknown",),
        outcome=_KEPT,
    ),
    Example(
        title="The same, strict",
        sent=_one(_message(version="9.9")),
        settings=STRICT,
        answers=("AR",),
        condition="203",
        place="MSH-12",
        kept=("message-unsupported",),
        outcome=_SHOWN,
    ),
    Example(
        title="No control id",
        sent=_one(_message("")),
        answers=("AA",),
        kept=("received",),
        findings=("control-id-missing",),
        outcome=_KEPT + " MSA-2 is empty, and a repeat is a new message.",
    ),
    Example(
        title="The same, strict",
        sent=_one(_message("")),
        settings=STRICT,
        answers=("AE",),
        condition="101",
        place="MSH-10",
        kept=("grammar",),
        outcome=_SHOWN,
    ),
    Example(
        title="A message that HL7 does not have",
        sent=_one(_message(kind="XYZ^Q99")),
        answers=("AA",),
        kept=("received",),
        outcome="It is kept and told as any other; validation finds `message-unknown` afterwards.",
    ),
    Example(
        title="The same, strict",
        sent=_one(_message(kind="XYZ^Q99")),
        settings=STRICT,
        answers=("AR",),
        condition="200",
        place="MSH-9",
        kept=("message-unsupported",),
        outcome=_SHOWN,
    ),
    Example(
        title="An event that HL7 does not have, strict",
        sent=_one(_message(kind="ADT^Q99")),
        settings=STRICT,
        answers=("AR",),
        condition="201",
        place="MSH-9",
        kept=("message-unsupported",),
        outcome=_SHOWN,
    ),
    Example(
        title="No MSH-9",
        sent=_one(_message(kind="")),
        answers=("AA",),
        kept=("received",),
        findings=("message-type-missing",),
        outcome=_KEPT,
    ),
    Example(
        title="A required segment is missing, strict",
        sent=_one(_message().replace(b"EVN|A08|20260102100000\r", b"")),
        settings=STRICT,
        answers=("AE",),
        condition="100",
        place="EVN",
        kept=("grammar",),
        outcome=_SHOWN,
    ),
    Example(
        title="A segment that HL7 does not have, strict",
        sent=_one(_message(more="FOO|1\r")),
        settings=STRICT,
        answers=("AE",),
        condition="100",
        place="FOO",
        kept=("grammar",),
        outcome=_SHOWN,
    ),
    Example(
        title="A site's own segment, strict",
        sent=_one(_message(more="ZDS|2.25.1\r")),
        settings=STRICT,
        answers=("AA",),
        kept=("received",),
        outcome="Z segments are allowed anywhere.",
    ),
    Example(
        title="A character set that there is not",
        sent=_one(_message(charset="KLINGON")),
        answers=("AA",),
        kept=("received",),
        findings=("character-set-unknown",),
        outcome=_KEPT + " It is read as it looks.",
    ),
    Example(
        title="The same, strict",
        sent=_one(_message(charset="KLINGON")),
        settings=STRICT,
        answers=("AE",),
        condition="103",
        place="MSH-18",
        kept=("grammar",),
        outcome=_SHOWN,
    ),
    Example(
        title="A byte that is not in the declared set",
        sent=_one(_message(charset="UNICODE UTF-8", name="M\xfcller")),
        answers=("AA",),
        kept=("received",),
        findings=("character-invalid",),
        outcome=_KEPT + " The bytes as they came are in the object store.",
    ),
    Example(
        title="The same, strict",
        sent=_one(_message(charset="UNICODE UTF-8", name="M\xfcller")),
        settings=STRICT,
        answers=("AE",),
        condition="102",
        place="MSH-18",
        kept=("grammar",),
        outcome=_SHOWN,
    ),
    Example(
        title="No character set, and not in ASCII",
        sent=_one(_message(name="M\xfcller")),
        answers=("AA",),
        kept=("received",),
        findings=("character-set-missing",),
        outcome=_KEPT + " `character_set` of the sender ends that.",
    ),
    Example(
        title="Line feeds in a report that were not escaped",
        sent=_one(_message(more="OBX|1|TX|||first\nsecond line\r")),
        answers=("AA",),
        kept=("received",),
        findings=("segment-broken",),
        outcome=_KEPT,
    ),
    Example(
        title="The end block without its carriage return",
        sent=_raw(START + _message() + b"\x1c"),
        answers=("AA",),
        kept=("received",),
        findings=("end-short",),
        outcome="Half a second later it counts as ended.",
    ),
    Example(
        title="A block that another one interrupts",
        sent=_raw(START + b"MSH|^~\\&|RIS|half", framed(_message())),
        answers=("AA",),
        kept=("unterminated", "received"),
        outcome="The half one gets no answer, so that its sender sends it again. " + _SHOWN,
    ),
    Example(
        title="A block that the end of the connection interrupts",
        sent=_raw(START + _message()),
        answers=(),
        kept=("unterminated",),
        outcome="No answer. " + _SHOWN,
    ),
    Example(
        title="A connection that never sends the end block",
        sent=_raw(START + _message()),
        settings={"idle_timeout_s": 0.5},
        stays=True,
        answers=(),
        kept=("unterminated",),
        outcome="No answer. It is closed once nothing more came for `hl7.idle_timeout_s` (60 s), or"
        " `hl7.message_timeout_s` (600 s) after the message began. " + _SHOWN,
    ),
    Example(
        title="Something between two blocks",
        sent=_raw(b"hello", framed(_message()), b"\r\n", framed(_message("M2"))),
        answers=("AA", "AA"),
        kept=("garbage", "received", "received"),
        outcome="Line ends and blanks mean nothing; what else is there is kept for people.",
    ),
    Example(title="A message without MLLP", sent=_raw(_message()), answers=(), kept=("garbage",), outcome="No answer. " + _SHOWN),
    Example(
        title="A message of 50 MB, with `max_message_bytes` as it is",
        sent=_fifty_megabytes,
        answers=("AE",),
        condition="104",
        kept=("message-too-long",),
        outcome="It is read to its end and not kept in memory; its first 4 KB are kept. The connection stays.",
    ),
    Example(
        title="10,000 repetitions of a field (PID-3)",
        sent=_one(_message().replace(b"SYNTH0001^^^NORTH^MR", b"~".join(b"A%d^^^NORTH" % n for n in range(10_000)))),
        answers=("AA",),
        kept=("received",),
        outcome="It is kept as any other, and the patient has 10,000 identifiers. What would not fit into an event waits in quarantine.",
    ),
    Example(
        title="Escape sequences within escape sequences",
        sent=_one(_message(name="\\E\\E\\E\\X5C455C\\" * 5000)),
        answers=("AA",),
        kept=("received",),
        outcome="Each is taken once, and no result is looked at again.",
    ),
    Example(
        title="The same message again",
        sent=_raw(framed(_message()), framed(_message())),
        answers=("AA", "AA"),
        kept=("received",),
        outcome="Acknowledged, counted in `hilum_hl7_repeats`, and not told again.",
    ),
    Example(
        title="Another message with the same control id",
        sent=_raw(framed(_message()), framed(_message(name="Synthetic^Sue"))),
        answers=("AA", "AA"),
        kept=("received", "received"),
        findings=("control-id-changed",),
        outcome=_KEPT,
    ),
    Example(
        title="A message for training",
        sent=_one(_message().replace(b"|P|", b"|T|")),
        answers=("AA",),
        kept=("received",),
        findings=("processing-id",),
        outcome=_KEPT,
    ),
    Example(
        title='The same, from a sender with `processing_ids = ["P"]`',
        sent=_one(_message().replace(b"|P|", b"|T|")),
        settings={"senders": {"ris": {"applications": ["RIS"], "processing_ids": ["P"]}}},
        answers=("AR",),
        condition="202",
        place="MSH-11",
        kept=("processing-id",),
        outcome=_SHOWN,
    ),
    Example(
        title='A sender that is not in the settings, with `unknown_senders = "refuse"`',
        sent=_one(_message()),
        settings={"unknown_senders": "refuse", "senders": {"other": {"applications": ["OTHER"]}}},
        answers=("AR",),
        condition="207",
        kept=("sender-unknown",),
        outcome=_SHOWN,
    ),
    Example(
        title="An acknowledgement",
        sent=_one(_message(kind="ACK^A08^ACK", more="MSA|AA|1\r")),
        answers=(),
        kept=("received",),
        outcome="It is kept and never answered, or two systems would do so for ever.",
    ),
    Example(
        title="A batch that says another number",
        settings={},
        sent=_one(b"BHS|^~\\&|RIS|NORTH|HILUM|NORTH||||||B1\r" + _message() + _message("M2") + b"BTS|3\r"),
        answers=("AA", "AA"),
        kept=("received", "received"),
        findings=("batch-incomplete",),
        outcome=_KEPT + " The acknowledgements come as one batch.",
    ),
    Example(
        title="The enhanced mode, `MSH-15` = `AL`",
        sent=_one(_message(accept="AL|NE")),
        settings=STRICT | {"senders": {}},
        answers=("CA",),
        kept=("received",),
        outcome="The accept acknowledgement; `CE` and `CR` for `AE` and `AR`.",
    ),
    Example(
        title="`MSH-15` = `ER`, and no error",
        sent=_one(_message(accept="ER|NE")),
        answers=(),
        kept=("received",),
        outcome="The sender wants no other answer than of errors.",
    ),
    Example(
        title="`MSH-15` = `ER`, and an error, strict",
        sent=_one(_message(accept="ER|NE", version="9.9")),
        settings=STRICT,
        answers=("CR",),
        condition="203",
        place="MSH-12",
        kept=("message-unsupported",),
        outcome=_SHOWN,
    ),
)
