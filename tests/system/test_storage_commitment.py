"""Storage commitment on a whole Hilum: pynetdicom and Orthanc ask, in both association modes, with outages and restarts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from bench.peers import free_port, orthanc
from bench.running import RunningHilum, hilum, running_hilum
from bench.wire import RawReceiver
from hilum.synthetic import ct_study, write_ct_study
from hilum.testing import eventually
from tests.commitment_scu import Asking, Report, Scu, scu

pytestmark = pytest.mark.system

MR = "1.2.840.10008.5.1.4.1.1.4"
WAIT_S = 4.0
SETTINGS = """
[commitment]
wait_s = {wait_s}
[peers.CT1]
host = "127.0.0.1"
port = {ct1_port}
[peers.LATE]
host = "127.0.0.1"
port = {late_port}
[peers.ORTHANC]
host = "127.0.0.1"
port = {orthanc_port}
"""


@pytest.fixture(scope="module")
def modality() -> Iterator[Scu]:
    with scu() as found:
        yield found


@pytest.fixture(scope="module")
def orthanc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, modality: Scu, orthanc_port: int) -> Iterator[RunningHilum]:
    """A Hilum that waits for objects a few seconds only."""
    receiver = RawReceiver()
    more = SETTINGS.format(wait_s=WAIT_S, ct1_port=modality.port, late_port=free_port(), orthanc_port=orthanc_port)
    with running_hilum(tmp_path_factory.mktemp("hilum"), receiver.port, more, images_only=True) as found:
        yield found
    receiver.close()


def slices(count: int, patient: str) -> list[Dataset]:
    """New objects."""
    made: list[Dataset] = list(ct_study(count, rows=64, columns=64, patient=patient))
    for each in made:
        each.SOPInstanceUID = each.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    return made


def send(association: Asking, *objects: Dataset) -> list[str]:
    """C-STORE each; their UIDs."""
    for each in objects:
        assert association.store(each) == 0x0000
    return [str(each.SOPInstanceUID) for each in objects]


def report_of(modality: Scu, transaction: str, within_s: float = 60) -> Report:
    return eventually(
        lambda: next((each for each in modality.reports if each.transaction_uid == transaction), None), within_s, what="the report"
    )  # type: ignore[return-value]  # it is not None then


@contextmanager
def paused(running: RunningHilum, name: str) -> Iterator[None]:
    """The process that runs `name` does nothing for as long as the block lasts: while `commitment` or `index` is, there is no report."""
    running.pause(name)
    try:
        yield
    finally:
        running.resume(name)


def test_what_was_just_sent_is_committed_on_the_same_association(running: RunningHilum, modality: Scu) -> None:
    with modality.associated(running.port, storage=True) as association:
        sent = send(association, *slices(20, "SAME"))
        status, transaction = association.ask(sent)
        assert status == 0x0000
        report = report_of(modality, transaction)

    assert (report.committed, report.failed, report.on_new_association) == (sent, {}, False)
    held = running.rows("SELECT count(*) FROM v_receipt WHERE sop_instance_uid = ANY (%s) AND committed_at IS NOT NULL", sent)
    assert held == [(20,)]


def test_after_a_release_the_report_comes_on_a_new_association(running: RunningHilum, modality: Scu) -> None:
    with paused(running, "commitment"), modality.associated(running.port, storage=True, called="ARCHIVE") as association:
        sent = send(association, *slices(20, "NEW"))
        transaction = association.ask(sent)[1]

    report = report_of(modality, transaction)
    assert (report.committed, report.failed, report.on_new_association, report.calling_aet) == (sent, {}, True, "ARCHIVE")


def test_each_reason_is_told_apart(running: RunningHilum, modality: Scu) -> None:
    good, twice, other, unfit = slices(4, "REASONS")
    missing = str(generate_uid(prefix=None))
    with modality.associated(running.port, storage=True) as association:
        send(association, good, twice, unfit)
        twice.PatientComments = "changed"
        send(association, twice)
        del other.SeriesInstanceUID  # it will wait in quarantine
        send(association, other)
        uids = [str(each.SOPInstanceUID) for each in (good, twice, other)]
        transaction = association.ask([*uids, missing])[1]
        conflict = association.ask([str(unfit.SOPInstanceUID)], sop_class=MR)[1]
        report, conflicting = report_of(modality, transaction), report_of(modality, conflict)
        again = association.ask(uids, transaction=transaction)
        eventually(lambda: len([each for each in modality.reports if each.transaction_uid == transaction]) == 2)

    assert report.committed == [uids[0], uids[2]]
    assert report.failed == {uids[1]: 0x0110, missing: 0x0112}
    assert conflicting.failed == {str(unfit.SOPInstanceUID): 0x0119}
    assert again[0] == 0x0000
    assert modality.reports[-1].failed == dict.fromkeys(uids, 0x0131)
    assert running.rows("SELECT reason FROM quarantine WHERE sop_instance_uid = %s", uids[2]) == [("identifier-missing",)]


@pytest.mark.parametrize("server", ["kafka", "postgres", "s3"])
def test_an_outage_longer_than_the_wait_is_no_missing_object(running: RunningHilum, modality: Scu, server: str) -> None:
    with paused(running, server):
        with modality.associated(running.port, storage=True) as association:
            sent = send(association, *slices(3, f"AWAY{server}"))
            transaction = association.ask(sent)[1]
        asked_at = time.monotonic()
        eventually(lambda: time.monotonic() > asked_at + WAIT_S + 3, what="the time for waiting is over")
        assert transaction not in {report.transaction_uid for report in modality.reports}

    report = report_of(modality, transaction, 120)
    assert (report.committed, report.failed) == (sent, {})


def test_requests_are_shown_with_what_became_of_them(running: RunningHilum, modality: Scu) -> None:
    [sent] = slices(1, "SHOWN")
    missing = str(generate_uid(prefix=None))
    with modality.associated(running.port, storage=True) as association:
        with paused(running, "commitment"):
            send(association, sent)
            transaction = association.ask([str(sent.SOPInstanceUID), missing])[1]
            [waiting] = json.loads(running.command("commitment", "list", "--json").stdout)
        assert (waiting["transaction_uid"], waiting["calling_aet"], waiting["state"]) == (transaction, "CT1", "asked")
        report_of(modality, transaction)

    eventually(lambda: json.loads(running.command("commitment", "list", "--json").stdout) == [], what="it has ended")
    [shown] = json.loads(running.command("commitment", "show", transaction, "--json").stdout)
    assert (shown["state"], shown["objects"], shown["failed"]) == ("reported", 2, 1)
    assert [each["result"] for each in shown["references"]] == ["committed", "no-such-instance"]
    assert transaction in running.command("commitment", "list", "--all").stdout
    assert missing in running.command("commitment", "show", transaction).stdout
    assert running.command("commitment", "show", "1.2.3", check=False).returncode == 3


def test_an_scu_that_listens_later_gets_its_report_then(running: RunningHilum) -> None:
    with scu("LATE") as away:
        with away.associated(running.port) as association:
            transaction = association.ask([str(generate_uid(prefix=None))])[1]

        def tried() -> Any:
            return [each for each in json.loads(running.command("commitment", "list", "--json").stdout) if each["attempts"]]

        [left] = eventually(tried, what="it was tried in vain")
    assert "cannot be reached" in left["says"]

    def told() -> Any:
        roles = json.loads(running.command("status", "--json", check=False).stdout)["roles"]
        return [each for each in roles if each["name"] == "commitment" and "1 report could not be delivered yet" in each["says"]]

    [role] = eventually(told, what="the role says so")
    assert role["ready"]

    with scu("LATE", port=running.settings.peers["LATE"].port) as there:
        report = report_of(there, transaction, 90)
    assert report.on_new_association


# Orthanc


class Orthanc:
    """Orthanc's REST API."""

    def __init__(self, http_port: int) -> None:
        self._url = f"http://127.0.0.1:{http_port}"
        self._http = urllib3.PoolManager()

    def post(self, path: str, body: bytes) -> Any:
        answer = self._http.request("POST", self._url + path, body=body, timeout=60)
        assert answer.status == 200, answer.data
        return json.loads(answer.data)

    def get(self, path: str) -> Any:
        return json.loads(self._http.request("GET", self._url + path, timeout=60).data)

    def upload(self, path: Path) -> str:
        """Its id in Orthanc."""
        return str(self.post("/instances", path.read_bytes())["ID"])

    def store(self, *ids: str) -> None:
        self.post("/modalities/pacs/store", json.dumps(ids).encode())

    def ask(self, **what: Any) -> str:
        """Ask for storage commitment; the path of its report."""
        return str(self.post("/modalities/pacs/storage-commitment", json.dumps(what).encode())["Path"])

    def outcome(self, path: str, within_s: float = 60) -> Any:
        """The report, once it has come."""
        return eventually(lambda: found if (found := self.get(path))["Status"] != "Pending" else None, within_s, what="Orthanc's report")


