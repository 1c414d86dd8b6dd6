"""An object that was delivered and is deleted at its destination is found, at a real Orthanc, over DICOM and over DICOMweb."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from bench.peers import ORTHANC_DICOMWEB, free_port, running
from bench.running import RunningHilum, running_hilum
from hilum import qido
from hilum.synthetic import write_ct_study
from hilum.testing import eventually

pytestmark = [pytest.mark.system, pytest.mark.peer("Orthanc", ORTHANC_DICOMWEB)]


class Orthanc:
    """A running Orthanc."""

    def __init__(self, dicom: int, http: int) -> None:
        self.port, self.url = dicom, f"http://127.0.0.1:{http}"

    def instances(self) -> dict[str, str]:
        """Orthanc's own id of each instance by SOPInstanceUID."""
        found: list[dict[str, Any]] = requests.get(f"{self.url}/instances?expand", timeout=30).json()
        return {each["MainDicomTags"]["SOPInstanceUID"]: each["ID"] for each in found}

    def delete(self, sop_instance_uid: str) -> None:
        requests.delete(f"{self.url}/instances/{self.instances()[sop_instance_uid]}", timeout=30).raise_for_status()


@contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """Orthanc with its DICOMweb plugin."""
    dicom, http = free_port(), free_port()
    config = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": "PACS",
        "DicomPort": dicom,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "Plugins": [ORTHANC_DICOMWEB],
        "DicomWeb": {"Enable": True},
    }
    (folder / "orthanc.json").write_text(json.dumps(config), encoding="utf-8")
    with running(["Orthanc", folder / "orthanc.json"], http, folder / "orthanc.log"):
        yield Orthanc(dicom, http)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as found:
        yield found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, there: Orthanc) -> Iterator[RunningHilum]:
    with running_hilum(tmp_path_factory.mktemp("hilum"), there.port) as running_one:
        yield running_one


@pytest.fixture
def study(found: RunningHilum, tmp_path: Path) -> list[str]:
    """The SOPInstanceUIDs of a study that was delivered."""
    write_ct_study(tmp_path / "study", 5, rows=32, columns=32, patient=f"SYNTH{uuid.uuid4().hex[:6]}")
    found.command("send", tmp_path / "study")
    assert found.come_to_rest().ok
    return [row[0] for row in found.rows("SELECT sop_instance_uid FROM instance ORDER BY received_at DESC LIMIT 5")]


def test_an_object_that_was_deleted_at_the_peer_is_found_and_delivered_again(found: RunningHilum, there: Orthanc, study: list[str]) -> None:
    done = found.command("reconcile", "--destination", "pacs", "--verify", "--json")
    assert json.loads(done.stdout)["verified"]["missing"] == []
    there.delete(study[2])

    done = found.command("reconcile", "--destination", "pacs", "--verify", "--json", check=False)

    assert done.returncode == 1
    assert [each["sop_instance_uid"] for each in json.loads(done.stdout)["verified"]["missing"]] == [study[2]]

    found.command("reconcile", "--destination", "pacs", "--verify", "--resend", check=False)
    eventually(lambda: study[2] in there.instances(), 20)
    account = found.come_to_rest()
    assert account.ok, account.details
    assert account.expected_deliveries == account.delivered + account.already_there
    assert found.command("reconcile", "--destination", "pacs", "--verify").returncode == 0


def test_a_destination_that_cannot_be_asked_says_so(found: RunningHilum, study: list[str]) -> None:
    done = found.command("reconcile", "--destination", "archive", "--verify", check=False)

    assert (done.returncode, len(study)) == (2, 5)
    assert "cannot be asked what it has" in done.stderr


def test_a_study_is_sent_by_hand_and_counted(found: RunningHilum, there: Orthanc, study: list[str]) -> None:
    [(uid,)] = found.rows("SELECT study_instance_uid FROM instance WHERE sop_instance_uid = %s", study[0])
    for each in study:
        there.delete(each)

    said = found.command("send", uid, "--to", "pacs", "--dry-run")
    assert "5 objects of 1 studies" in said.stdout
    found.command("send", uid, "--to", "pacs")

    eventually(lambda: set(study) <= there.instances().keys(), 20)
    account = found.come_to_rest()
    assert account.ok, account.details


def test_orthanc_says_over_dicomweb_what_it_has(found: RunningHilum, there: Orthanc, study: list[str]) -> None:
    [(uid,)] = found.rows("SELECT study_instance_uid FROM instance WHERE sop_instance_uid = %s", study[0])
    asking = urllib3.PoolManager()

    assert qido.instances_of(f"{there.url}/dicom-web", uid, http=asking) == set(study)
    there.delete(study[4])
    assert qido.instances_of(f"{there.url}/dicom-web", uid, http=asking) == set(study[:4])
