"""Messages that Hilum itself sends: results and order status for a study, templates, and what is changed in a message that is passed on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

from .delimiters import DEFAULT, Delimiters
from .message import Field, Message, build, parsed_path

#: What a template, or a value that is set, may ask for: `${PatientID}`, or of a message that is passed on `${PID-3.1}`.
_PLACE = re.compile(r"\$\{([^}]*)\}")

#: What a receiver can be told of.
Kind = Literal[
    "study-opened",
    "study-completed",
    "delivered",
    "quarantined",
    "step-started",
    "step-completed",
    "step-discontinued",
    "order-scheduled",
    "order-started",
    "order-completed",
    "order-discontinued",
    "message",
]
#: What Hilum knows of a study, by DICOM's keywords where it has one.
FACTS = (
    "Event",
    "Now",
    "ControlID",
    "StudyInstanceUID",
    "AccessionNumber",
    "PlacerOrderNumber",
    "FillerOrderNumber",
    "RequestedProcedureID",
    "ProcedureCode",
    "ProcedureMeaning",
    "ProcedureScheme",
    "ScheduledProcedureStepID",
    "PatientID",
    "IssuerOfPatientID",
    "PatientIDType",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "ModalitiesInStudy",
    "Instances",
    "Revision",
    "Destination",
    "Reason",
    "Sentence",
)
#: OBR-25 (table 0123) and ORC-5 (table 0038) by what happened.
_RESULT_STATUS = {"study-opened": "I", "study-completed": "R", "delivered": "R", "quarantined": "I"}
_RESULT_STATUS |= {"step-discontinued": "X", "order-discontinued": "X"}
_ORDER_STATUS = {
    "study-opened": "IP",
    "study-completed": "CM",
    "delivered": "CM",
    "quarantined": "HD",
    "step-started": "IP",
    "step-completed": "CM",
    "step-discontinued": "DC",
    "order-scheduled": "SC",
    "order-started": "IP",
    "order-completed": "CM",
    "order-discontinued": "DC",
}


class Header:
    """MSH of what Hilum sends."""

    def __init__(self, sender: tuple[str, str], receiver: tuple[str, str], version: str, processing_id: str, character_set: str) -> None:
        self._sender, self._receiver = sender, receiver
        self.version, self._processing_id, self._character_set = version, processing_id, character_set

    def fields(self, kind: tuple[str, str, str], facts: Mapping[str, str]) -> tuple[str, list[str | Field]]:
        """The segment, from MSH-3 on."""
        parts = kind if self.version >= "2.4" else kind[:2]
        return (
            "MSH",
            [
                *self._sender,
                *self._receiver,
                facts["Now"],
                "",
                [[[part] for part in parts]],
                facts["ControlID"],
                self._processing_id,
                self.version,
                *[""] * 5,
                self._character_set,
            ],
        )


def message_of(kind: str, header: Header, facts: Mapping[str, str]) -> str:
    """The message of that kind, `ORU^R01`, `OMG^O19` or `ORM^O01`, that says what `facts` say (HL7 v2.5.1 7.3.1, 4.4.4, 4.4.1)."""
    if kind == "ORU^R01":
        body = [header.fields(("ORU", "R01", "ORU_R01"), facts), _pid(facts), _obr(facts, result=True), *_obx(facts)]
    elif kind == "OMG^O19":
        body = [header.fields(("OMG", "O19", "OMG_O19"), facts), _pid(facts), _orc(facts), _obr(facts, result=False)]
    else:
        body = [header.fields(("ORM", "O01", "ORM_O01"), facts), _pid(facts), _orc(facts), _obr(facts, result=False), _zds(facts)]
    return build(body)


def now() -> str:
    """MSH-7: this moment in UTC."""
    return f"{datetime.now(UTC):%Y%m%d%H%M%S}+0000"


def xpn(name: str) -> Field:
    """A DICOM name as HL7 has it: suffix and prefix change places (PS3.5 6.2.1; HL7 v2.5.1 2.A.89). The first group that is there."""
    group = next((each for each in name.split("=") if each), "")
    family, given, middle, prefix, suffix = (*group.split("^"), "", "", "", "", "")[:5]
    parts = [family, given, middle, suffix, prefix]
    while parts and not parts[-1]:
        parts.pop()
    return [[[part] for part in parts]]


def _pid(facts: Mapping[str, str]) -> tuple[str, list[str | Field]]:
    kind = facts["PatientIDType"] or "PI"
    identifier: Field = [[[facts["PatientID"]], [""], [""], [facts["IssuerOfPatientID"]], [kind]]] if facts["PatientID"] else []
    sex = facts["PatientSex"] if facts["PatientSex"] in ("M", "F", "O") else ""
    return "PID", ["1", "", identifier, "", xpn(facts["PatientName"]), "", facts["PatientBirthDate"], sex]


def _orc(facts: Mapping[str, str]) -> tuple[str, list[str | Field]]:
    status = _ORDER_STATUS.get(facts["Event"], "")
    return "ORC", ["SC", facts["PlacerOrderNumber"], facts["FillerOrderNumber"], "", status, "", "", "", facts["Now"]]


def _obr(facts: Mapping[str, str], *, result: bool) -> tuple[str, list[str | Field]]:
    fields: list[str | Field] = [""] * 27
    fields[0] = "1"
    fields[1], fields[2] = facts["PlacerOrderNumber"], facts["FillerOrderNumber"]
    fields[3] = _service(facts)
    fields[6] = (facts["StudyDate"] + facts["StudyTime"][:6]) if facts["StudyDate"] else ""
    fields[17] = facts["AccessionNumber"]  # OBR-18, placer field 1 (IHE RAD TF-2 4.4)
    fields[18], fields[19] = facts["RequestedProcedureID"], facts["ScheduledProcedureStepID"]
    fields[21] = facts["Now"]
    fields[23] = facts["ModalitiesInStudy"].split("\\")[0]
    fields[24] = _RESULT_STATUS.get(facts["Event"], "") if result else ""
    return "OBR", fields


def _service(facts: Mapping[str, str]) -> Field:
    """OBR-4: the service that was ordered; what is not known to have a code has a text alone."""
    if not facts["ProcedureCode"]:
        return [[[""], [facts["ProcedureMeaning"] or facts["StudyDescription"] or "Imaging study"]]]
    parts = [facts["ProcedureCode"], facts["ProcedureMeaning"], facts["ProcedureScheme"]]
    return [[[part] for part in parts if part or facts["ProcedureScheme"]]]


def _obx(facts: Mapping[str, str]) -> Iterable[tuple[str, list[str | Field]]]:
    """What became of the study, one observation a fact."""
    said = [
        ("ST", [["HILUM-EVENT"], ["What became of the study"], ["99HILUM"]], facts["Event"]),
        ("HD", [["113014"], ["DICOM Study"], ["DCM"]], facts["StudyInstanceUID"]),
        ("NM", [["HILUM-INSTANCES"], ["Instances"], ["99HILUM"]], facts["Instances"]),
        ("ST", [["HILUM-DESTINATION"], ["Delivered to"], ["99HILUM"]], facts["Destination"]),
        ("ST", [["HILUM-REASON"], ["Why it waits"], ["99HILUM"]], facts["Reason"]),
        ("ST", [["HILUM-SENTENCE"], ["What is to be done"], ["99HILUM"]], facts["Sentence"]),
    ]
    for number, (kind, identifier, value) in enumerate(((each for each in said if each[2])), 1):
        yield "OBX", [str(number), kind, [identifier], "", value, "", "", "", "", "", "F"]


def _zds(facts: Mapping[str, str]) -> tuple[str, list[str | Field]]:
    """The segment of IHE for the StudyInstanceUID (RAD TF-2 4.4)."""
    return "ZDS", [[[[facts["StudyInstanceUID"]], [""], ["Application"], ["DICOM"]]]]


# Templates


def asked_for(template: str) -> set[str]:
    """What a template asks for."""
    return set(_PLACE.findall(template))


def filled(template: str, facts: Mapping[str, str], delimiters: Delimiters = DEFAULT) -> str:
    """A template with each `${Name}` replaced by that fact, escaped; line ends are what ends segments.

    Names are written as HL7 has them, their components apart.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name == "PatientName":
            return delimiters.component.join(delimiters.escaped(part[0]) for part in xpn(facts[name])[0])
        return delimiters.escaped(facts.get(name, ""))

    lines = (line.strip() for line in re.split(r"[\r\n]+", _PLACE.sub(value, template)))
    return "".join(f"{line}\r" for line in lines if line)


