"""What goes back: the Store Instances Response Module (PS3.18 I.2) as DICOM JSON or XML, or a problem document (RFC 9457)."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from xml.etree import ElementTree

import msgspec

from .answers import Outcome, Refused

_KEYWORDS = {
    "00000902": "ErrorComment",
    "00081150": "ReferencedSOPClassUID",
    "00081155": "ReferencedSOPInstanceUID",
    "00081190": "RetrieveURL",
    "00081196": "WarningReason",
    "00081197": "FailureReason",
    "00081198": "FailedSOPSequence",
    "00081199": "ReferencedSOPSequence",
    "0008119A": "OtherFailuresSequence",
}


def status_of(outcomes: Sequence[Outcome]) -> HTTPStatus:
    """The status (PS3.18 Table 10.5.3-1): 200 if all are stored, 202 if with warnings or not all, 409 if none."""
    if not any(each.is_stored for each in outcomes):
        return HTTPStatus.CONFLICT
    return HTTPStatus.OK if all(each.answer.status == 0 for each in outcomes) else HTTPStatus.ACCEPTED


def module_of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The module as DICOM JSON. There is no RetrieveURL: nothing is retrieved here. A comment in words stands beside each reason."""
    module: dict[str, Any] = {"00081190": _attribute("UR")}
    sequences: dict[str, list[dict[str, Any]]] = {"00081198": [], "00081199": [], "0008119A": []}
    for each in outcomes:
        item: dict[str, Any] = {}
        if each.answer.status:
            item["00000902"] = _attribute("LO", each.answer.comment)
        if each.sop_instance_uid:
            item["00081150"] = _attribute("UI", *([each.sop_class_uid] if each.sop_class_uid else []))
            item["00081155"] = _attribute("UI", each.sop_instance_uid)
        if each.is_stored:
            item["00081190"] = _attribute("UR")
            if each.answer.status:
                item["00081196"] = _attribute("US", each.answer.status)
            sequences["00081199"].append(item)
        else:
            item["00081197"] = _attribute("US", each.answer.status)
            sequences["00081198" if each.sop_instance_uid else "0008119A"].append(item)
    module |= {tag: _attribute("SQ", *items) for tag, items in sequences.items() if items}
    return module


def as_json(module: dict[str, Any]) -> bytes:
    """The module as application/dicom+json."""
    return msgspec.json.encode(module)


def as_xml(module: dict[str, Any]) -> bytes:
    """The module as application/dicom+xml: the Native DICOM Model (PS3.19 A.1)."""
    root = ElementTree.Element("NativeDicomModel", {"xmlns": "http://dicom.nema.org/PS3.19/models/NativeDICOM", "xml:space": "preserve"})
    _fill(root, module)
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode").encode()


def as_problem(refused: Refused) -> bytes:
    """The problem document: what is wrong, and what to do."""
    refusal = refused.refusal
    return msgspec.json.encode(
        {"title": refusal.title, "status": refusal.status, "detail": refused.sentence, "reason": refusal.reason, "fix": refused.fix}
    )


def _attribute(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def _fill(parent: ElementTree.Element, content: dict[str, Any]) -> None:
    for tag, attribute in content.items():
        element = ElementTree.SubElement(parent, "DicomAttribute", {"tag": tag, "vr": attribute["vr"], "keyword": _KEYWORDS[tag]})
        for number, value in enumerate(attribute.get("Value", ()), 1):
            name = "Item" if attribute["vr"] == "SQ" else "Value"
            child = ElementTree.SubElement(element, name, {"number": str(number)})
            if name == "Item":
                _fill(child, value)
            else:
                child.text = str(value)
