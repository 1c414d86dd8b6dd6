"""Patients who are another one by now: an object is held against its study, and rules are asked, by who its patient is after merges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from hilum.database.known import Person
from hilum.dicom import CutValue, Header, tag_of
from hilum.events import Instance
from hilum.settings import Settings

#: An identifier and its issuer, as objects say them.
Id = tuple[str, str]

_TAGS = frozenset({tag_of("PatientID"), tag_of("IssuerOfPatientID")})


class Registry(Protocol):
    """Who knows patients from messages."""

    def persons(self, ids: Sequence[Id]) -> Mapping[Id, Person]:
        """Who the patients with these identifiers are by now; who is not known, or cannot be told from others, is left out."""
        ...


class Persons:
    """Who the patients of a batch are. For one thread."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._found: Mapping[Id, Person] = {}
        self._issuers: dict[str, str] = {}
        self._issuer = ""

    def follow(self, settings: Settings) -> None:
        """Whose identifiers are in objects that do not say."""
        self._issuer = settings.orders.issuer_of_patient_id
        self._issuers = {aet: sender.issuer_of_patient_id for aet, sender in settings.senders.items() if sender.issuer_of_patient_id}

    def look_up(self, instances: Sequence[Instance], of_studies: Mapping[str, Id], tags: frozenset[str]) -> None:
        """Ask about patients of a batch, if it matters: rules name PatientID (`tags`), or a study has more than one. Raises `TryAgain`.

        `of_studies` are the patients of the batch's studies, as far as they are known.
        """
        mine = [(instance, self.id_of(instance)) for instance in instances]
        ids = set() if _TAGS.isdisjoint(tags) else {each for _, each in mine if each[0]}
        of_study = {uid: {self._with_issuer(each)} for uid, each in of_studies.items()}
        for instance, each in mine:
            of_study.setdefault(instance.study_instance_uid, set()).add(each)
        ids |= {each for found in of_study.values() if len(found) > 1 for each in found if each[0]}
        self._found = self._registry.persons(sorted(ids)) if ids else {}

    def are_one(self, instance: Instance, other: Id) -> bool:
        """Whether merges make the object's patient and another one the same."""
        one, same = self._found.get(self.id_of(instance)), self._found.get(self._with_issuer(other))
        return one is not None and same is not None and one.key == same.key

    def as_now(self, instance: Instance, header: Header) -> Header | None:
        """The header with who its patient is by now, for rules; None if it is the patient that it says."""
        person = self._found.get(self.id_of(instance))
        if person is None or not person.merged or not person.patient_id:
            return None
        changed = {tag_of("PatientID"): {"vr": "LO", "Value": [person.patient_id]}}
        if person.issuer:
            changed[tag_of("IssuerOfPatientID")] = {"vr": "LO", "Value": [person.issuer]}
        return Header({**header.json, **changed}, cut=header.cut - changed.keys())

    def id_of(self, instance: Instance) -> Id:
        """The object's patient."""
        value, issuer = _text(instance.header, "PatientID"), _text(instance.header, "IssuerOfPatientID")
        return value, issuer or self._issuers.get(instance.source.calling_aet, self._issuer)

    def _with_issuer(self, of_study: Id) -> Id:
        return of_study[0], of_study[1] or self._issuer

    def overlaid(self, instances: Iterable[Instance], headers: dict[str, Header]) -> None:
        """Put into `headers`, by receipt, what rules are to see of these instances where that is another patient."""
        for instance in instances:
            found = self.as_now(instance, headers.get(instance.receipt) or instance.header)
            if found is not None:
                headers[instance.receipt] = found


def _text(header: Header, keyword: str) -> str:
    try:
        return header.text(keyword).strip()
    except CutValue:
        return ""
