"""Acknowledgements: which code, and the message that carries it (HL7 v2.5.1 2.9 and 2.15.1, 2.15.5, 2.15.8).

`AR` and `CR` say that the content is not to blame: senders try again. `AE` and `CE` say that it is: many engines then throw the
message away, so they are for what no person could use.
"""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime
from enum import StrEnum

from msgspec import Struct

from .delimiters import DEFAULT, Delimiters
from .envelope import ACKNOWLEDGEMENTS, VERSIONS, Envelope

#: Table 0357, message error condition codes, with its texts.
CONDITIONS = {
    "0": "Message accepted",
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "104": "Value too long",
    "198": "Non-Conformant Cardinality",
    "199": "Other HL7 Error",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "204": "Unknown key identifier",
    "205": "Duplicate key identifier",
    "206": "Application record locked",
    "207": "Application error",
}


class Answer(StrEnum):
    """What is said of a message, in the words of the original mode (table 0008)."""

    ACCEPT = "AA"
    ERROR = "AE"
    REJECT = "AR"


class Problem(Struct, frozen=True, kw_only=True):
    """One ERR segment: a code of table 0357, where, and a sentence without values of the message."""

    code: str
    sentence: str
    segment: str = ""
    #: Which of the segments with that name, from 1.
    sequence: int = 1
    field: int = 0
    component: int = 0


#: What `MSH-15` and `MSH-16` say (table 0155): whether an answer is wanted.
_WANTED = {
    "AL": (True, True),
    "NE": (False, False),
    "": (False, False),
    "ER": (False, True),
    "SU": (True, False),
}
_numbers = itertools.count(time.time_ns() // 1000)


def new_control_id() -> str:
    """A control id for a message of Hilum's own: 14 characters, never the same."""
    return f"H{next(_numbers):013x}"


def answers(
    envelope: Envelope,
    answer: Answer,
    problems: tuple[Problem, ...] = (),
    *,
    both: bool = True,
    application: str = "HILUM",
    facility: str = "",
) -> list[str]:
    """The acknowledgement messages that the sender wants to have, in their order.

    In the original mode one; in the enhanced mode the accept acknowledgement as MSH-15 says, and, if that reports no error, the
    application acknowledgement as MSH-16 says; without `both` that only where there is no other. Of an acknowledgement there is none.
    """
    if envelope.code in ACKNOWLEDGEMENTS:
        return []
    if not envelope.enhanced:
        return [_written(envelope, answer.value, problems, application, facility)]
    good = answer is Answer.ACCEPT
    accept, then = (_WANTED.get(asked, (True, True))[0 if good else 1] for asked in (envelope.accept, envelope.application))
    found = [_written(envelope, "C" + answer.value[1], problems, application, facility)] if accept else []
    if then and (not accept or (good and both)):
        found.append(_written(envelope, answer.value, problems, application, facility))
    return found


def _written(envelope: Envelope, code: str, problems: tuple[Problem, ...], application: str, facility: str) -> str:
    delimiters = envelope.delimiters if envelope.delimiters.component and envelope.delimiters.repetition else DEFAULT
    version = envelope.version if envelope.version in VERSIONS else "2.5"
    own = envelope.delimiters is delimiters
    field, component = delimiters.field, delimiters.component
    receiver = (
        envelope.receiver_raw if own and any(envelope.receiver_raw) else (delimiters.escaped(application), delimiters.escaped(facility))
    )
    sender = envelope.sender_raw if own else tuple(map(delimiters.escaped, envelope.sender_raw))
    kind = ["ACK"]
    if version >= "2.3" and envelope.trigger:
        kind.append(delimiters.escaped(envelope.trigger))
        if version >= "2.4":
            kind.append("ACK")
    header = [
        "MSH" + field + delimiters.encoding,
        *receiver,
        *sender,
        f"{datetime.now(UTC):%Y%m%d%H%M%S}+0000",
        "",
        component.join(kind),
        new_control_id(),
        delimiters.escaped(envelope.processing_id) or "P",
        version,
        *([""] * 5),
        envelope.character_set.replace("~", delimiters.repetition) if own else "",
    ]
    control_id = envelope.control_id_raw if own else delimiters.escaped(envelope.control_id)
    said = [field.join(["MSA", code, control_id, _in_short(problems, version, delimiters)]).rstrip(field)]
    said += [_err(problem, version, delimiters) for problem in problems]
    return "".join(f"{segment}\r" for segment in [field.join(header).rstrip(field), *said])


def _in_short(problems: tuple[Problem, ...], version: str, delimiters: Delimiters) -> str:
    """MSA-3, which is what most engines show; from version 2.7 on it is withdrawn."""
    return delimiters.escaped(problems[0].sentence[:80]) if problems and version < "2.7" else ""


def _err(problem: Problem, version: str, delimiters: Delimiters) -> str:
    component = delimiters.component
    text = CONDITIONS.get(problem.code, "")
    place = [problem.segment, str(problem.sequence), str(problem.field)] if problem.segment else []
    if place and not problem.field:
        place.pop()
    if version < "2.5":
        code = delimiters.subcomponent.join([problem.code, text, "HL70357"]) if delimiters.subcomponent else problem.code
        return delimiters.field.join(["ERR", component.join([*place, *[""] * (3 - len(place)), code])])
    if problem.component:
        place += ["1", str(problem.component)]
    code = component.join([problem.code, text, "HL70357"])
    fields = ["ERR", "", component.join(place), code, "E", "", "", "", delimiters.escaped(problem.sentence[:250])]
    return delimiters.field.join(fields)
