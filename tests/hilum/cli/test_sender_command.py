"""What `hilum sender show` says of SOP classes, and what `hilum status` calls roles that several processes have."""

from __future__ import annotations

from hilum.cli.senders import classes
from hilum.cli.services import role_labels
from hilum.events import ContextResult
from hilum.status import RoleStatus

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT, EXPLICIT, JPEG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"


def a_context(sop_class: str, *offered: str, result: int = 0, accepted: str = "") -> ContextResult:
    return ContextResult(id=1, abstract_syntax=sop_class, transfer_syntaxes=offered, result=result, transfer_syntax=accepted)


def test_a_class_that_is_proposed_in_several_contexts_has_one_line() -> None:
    contexts = [
        a_context(CT, EXPLICIT, IMPLICIT, accepted=EXPLICIT),
        a_context(MR, JPEG, result=4),
        a_context(CT, IMPLICIT, accepted=IMPLICIT),
        a_context(CT, JPEG, result=4),
    ]

    assert classes(contexts) == [
        (
            "CT Image Storage",
            "accepted, transfer syntaxes not supported",
            "Explicit VR Little Endian, Implicit VR Little Endian",
            "JPEG Baseline (Process 1)",
        ),
        ("MR Image Storage", "transfer syntaxes not supported", "", "JPEG Baseline (Process 1)"),
    ]


def test_what_was_refused_was_not_negotiated() -> None:
    assert classes([a_context(CT, EXPLICIT, result=-1)]) == [("CT Image Storage", "not negotiated", "", "Explicit VR Little Endian")]


def test_roles_that_several_processes_have_are_numbered() -> None:
    roles = [RoleStatus(name=name, process=name, ready=True, says="", lag=None) for name in ("dicom", "dicom", "publish", "dicom")]

    assert role_labels(roles) == ["dicom", "dicom#1", "publish", "dicom#2"]
