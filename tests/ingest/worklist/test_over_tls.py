"""The worklist and performed steps over TLS, as storage is: pynetdicom and dcmtk ask on `dicom.tls_port`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from msgspec.structs import replace
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
)

from hilum.asking import ready
from hilum.procedures import Procedures
from hilum.settings import Settings, Worklist
from hilum.settings import Spool as SpoolSettings
from hilum.testing import eventually
from tests.ingest.dicom.test_associations import client, with_tls
from tests.ingest.worklist.steps import EXPLICIT, Running, data_set, put, steps_query
from tests.ingest.worklist.test_performed import CREATE, END


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def settings(tmp_path: Path, ca: trustme.CA) -> Iterator[Settings]:
    """Of a receiver that serves both, on a port that speaks TLS and asks for a certificate."""
    found = replace(
        with_tls(tmp_path, ca, client_ca=True),
        spool=SpoolSettings(min_free_bytes=0, spare_bytes=0),
        worklist=Worklist(serve=True, mpps=True, refresh_s=0.1),
    )
    put(found)
    receiver = Running(found)
    try:
        eventually(lambda: receiver.find({"PatientID": "nobody"})[1] != [0xA700], what="the steps are read")
        yield found
    finally:
        receiver.end()


def associated(settings: Settings, ca: trustme.CA, sop_class: str) -> Association:
    ae = AE("CT1")
    ae.add_requested_context(sop_class, [EXPLICIT])
    tls = (client(ca, ca.issue_cert("ct1.example")), "localhost")
    association = ae.associate("127.0.0.1", settings.dicom.tls_port, ae_title="HILUM", tls_args=tls)
    assert association.is_established
    return association


def test_the_worklist_is_asked_for_over_tls(settings: Settings, ca: trustme.CA) -> None:
    association = associated(settings, ca, ModalityWorklistInformationFind)
    keys = data_set({"AccessionNumber": "ACC1", **steps_query()})
    answers = [answer for _, answer in association.send_c_find(keys, ModalityWorklistInformationFind) if answer is not None]
    association.release()

    assert [answer.AccessionNumber for answer in answers] == ["ACC1"]


@pytest.mark.peer("findscu")
def test_dcmtk_asks_for_the_worklist_over_tls(settings: Settings, ca: trustme.CA, tmp_path: Path) -> None:
    certificate, key = tmp_path / "modality.pem", tmp_path / "modality.key"
    leaf = ca.issue_cert("ct1.example")
    certificate.write_bytes(leaf.cert_chain_pems[0].bytes())
    key.write_bytes(leaf.private_key_pem.bytes())
    command = ["findscu", "-W", "-aet", "CT1", "-aec", "HILUM", "+tls", str(key), str(certificate), "+cf", str(tmp_path / "ca.pem")]
    command += ["-k", "AccessionNumber=ACC1", "-k", "PatientID", "127.0.0.1", str(settings.dicom.tls_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert "PID1" in done.stdout + done.stderr


def test_a_step_is_performed_over_tls(settings: Settings, ca: trustme.CA) -> None:
    association = associated(settings, ca, ModalityPerformedProcedureStep)
    created, _ = association.send_n_create(data_set(CREATE), ModalityPerformedProcedureStep, "2.25.500")
    ready(association)
    completed, _ = association.send_n_set(data_set(END), ModalityPerformedProcedureStep, "2.25.500")
    association.release()

    assert (created.Status, completed.Status) == (0x0000, 0x0000)
    assert [each.event.state for each in Procedures(settings).untold()] == ["in-progress", "completed"]
