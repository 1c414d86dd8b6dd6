"""What images say of their order and patient, told to the stage `match` whenever it is something new of their study.

A study's row remembers what was told as pseudonyms with the site's secret, so that no row names a patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Raw

from hilum.dicom import CutValue, Header, tag_of
from hilum.events import Instance, InstanceAccepted, InstanceRouted, MatchRequested, StudyChanged
from hilum.order_events import Code, Identifier
from hilum.pseudonyms import Pseudonyms

from .plan import Saying
from .rejections import KEY_OBJECT_SELECTION
from .rows import Rows, StudyRow
from .study import Studies

#: Attributes that say whose and which order a study is.
_KEYWORDS = (
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "IssuerOfPatientID",
    "Modality",
    "OtherPatientIDsSequence",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "RequestAttributesSequence",
)
#: Decisions by which an instance belongs to its study.
_COUNT = frozenset({"deliver", "waits", "no-rule", "corrected", "held"})
#: So many different claims of one study are remembered; of one that has more, the last ones.
_MOST = 32


class Claims:
    """Looks at what is said of arrivals, and adds what `match` is to know."""

    def __init__(self, names: Pseudonyms, studies: Studies) -> None:
        self._names = names
        self._studies = studies
        self._tags = tuple(tag_of(keyword) for keyword in _KEYWORDS)

    def of_arrival(
        self, event: InstanceAccepted, arrived: Iterable[InstanceRouted | StudyChanged], rows: Rows, saying: Saying
    ) -> Iterator[MatchRequested]:
        """What follows from all that was said of an arrival, once its rows are written."""
        instance = event.instance
        for said in arrived:
            if isinstance(said, InstanceRouted):
                yield from self._told(instance, said, rows, saying)
            elif said.change == "withdrawn":
                study = rows.study(said.study_instance_uid)
                if study is None or said.instances <= study.notes:  # the notes themselves are instances of their study
                    yield self._withdrawn(said, rows, saying)

    def _told(self, instance: Instance, said: InstanceRouted, rows: Rows, saying: Saying) -> Iterator[MatchRequested]:
        if said.receipt != instance.receipt or said.decision not in _COUNT or instance.sop_class_uid == KEY_OBJECT_SELECTION:
            return
        study = rows.study(instance.study_instance_uid)
        claim = self._claim(instance.header)
        if study is not None:
            if claim in study.claims:
                return
            study.claims = (*study.claims, claim)[-_MOST:]
            self._studies.keep(instance.study_instance_uid, rows, study, saying.now)
        yield requested(instance, study, saying, replaces=said.decision == "corrected")

    def _claim(self, header: Header) -> str:
        found = (header.json.get(tag) for tag in self._tags)
        return self._names.of("claim", *("" if each is None else _text(each) for each in found))[:16]

    def _withdrawn(self, said: StudyChanged, rows: Rows, saying: Saying) -> MatchRequested:
        study = rows.study(said.study_instance_uid)
        if study is not None and study.claims:
            study.claims = ()
            self._studies.keep(said.study_instance_uid, rows, study, saying.now)
        return MatchRequested(
            study_instance_uid=said.study_instance_uid,
            instances=0,
            first_received_at=(study.opened_at if study is not None else None) or said.changed_at,
            revision=said.revision,
            requested_at=saying.now,
        )


def requested(instance: Instance, study: StudyRow | None, saying: Saying, *, replaces: bool = False) -> MatchRequested:
    """What one instance says of its study's order and patient."""
    header = instance.header
    requests = _items(header, "RequestAttributesSequence")
    accessions = [Identifier(value=header.text("AccessionNumber").strip(), issuer=_issuer(header.json))]
    accessions += [Identifier(value=_value(item, "AccessionNumber"), issuer=_issuer(item)) for item in requests]
    ids = [Identifier(value=header.text("PatientID").strip(), issuer=header.text("IssuerOfPatientID").strip())]
    ids += [
        Identifier(value=_value(item, "PatientID"), issuer=_value(item, "IssuerOfPatientID"))
        for item in _items(header, "OtherPatientIDsSequence")
    ]
    return MatchRequested(
        study_instance_uid=instance.study_instance_uid,
        accessions=tuple(dict.fromkeys(each for each in accessions if each.value)),
        patient_ids=tuple(dict.fromkeys(each for each in ids if each.value)),
        patient_name=header.text("PatientName").strip(),
        patient_birth_date=header.text("PatientBirthDate").strip(),
        patient_sex=header.text("PatientSex").strip(),
        study_date=header.text("StudyDate").strip(),
        study_time=header.text("StudyTime").strip(),
        modalities=tuple(each for each in (header.text("Modality").strip()[:16],) if each),
        sender=instance.source.calling_aet,
        station_name=header.text("StationName").strip(),
        codes=tuple(code for item in requests for code in _codes(item)),
        instances=max(1, study.instances - study.withdrawn) if study is not None else 1,
        replaces=replaces,
        first_received_at=(study.opened_at if study is not None else None) or instance.received_at,
        revision=study.revision + 1 if study is not None else 0,
        requested_at=saying.now,
    )


def _text(element: Any) -> str:
    raw = bytes(element) if isinstance(element, Raw) else msgspec.json.encode(element)
    return raw.decode("utf-8", "replace")


def _items(header: Header, keyword: str) -> list[dict[str, Any]]:
    """The items of a sequence; none if the event leaves it out: it is large, and hardly about orders."""
    try:
        return [item for item in header.values(keyword) if isinstance(item, dict)]
    except CutValue:
        return []


def _value(item: dict[str, Any], keyword: str) -> str:
    element = item.get(tag_of(keyword))
    if isinstance(element, Raw):
        element = msgspec.json.decode(element)
    return Header({tag_of(keyword): element}).text(keyword).strip() if element is not None else ""


def _issuer(item: dict[str, Any]) -> str:
    """Who assigned an accession number (PS3.3 10.14): its local namespace, else its universal id."""
    element = item.get(tag_of("IssuerOfAccessionNumberSequence"))
    if isinstance(element, Raw):
        element = msgspec.json.decode(element)
    issuers = (element or {}).get("Value") or [{}]
    first = issuers[0] if isinstance(issuers[0], dict) else {}
    return _value(first, "LocalNamespaceEntityID") or _value(first, "UniversalEntityID")


def _codes(item: dict[str, Any]) -> Iterator[Code]:
    element = item.get(tag_of("RequestedProcedureCodeSequence")) or {}
    for code in element.get("Value") or []:
        if isinstance(code, dict) and (value := _value(code, "CodeValue")):
            yield Code(value=value, meaning=_value(code, "CodeMeaning"), scheme=_value(code, "CodingSchemeDesignator"))
