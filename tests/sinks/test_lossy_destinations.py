"""A destination that asks for images compressed with loss gets derived ones, under UIDs that Hilum knows again."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from hilum.dicom.file_meta import part10_head
from hilum.dicom.lossy import JPEG_2000, Lossy
from hilum.errors import Misconfigured
from hilum.part10 import Part10, data_set_offset
from hilum.settings import Settings
from hilum.sink import Delivery, Park, Session, Settled, sink_of
from hilum.testing import MemoryStore, a_delivery
from sinks.dicom import Dicom
from tests.peers import CT, EXPLICIT, IMPLICIT, Pacs, pacs, status
from tests.stow_server import send, session_for, stow_server

ALL = ((CT, EXPLICIT), (CT, IMPLICIT), (CT, JPEG_2000))
UID = "2.25.10"
MADE = Lossy(ratio=10.0).uid_of(UID)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def an_image(store: MemoryStore, **more: object) -> Delivery:
    ds = dcmread(str(get_testdata_file("CT_small.dcm")))
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(UID)
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    out = BytesIO()
    ds.save_as(out)
    whole = out.getvalue()
    return a_delivery(store, data_set=whole[data_set_offset(whole) :], SOPInstanceUID=UID)


def lossy_sink(there: Pacs, **more: object) -> Session:
    return Dicom(host="127.0.0.1", port=there.port, aet="PACS", lossy="jpeg-2000", lossy_ratio=10.0, **more).open(Settings())  # type: ignore[arg-type]  # by name


def deliver(session: Session, store: MemoryStore, delivery: Delivery) -> Settled:
    session.begin([delivery])
    try:
        return session.deliver(delivery, Part10(store, delivery.object))
    finally:
        session.close()


def read(data_set: bytes, syntax: str) -> Dataset:
    return dcmread(BytesIO(part10_head(CT, "1.2", syntax) + data_set))


def test_a_peer_gets_the_derived_image_under_its_own_uid_and_the_outcome_names_it(store: MemoryStore) -> None:
    with pacs(contexts=ALL) as there:
        settled = deliver(lossy_sink(there), store, an_image(store))
        [(uid, [data_set])] = there.stored.items()

    assert (settled.state, settled.sent_as, uid) == ("delivered", MADE, MADE)
    assert read(data_set, JPEG_2000).SOPInstanceUID == MADE
    assert read(data_set, JPEG_2000).LossyImageCompression == "01"


def test_a_second_delivery_sends_the_same_object(store: MemoryStore) -> None:
    with pacs(contexts=ALL) as there:
        for _ in range(2):
            deliver(lossy_sink(there), store, an_image(store))
        [(uid, sent)] = there.stored.items()

    assert uid == MADE
    assert sent[0] == sent[1]


def test_an_image_that_lost_something_before_goes_as_it_is(store: MemoryStore) -> None:
    with pacs(contexts=ALL) as there:
        settled = deliver(lossy_sink(there), store, an_image(store, LossyImageCompression="01"))

        assert (settled.state, settled.sent_as, list(there.stored)) == ("delivered", "", [UID])


def test_other_objects_go_as_they_are(store: MemoryStore) -> None:
    kos = "1.2.840.10008.5.1.4.1.1.88.59"
    with pacs(contexts=[(kos, EXPLICIT)]) as there:
        settled = deliver(lossy_sink(there), store, a_delivery(store, SOPInstanceUID=UID, SOPClassUID=kos))

        assert (settled.state, settled.sent_as, there.asked[0]) == ("delivered", "", [(kos, EXPLICIT), (kos, IMPLICIT)])


def test_a_peer_that_takes_no_jpeg_2000_gets_nothing_else_instead(store: MemoryStore) -> None:
    with pacs(contexts=ALL[:2]) as there:
        with pytest.raises(Park, match=JPEG_2000):
            deliver(lossy_sink(there), store, an_image(store))

        assert there.stored == {}


def test_an_image_that_is_rejected_is_nowhere_under_its_new_uid(store: MemoryStore) -> None:
    with pacs(status(0xA900), contexts=ALL) as there:
        settled = deliver(lossy_sink(there), store, an_image(store))

    assert (settled.state, settled.sent_as) == ("rejected", "")


def test_a_check_says_beforehand_that_a_peer_takes_no_jpeg_2000() -> None:
    sink = {"type": "dicom", "host": "127.0.0.1", "aet": "PACS", "lossy": "jpeg-2000", "lossy_ratio": 10}
    with pacs(contexts=ALL[:2]) as there:
        steps = {each.name: each for each in sink_of("far", sink | {"port": there.port}).check(Settings())}
    with pacs(contexts=ALL) as willing:
        passed = {each.name: each for each in sink_of("far", sink | {"port": willing.port}).check(Settings())}

    assert not steps["compression with loss"].ok
    assert "CT Image" in steps["compression with loss"].says
    assert steps["compression with loss"].fix
    assert passed["compression with loss"].ok


def test_a_web_service_gets_the_derived_image_and_its_answer_is_understood(store: MemoryStore) -> None:
    with stow_server() as there:
        [settled] = send(session_for(there.url, store, lossy="jpeg-2000", lossy_ratio=10.0), store, [an_image(store)])

    assert isinstance(settled, Settled)
    assert (settled.state, settled.sent_as, list(there.stored)) == ("delivered", MADE, [MADE])


def test_a_web_service_gets_what_is_not_to_be_compressed_as_it_is(store: MemoryStore) -> None:
    coming = [an_image(store, LossyImageCompression="01"), a_delivery(store, SOPInstanceUID="2.25.11")]
    with stow_server() as there:
        settled = send(session_for(there.url, store, lossy="jpeg-2000", lossy_ratio=10.0), store, coming)

    assert [getattr(each, "sent_as", None) for each in settled] == ["", ""]
    assert list(there.stored) == [UID, "2.25.11"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"lossy": "jpeg-2000"}, "go together"),
        ({"lossy_ratio": 10}, "go together"),
        ({"lossy": "jpeg-2000", "lossy_ratio": 1000}, "from 2 to 100"),
        ({"lossy": "jpeg-2000", "lossy_ratio": 1}, "from 2 to 100"),
        ({"lossy": "jpeg", "lossy_ratio": 10}, "jpeg-2000"),
        ({"lossy": "jpeg-2000", "lossy_ratio": 10, "transcode": "never"}, "`transcode` is"),
    ],
)
@pytest.mark.parametrize("kind", [{"type": "dicom", "host": "pacs", "port": 104, "aet": "PACS"}, {"type": "stow", "url": "http://pacs"}])
def test_settings_that_cannot_be_meant_are_refused(kind: dict[str, object], more: dict[str, object], words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        sink_of("far", kind | more)


def test_a_service_that_is_said_not_to_take_it_is_refused() -> None:
    table = {"type": "stow", "url": "http://pacs", "syntaxes": [EXPLICIT], "lossy": "jpeg-2000", "lossy_ratio": 10}
    with pytest.raises(Misconfigured, match="`syntaxes` does not name"):
        sink_of("far", table)
