"""A lossy JPEG image that is painted over leaves as JPEG lossless: contexts and files are of what leaves, not of what came."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from bench.peers import ORTHANC_DICOMWEB, free_port, running, storescp
from hilum.deid_sections import Deid
from hilum.edited import part10_of
from hilum.part10 import data_set_offset
from hilum.runtime.delivery.cleans import as_made
from hilum.settings import Settings
from hilum.sink import Delivery, Park, Session, Settled
from hilum.testing import MemoryStore, a_delivery
from sinks.dicom import Dicom
from tests.hilum.test_anonymizing import going, key
from tests.peers import EXPLICIT, pacs
from tests.stow_server import Request, session_for, stores, stow_server

__all__ = ["key"]

JPEG, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
POLICY = """
[kinds]
secondary-capture = "mask"
[[masks]]
boxes = [[0, 0, 10, 10]]
"""


@pytest.fixture
def settings(key: Path, tmp_path: Path) -> Settings:
    (tmp_path / "painted.toml").write_text(POLICY)
    destinations = {"study": {"type": "folder", "path": str(tmp_path), "policy": "painted"}}
    return Settings(destinations=destinations, deid=Deid(key_path=str(key), policies=str(tmp_path)))


def coming(store: MemoryStore, settings: Settings, count: int = 2) -> list[Delivery]:
    """Images with loss of one study, to go out painted over."""
    ds = dcmread(str(get_testdata_file("SC_rgb_dcmtk_+eb+cy+np.dcm")))
    found = []
    for number in range(count):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.{number + 10}")
        whole = BytesIO()
        ds.save_as(whole)
        data_set = whole.getvalue()[data_set_offset(whole.getvalue()) :]
        uids = {name: str(ds[name].value) for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")}
        delivery = a_delivery(store, destination="study", transfer_syntax_uid=JPEG, data_set=data_set, **uids)
        found.append(going(settings, delivery))
    return found


def sent(session: Session, store: MemoryStore, deliveries: list[Delivery]) -> list[str]:
    """The states, after they went as a worker has them go."""
    session.begin(deliveries)
    outcomes: list[Settled] = []
    for each in deliveries:
        part10 = part10_of(store, each)
        outcomes.append(session.deliver(as_made(each, part10), part10))
    session.close()
    return [outcome.state for outcome in outcomes]


def looks_painted(file: bytes) -> bool:
    pixels = pixel_array(dcmread(BytesIO(file)), raw=False)
    return bool((pixels[:10, :10] == pixels[0, 0]).all() and np.ptp(pixels) > 100)


@pytest.mark.peer("storescp")
def test_dcmtk_takes_them_as_what_they_are(settings: Settings, tmp_path: Path) -> None:
    store, port = MemoryStore(), free_port()
    deliveries = coming(store, settings)
    with storescp(tmp_path / "there", port):
        states = sent(Dicom(host="127.0.0.1", port=port, aet="PACS").open(settings), store, deliveries)

    files = [path.read_bytes() for path in (tmp_path / "there").iterdir()]
    assert states == ["delivered"] * 2
    assert {str(dcmread(BytesIO(file)).file_meta.TransferSyntaxUID) for file in files} == {JPEG_LOSSLESS}
    assert all(looks_painted(file) for file in files)
    assert all(dcmread(BytesIO(file)).LossyImageCompression == "01" for file in files)


@pytest.mark.parametrize("taken", [JPEG_LOSSLESS, EXPLICIT])
def test_a_peer_is_asked_for_what_leaves_first_and_may_have_it_decompressed(settings: Settings, taken: str) -> None:
    store = MemoryStore()
    deliveries = coming(store, settings)
    with pacs(contexts=[(SECONDARY_CAPTURE, taken)]) as there:
        states = sent(Dicom(host="127.0.0.1", port=there.port, aet="PACS").open(settings), store, deliveries)

    assert states == ["delivered"] * 2
    assert there.stored.keys() == {each.sop_instance_uid for each in deliveries}
    [asked] = there.asked
    assert asked[0] == (SECONDARY_CAPTURE, JPEG_LOSSLESS)
    assert (SECONDARY_CAPTURE, EXPLICIT) in asked


def test_a_peer_that_takes_nothing_but_the_syntax_of_the_original_gets_nothing(settings: Settings) -> None:
    store = MemoryStore()
    deliveries = coming(store, settings, 1)
    with pacs(contexts=[(SECONDARY_CAPTURE, JPEG)]) as there, pytest.raises(Park, match=JPEG_LOSSLESS):
        sent(Dicom(host="127.0.0.1", port=there.port, aet="PACS").open(settings), store, deliveries)

    assert not there.stored


@pytest.mark.peer("Orthanc", ORTHANC_DICOMWEB)
def test_orthanc_takes_them_over_dicomweb_as_what_they_are(settings: Settings, tmp_path: Path) -> None:
    store, http = MemoryStore(), free_port()
    deliveries = coming(store, settings)
    config: dict[str, Any] = {
        "StorageDirectory": str(tmp_path / "storage"),
        "IndexDirectory": str(tmp_path / "storage"),
        "DicomPort": free_port(),
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [ORTHANC_DICOMWEB],
        "DicomWeb": {"Enable": True},
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(config), encoding="utf-8")
    url = f"http://127.0.0.1:{http}"
    with running(["Orthanc", tmp_path / "orthanc.json"], http, tmp_path / "orthanc.log"):
        states = sent(session_for(f"{url}/dicom-web", store), store, deliveries)
        ids = requests.get(f"{url}/instances", timeout=60).json()
        files = [requests.get(f"{url}/instances/{each}/file", timeout=60).content for each in ids]

    assert states == ["delivered"] * 2
    assert {str(dcmread(BytesIO(file)).SOPInstanceUID) for file in files} == {each.sop_instance_uid for each in deliveries}
    assert {str(dcmread(BytesIO(file)).file_meta.TransferSyntaxUID) for file in files} == {JPEG_LOSSLESS}
    assert all(looks_painted(file) for file in files)


def test_how_large_an_instance_may_be_is_asked_of_what_leaves(settings: Settings) -> None:
    store = MemoryStore()
    [delivery] = coming(store, settings, 1)
    seen: list[Request] = []

    def notes(request: Request) -> Any:
        seen.append(request)
        return stores(request)

    with stow_server(notes) as there:
        states = sent(session_for(there.url, store, max_instance_bytes=delivery.object.size_bytes + 1000), store, [delivery])

    assert (states, seen) == (["rejected"], [])
