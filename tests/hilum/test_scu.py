from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless

from hilum.peer import Peer
from hilum.scu import Unanswered, outgoing, reason_of, send_all, status_of
from hilum.synthetic import write_ct_study
from tests.peers import CT, EXPLICIT, Pacs, aborts, pacs


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_ct_study(tmp_path, 2, rows=8, columns=8)


def peer(there: Pacs) -> Peer:
    return Peer(host="127.0.0.1", port=there.port, aet="PACS", calling_aet="TEST")


def test_the_status_is_the_peers(files: list[Path]) -> None:
    with pacs() as there:
        answers = [answer for _, answer in send_all(peer(there), [outgoing(path) for path in files])]

    assert [status_of(answer) for answer in answers] == ["0x0000", "0x0000"]


def test_an_object_that_the_peer_refuses_in_its_transfer_syntax_was_not_sent_and_has_no_status(files: list[Path]) -> None:
    ds = pydicom.dcmread(files[0])
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds["PixelData"].is_undefined_length = True
    ds.PixelData = pydicom.encaps.encapsulate([b"12"])
    ds.save_as(files[0])
    with pacs(contexts=[(CT, EXPLICIT)]) as there:
        [refused, taken] = [answer for _, answer in send_all(peer(there), [outgoing(path) for path in files])]

    assert isinstance(refused, Unanswered)
    assert (status_of(refused), status_of(taken)) == ("not sent", "0x0000")
    assert reason_of(refused) == "the peer refused this SOP class in this transfer syntax"


def test_an_association_that_ends_without_an_answer_is_no_answer_of_the_peers(files: list[Path]) -> None:
    with pacs(aborts) as there:
        answers = [answer for _, answer in send_all(peer(there), [outgoing(path) for path in files])]

    assert [status_of(answer) for answer in answers] == ["no answer", "no answer"]
