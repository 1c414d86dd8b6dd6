"""What tests are written with: builders, fakes and a clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct
from pydicom.datadict import dictionary_VR, tag_for_keyword

from hilum.events import InstanceReceived

S = TypeVar("S", bound=Struct)
T = TypeVar("T")

#: The CT slice that `an_instance` is, unless told otherwise.
_HEADER: dict[str, Any] = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "SOPInstanceUID": "2.25.3",
    "StudyDate": "20240229",
    "AccessionNumber": "A-1",
    "Modality": "CT",
    "PatientName": "Marked^Patient",
    "PatientID": "MRN-1",
    "PatientBirthDate": "19700101",
    "StudyInstanceUID": "2.25.1",
    "SeriesInstanceUID": "2.25.2",
    "InstanceNumber": 1,
}

_EVENT_FIELDS: dict[str, Any] = {
    "receipt": "receipt-1",
    "transfer_syntax_uid": "1.2.840.10008.1.2.1",
    "received_at": datetime(2024, 2, 29, 12, tzinfo=UTC),
    "announced_sop_class_uid": "",
    "announced_sop_instance_uid": "",
    "header_cut": (),
    "unreadable": "",
}
_OBJECT_FIELDS: dict[str, Any] = {
    "bucket": "hilum-originals",
    "key": "2.25.1/2.25.2/2.25.3/object.dcm",
    "size_bytes": 528_000,
    "sha256": "a" * 64,
}
_SOURCE_FIELDS: dict[str, Any] = {
    "adapter": "dicom",
    "calling_aet": "CT1",
    "called_aet": "HILUM",
    "peer": "127.0.0.1",
    "association": "association-1",
}


def an_instance(**what: Any) -> InstanceReceived:
    """The `received` event of a CT slice, with what the test cares about.

    DICOM keywords set the header (`PatientID=""` is an empty value, `PatientID=None` leaves the attribute out; a list is
    several values), and for the UIDs the event's own fields too. Other names are the event's fields, those of its object
    (`sha256`, `size_bytes`, …) and of its source (`calling_aet`, …).
    """
    fields = {name: what.pop(name, value) for name, value in _EVENT_FIELDS.items()}
    stored = {name: what.pop(name, value) for name, value in _OBJECT_FIELDS.items()}
    source = {name: what.pop(name, value) for name, value in _SOURCE_FIELDS.items()}
    header = _HEADER | what
    uid_fields = {
        "study_instance_uid": "StudyInstanceUID",
        "series_instance_uid": "SeriesInstanceUID",
        "sop_instance_uid": "SOPInstanceUID",
        "sop_class_uid": "SOPClassUID",
    }
    return msgspec.convert(
        {
            "instance": {
                **fields,
                **{field: header[keyword] or "" for field, keyword in uid_fields.items()},
                "object": stored,
                "source": source,
                "header": Raw(msgspec.json.encode(dicom_json(header))),
            }
        },
        InstanceReceived,
    )


def dicom_json(header: dict[str, Any]) -> dict[str, Any]:
    """A header as DICOM JSON (PS3.18 F.2) from keywords and values; None leaves an attribute out, `""` is an empty value."""
    attributes = {}
    for keyword, value in header.items():
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise TypeError(f"{keyword} is neither a field of the event nor a DICOM keyword")
        if value is None:
            continue
        vr = dictionary_VR(tag)
        values = list(value) if isinstance(value, list | tuple) else [value] if value != "" else []
        if vr == "PN":
            values = [{"Alphabetic": each} if isinstance(each, str) else each for each in values]
        attributes[f"{tag:08X}"] = {"vr": vr, "Value": values} if values else {"vr": vr}
    return dict(sorted(attributes.items()))


class FakeMemory(Generic[S]):
    """`hilum.runtime.processor.Memory` as a dict."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[type[S], bytes]] = {}
        self._dues: dict[str, datetime] = {}

    def get(self, key: str) -> S | None:
        """A copy of the row of `key`."""
        if key not in self._rows:
            return None
        kind, row = self._rows[key]
        return msgspec.json.decode(row, type=kind)

    def put(self, key: str, row: S, *, due: datetime | None = None) -> None:
        """Remember a copy of `row`."""
        self._rows[key] = (type(row), msgspec.json.encode(row))
        self._dues.pop(key, None)
        if due is not None:
            self._dues[key] = due

    def forget(self, key: str) -> None:
        """Drop the row and its timer."""
        self._rows.pop(key, None)
        self._dues.pop(key, None)

    def due(self, key: str) -> datetime | None:
        """When the timer of `key` is due; None if it has none."""
        return self._dues.get(key)

    def __len__(self) -> int:
        return len(self._rows)


class Clock:
    """A clock that only moves when told to. Call it for the present moment."""

    def __init__(self, moment: datetime = datetime(2024, 2, 29, 12, tzinfo=UTC)) -> None:
        self.moment = moment

    def __call__(self) -> datetime:
        return self.moment

    def forward(self, **time: float) -> None:
        """Let time pass: `clock.forward(hours=1)`, as `timedelta` takes it."""
        self.moment += timedelta(**time)


def eventually(condition: Callable[[], T], timeout_s: float = 10.0, *, what: str = "") -> T:
    """Wait until `condition` gives something true, and return that. Raises `AssertionError` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or 'The condition'} did not come true within {timeout_s:g} s; last: {found!r}")
        time.sleep(0.02)
    return found
