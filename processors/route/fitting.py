"""Whether an object fits the study that it says it is of: the same patient, the same attributes of the study.

What is compared identifies the patient, so it is kept in no row and no event: it comes from the index, and for a study that the
index has not seen yet from the first object that this process has dealt with.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from hilum.database.known import IndexedStudy
from hilum.dicom import CutValue, Header
from hilum.errors import Quarantine, Reason
from hilum.events import Finding, InstanceAccepted
from hilum.settings import Studies as Policy

from .persons import Persons

#: What a routed instance may have been found to be: its code, and one sentence.
FINDINGS: Mapping[str, str] = {
    "patient-differs": "The study has objects of another patient: PatientID or its issuer differ.",
    "study-differs": "Attributes of the study differ from those of its first object.",
    "study-deidentified": "The study has a UID under which one left de-identified: what a receiver made of that, and no original.",
    "rejects-elsewhere": "The rejection note names instances of other studies: these are not acted on.",
}

_PATIENT = ("PatientID", "IssuerOfPatientID")
_OF_STUDY = ("AccessionNumber", "PatientBirthDate", "PatientName", "PatientSex", "StudyDate", "StudyID")
#: What a merge sets right, besides the patient's identifier.
_OF_PERSON = frozenset({"PatientBirthDate", "PatientName", "PatientSex"})
#: Studies whose attributes are kept in memory.
_MOST = 2000


class Fitting:
    """Holds objects against their studies. For one thread."""

    def __init__(self, persons: Persons, policy: Policy | None = None) -> None:
        self._persons = persons
        #: What becomes of what does not fit.
        self.policy = policy or Policy()
        self._seen: OrderedDict[str, dict[str, str]] = OrderedDict()

    def learn(self, indexed: Mapping[str, IndexedStudy]) -> None:
        """What the index says of studies holds."""
        for uid, study in indexed.items():
            if study.attributes:
                self._remember(uid, {name: value.strip() for name, value in study.attributes.items() if value and value.strip()})

    def patients_of(self, study_instance_uids: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Of each of these studies that is known, its patient's identifier and issuer."""
        seen = {uid: self._seen[uid] for uid in study_instance_uids if uid in self._seen}
        return {uid: (of_study.get("PatientID", ""), of_study.get("IssuerOfPatientID", "")) for uid, of_study in seen.items()}

    def findings(self, event: InstanceAccepted) -> tuple[Finding, ...]:
        """What does not fit, where the settings let it pass. Raises `Quarantine` where they do not.

        Two patients of whom a message said that they are one do fit.
        """
        instance = event.instance
        mine = {name: value for name in (*_PATIENT, *_OF_STUDY) if (value := _text(instance.header, name))}
        of_study = self._seen.get(instance.study_instance_uid)
        if of_study is None:
            self._remember(instance.study_instance_uid, mine)
            return ()
        found = []
        other_patient = [name for name in _PATIENT if _differs(mine, of_study, name)]
        of_study_id = of_study.get("PatientID", ""), of_study.get("IssuerOfPatientID", "")
        merged = bool(other_patient) and self._persons.are_one(instance, of_study_id)
        if other_patient and not merged:
            if self.policy.other_patient == "quarantine":
                raise _quarantine(Reason.PATIENT_DIFFERS, instance.study_instance_uid, other_patient, mine, of_study)
            found.append(Finding(code="patient-differs", sentence=FINDINGS["patient-differs"]))
        differing = [name for name in _OF_STUDY if _differs(mine, of_study, name) and not (merged and name in _OF_PERSON)]
        if differing:
            if self.policy.differs == "quarantine":
                raise _quarantine(Reason.STUDY_DIFFERS, instance.study_instance_uid, differing, mine, of_study)
            sentence = f"{', '.join(differing)} {'differs' if len(differing) == 1 else 'differ'} from the study's first object."
            found.append(Finding(code="study-differs", sentence=sentence))
        return tuple(found)

    def _remember(self, uid: str, attributes: dict[str, str]) -> None:
        self._seen[uid] = attributes
        self._seen.move_to_end(uid)
        while len(self._seen) > _MOST:
            self._seen.popitem(last=False)


def _differs(mine: Mapping[str, str], of_study: Mapping[str, str], name: str) -> bool:
    """An empty value says nothing, so it differs from none."""
    return name in mine and name in of_study and mine[name] != of_study[name]


def _quarantine(reason: Reason, study: str, names: list[str], mine: Mapping[str, str], of_study: Mapping[str, str]) -> Quarantine:
    return Quarantine(
        reason,
        f"{', '.join(names)} {'differs' if len(names) == 1 else 'differ'} from what the first object of study {study} says.",
        found="; ".join(f"{name}: {mine[name]}" for name in names),
        expected="; ".join(f"{name}: {of_study[name]}" for name in names),
    )


def _text(header: Header, keyword: str) -> str:
    try:
        return header.text(keyword).strip()[:400]  # the index keeps no more
    except CutValue:
        return ""