@pytest.fixture(scope="module")
def asking(running: RunningHilum, tmp_path_factory: pytest.TempPathFactory, orthanc_port: int) -> Iterator[Orthanc]:
    http_port = free_port()
    with orthanc(tmp_path_factory.mktemp("orthanc"), orthanc_port, http_port, running.port, lua=""):
        yield Orthanc(http_port)


@pytest.mark.peer("Orthanc")
def test_orthanc_gets_its_objects_committed(asking: Orthanc, tmp_path: Path) -> None:
    ids = [asking.upload(path) for path in write_ct_study(tmp_path / "study", 5, rows=64, columns=64, patient="ORTHANC1")]
    asking.store(*ids)

    outcome = asking.outcome(asking.ask(Resources=ids))

    assert outcome["Status"] == "Success", outcome
    assert len(outcome["Success"]) == 5


@pytest.mark.peer("Orthanc")
def test_orthanc_is_told_what_is_not_here(asking: Orthanc, tmp_path: Path) -> None:
    here, away = (asking.upload(path) for path in write_ct_study(tmp_path / "study", 2, rows=64, columns=64, patient="ORTHANC2"))
    asking.store(here)

    outcome = asking.outcome(asking.ask(Resources=[here, away]))

    assert outcome["Status"] == "Failure"
    assert len(outcome["Success"]) == 1
    assert [each["FailureReason"] for each in outcome["Failures"]] == [0x0112], outcome


