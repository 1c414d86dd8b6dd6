"""On a whole Hilum: one original goes out under several policies, to dcmtk, to a research bucket, and through a kill of what sends it."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from confluent_kafka import Consumer, TopicPartition
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UltrasoundImageStorage
from pynetdicom import evt

from bench.peers import dcmsend, free_port, storescp
from bench.running import RunningHilum, hilum, running_hilum
from bench.wire import RawReceiver
from hilum import bus
from hilum.part10 import data_set_offset
from hilum.store import ObjectStore, open_store
from hilum.synthetic import ct_study
from hilum.testing import eventually

pytestmark = [pytest.mark.system, pytest.mark.peer("storescp")]

SETTINGS = """
[worklist]
serve = false
mpps = false
[roles]
processes = ["dicom", "stow", "publish", "validate,route,ledger,index", "deliver"]
[stow]
port = 0
clients = "{clients}"
[deid]
key_path = "{key}"
policies = "/nonexistent"
[destinations.study]
type = "dicom"
host = "127.0.0.1"
port = {study}
aet = "STUDY"
policy = "research"
[destinations.plain]
type = "dicom"
host = "127.0.0.1"
port = {plain}
aet = "PLAIN"
policy = "basic"
[destinations.cohort]
type = "research"
bucket = "cohort"
policy = "research"
[destinations.counted]
type = "dicom"
host = "127.0.0.1"
port = {counted}
aet = "COUNTED"
policy = "basic"
group_by = "none"
[[rules]]
name = "de-identified"
when = 'BodyPartExamined == "CHEST"'
to = ["study", "plain", "cohort"]
[[rules]]
name = "counted"
when = 'BodyPartExamined == "ABDOMEN"'
to = ["counted"]
"""
#: What identifies in these objects, whatever a policy keeps.
MARKS = ("QZNAME", "QZID0042", "QZACC077", "QZINST", "QZREF", "QZPRIVATE", "19470313")
#: How many objects of the marked patient come by C-STORE, and how many by STOW-RS.
STORED, STOWED = 3, 1
COUNTED = 40


def marked(count: int, patient: str = "QZID0042", part: str = "CHEST") -> Iterator[FileDataset]:
    """Small CT objects of a marked patient."""
    for ds in ct_study(count, rows=16, columns=16, patient=patient):
        ds.PatientName, ds.PatientBirthDate, ds.AccessionNumber = "QZNAME^Quentin", "19470313", "QZACC077"
        ds.InstitutionName, ds.ReferringPhysicianName, ds.BodyPartExamined = "QZINST", "QZREF^Renate", part
        ds.private_block(0x0029, "HILUM SYNTHETIC")[0x11].value = "QZPRIVATE"
        yield ds


def written(folder: Path, *datasets: Dataset) -> list[Path]:
    folder.mkdir(parents=True)
    for ds in datasets:
        ds.save_as(folder / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)
    return sorted(folder.iterdir())


class Counted(RawReceiver):
    """A peer that answers nobody while it has `most` objects or more."""

    def __init__(self) -> None:
        self.most = math.inf
        self._changed = threading.Condition()
        super().__init__(aet="COUNTED")

    def _store(self, event: evt.Event) -> int:
        answer = super()._store(event)
        with self._changed:
            self._changed.wait_for(lambda: len(self.received) < self.most)
        return answer

    def takes(self, most: float) -> None:
        """From now on it answers while it has fewer than so many."""
        with self._changed:
            self.most = most
            self._changed.notify_all()


@dataclass
class Day:
    """A Hilum, its peers, and what it was sent."""

    hilum: RunningHilum
    folder: Path
    study: Path
    plain: Path
    pacs: RawReceiver
    counted: Counted
    originals: dict[str, Dataset]
    held: str
    opted_out: str

    @property
    def store(self) -> ObjectStore:
        return open_store(self.hilum.settings)

    def send(self, *datasets: Dataset) -> None:
        """By dcmtk's dcmsend."""
        done = dcmsend(written(self.folder / uuid.uuid4().hex, *datasets), self.hilum.port, "HILUM")
        assert done.returncode == 0, done.stdout

    def outputs(self, policy: str, destination: str) -> list[dict[str, Any]]:
        """What `hilum deid outputs` says."""
        said = self.hilum.command("deid", "outputs", "--policy", policy, "--destination", destination, "--json").stdout
        listed: list[dict[str, Any]] = json.loads(said)["outputs"]
        return listed

    def there(self) -> dict[str, list[bytes]]:
        """The files at each peer."""
        bucket = [self.store.get("cohort", each.key) for each in self.store.list("cohort", "")]
        return {
            "study": [path.read_bytes() for path in self.study.iterdir()],
            "plain": [path.read_bytes() for path in self.plain.iterdir()],
            "cohort": bucket,
        }

    def log(self, topic: str) -> list[tuple[str, Any]]:
        """Key and value of every message of a topic; None for an empty one."""
        client = {**bus.client(self.hilum.settings), "group.id": "day", "enable.auto.commit": False, "enable.partition.eof": True}
        consumer = Consumer({**client, "isolation.level": "read_committed"})
        partitions = consumer.list_topics(topic, timeout=60).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        found: list[tuple[str, Any]] = []
        ended = 0
        while ended < len(partitions):
            message = consumer.poll(10)
            assert message is not None
            if message.error():
                ended += 1
            else:
                value = message.value()
                found.append(((message.key() or b"").decode(), None if value is None else json.loads(value)))
        consumer.close()
        return found


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    folder = tmp_path_factory.mktemp("day")
    study, plain = folder / "study", folder / "plain"
    ports = free_port(), free_port()
    pacs, counted = RawReceiver(), Counted()
    token = json.loads(hilum("stow", "key", "CLIENT", "--file", folder / "clients", "--json").stdout)["key"]
    hilum("deid", "keys", "make", "--key", folder / "key")
    settings = SETTINGS.format(clients=folder / "clients", key=folder / "key", study=ports[0], plain=ports[1], counted=counted.port)
    with (
        storescp(study, ports[0], "STUDY"),
        storescp(plain, ports[1], "PLAIN"),
        running_hilum(folder, pacs.port, settings + "\n[hl7]\nport = 0\n") as running,
    ):
        running.command("deid", "patients", "add", "QZOUT999", "--why", "a letter")
        *stored, stowed = marked(STORED + STOWED)
        [ultrasound] = marked(1, patient="QZID0043")
        ultrasound.SOPClassUID = ultrasound.file_meta.MediaStorageSOPClassUID = UltrasoundImageStorage
        ultrasound.Modality = "US"
        [opted_out] = marked(1, patient="QZOUT999")
        found = Day(
            running,
            folder,
            study,
            plain,
            pacs,
            counted,
            {str(each.SOPInstanceUID): each for each in (*stored, stowed)},
            str(ultrasound.SOPInstanceUID),
            str(opted_out.SOPInstanceUID),
        )
        found.send(*stored, ultrasound, opted_out)
        part10 = BytesIO()
        stowed.save_as(part10, enforce_file_format=True)
        headers = {"Content-Type": "application/dicom", "Authorization": f"Bearer {token}"}
        requests.post(f"{running.up['stow']['url']}/studies", part10.getvalue(), headers=headers, timeout=60).raise_for_status()
        account = running.come_to_rest()
        assert (account.unaccounted, account.quarantined, account.rejected) == (0, 0, 0)
        yield found
    pacs.close()
    counted.close()


