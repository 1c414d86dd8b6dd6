"""What a Key Object Selection says of other instances: that they are rejected (IHE RAD IOCM), or which ones there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from hilum.dicom import Header
from hilum.events import Instance

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
#: Titles of rejection notes (PS3.16 CID 7011): for quality, for patient safety, wrong worklist entry, retention expired.
REJECTION_NOTES = frozenset({"113001", "113037", "113038", "113039"})
#: Titles of manifests (PS3.16 CID 7010): a list of all objects of a study.
MANIFESTS = frozenset({"113030", "113031"})

_TITLE, _EVIDENCE = "ConceptNameCodeSequence", "CurrentRequestedProcedureEvidenceSequence"
#: The tags that are read, which may be too long for an event.
TAGS = frozenset({"0040A043", "0040A375"})


class Selection(Struct, frozen=True, kw_only=True):
    """A rejection note or a manifest: its title's code, and the instances of its own study that it names, each once."""

    code: str
    sop_instance_uids: tuple[str, ...]
    #: How many instances of other studies it names: they are not acted on.
    elsewhere: int = 0

    @property
    def rejects(self) -> bool:
        """Whether it is a rejection note."""
        return self.code in REJECTION_NOTES


def selection_of(instance: Instance, header: Header) -> Selection | None:
    """What the instance says of others; None if it is neither a rejection note nor a manifest. Raises `CutValue`."""
    if instance.sop_class_uid != KEY_OBJECT_SELECTION:
        return None
    titles = [_first(item, "00080100") for item in _items(header, _TITLE) if _first(item, "00080102") == "DCM"]
    code = titles[0] if titles else ""
    if code not in REJECTION_NOTES | MANIFESTS:
        return None
    here: dict[str, None] = {}
    elsewhere = 0
    for study in _items(header, _EVIDENCE):
        of_this = _first(study, "0020000D") == instance.study_instance_uid
        for series in _nested(study, "00081115"):
            for reference in _nested(series, "00081199"):
                uid = _first(reference, "00081155")
                if uid and of_this and uid != instance.sop_instance_uid:
                    here[uid] = None
                elif uid and not of_this:
                    elsewhere += 1
    return Selection(code=code, sop_instance_uids=tuple(here), elsewhere=elsewhere)


def _items(header: Header, keyword: str) -> list[dict[str, Any]]:
    return [item for item in header.values(keyword) if isinstance(item, dict)]


def _nested(item: dict[str, Any], tag: str) -> Iterator[dict[str, Any]]:
    for each in (item.get(tag) or {}).get("Value") or ():
        if isinstance(each, dict):
            yield each


def _first(item: dict[str, Any], tag: str) -> str:
    values = (item.get(tag) or {}).get("Value") or ()
    return str(values[0] or "") if values else ""
