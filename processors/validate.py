"""Let an instance on only if it can be kept, and found again. Stateless: what is wrong with this object alone?

Reads `imaging.instance.received.v1`, writes `imaging.instance.accepted.v1`. What makes an object unusable sends it to
quarantine (`hilum.errors.Reason`); what is merely odd is a finding and rides along, unless its sender's settings refuse it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from pydicom.config import IGNORE
from pydicom.uid import UID

from hilum.dicom import CutValue, uid_has_leading_zero, uid_is_usable
from hilum.errors import Misconfigured, Quarantine, Reason
from hilum.events import Finding, Instance, InstanceAccepted, InstanceReceived
from hilum.role import Role
from hilum.runtime.loop import ProcessorRole
from hilum.settings import Sender, Settings

#: Without these an instance can be neither kept nor found (PS3.3 C.7.2.1, C.7.3.1, C.12.1).
IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

#: How a value of DeidentificationMethod begins that Hilum wrote (`processors.anonymize.stamp`).
_OF_HILUM = "Hilum policy "
#: Every finding: its code, and one sentence.
FINDINGS: Mapping[str, str] = {
    "sop-class-private": "The SOP class is private: only systems of its maker can show the object.",
    "sop-class-retired": "The SOP class is retired from the standard (PS3.6 A); newer systems may not show the object.",
    "sop-class-unknown": "The SOP class is neither private nor in this release's edition of the standard.",
    "uid-leading-zero": "A UID has a component with a leading zero (PS3.5 9.1); strict systems may refuse the object.",
    "encoding-differs": "The data set is in implicit VR and its transfer syntax says explicit, or vice versa; others may not read it.",
    "patient-id-empty": "PatientID is absent or empty (Type 2, PS3.3 C.7.1.1): the object can be matched by its study only.",
    "deidentified-by-hilum": "It says that Hilum de-identified it (0012,0063), or what it was made of: it is no original.",
    "accession-number-empty": "AccessionNumber is absent or empty (Type 2, PS3.3 C.7.2.1): no order is named.",
}


class Validate:
    """One verdict per received instance. Raises `Misconfigured` if a sender refuses a finding that does not exist."""

    name = "validate"

    def __init__(self, senders: Mapping[str, Sender]) -> None:
        for aet, sender in senders.items():
            for code in sender.refuse:
                if code not in FINDINGS:
                    near = difflib.get_close_matches(code, FINDINGS, n=1)
                    fix = f"Did you mean {near[0]}?" if near else f"Findings are: {', '.join(FINDINGS)}."
                    raise Misconfigured("finding-unknown", f"senders.{aet}.refuse names {code!r}, which is no finding.", fix=fix)
        self._senders = senders

    def handle(self, event: InstanceReceived) -> InstanceAccepted:
        """Accept the instance with its findings. Raises `Quarantine`."""
        instance = event.instance
        check_readable(instance)
        for keyword in IDENTIFIERS:
            check_uid(instance, keyword)
        check_announcement(instance)
        found = tuple(findings(instance))
        sender = self._senders.get(instance.source.calling_aet, Sender())
        for finding in found:
            if finding.code in sender.refuse:
                raise Quarantine(Reason.FINDING_REFUSED, f"{finding.sentence} The settings of its sender refuse that.", found=finding.code)
        return InstanceAccepted.following(event, found)


def check_readable(instance: Instance) -> None:
    """The data set can be parsed to its end. Raises `Quarantine`."""
    if instance.unreadable:
        raise Quarantine(Reason.UNREADABLE, f"The data set cannot be read: {instance.unreadable}")
    if instance.truncated:
        raise Quarantine(Reason.TRUNCATED, f"The data set is cut short: {instance.truncated}")


def check_uid(instance: Instance, keyword: str) -> None:
    """The attribute has one usable UID. Raises `Quarantine`."""
    values = _values(instance, keyword)
    if not any(values):
        raise Quarantine(Reason.IDENTIFIER_MISSING, f"{keyword} is absent or empty.")
    if len(values) > 1 or not uid_is_usable(values[0]):
        raise Quarantine(Reason.UID_INVALID, f"{keyword} is not one valid UID.", found="\\".join(values))


def check_announcement(instance: Instance) -> None:
    """The data set is the object that its C-STORE command announced; an empty announcement says nothing. Raises `Quarantine`."""
    pairs = (
        ("SOPClassUID", instance.announced_sop_class_uid, Reason.SOP_CLASS_MISMATCH),
        ("SOPInstanceUID", instance.announced_sop_instance_uid, Reason.SOP_INSTANCE_MISMATCH),
    )
    for keyword, announced, reason in pairs:
        found = "\\".join(_values(instance, keyword))
        if announced and found != announced:
            raise Quarantine(reason, f"{keyword} of the data set is not the one announced.", found=found, expected=announced)
    check_uid(instance, "SOPClassUID")


def findings(instance: Instance) -> Iterator[Finding]:
    """What is odd about an instance that can be kept."""
    sop_class = UID(instance.sop_class_uid, validation_mode=IGNORE)
    if sop_class.is_private:
        yield _finding("sop-class-private")
    elif sop_class.type != "SOP Class":
        yield _finding("sop-class-unknown")
    elif sop_class.is_retired:
        yield _finding("sop-class-retired")
    if any(uid_has_leading_zero("".join(_values(instance, keyword))) for keyword in (*IDENTIFIERS, "SOPClassUID")):
        yield _finding("uid-leading-zero")
    if instance.encoded_as:
        yield _finding("encoding-differs")
    if not any(_values(instance, "PatientID")):
        yield _finding("patient-id-empty")
    if not any(_values(instance, "AccessionNumber")):
        yield _finding("accession-number-empty")
    if "YES" in _values(instance, "PatientIdentityRemoved") and any(
        each.startswith(_OF_HILUM) for each in _values(instance, "DeidentificationMethod")
    ):
        yield _finding("deidentified-by-hilum")


def _finding(code: str) -> Finding:
    return Finding(code=code, sentence=FINDINGS[code])


def _values(instance: Instance, keyword: str) -> list[str]:
    """The attribute's values as text. One that is too long even for a header is not empty, and no UID."""
    try:
        return ["" if value is None else str(value) for value in instance.header.values(keyword)]
    except CutValue:
        return ["(too long to be shown)"]


def role(settings: Settings) -> Role:
    """The role `validate`."""
    return ProcessorRole(settings, Validate(settings.senders))
