"""An object that was delivered and is deleted at its destination is found, at a real Orthanc, over DICOM and over DICOMweb."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from pydicom import dcmread

from bench.peers import ORTHANC_DICOMWEB, free_port, running
from bench.running import RunningHilum, Servers, running_hilum
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
        found: list[dict[str, Any]] = requests.get(f"{self.url}/instances?expand", timeout=60).json()
        return {each["MainDicomTags"]["SOPInstanceUID"]: each["ID"] for each in found}

    def delete(self, sop_instance_uid: str) -> None:
        requests.delete(f"{self.url}/instances/{self.instances()[sop_instance_uid]}", timeout=60).raise_for_status()

    def series_description(self, sop_instance_uid: str) -> str:
        tags = requests.get(f"{self.url}/instances/{self.instances()[sop_instance_uid]}/simplified-tags", timeout=60).json()
        return str(tags.get("SeriesDescription", ""))

    def sender_of(self, sop_instance_uid: str) -> str:
        """The AE title by which it came."""
        return requests.get(f"{self.url}/instances/{self.instances()[sop_instance_uid]}/metadata/RemoteAET", timeout=60).text

    def send_back(self, sop_instance_uid: str) -> None:
        """Send it to Hilum."""
        requests.post(f"{self.url}/modalities/hilum/store", self.instances()[sop_instance_uid], timeout=60).raise_for_status()


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
def found(tmp_path_factory: pytest.TempPathFactory, servers: Servers, there: Orthanc) -> Iterator[RunningHilum]:
    more = MORE.format(port=there.port, url=there.url)
    with running_hilum(tmp_path_factory.mktemp("hilum"), there.port, more, images_only=True, servers=servers()) as running_one:
        reports_to: dict[str, str | int] = {"AET": "HILUM", "Host": "127.0.0.1", "Port": running_one.port}
        requests.put(f"{there.url}/modalities/hilum", json=reports_to, timeout=60).raise_for_status()
        yield running_one


#: Further destinations, to which rules send next to nothing: the same Orthanc, which keeps the first of two objects under one UID.
MORE = """
[destinations.home]
type = "dicom"
host = "127.0.0.1"
port = {port}
aet = "PACS"
lossy = "jpeg-2000"
lossy_ratio = 10
calling_title = "sender"

[destinations.web]
type = "stow"
url = "{url}/dicom-web"
lossy = "jpeg-2000"
lossy_ratio = 20

[destinations.committing]
type = "dicom"
host = "127.0.0.1"
port = {port}
aet = "PACS"
commit = true
verify_by = "commitment"

[destinations.keeps]
type = "dicom"
host = "127.0.0.1"
port = {port}
aet = "PACS"
profile = "orthanc"

[senders.FIXER]
corrections = "take"

