from __future__ import annotations

import math
from pathlib import Path

import pytest

from hilum import upper_layer as ul
from ingest.dicom.pace import SLOWEST_BYTES, Pace, TooSlow
from tests.ingest.dicom.test_acceptor import CT, DATA_SET, Association, a_store, command, data


@pytest.fixture
def association(tmp_path: Path) -> Association:
    return Association(tmp_path, max_object_bytes=2**20).established()


def too_slow_after_s(association: Association, drip: bytes) -> float:
    """How long a peer may send `drip` every five seconds with an idle timeout of a minute; infinite if for ever."""
    pace = Pace(association.acceptor)
    for n in range(1, 1000):
        association.receive(drip)
        try:
            pace.waited(5.0, 60.0)
        except TooSlow:
            return 5.0 * n
    return math.inf


@pytest.mark.parametrize(
    "drip",
    [data(b"x", last=False), data(b"", last=False), ul.pdu(ul.Pdu.DATA, b"")],
    ids=["single bytes", "empty fragments", "empty PDUs"],
)
def test_a_peer_that_drips_amid_an_object_is_too_slow_after_the_idle_timeout(association: Association, drip: bytes) -> None:
    association.receive(command(ul.c_store_rq(1, CT, "2.25.3")))

    assert too_slow_after_s(association, drip) == 65.0


def test_empty_pdus_between_messages_are_no_progress(association: Association) -> None:
    assert too_slow_after_s(association, ul.pdu(ul.Pdu.DATA, b"")) == 65.0


def test_a_slow_line_is_fast_enough(association: Association) -> None:
    association.receive(command(ul.c_store_rq(1, CT, "2.25.3")))
    pace = Pace(association.acceptor)

    for _ in range(100):
        association.receive(data(bytes(SLOWEST_BYTES // 10), last=False))
        pace.waited(5.0, 60.0)


def test_small_messages_are_progress_each(association: Association) -> None:
    pace = Pace(association.acceptor)

    for _ in range(20):
        association.receive(a_store(DATA_SET), command(ul.c_echo_rq(3)))
        pace.waited(50.0, 60.0)


def test_time_that_is_not_waited_for_the_peer_does_not_count(association: Association) -> None:
    pace = Pace(association.acceptor)
    association.receive(command(ul.c_store_rq(1, CT, "2.25.3")))

    for _ in range(1000):  # bytes that were here when we came back to the socket
        association.receive(data(b"x", last=False))
        pace.waited(0.0, 60.0)
