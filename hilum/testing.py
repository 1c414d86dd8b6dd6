"""What tests are written with: builders, fakes and a clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from typing import Any, BinaryIO, Generic, TypeVar

import msgspec
from confluent_kafka import KafkaError
from msgspec import Raw, Struct
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from hilum.dicom.file_meta import part10_head
from hilum.errors import NotFound, TryAgain
from hilum.events import InstanceReceived, ObjectRef, delivery_id_for
from hilum.part10 import Part10
from hilum.settings import Settings
from hilum.sink import Delivery, Sink
from hilum.spool import Arrival, Spool
from hilum.store import ObjectStore, StoredObject

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
    "encoded_as": "",
    "unreadable": "",
    "truncated": "",
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
        """The present moment."""
        return self.moment

    def forward(self, **time: float) -> None:
        """Let time pass: `clock.forward(hours=1)`, as `timedelta` takes it."""
        self.moment += timedelta(**time)


def eventually(condition: Callable[[], T], timeout_s: float = 60.0, *, what: str = "") -> T:
    """Wait until `condition` gives something true, and return that. Raises `AssertionError` after `timeout_s`.

    Only a test that fails waits so long: a machine that does other things too may need many times what it needs alone.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or 'The condition'} did not come true within {timeout_s:g} s; last: {found!r}")
        time.sleep(0.02)
    return found


class MemoryStore:
    """`hilum.store.ObjectStore` as a dict. While `away` is true it does not answer."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self.away = False
        #: How many times an object was read.
        self.reads = 0

    def put(self, bucket: str, key: str, content: BinaryIO, size_bytes: int) -> None:
        """Keep the content."""
        self._answer()
        data = content.read(size_bytes)
        if len(data) != size_bytes:
            raise ValueError("the content ends early")
        self.objects[bucket, key] = data

    @contextmanager
    def open(self, bucket: str, key: str, offset: int = 0, size_bytes: int | None = None) -> Iterator[BinaryIO]:
        """The object as a stream."""
        yield BytesIO(self.get(bucket, key, offset, size_bytes))

    def get(self, bucket: str, key: str, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """The object."""
        self.reads += 1
        data = self._found(bucket, key)
        return data[offset:] if size_bytes is None else data[offset : offset + size_bytes]

    def stat(self, bucket: str, key: str) -> StoredObject:
        """What is known of the object."""
        size_bytes = len(self._found(bucket, key))
        return StoredObject(bucket=bucket, key=key, size_bytes=size_bytes, modified_at=datetime(2024, 2, 29, 12, tzinfo=UTC))

    def copy(self, bucket: str, key: str, to_bucket: str, to_key: str) -> None:
        """Copy an object."""
        self.objects[to_bucket, to_key] = self._found(bucket, key)

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object."""
        self._answer()
        self.objects.pop((bucket, key), None)

    def list(self, bucket: str, prefix: str = "") -> Iterator[StoredObject]:
        """Objects by key."""
        self._answer()
        for where, key in sorted(self.objects):
            if where == bucket and key.startswith(prefix):
                yield self.stat(bucket, key)

    def ensure_bucket(self, bucket: str, *, object_lock: bool = False) -> bool:
        """Every bucket is there."""
        del bucket, object_lock
        self._answer()
        return False

    def check(self, bucket: str) -> None:
        """Answer."""
        del bucket
        self._answer()

    def _found(self, bucket: str, key: str) -> bytes:
        self._answer()
        if (bucket, key) not in self.objects:
            raise NotFound(f"There is no object {key} in bucket {bucket}.")
        return self.objects[bucket, key]

    def _answer(self) -> None:
        if self.away:
            raise TryAgain("The object store does not answer.")


class MemoryLog:
    """A Kafka producer (`ingest.publish.Log`) as a list. While `away` it acknowledges nothing, while `failing` it gives up at once."""

    def __init__(self) -> None:
        #: What was acknowledged: (topic, key, value, headers).
        self.said: list[tuple[str, bytes, bytes, dict[str, bytes]]] = []
        self.away = False
        self.failing = False
        self._waiting: list[tuple[tuple[str, bytes, bytes, dict[str, bytes]], Callable[[Any, Any], None]]] = []

    @property
    def unacknowledged(self) -> list[tuple[str, bytes, bytes, dict[str, bytes]]]:
        """What waits for its acknowledgement, as in `said`."""
        return [message for message, _ in self._waiting]

    def produce(self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Callable[[Any, Any], None]) -> None:
        """Take a message."""
        self._waiting.append(((topic, key, value, dict(headers)), on_delivery))

    def poll(self, timeout: float) -> int:
        """Acknowledge what waits."""
        del timeout
        if self.away:
            return 0
        waiting, self._waiting = self._waiting, []
        for message, on_delivery in waiting:
            if self.failing:
                on_delivery(KafkaError(KafkaError._MSG_TIMED_OUT), None)
            else:
                self.said.append(message)
                on_delivery(None, None)
        return len(waiting)

    def flush(self, timeout: float) -> int:
        """Acknowledge what waits; how many are left."""
        self.poll(timeout)
        return len(self._waiting)