[[rules]]
name = "to be corrected"
when = 'StudyDescription == "to be corrected"'
to = ["keeps"]
"""


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
    eventually(lambda: study[2] in there.instances())
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

    eventually(lambda: set(study) <= there.instances().keys())
    account = found.come_to_rest()
    assert account.ok, account.details


def test_images_compressed_with_loss_are_there_under_their_own_uids_and_returned_when_they_come_back(
    found: RunningHilum, there: Orthanc, study: list[str]
) -> None:
    [(uid, calling)] = found.rows(
        "SELECT i.study_instance_uid, r.calling_aet FROM instance i JOIN receipt r USING (receipt) WHERE i.sop_instance_uid = %s", study[0]
    )
    for destination in ("home", "web"):
        found.command("send", uid, "--to", destination)
    assert found.come_to_rest().ok
    settled = "SELECT sop_instance_uid, sent_as FROM delivery WHERE destination = %s AND study_instance_uid = %s"
    made, elsewhere = (dict(found.rows(settled, destination, uid)) for destination in ("home", "web"))

    assert made.keys() == elsewhere.keys() == set(study)
    assert {*made.values(), *elsewhere.values()} <= there.instances().keys()
    assert there.sender_of(made[study[0]]) == calling
    assert found.command("reconcile", "--destination", "home", "--verify", "--study", uid).returncode == 0

    there.send_back(made[study[0]])
    eventually(lambda: found.rows("SELECT decision FROM receipt WHERE sop_instance_uid = %s", made[study[0]]) == [("returned",)])
    account = found.come_to_rest()
    assert account.ok, account.details

    there.delete(made[study[1]])
    done = found.command("reconcile", "--destination", "home", "--verify", "--study", uid, "--json", check=False)
    assert [each["sop_instance_uid"] for each in json.loads(done.stdout)["verified"]["missing"]] == [study[1]]


def test_a_correction_that_orthanc_would_drop_waits_for_a_person_and_is_no_proof_elsewhere(
    found: RunningHilum, there: Orthanc, tmp_path: Path
) -> None:
    first, corrected = tmp_path / "first", tmp_path / "corrected"
    write_ct_study(first, 1, rows=32, columns=32, patient="SYNTHFIX")
    [file] = first.rglob("*.dcm")
    dataset = dcmread(file)
    dataset.StudyDescription = "to be corrected"
    dataset.save_as(file)
    dataset.SeriesDescription = "corrected"
    corrected.mkdir()
    dataset.save_as(corrected / file.name)
    uid = str(dataset.SOPInstanceUID)
    states = "SELECT state FROM delivery WHERE sop_instance_uid = %s AND destination = 'keeps' ORDER BY created_at DESC"
    for folder in (first, corrected):
        found.command("send", folder, "--calling-aet", "FIXER")
        wanted = [("delivered",)] if folder == first else [("parked",), ("delivered",)]
        eventually(partial(lambda wanted: found.rows(states, uid) == wanted, wanted))

    eventually(lambda: found.rows("SELECT 1 FROM delivery WHERE sop_instance_uid = %s AND state = 'pending'", uid) == [])
    verified = json.loads(found.command("reconcile", "--destination", "pacs", "--verify", "--json").stdout)["verified"]
    assert there.series_description(uid) != "corrected", "Orthanc answered Success, and kept the first"
    assert [each["sop_instance_uid"] for each in verified["unproven"]] == [uid]

    there.delete(uid)
    found.command("deliver", "retry", uid, "--state", "parked", "--yes")
    eventually(lambda: found.rows(states, uid) == [("delivered",), ("delivered",)])
    assert there.series_description(uid) == "corrected"


def test_a_peer_commits_through_a_kill_of_the_workers_and_is_asked_anew_what_it_has(
    found: RunningHilum, there: Orthanc, study: list[str]
) -> None:
    [(uid,)] = found.rows("SELECT study_instance_uid FROM instance WHERE sop_instance_uid = %s", study[0])
    found.command("send", uid, "--to", "committing")
    asked = "SELECT count(*) FROM delivery WHERE destination = 'committing' AND comment <> ''"
    eventually(lambda: found.rows(asked) == [(5,)], what="all are stored and asked for, or committed")
    found.kill("deliver")
    account = found.come_to_rest()
    assert account.ok, account.details
    said = "SELECT DISTINCT state, comment, attempts FROM delivery WHERE destination = 'committing'"
    assert found.rows(said) == [("delivered", "committed", 1)]
    assert found.command("reconcile", "--destination", "committing", "--verify", "--study", uid).returncode == 0

    there.delete(study[3])
    done = found.command("reconcile", "--destination", "committing", "--verify", "--study", uid, "--json", check=False)

    assert [each["sop_instance_uid"] for each in json.loads(done.stdout)["verified"]["missing"]] == [study[3]]


def test_orthanc_says_over_dicomweb_what_it_has(found: RunningHilum, there: Orthanc, study: list[str]) -> None:
    [(uid,)] = found.rows("SELECT study_instance_uid FROM instance WHERE sop_instance_uid = %s", study[0])
    asking = urllib3.PoolManager()

    assert qido.instances_of(f"{there.url}/dicom-web", uid, http=asking) == set(study)
    there.delete(study[4])
    assert qido.instances_of(f"{there.url}/dicom-web", uid, http=asking) == set(study[:4])