@pytest.mark.peer("Orthanc")
def test_orthanc_gets_its_report_from_a_hilum_that_was_restarted_meanwhile(running: RunningHilum, asking: Orthanc, tmp_path: Path) -> None:
    [path] = write_ct_study(tmp_path / "study", 1, rows=64, columns=64, patient="ORTHANC3")
    id_ = asking.upload(path)
    asking.store(id_)
    running.kill("commitment")
    running.kill("dicom")
    report = asking_again(asking, id_)
    running.kill("dicom")
    running.kill("commitment")

    assert asking.outcome(report)["Status"] == "Success"


def asking_again(asking: Orthanc, id_: str) -> str:
    """Ask until the receiver is back."""

    def ask() -> str:
        try:
            return asking.ask(Resources=[id_])
        except AssertionError:
            return ""

    return eventually(ask, what="the receiver is back")


# Restarts


def test_a_hilum_that_was_stopped_in_between_reports_on_a_new_association(running: RunningHilum, modality: Scu) -> None:
    late = slices(1, "RESTART")
    with ThreadPoolExecutor(1) as aside:
        with paused(running, "commitment"), modality.associated(running.port) as association:
            transaction = association.ask([str(late[0].SOPInstanceUID)])[1]
            down = aside.submit(hilum, "down", "--config", running.config)
            eventually(lambda: not association.association.is_established, what="the receiver has ended")
        down.result()
    up = json.loads(hilum("up", "--config", running.config, "--detach", "--json").stdout)
    assert up["dicom"]["port"] == running.port

    report = report_of(modality, transaction, 60)
    assert report.on_new_association
    assert report.failed == {str(late[0].SOPInstanceUID): 0x0112}


def test_a_receiver_that_is_killed_in_between_loses_no_request(running: RunningHilum, modality: Scu) -> None:
    objects = slices(5, "KILLED")
    with modality.associated(running.port, storage=True) as association:
        with paused(running, "index"):
            sent = send(association, *objects)
            transaction = association.ask(sent)[1]
            running.kill("dicom")

        report = report_of(modality, transaction, 60)
    assert (report.committed, report.on_new_association) == (sent, True)
