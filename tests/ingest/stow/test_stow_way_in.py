"""From a DICOMweb client into the store and onto the log, on real servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import msgspec
import pydicom.data
import pytest
import requests
from confluent_kafka import TopicPartition
from dicomweb_client import DICOMwebClient
from pydicom import dcmread, dcmwrite

from hilum import bus
from hilum.events import InstanceReceived, decode
from hilum.part10 import data_set_offset
from hilum.roles import find_role
from hilum.settings import Settings, Stow
from hilum.spool import Spool
from hilum.store import open_store
from hilum.testing import eventually
from hilum.web import add_client, url_of
from ingest.stow import StowReceiver

pytestmark = pytest.mark.system

#: Objects without SOP Class or SOP Instance UID, in File Meta and in data set; directories of media; and what names no transfer syntax.
NOT_STORABLE = {
    "DICOMDIR",
    "DICOMDIR-bigEnd",
    "DICOMDIR-empty.dcm",
    "DICOMDIR-implicit",
    "DICOMDIR-nooffset",
    "DICOMDIR-nopatient",
    "DICOMDIR-reordered",
    "meta_missing_tsyntax.dcm",
    "nested_priv_SQ.dcm",
    "empty_charset_LEI.dcm",
}
#: In implicit VR under an explicit transfer syntax: pydicom cannot write it as it read it.
NOT_WRITABLE = {"SC_rgb_jpeg.dcm"}


@pytest.fixture
def hilum(tmp_path: Path, site: Settings) -> Settings:
    """Where clients with a key can send."""
    return msgspec.structs.replace(site, stow=Stow(port=0, clients=str(tmp_path / "clients")))


@contextmanager
def running(settings: Settings) -> Iterator[tuple[str, requests.Session]]:
    """The roles `stow` and `publish`: the base URL, and a session with a key. In the end the spool is empty."""
    stop = threading.Event()
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {add_client(Path(settings.stow.clients), 'PORTAL')}"
    stow, publish = StowReceiver(settings), find_role("publish", settings)
    threads = [threading.Thread(target=role.run, args=(stop,)) for role in (stow, publish)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: stow.health().ready and publish.health().ready)
        yield url_of(settings.stow, stow.port), session
        eventually(lambda: not Spool.of(settings).waiting())
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def events(settings: Settings, count: int) -> list[InstanceReceived]:
    """All that was said, once there are `count`."""
    consumer = bus.consumer(settings, "test")
    topic = bus.topic_of(settings, InstanceReceived)
    consumer.assign([TopicPartition(topic, number, 0) for number in range(bus.partition_counts(consumer, [topic])[topic])])
    found: list[InstanceReceived] = []

    def enough() -> bool:
        found.extend(decode(InstanceReceived, message.value() or b"") for message in consumer.consume(10_000, 0.2))
        return len(found) >= count

    eventually(enough)
    consumer.close()
    return found


def stored(settings: Settings, event: InstanceReceived) -> bytes:
    """The data set in the store."""
    part10 = open_store(settings).get(event.instance.object.bucket, event.instance.object.key)
    return part10[data_set_offset(part10) :]


def sample_files() -> list[Path]:
    """Every Part 10 file that pydicom ships."""
    paths = sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*"))
    return [path for path in paths if path.is_file() and path.read_bytes()[128:132] == b"DICM"]


def test_every_sample_file_comes_into_the_store_byte_for_byte(hilum: Settings) -> None:
    refused, sent = {}, []
    with running(hilum) as (url, session):
        for path in sample_files():
            answered = session.post(f"{url}/studies", path.read_bytes(), headers={"Content-Type": "application/dicom"})
            if answered.status_code == 409:
                [item] = [item for tag in ("00081198", "0008119A") for item in answered.json().get(tag, {}).get("Value", [])]
                refused[path.name] = item["00000902"]["Value"][0]
            else:
                assert answered.status_code in (200, 202), (path.name, answered.text)
                whole = path.read_bytes()
                sent.append(sha256(whole[data_set_offset(whole) :]).hexdigest())

    assert refused.keys() == NOT_STORABLE, refused
    assert len(sent) > 60
    said = events(hilum, len(sent))
    assert sorted(event.instance.object.sha256 for event in said) == sorted(sent)
    for event in said:
        assert sha256(stored(hilum, event)).hexdigest() == event.instance.object.sha256
        assert (event.instance.source.adapter, event.instance.source.calling_aet) == ("stow", "PORTAL")


def test_dicomweb_client_delivers_samples_as_it_writes_them(hilum: Settings) -> None:
    data_sets, written = [], []
    for path in sample_files():
        ds, out = dcmread(path), BytesIO()
        if path.name in NOT_STORABLE or path.name in NOT_WRITABLE:
            continue
        dcmwrite(out, ds)
        data_sets.append(ds)
        written.append(sha256(out.getvalue()[data_set_offset(out.getvalue()) :]).hexdigest())

    with running(hilum) as (url, session):
        client = DICOMwebClient(url, session=session)
        answers = [client.store_instances([ds]) for ds in data_sets]
        of_its_study = client.store_instances(data_sets[:1], study_instance_uid=data_sets[0].StudyInstanceUID)

    assert [answer.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for answer in answers] == [
        ds.file_meta.get("MediaStorageSOPInstanceUID") or ds.SOPInstanceUID for ds in data_sets
    ]
    assert len(of_its_study.ReferencedSOPSequence) == 1
    said = events(hilum, len(written) + 1)
    assert sorted(event.instance.object.sha256 for event in said) == sorted([*written, written[0]])
