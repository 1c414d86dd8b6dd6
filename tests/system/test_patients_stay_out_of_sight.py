"""A marked patient goes through everything; then logs, keys, headers, metrics, topic names, paths and UIDs are searched for the marks."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt

from bench.running import RunningHilum, running_hilum
from bench.wire import RawSender, part10_data_set
from hilum import bus
from hilum.store import open_store
from hilum.synthetic import ct_study
from hilum.testing import eventually
from tests.peers import pacs, status

pytestmark = pytest.mark.system

MARKS = ("QZNAME", "QZID0042", "QZACC077", "QZDESC", "QZINST", "QZREF", "19470313")


def marked(folder: Path) -> list[tuple[str, str, bytes]]:
    """Objects of a marked patient: five good ones, a conflict, one without study, one cut short, one that no parser takes."""
    made = []
    for n, ds in enumerate(ct_study(9, rows=8, columns=8, patient="QZID0042")):
        ds.PatientName, ds.PatientBirthDate, ds.AccessionNumber = "QZNAME^QZNAME", "19470313", "QZACC077"
        ds.StudyDescription, ds.InstitutionName, ds.ReferringPhysicianName = "QZDESC", "QZINST", "QZREF"
        if n == 2:
            del ds.StudyInstanceUID
        path = folder / f"{n}.dcm"
        ds.save_as(path, enforce_file_format=True)
        made.append((str(ds.SOPInstanceUID), str(ExplicitVRLittleEndian), part10_data_set(path)[1]))
    good = made[0]
    made[1] = (good[0], good[1], good[2].replace(b"QZDESC", b"QZDESX"))
    made[3] = (*made[3][:2], made[3][2][:-20])
    made[4] = (made[4][0], str(ImplicitVRLittleEndian), b"QZNAME^QZNAME QZID0042 QZACC077 " * 20)
    return made


def talkative() -> Callable[[evt.Event], Dataset]:
    """A PACS that names the patient in its Error Comments: it has no room at first, refuses one object, and coerces the others."""
    answers = [0xA700] * 4 + [0xA900]

    def answer(event: evt.Event) -> Dataset:
        return status(answers.pop(0) if answers else 0xB000, "Patient QZNAME^QZNAME MRN QZID0042 is not known")(event)

    return answer


#: Beside the usual processes, those of HL7.
WITH_HL7 = """
[roles]
processes = ["dicom", "publish", "validate,route,ledger,index,grammar", "deliver,commitment", "hl7"]
[hl7]
port = 0
[hl7.senders.strict]
applications = ["STRICT"]
validation = "strict"
"""
HL7 = (
    "MSH|^~\\&|RIS|NORTH|HILUM|NORTH|20260102||ADT^A08^ADT_A01|M1|P|2.5||||||UNICODE UTF-8\r"
    "EVN|A08|2026\rPID|1||QZID0042^^^NORTH^MR||QZNAME^QZNAME||19470313\rPV1|1|O\rQZX|QZNAME\r"
)


def marked_messages(folder: Path) -> list[Path]:
    """Messages about a marked patient: a good one and the same again, one in the wrong character set, and three that are refused."""
    contents = [HL7.encode()] * 2
    contents.append(HL7.replace("|M1|", "|M2|").encode().replace(b"QZNAME^", b"QZNAME\xe4^"))
    contents.append(HL7.replace("|RIS|", "|STRICT|").encode())
    contents += [HL7.replace("|^~\\&|", "|^^\\&|").encode(), b"QZNAME QZID0042"]
    paths = [folder / f"{number}.hl7" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def search(where: str, content: bytes | str) -> list[str]:
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else content
    return [f"{mark} in {where}: …{text[max(0, text.index(mark) - 80) : text.index(mark) + 20]}…" for mark in MARKS if mark in text]


def test_no_mark_of_the_patient_is_seen_outside_the_data(tmp_path: Path) -> None:
    with pacs(talkative()) as there, running_hilum(tmp_path, there.port, WITH_HL7) as hilum:
        sender = RawSender(hilum.port, [(CTImageStorage, ExplicitVRLittleEndian), (CTImageStorage, ImplicitVRLittleEndian)])
        for uid, transfer_syntax, data_set in marked(tmp_path):
            sender.send(CTImageStorage, uid, transfer_syntax, data_set)
        sender.release()
        account = hilum.come_to_rest()
        assert (account.quarantined, account.destinations["pacs"]) == (4, {"delivered": 4, "rejected": 1})
        sent = json.loads(hilum.command("hl7", "send", *marked_messages(tmp_path), "--json", check=False).stdout)
        assert [each["code"] for each in sent] == ["AA", "AA", "AA", "AE", "AE", "AE"]
        shown = eventually(lambda: lines if len(lines := _messages(hilum)) == 5 and any(line["findings"] for line in lines) else None)
        assert shown is not None
        assert sorted(line["refused"] or "taken" for line in shown) == ["encoding-characters", "grammar", "no-header", "taken", "taken"]
        [first] = [line["message_id"] for line in shown if line["control_id"] == "M1" and not line["refused"]]
        again = json.loads(hilum.command("hl7", "replay", first, "--yes", "--json").stdout)
        eventually(lambda: again[0]["said_again_as"] in [line["message_id"] for line in _messages(hilum)])
        store, bucket = open_store(hilum.settings), hilum.settings.s3.bucket
        [as_it_came] = list(store.list(bucket, "hl7/"))
        assert b"QZNAME\xe4^" in store.get(bucket, as_it_came.key)
        hilum.kill("deliver")
        eventually(lambda: hilum.command("status", check=False).returncode == 0)
        listed = hilum.command("quarantine", "list", "--json").stdout

        found = search("the quarantine's list", listed) + search("the list of messages", str(_messages(hilum)))
        logs = [path for path in (hilum.settings.data_dir / "logs").rglob("*") if path.is_file()]
        assert len(logs) >= 8
        for log in logs:
            found += search(log.name, log.read_bytes())
        found += _kafka(hilum)
        found += _metrics(hilum)
        for key in open_store(hilum.settings).list(hilum.settings.s3.bucket):
            found += search("an object's key", str(key))
        assert found == []
        # The search can find: the data itself holds the marks.
        assert search("the index", str(hilum.rows("SELECT * FROM study"))) != []
        assert search("messages", str(hilum.rows("SELECT text FROM hl7_message"))) != []
        assert len(search("the ledger", str(hilum.rows("SELECT comment FROM delivery")))) > 0
        assert any("delivery_put_off" in log.read_text("utf-8", "replace") for log in logs)


def _messages(hilum: RunningHilum) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(hilum.command("hl7", "list", "--json").stdout)
    return listed


def _kafka(hilum: RunningHilum) -> list[str]:
    """Keys, headers and topic names of every topic; values too where the topic's class says that no patient is in them."""
    consumer = Consumer({**bus.client(hilum.settings), "group.id": "marks", "enable.auto.commit": False, "enable.partition.eof": True})
    found: list[str] = []
    messages = 0
    topics = consumer.list_topics(timeout=60).topics
    for name in topics:
        found += search("a topic's name", name)
    left = {(name, number) for name, topic in topics.items() if not name.startswith("__") for number in topic.partitions}
    consumer.assign([TopicPartition(name, number, 0) for name, number in left])
    while left:
        message = consumer.poll(60)
        assert message is not None, f"{left} cannot be read to their ends"
        name = message.topic() or ""
        if error := message.error():
            assert error.code() == KafkaError._PARTITION_EOF, error
            left.discard((name, message.partition() or 0))
            continue
        messages += 1
        headers = dict(message.headers() or [])
        found += search(f"a key on {name}", message.key() or b"")
        for header, value in headers.items():
            found += search(f"header {header} on {name}", value or b"")
        if headers.get("ce_phi", b"limited") != b"full":
            found += search(f"a value on {name}", message.value() or b"")
    consumer.close()
    assert messages > 10
    return found


def _metrics(hilum: RunningHilum) -> list[str]:
    found: list[str] = []
    own = [process for process in hilum.up["processes"] if process["probe_port"]]  # servers answer in their own ways
    assert len(own) == 5
    for process in own:
        connection = http.client.HTTPConnection("127.0.0.1", process["probe_port"], timeout=60)
        for path in ("/metrics", "/health"):
            connection.request("GET", path)
            found += search(f"{path} of {process['name']}", connection.getresponse().read())
        connection.close()
    return found
