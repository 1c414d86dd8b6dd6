"""On a whole Hilum: a destination waits for a study's order, and gets the object with what the order sets right; nobody else is delayed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO

import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.filebase import DicomBytesIO

from bench.peers import free_port
from bench.running import RunningHilum, Servers, running_hilum
from bench.wire import RawReceiver, RawSender, Sent
from hilum.mllp_client import MllpClient
from hilum.part10 import data_set_offset
from hilum.synthetic import ct_study
from hilum.testing import eventually

pytestmark = pytest.mark.system

SETTINGS = """
[destinations.viewer]
type = "dicom"
host = "127.0.0.1"
port = {viewer}
aet = "VIEWER"
require_order = "hold"
[[rules]]
name = "viewer"
when = "true"
to = ["viewer"]
[senders.CT1]
coerce = ["PatientName", "AccessionNumber"]
[hl7]
port = {hl7}
[orders]
time_zone = "Europe/Vienna"
[roles]
processes = ["dicom", "publish", "validate,route,ledger,index,orders,match", "deliver", "hl7"]
"""
ORDER = """\
MSH|^~\\&|RIS|NORTH|HILUM|NORTH|202611260900||ORM^O01|C1|P|2.3.1||||||8859/1
PID|||{patient}||Müller^Jörg
ORC|NW|P1^HIS|F1^RIS
OBR|1|P1^HIS|F1^RIS|CTH^CT head||||||||||||||ACC77|RP1|S1||||CT
ZDS|{study}^RIS^Application^DICOM
"""


@pytest.fixture
def viewer() -> Iterator[RawReceiver]:
    receiver = RawReceiver(aet="VIEWER")
    yield receiver
    receiver.close()


@pytest.fixture
def pacs() -> Iterator[RawReceiver]:
    receiver = RawReceiver()
    yield receiver
    receiver.close()


def send(running: RunningHilum, image: FileDataset) -> None:
    buffer = BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    sop_class, syntax, part10 = str(image.SOPClassUID), str(image.file_meta.TransferSyntaxUID), buffer.getvalue()
    sender = RawSender(running.port, [(sop_class, syntax)], calling="CT1")
    assert sender.send(sop_class, str(image.SOPInstanceUID), syntax, part10[data_set_offset(part10) :]) == 0x0000
    sender.release()


def read(sent: Sent) -> pydicom.Dataset:
    return pydicom.dcmread(DicomBytesIO(sent.data_set), force=True)


def test_a_study_waits_for_its_order_and_goes_with_what_that_says(
    viewer: RawReceiver, pacs: RawReceiver, tmp_path_factory: pytest.TempPathFactory, servers: Servers
) -> None:
    hl7 = free_port()
    (image,) = ct_study(1, rows=16, columns=16, patient="WAITS")
    image.AccessionNumber = ""
    study, uid, patient = str(image.StudyInstanceUID), str(image.SOPInstanceUID), str(image.PatientID)
    name = str(image.PatientName)
    settings = SETTINGS.format(viewer=viewer.port, hl7=hl7)
    with running_hilum(tmp_path_factory.mktemp("hilum"), pacs.port, settings, servers=servers()) as running:
        send(running, image)
        eventually(lambda: uid in pacs.received, what="the object at the destination that asks for no order")
        outcome = "SELECT outcome FROM v_match WHERE study_instance_uid = %s"
        eventually(lambda: running.rows(outcome, study) == [("unmatched",)], what="a study without order")
        assert "waits for an order that fits" in running.command("study", "show", study).stdout
        assert uid not in viewer.received

        message = ORDER.format(patient=patient, study=study).replace("\n", "\r").encode("latin-1")
        with MllpClient("127.0.0.1", hl7) as client:
            answer = client.send(message)
        assert b"MSA|AA|C1" in answer
        eventually(lambda: uid in viewer.received, what="the object at the destination that waited")

        got, kept = read(viewer.received[uid][0]), read(pacs.received[uid][0])
        assert (str(got.PatientName), got.AccessionNumber) == ("Müller^Jörg", "ACC77")
        before = got.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]
        assert (str(before.PatientName), before.AccessionNumber) == (name, "")
        assert (str(kept.PatientName), kept.AccessionNumber) == (name, "")
        assert got.PixelData == kept.PixelData
        shown = json.loads(running.command("study", "match", study, "--json").stdout)
        assert shown[0]["match"]["by"] == "study-instance-uid"
        [found] = json.loads(running.command("study", "show", "ACC77", "--json").stdout)
        assert (found["summary"]["study_instance_uid"], [each["placer_number"] for each in found["ordered"]["orders"]]) == (study, ["P1"])
        comment = "SELECT comment FROM v_delivery WHERE destination = 'viewer'"
        eventually(lambda: "AccessionNumber, PatientName of its order" in str(running.rows(comment)), what="the ledger's word")
        assert running.come_to_rest().unaccounted == 0