def test_one_original_is_at_each_peer_and_nothing_of_it_that_identifies(day: Day) -> None:
    originals = day.originals.values()
    uids = {str(element.value) for ds in originals for element in ds.iterall() if element.VR == "UI" and element.keyword != "SOPClassUID"}
    uids = {uid for uid in uids if not uid.startswith("1.2.840.10008.")} - {"2.25.1"}  # that one is a part of others
    there = day.there()

    assert {name: len(files) for name, files in there.items()} == dict.fromkeys(there, STORED + STOWED)
    for files in there.values():
        for file in files:
            assert [mark for mark in (*MARKS, *uids) if mark.encode() in file] == []
            assert dcmread(BytesIO(file)).PatientIdentityRemoved == "YES"
    assert len({str(dcmread(BytesIO(files[0])).PatientID) for files in there.values()}) == 2, "study and cohort are one project"


@pytest.mark.parametrize(("policy", "destination"), [("research", "study"), ("basic", "plain"), ("research", "cohort")])
def test_list_ledger_event_and_object_tell_the_same_of_each_object(day: Day, policy: str, destination: str) -> None:
    files = {str(dcmread(BytesIO(file)).SOPInstanceUID): file for file in day.there()[destination]}
    outputs = {each["sent_as"]: each for each in day.outputs(policy, destination) if each["sop_instance_uid"] in day.originals}
    ledger = day.hilum.rows(
        "SELECT sent_as, policy_version, key_id, sent_sha256 FROM delivery WHERE destination = %s AND state = 'delivered'", destination
    )
    settled = [said for _, said in day.log("delivery.settled.v1") if said["destination"] == destination]

    assert outputs.keys() == files.keys()
    assert {each["sop_instance_uid"] for each in outputs.values()} == day.originals.keys()
    [(version, key_id)] = {(each["policy_version"], each["key_id"]) for each in outputs.values()}
    for uid, file in files.items():
        ds, digest = dcmread(BytesIO(file)), hashlib.sha256(file[data_set_offset(file) :]).hexdigest()
        assert (uid, version, key_id, digest) in ledger
        assert outputs[uid]["sent_sha256"] == digest
        assert (ds.StudyInstanceUID, ds.SeriesInstanceUID) == (outputs[uid]["sent_study"], outputs[uid]["sent_series"])
        assert all(part in str(ds.DeidentificationMethod) for part in (policy, version, key_id))
    assert Counter(said["sop_instance_uid"] for said in settled if said["state"] == "delivered") == dict.fromkeys(day.originals, 1)
    assert {(said["policy"], said["policy_version"], said["key_id"]) for said in settled} == {(policy, version, key_id)}
    assert not any(uid in str(settled) for uid in files)