# What is passed on


def changed(message: Message, values: Mapping[str, str], without: Collection[str]) -> str:
    """A message without the segments in `without`, and with values by path, each of which may hold `${PATH}` of the message as it was.

    A path without a component sets the whole field; `PID-3.4` sets that component of the first repetition. No segment is added.
    """
    lines = [segment.text for segment in message.all if segment.name not in without]
    said = {path: _PLACE.sub(lambda found: message.get(found[1]), value) for path, value in values.items()}
    for path, value in said.items():
        name, nth, field, repetition, component, _ = parsed_path(path)
        places = [at for at, line in enumerate(lines) if line[:3] == name]
        if nth <= len(places):
            at = places[nth - 1]
            lines[at] = _with(lines[at], message.delimiters, field, repetition, component if "." in path else 0, value)
    return "".join(f"{line}\r" for line in lines)


def _with(line: str, delimiters: Delimiters, field: int, repetition: int, component: int, value: str) -> str:
    shift = 1 if line[:3] == "MSH" else 0
    fields = line.split(delimiters.field)
    at = field - shift
    fields += [""] * (at + 1 - len(fields))
    if not component:
        fields[at] = delimiters.escaped(value)
    else:
        fields[at] = _replaced(
            fields[at],
            delimiters.repetition,
            repetition - 1,
            lambda raw: _replaced(raw, delimiters.component, component - 1, lambda _: delimiters.escaped(value)),
        )
    return delimiters.field.join(fields)


def _replaced(raw: str, separator: str, position: int, by: object) -> str:
    parts = raw.split(separator)
    parts += [""] * (position + 1 - len(parts))
    assert callable(by)
    parts[position] = by(parts[position])
    return separator.join(parts)


def types_match(wanted: Collection[str], code: str, trigger: str) -> bool:
    """Whether a message is of one of the types in `wanted`: `ADT` is all of them, `ADT^A08` the one."""
    return code in wanted or f"{code}^{trigger}" in wanted
