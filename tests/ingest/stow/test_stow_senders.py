"""A STOW-RS client is a sender like any other: it is blocked, bound to addresses and limits, and leaves records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hilum.settings import Sender
from hilum.settings import Spool as SpoolSettings
from hilum.web import add_client
from ingest.stow import answers
from ingest.stow.answers import Refusal
from tests.stow_client import TO_DICOM, Answered, Running, a_body, a_file, running


@pytest.fixture
def clients(tmp_path: Path) -> Path:
    return tmp_path / "clients"


@pytest.fixture
def key(clients: Path) -> str:
    """The key of the client PORTAL."""
    return add_client(clients, "PORTAL")


def post(receiver: Running, key: str, *files: bytes) -> Answered:
    return receiver.post(a_body(*files or (a_file(),)), Authorization=f"Bearer {key}")


def refused(answered: Answered, refusal: Refusal) -> bool:
    return (answered.status, answered.reason) == (refusal.status, refusal.reason)


# Who may


def test_a_blocked_client_is_refused_until_it_is_allowed_or_forgotten(tmp_path: Path, clients: Path, key: str) -> None:
    undone: list[Callable[[Running], object]] = [
        lambda receiver: receiver.exceptions.put("PORTAL", blocked=False),
        lambda receiver: receiver.exceptions.forget("PORTAL"),
    ]
    with running(tmp_path / "data", clients=str(clients)) as receiver:
        for undo in undone:
            receiver.exceptions.put("PORTAL", blocked=True)
            assert refused(post(receiver, key), answers.BLOCKED)
            assert receiver.is_clean()

            undo(receiver)
            assert post(receiver, key).status == 200
            receiver.spool.remove(receiver.spool.waiting())


def test_another_client_than_the_blocked_one_is_served(tmp_path: Path, clients: Path, key: str) -> None:
    with running(tmp_path / "data", clients=str(clients)) as receiver:
        receiver.exceptions.put("LAB", blocked=True)

        assert post(receiver, key).status == 200


@pytest.mark.parametrize(("network", "served"), [("127.0.0.0/8", True), ("192.0.2.0/24", False)])
def test_a_client_is_served_from_the_addresses_in_its_settings(tmp_path: Path, clients: Path, key: str, network: str, served: bool) -> None:
    with running(tmp_path / "data", clients=str(clients), senders={"PORTAL": Sender(addresses=(network,))}) as receiver:
        answered = post(receiver, key)

        assert answered.status == 200 if served else refused(answered, answers.WRONG_ADDRESS)


def test_a_client_is_served_from_the_addresses_that_were_allowed_by_hand(tmp_path: Path, clients: Path, key: str) -> None:
    with running(tmp_path / "data", clients=str(clients), senders={"PORTAL": Sender(addresses=("192.0.2.0/24",))}) as receiver:
        receiver.exceptions.put("PORTAL", blocked=False, addresses=("127.0.0.1",))
        assert post(receiver, key).status == 200

        receiver.exceptions.put("PORTAL", blocked=False, addresses=("192.0.2.7",))
        assert refused(post(receiver, key), answers.WRONG_ADDRESS)


@pytest.mark.parametrize(("of_all", "of_sender", "taken"), [(400, 0, False), (400, 5000, False), (5000, 400, False), (5000, 0, True)])
def test_the_narrowest_limit_holds(tmp_path: Path, clients: Path, key: str, of_all: int, of_sender: int, taken: bool) -> None:
    senders = {"PORTAL": Sender(max_object_bytes=of_sender)}
    with running(tmp_path / "data", clients=str(clients), senders=senders, max_object_bytes=of_all) as receiver:
        answered = post(receiver, key, a_file(PatientComments="x" * 1000))

        assert (answered.status, answered.failed) == ((200, []) if taken else (409, [("2.25.3", answers.TOO_LARGE.status)]))


# What is remembered


def test_requests_of_a_minute_are_one_record_which_their_objects_name(tmp_path: Path, clients: Path, key: str) -> None:
    with running(tmp_path / "data", clients=str(clients)) as receiver:
        for number in range(3):
            post(receiver, key, a_file(SOPInstanceUID=f"2.25.10{number}"), b"junk")
    stored = receiver.stored()

    [record] = receiver.records()
    assert (record.adapter, record.calling_aet, record.peer) == ("stow", "PORTAL", "127.0.0.1")
    assert (record.requests, record.ended, record.refused) == (3, "3 requests", "")
    assert (record.objects, record.size_bytes) == (3, sum(len(data) for _, data in stored))
    assert record.statuses == {"0x0000": 3, "0xC000": 3}
    assert {arrival.association for arrival, _ in stored} == {record.association}


def test_refused_requests_are_remembered_apart_with_why(tmp_path: Path, clients: Path, key: str) -> None:
    with running(tmp_path / "data", clients=str(clients)) as receiver:
        post(receiver, key)
        for _ in range(2):
            receiver.post(a_body(a_file()), Authorization="Bearer wrong")
        receiver.post(b"Marked^Patient", TO_DICOM, Authorization=f"Bearer {key}")
        receiver.post(a_body(a_file()), path="/dicom-web/studies/Marked%5EPatient", Authorization=f"Bearer {key}")

    found = {(record.calling_aet, record.refused): (record.requests, record.statuses) for record in receiver.records()}
    assert found == {
        ("PORTAL", ""): (1, {"0x0000": 1}),
        ("", "No key, or one that is not known (unauthorized)"): (2, {"401": 2}),
        ("PORTAL", "The body is not well-formed (malformed)"): (1, {"400": 1}),
        ("PORTAL", "There is no such resource (not-found)"): (1, {"404": 1}),
    }


def test_a_request_that_meets_a_full_disk_is_remembered_as_refused(tmp_path: Path) -> None:
    with running(tmp_path, SpoolSettings(min_free_bytes=2**62)) as receiver:
        receiver.post(a_body(a_file()))

    assert [record.refused for record in receiver.records()] == ["The receiver's disk is full (no-space)"]
