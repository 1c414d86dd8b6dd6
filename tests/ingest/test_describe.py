from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from hilum.dicom.walk import MAX_HEADER_BYTES
from hilum.events import Instance, InstanceReceived
from hilum.part10 import data_set_offset
from hilum.settings import Rule, Settings
from hilum.spool import Spool, received_at
from hilum.testing import encoded, spooled
from ingest.describe import Described, describe, protected_tags

IMPLICIT = "1.2.840.10008.1.2"
UIDS = {"SOPInstanceUID": "2.25.3", "StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2"}
BUCKET = "originals"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def described(spool: Spool, receipt: str, keep: frozenset[str] | None = None) -> Described:
    return describe(spool.path(receipt), receipt, BUCKET, protected_tags(Settings()) if keep is None else keep)


def instance_of(spool: Spool, receipt: str) -> Instance:
    return described(spool, receipt).event.instance


def test_an_object_is_described_by_its_uids_its_digest_and_how_it_came(spool: Spool) -> None:
    receipt = spooled(spool)
    part10 = spool.read(receipt)
    digest = sha256(part10[data_set_offset(part10) :]).hexdigest()

    instance = instance_of(spool, receipt)

    assert (instance.receipt, instance.received_at) == (receipt, received_at(receipt))
    assert (instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid) == ("2.25.1", "2.25.2", "2.25.3")
    assert (instance.sop_class_uid, instance.announced_sop_class_uid, instance.announced_sop_instance_uid) == (
        CTImageStorage,
        CTImageStorage,
        "2.25.3",
    )
    assert (instance.object.bucket, instance.object.key) == (BUCKET, f"2.25.1/2.25.2/2.25.3/{digest}.dcm")
    assert instance.object.sha256 == digest
    assert (instance.source.adapter, instance.source.calling_aet, instance.source.called_aet) == ("dicom", "CT1", "HILUM")
    assert (instance.source.peer, instance.source.association) == ("10.1.2.3", "association-1")
    assert instance.header.text("Modality") == "CT"
    assert (instance.unreadable, instance.truncated, instance.encoded_as, instance.header_cut) == ("", "", "", ())


def test_equal_data_sets_are_stored_as_equal_objects_whoever_sent_them(spool: Spool) -> None:
    first = described(spool, spooled(spool, calling_aet="CT1"))
    second = described(spool, spooled(spool, calling_aet="ANOTHER"))

    assert first.head == second.head
    assert first.event.instance.object == second.event.instance.object


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("value", ["", "DOE^JANE", "../../etc", "1." * 40 + "1"])
def test_what_is_no_uid_gets_into_no_key_and_no_path(spool: Spool, missing: str, value: str) -> None:
    ds = Dataset.from_json({f"{tag:08X}": {"vr": "UI", "Value": [uid]} for tag, uid in _uids(missing, value).items()})
    receipt = spooled(spool, encoded({}) + _explicit(ds))

    instance = instance_of(spool, receipt)

    assert instance.object.key == f"unreadable/{receipt}/{instance.object.sha256}.dcm"
    event = InstanceReceived(instance=instance)
    assert value == "" or value not in event.key + event.subject


def _uids(missing: str, value: str) -> dict[int, str]:
    tags = {"SOPInstanceUID": 0x00080018, "StudyInstanceUID": 0x0020000D, "SeriesInstanceUID": 0x0020000E}
    return {tag: value if keyword == missing else "2.25.9" for keyword, tag in tags.items()}


def _explicit(ds: Dataset) -> bytes:
    """Explicit VR, without a check of the values."""
    parts = []
    for element in sorted(ds, key=lambda element: element.tag):
        value = str(element.value).encode()
        value += b"\0" * (len(value) % 2)
        head = element.tag.group.to_bytes(2, "little") + element.tag.element.to_bytes(2, "little") + b"UI"
        parts.append(head + len(value).to_bytes(2, "little") + value)
    return b"".join(parts)


def test_what_is_no_data_set_is_published_for_a_person_to_see(spool: Spool) -> None:
    receipt = spooled(spool, b"This is a letter, and no data set.")

    instance = instance_of(spool, receipt)

    assert instance.unreadable == "The data set does not begin as one in its transfer syntax does."
    assert instance.header.json == {}
    assert instance.object.key.startswith(f"unreadable/{receipt}/")
    assert InstanceReceived(instance=instance).key == receipt


def test_a_data_set_that_is_cut_short_keeps_its_uids_and_says_so(spool: Spool) -> None:
    instance = instance_of(spool, spooled(spool, encoded(UIDS | {"PatientComments": "abcdef"})[:-3]))

    assert instance.truncated.startswith("The data set ends 3 bytes before the end of element")
    assert instance.unreadable == ""
    assert instance.sop_instance_uid == "2.25.3"


def test_a_small_header_is_not_stored_a_second_time(spool: Spool) -> None:
    assert described(spool, spooled(spool)).full_header is None


def test_a_header_that_is_cut_is_stored_whole_beside_the_object(spool: Spool) -> None:
    found = described(spool, spooled(spool, PatientID="1", ImageComments="c" * 70_000, transfer_syntax_uid=IMPLICIT))

    assert found.event.instance.header_cut == ("00204000",)
    assert len(found.event.instance.header_json) < MAX_HEADER_BYTES
    assert found.full_header is not None
    assert msgspec.json.decode(found.full_header)["00204000"]["Value"] == ["c" * 70_000]


def test_bulk_values_alone_are_no_reason_to_store_the_header_twice(spool: Spool) -> None:
    found = described(spool, spooled(spool, EncapsulatedDocument=b"x" * 5000))

    assert found.event.instance.header_cut == ("00420011",)
    assert found.full_header is None


def test_what_a_rule_names_is_never_cut(spool: Spool) -> None:
    settings = Settings(rules=(Rule(name="r", when='"x" in ImageComments and Modality == "CT"', to=()),))

    assert {"00204000", "00080060", "00100020"} <= protected_tags(settings)
    found = described(spool, spooled(spool, ImageComments="c" * 70_000, transfer_syntax_uid=IMPLICIT), protected_tags(settings))
    assert found.event.instance.header.text("ImageComments") == "c" * 70_000


def test_a_private_element_that_a_rule_names_is_kept_in_whichever_block_it_is() -> None:
    settings = Settings(rules=(Rule(name="r", when='tag("0009,xx10", "SYNTH") == "a" and ReferencedStudySequence.is_empty', to=()),))

    assert {"00090010", "00091010", "00090042", "00094210", "00081110"} <= protected_tags(settings)
