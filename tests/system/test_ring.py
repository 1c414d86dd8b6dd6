"""Two Hilums and an Orthanc, each of which forwards everything to both others: what is sent to one comes to rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest

from bench.peers import free_port, orthanc
from bench.running import RunningHilum, Servers, running_hilum
from bench.wire import RawSender
from hilum.part10 import data_set_offset
from hilum.synthetic import ct_study
from hilum.testing import eventually

pytestmark = [pytest.mark.system, pytest.mark.peer("Orthanc")]

#: Whatever is stored, also what is here already, is sent on, whoever sent it.
FORWARD_ALL = """
function OnStoredInstance(instanceId, tags, metadata, origin)
  SendToModality(instanceId, 'a')
  SendToModality(instanceId, 'b')
end
"""
#: Further settings of one Hilum of the ring: the other one is a destination, too.
NEIGHBOUR = """
[destinations.neighbour]
type = "dicom"
host = "127.0.0.1"
port = {port}
aet = "{other}"
calling_aet = "{own}"
[[rules]]
name = "ring"
to = ["neighbour"]
[senders.PACS.query]
host = "127.0.0.1"
port = {pacs}
calling_aet = "{own}"
after_s = 1.0
"""
OBJECTS = 4


class Ring(NamedTuple):
    """The three of them; the Orthanc has a port for DICOM and one for HTTP."""

    hilums: tuple[RunningHilum, RunningHilum]
    port: int
    http_port: int

    def orthanc(self, path: str) -> Any:
        """What the Orthanc's REST interface answers."""
        with urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Ring]:
    port, http_port, a_port, b_port = (free_port() for _ in range(4))
    folder = tmp_path_factory.mktemp("orthanc")
    modalities = {"a": ["A", "127.0.0.1", a_port], "b": ["B", "127.0.0.1", b_port]}
    more = {"DicomAet": "PACS", "DicomModalities": modalities, "OverwriteInstances": True}
    to_b, to_a = (
        NEIGHBOUR.format(port=other_port, own=own, other=other, pacs=port)
        for own, other, other_port in (("A", "B", b_port), ("B", "A", a_port))
    )
    with (
        orthanc(folder, port, http_port, a_port, lua=FORWARD_ALL, more=more),
        running_hilum(tmp_path_factory.mktemp("a"), port, to_b, port=a_port, images_only=True, servers=servers()) as a,
        running_hilum(tmp_path_factory.mktemp("b"), port, to_a, port=b_port, images_only=True, servers=servers()) as b,
    ):
        yield Ring((a, b), port, http_port)


def send(port: int, name: str) -> str:
    """A scanner sends a study to a port; the study's UID."""
    images = list(ct_study(OBJECTS, rows=32, columns=32, patient=name))
    kinds = [(str(each.SOPClassUID), str(each.file_meta.TransferSyntaxUID)) for each in images]
    raw = RawSender(port, kinds, calling="CT1")
    for each, (sop_class, syntax) in zip(images, kinds, strict=True):
        buffer = BytesIO()
        each.save_as(buffer, enforce_file_format=True)
        part10 = buffer.getvalue()
        assert raw.send(sop_class, str(each.SOPInstanceUID), syntax, part10[data_set_offset(part10) :]) == 0x0000
    raw.release()
    return str(images[0].StudyInstanceUID)


def arrivals(hilum: RunningHilum, study: str) -> dict[str, int]:
    return dict(hilum.rows("SELECT outcome, count(*) FROM v_receipt WHERE study_instance_uid = %s GROUP BY outcome", study))


def sending(ring: Ring) -> bool:
    """Whether the Orthanc has anything to send."""
    return any(job["State"] in ("Pending", "Running", "Retry") for job in ring.orthanc("/jobs?expand"))


def kept_by_orthanc(ring: Ring, study: str) -> int:
    studies = [each for each in ring.orthanc("/studies?expand") if each["MainDicomTags"]["StudyInstanceUID"] == study]
    return sum(int(ring.orthanc(f"/studies/{each['ID']}/statistics")["CountInstances"]) for each in studies)


@pytest.mark.parametrize("first", ["a hilum", "the orthanc"])
def test_what_is_sent_to_one_of_the_ring_reaches_all_once_and_comes_to_rest(ring: Ring, first: str) -> None:
    study = send(ring.hilums[0].port if first == "a hilum" else ring.port, first.upper().replace(" ", "-"))

    everywhere = [OBJECTS] * len(ring.hilums)
    eventually(lambda: [arrivals(hilum, study).get("deliver", 0) for hilum in ring.hilums] == everywhere, what="all objects")
    # Somebody who has nothing to send may still be sent something: all are at rest when a whole round has changed nothing.
    before: list[dict[str, int]] = []
    while (now := [arrivals(hilum, study) for hilum in ring.hilums if hilum.come_to_rest(60)]) != before or sending(ring):
        before = now

    assert kept_by_orthanc(ring, study) == OBJECTS
    for hilum in ring.hilums:
        came = arrivals(hilum, study)
        assert came.pop("deliver") == OBJECTS, "each object is taken once"
        assert set(came) <= {"returned", "duplicate"}
        assert hilum.rows("SELECT count(*) FROM instance WHERE study_instance_uid = %s", study) == [(OBJECTS,)]
        assert hilum.rows("SELECT count(*) FROM quarantine") == [(0,)]
        account = hilum.come_to_rest(30)
        assert (account.unaccounted, account.pending, account.rejected) == (0, 0, 0)


def test_a_study_is_complete_once_as_many_are_here_as_its_sender_says_that_it_has(ring: Ring) -> None:
    study = send(ring.port, "ASKED")  # the Orthanc sends it on
    query = "SELECT state, reason, instance_count FROM v_study WHERE study_instance_uid = %s"

    # By silence it would be after a minute.
    found = eventually(lambda: [each for each in ring.hilums[1].rows(query, study) if each[0] == "complete"], what="completion")

    assert found == [("complete", "expected", OBJECTS)]