def test_the_original_stays_as_it_came_in_the_archive_and_for_who_has_no_policy(day: Day) -> None:
    for uid, ds in day.originals.items():
        part10 = BytesIO()
        ds.save_as(part10, enforce_file_format=True)
        data_set = part10.getvalue()[data_set_offset(part10.getvalue()) :]
        [(bucket, key)] = day.hilum.rows(
            "SELECT bucket, object_key FROM delivery WHERE sop_instance_uid = %s AND destination = 'archive' AND state = 'delivered'", uid
        )
        kept = day.store.get(bucket, key)
        assert kept[data_set_offset(kept) :] == data_set
        assert [sent.data_set for sent in day.pacs.received[uid]] == [data_set]


@pytest.mark.parametrize(("which", "why"), [("held", "ultrasound"), ("opted_out", "opted out")])
def test_what_may_not_leave_waits_with_its_reason_and_is_nowhere(day: Day, which: str, why: str) -> None:
    uid = getattr(day, which)
    found = day.hilum.rows("SELECT destination, state, comment FROM delivery WHERE sop_instance_uid = %s AND comment ~ 'not sent'", uid)

    assert {(destination, state) for destination, state, _ in found} == {(name, "parked") for name in ("study", "plain", "cohort")}
    assert all(why in comment for *_, comment in found)
    assert not any("QZ" in comment for *_, comment in found)
    begun = day.hilum.rows("SELECT destination, sent_at FROM deidentified WHERE sop_instance_uid = %s ORDER BY destination", uid)
    assert begun == [("cohort", None), ("plain", None), ("study", None)]
    said = [said for _, said in day.log("delivery.settled.v1") if said["sop_instance_uid"] == uid]
    assert {each["destination"] for each in said} == {"archive", "pacs"}


def test_what_a_peer_sends_back_is_known_for_what_it_is_and_goes_nowhere(day: Day) -> None:
    [output, *_] = [each for each in day.outputs("basic", "plain") if each["sent_at"]]
    there = next(path for path in day.plain.iterdir() if path.name.endswith(output["sent_as"]))

    done = dcmsend([there], day.hilum.port, "HILUM", "-aet", "ELSEWHERE")

    assert done.returncode == 0, done.stdout
    decided = partial(day.hilum.rows, "SELECT decision FROM receipt WHERE sop_instance_uid = %s", output["sent_as"])
    eventually(lambda: decided() == [("returned",)], what="it is a return")
    assert day.hilum.come_to_rest().unaccounted == 0
    assert day.hilum.rows("SELECT 1 FROM study WHERE study_instance_uid = %s", output["sent_study"]) == []
    assert day.hilum.rows("SELECT 1 FROM delivery WHERE sop_instance_uid = %s", output["sent_as"]) == []


