"""Of whom an object is, by its header as DICOM JSON (PS3.18 F.2): what `About.patient` gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hilum.order_events import Identifier

_PATIENT_ID, _ISSUER, _QUALIFIERS, _UNIVERSAL_ID = "00100020", "00100021", "00100024", "00400032"
_OTHER_IDS, _OTHERS, _ACCESSION = "00101000", "00101002", "00080050"
#: What was set right before, with the values of then (PS3.3 C.12.1.1.9).
_ORIGINAL, _MODIFIED = "04000561", "04000550"


def identifiers_of(header: Mapping[str, Any]) -> list[Identifier]:
    """PatientID with its issuer, then all that the object names besides (PS3.3 C.7.1.1)."""
    also = [Identifier(value=str(each)) for each in _values(header, _OTHER_IDS) if each]
    former = [each for item in _items(header, _ORIGINAL) for each in _items(item, _MODIFIED)]
    also += [_identifier_of(item) for item in (*_items(header, _OTHERS), *former)]
    return [_identifier_of(header), *[each for each in also if each.value]]


def accession_number_of(header: Mapping[str, Any]) -> str:
    """As it stands; empty if there is none."""
    return _text(header, _ACCESSION)


def _items(attributes: Mapping[str, Any], tag: str) -> Iterator[Mapping[str, Any]]:
    return (item for item in _values(attributes, tag) if isinstance(item, Mapping))


def _identifier_of(attributes: Mapping[str, Any]) -> Identifier:
    qualifiers = next(_items(attributes, _QUALIFIERS), {})
    value, issuer = _text(attributes, _PATIENT_ID), _text(attributes, _ISSUER)
    return Identifier(value=value, issuer=issuer, universal_id=_text(qualifiers, _UNIVERSAL_ID))


def _text(attributes: Mapping[str, Any], tag: str) -> str:
    return str(next(iter(_values(attributes, tag)), "") or "")


def _values(attributes: Mapping[str, Any], tag: str) -> Sequence[Any]:
    return attributes.get(tag, {}).get("Value") or ()