def spooled(
    spool: Spool,
    data_set: bytes | None = None,
    *,
    transfer_syntax_uid: str = "1.2.840.10008.1.2.1",
    calling_aet: str = "CT1",
    **header: Any,
) -> str:
    """The receipt of an object in the spool: a CT slice with what the test cares about (as in `an_instance`), or the bytes `data_set`."""
    header = _HEADER | header
    arrival = Arrival(
        adapter="dicom",
        transfer_syntax_uid=transfer_syntax_uid,
        sop_class_uid=_HEADER["SOPClassUID"],
        sop_instance_uid=_HEADER["SOPInstanceUID"],
        calling_aet=calling_aet,
        called_aet="HILUM",
        peer="10.1.2.3",
        association="association-1",
    )
    incoming = spool.open(arrival)
    incoming.write(encoded(header, transfer_syntax_uid) if data_set is None else data_set)
    return incoming.commit()


def a_delivery(
    store: ObjectStore,
    *,
    destination: str = "pacs",
    transfer_syntax_uid: str = "1.2.840.10008.1.2.1",
    data_set: bytes | None = None,
    **header: Any,
) -> Delivery:
    """A delivery of an object that is put into `store`: a CT slice with what the test cares about, or the bytes `data_set`.

    The header's keywords are those of `an_instance`; `transfer_syntax_uid` is Explicit or Implicit VR Little Endian unless
    `data_set` is given.
    """
    header = _HEADER | header
    if data_set is None:
        data_set = encoded(header, transfer_syntax_uid)
    sop_class, sop_instance = str(header["SOPClassUID"]), str(header["SOPInstanceUID"])
    whole = part10_head(sop_class, sop_instance, transfer_syntax_uid) + data_set
    digest = sha256(data_set).hexdigest()
    ref = ObjectRef(bucket="hilum-originals", key=f"{sop_instance}/{digest}.dcm", size_bytes=len(whole), sha256=digest)
    store.put(ref.bucket, ref.key, BytesIO(whole), len(whole))
    return Delivery(
        delivery_id=delivery_id_for(digest, sop_instance, destination),
        destination=destination,
        receipt=f"receipt-{sop_instance}",
        study_instance_uid=str(header["StudyInstanceUID"]),
        series_instance_uid=str(header["SeriesInstanceUID"]),
        sop_instance_uid=sop_instance,
        sop_class_uid=sop_class,
        transfer_syntax_uid=transfer_syntax_uid,
        object=ref,
        config_version="v1",
    )


def encoded(header: dict[str, Any], transfer_syntax_uid: str = "1.2.840.10008.1.2.1") -> bytes:
    """A data set of these keywords and values, in Explicit or Implicit VR Little Endian."""
    ds = Dataset()
    for keyword, value in header.items():
        setattr(ds, keyword, value)
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, transfer_syntax_uid == "1.2.840.10008.1.2"
    write_dataset(out, ds)
    return out.getvalue()


class SinkContract:
    """What every sink owes. A test class extends this one and offers these fixtures:

    - `sink`: one whose destination works; `settings`: the settings that it is opened with;
    - `store`: the object store with the originals; `arrived`: called with a SOP instance UID, the data sets that the destination has of it;
    - `broken_sink`: one whose destination cannot work, for a reason that a person can change.
    """

    def test_delivering_twice_leaves_one_copy_of_what_was_received(
        self, sink: Sink, settings: Settings, store: ObjectStore, arrived: Callable[[str], list[bytes]]
    ) -> None:
        """The second delivery is as good as the first."""
        delivery = a_delivery(store, SOPInstanceUID="2.25.77")
        original = b"".join(Part10(store, delivery.object).data_set(1024))
        for _ in range(2):
            session = sink.open(settings)
            session.begin([delivery])
            outcome = session.deliver(delivery, Part10(store, delivery.object))
            session.close()
            assert outcome.state in ("delivered", "already_there"), outcome
        assert arrived("2.25.77") == [original]

    def test_a_check_passes_where_delivery_works(self, sink: Sink, settings: Settings) -> None:
        """Each step says what was found."""
        steps = list(sink.check(settings))
        assert steps
        assert all(step.ok for step in steps), steps
        assert all(step.says for step in steps), steps

    def test_a_check_that_fails_says_what_to_do(self, broken_sink: Sink, settings: Settings) -> None:
        """The last step is the one that failed, with its fix."""
        *_, last = broken_sink.check(settings)
        assert not last.ok
        assert last.says
        assert last.fix