def test_what_is_taken_back_is_gone_from_the_bucket_and_an_empty_message_says_so(day: Day) -> None:
    [withdraws] = marked(1, patient="QZGOES11")
    day.send(withdraws)
    uid = str(withdraws.SOPInstanceUID)
    find = "SELECT sent_as FROM delivery WHERE sop_instance_uid = %s AND destination = 'cohort' AND state = 'delivered'"
    [(sent_as,)] = eventually(lambda: day.hilum.rows(find, uid), what="it is in the bucket")
    topic = "research.instance.deidentified.v1"
    [(key, said)] = [(key, said) for key, said in day.log(topic) if key.endswith(sent_as)]
    assert day.store.stat("cohort", said["object_key"]).size_bytes == said["size_bytes"]
    day.hilum.command("deid", "patients", "add", "QZGOES11")
    doubtful = json.loads(day.hilum.command("deid", "patients", "withdraw", "cohort", "--yes", "--json").stdout)
    assert sent_as in [each["sop_instance_uid"] for each in doubtful["also"]]  # nobody says whose patient it is
    assert said["object_key"] in [each.key for each in day.store.list("cohort", "")]
    day.hilum.command("deid", "patients", "add", "QZGOES11", "--issuer", "EXAMPLE")

    done = json.loads(day.hilum.command("deid", "patients", "withdraw", "cohort", "--yes", "--json").stdout)

    assert done["count"] >= 1
    assert said["object_key"] not in [each.key for each in day.store.list("cohort", "")]
    assert [value for each, value in day.log(topic) if each == key][-1] is None
    [output] = [each for each in day.outputs("research", "cohort") if each["sent_as"] == sent_as]
    assert output["withdrawn_at"] is not None


def test_through_kills_of_what_sends_each_object_leaves_with_a_row_before_it_and_always_with_the_same_bytes(day: Day) -> None:
    sending = list(marked(COUNTED, patient="QZID0044", part="ABDOMEN"))
    connections = "SELECT pid FROM pg_stat_activity WHERE application_name = 'hilum deliver counted'"
    received = day.counted.received
    day.counted.takes(COUNTED // 4)
    day.send(*sending)
    for count, then in ((COUNTED // 4, COUNTED // 2), (COUNTED // 2, math.inf)):
        eventually(partial(lambda count: len(received) >= count, count), what=f"{count} objects are there")
        working = set(day.hilum.rows(connections))
        day.hilum.kill("deliver")
        there = set(received)  # of what its successor sends, the rows may come after these are read
        assert len(there) < COUNTED, "it was killed in the midst of it"
        assert there <= {uid for (uid,) in day.hilum.rows("SELECT sent_as FROM deidentified WHERE destination = 'counted'")}
        day.counted.takes(then)
        eventually(partial(lambda working: not working & set(day.hilum.rows(connections)), working), what="what it had asked for is done")
        # Instead of waiting for a minute until the claims of the dead are over.
        day.hilum.rows("UPDATE delivery SET lease_until = now() WHERE destination = 'counted' AND lease_until IS NOT NULL RETURNING 1")
    account = day.hilum.come_to_rest()

    outputs = {each["sent_as"]: each for each in day.outputs("basic", "counted")}
    assert account.unaccounted == 0
    assert received.keys() == outputs.keys()
    assert {each["sop_instance_uid"] for each in outputs.values()} == {str(each.SOPInstanceUID) for each in sending}
    for uid, sent in received.items():
        assert {each.sha256 for each in sent} == {outputs[uid]["sent_sha256"]}


def test_dcmtk_reads_what_it_was_sent(day: Day) -> None:
    for folder in (day.study, day.plain):
        done = subprocess.run(["dcmdump", "-q", "-E", *folder.iterdir()], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
