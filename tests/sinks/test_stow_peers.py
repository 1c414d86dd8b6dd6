"""STOW-RS to services that are real: Orthanc's DICOMweb plugin, and Hilum's own receiver."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
import requests

from bench.peers import ORTHANC_DICOMWEB, free_port, running
from hilum.part10 import data_set_offset
from hilum.settings import Settings
from hilum.synthetic import ct_study
from hilum.testing import MemoryStore, a_delivery
from sinks.stow import Stow
from tests import stow_client
from tests.stow_server import send, session_for, several, states


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Orthanc with its DICOMweb plugin."""
    folder, http = tmp_path_factory.mktemp("orthanc"), free_port()
    config = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomPort": free_port(),
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {"hilum": "secret"},
        "Plugins": [ORTHANC_DICOMWEB],
        "DicomWeb": {"Enable": True},
    }
    (folder / "orthanc.json").write_text(json.dumps(config), encoding="utf-8")
    with running(["Orthanc", folder / "orthanc.json"], http, folder / "orthanc.log"):
        yield f"http://127.0.0.1:{http}"


ADMITTED = {"username": "hilum", "password": "secret"}


@pytest.mark.system
@pytest.mark.peer("Orthanc", ORTHANC_DICOMWEB)
class TestOrthanc:
    def test_instances_are_stored_byte_for_byte_and_again_without_harm(self, orthanc: str, store: MemoryStore) -> None:
        coming = several(store, 5)
        for _ in range(2):
            assert set(states(send(session_for(f"{orthanc}/dicom-web", store, **ADMITTED), store, coming))) <= {
                "delivered",
                "already_there",
            }

        auth = (ADMITTED["username"], ADMITTED["password"])
        ids = requests.get(f"{orthanc}/instances", auth=auth, timeout=60).json()
        files = [requests.get(f"{orthanc}/instances/{id_}/file", auth=auth, timeout=60).content for id_ in ids]
        digests = {hashlib.sha256(file[data_set_offset(file) :]).hexdigest() for file in files}
        assert {each.object.sha256 for each in coming} <= digests

    def test_an_object_that_is_no_image_of_anybody_is_refused_and_holds_up_no_other(self, orthanc: str, store: MemoryStore) -> None:
        broken = a_delivery(store, SOPInstanceUID="2.25.99", data_set=b"\x08\0\x05\0CS\x0a\0ISO_IR 100")
        coming = [*several(store, 2), broken]

        outcomes = send(session_for(f"{orthanc}/dicom-web", store, **ADMITTED), store, coming)

        assert states(outcomes)[:2] == ["delivered", "delivered"]
        assert states(outcomes)[2] in ("rejected", "Later")

    def test_the_check_passes_and_stores_the_test_object(self, orthanc: str) -> None:
        steps = list(Stow(url=f"{orthanc}/dicom-web", **ADMITTED).check(Settings(), with_object=True))  # type: ignore[arg-type]  # by name

        assert [(step.name, step.ok) for step in steps] == [("name", True), ("connection", True), ("service", True), ("test object", True)]

    def test_wrong_credentials_are_found_by_the_check(self, orthanc: str) -> None:
        *_, last = Stow(url=f"{orthanc}/dicom-web", username="hilum", password="wrong").check(Settings())

        assert (last.name, last.ok) == ("service", False)
        assert "does not admit Hilum" in last.says


class TestHilum:
    def test_instances_are_in_the_spool_byte_for_byte(self, store: MemoryStore, tmp_path: Path) -> None:
        coming = several(store, 5)
        with stow_client.running(tmp_path) as receiver:
            outcomes = send(session_for(f"http://127.0.0.1:{receiver.port}/dicom-web", store), store, coming)

            assert states(outcomes) == ["delivered"] * 5
            received = {hashlib.sha256(data_set).hexdigest() for _, data_set in receiver.stored()}
            assert received == {each.object.sha256 for each in coming}

    def test_a_large_object_is_streamed(self, store: MemoryStore, tmp_path: Path) -> None:
        [ds] = ct_study(1, rows=2048, columns=2048, frames=2)
        out = BytesIO()
        ds.save_as(out, enforce_file_format=True)
        whole = out.getvalue()
        delivery = a_delivery(store, SOPInstanceUID=str(ds.SOPInstanceUID), data_set=whole[data_set_offset(whole) :])
        with stow_client.running(tmp_path) as receiver:
            outcomes = send(session_for(f"http://127.0.0.1:{receiver.port}/dicom-web", store), store, [delivery])
            [(_, received)] = receiver.stored()

        assert states(outcomes) == ["delivered"]
        assert hashlib.sha256(received).hexdigest() == delivery.object.sha256

    def test_the_check_passes(self, tmp_path: Path) -> None:
        with stow_client.running(tmp_path) as receiver:
            steps = list(Stow(url=f"http://127.0.0.1:{receiver.port}/dicom-web").check(Settings(), with_object=True))

        assert all(step.ok for step in steps), steps
