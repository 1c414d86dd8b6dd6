from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hilum.commitments import Commitment, Commitments, TooMany
from hilum.dicom.commitment import Failure, FailureReason, Reference
from hilum.errors import Misconfigured, NotFound

CT = "1.2.840.10008.5.1.4.1.1.2"
NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


def a_commitment(transaction: str = "2.25.9", *instances: str, **more: Any) -> Commitment:
    references = tuple(Reference(CT, instance) for instance in instances or ("2.25.3",))
    calling_aet = more.pop("calling_aet", "CT1")
    return Commitment(
        id=Commitments.id_of(calling_aet, transaction),
        transaction_uid=transaction,
        calling_aet=calling_aet,
        called_aet="HILUM",
        peer="10.1.2.3",
        association=more.pop("association", ""),
        asked_at=more.pop("asked_at", NOON),
        objects=len(references),
        references=references,
        **more,
    )


@pytest.fixture
def commitments(tmp_path: Path) -> Commitments:
    return Commitments(tmp_path / "commitments")


def test_a_request_is_there_after_a_restart(commitments: Commitments, tmp_path: Path) -> None:
    asked = commitments.ask(a_commitment())

    anew = Commitments(tmp_path / "commitments")
    assert [each.id for each in anew.open()] == [asked.id]
    assert anew.get(asked.id) == asked == a_commitment()


def test_the_oldest_request_comes_first(commitments: Commitments) -> None:
    for number in (3, 1, 2):
        commitments.ask(a_commitment(f"2.25.{number}", asked_at=NOON + timedelta(minutes=number)))

    assert [each.transaction_uid for each in commitments.open()] == ["2.25.1", "2.25.2", "2.25.3"]


def test_the_same_request_again_is_the_one_that_is_here(commitments: Commitments) -> None:
    first = commitments.ask(a_commitment())

    assert commitments.ask(a_commitment(asked_at=NOON + timedelta(hours=1))) == first
    assert len(commitments.open()) == 1


def test_a_request_repeated_on_a_new_association_is_reported_there(commitments: Commitments) -> None:
    commitments.ask(a_commitment(association="first"))

    assert commitments.ask(a_commitment(association="second")).association == "second"


def test_a_request_repeated_while_its_first_association_lives_is_reported_on_that_one(commitments: Commitments) -> None:
    held = commitments.hold("first")
    commitments.ask(a_commitment(association="first"))

    assert commitments.ask(a_commitment(association="second")).association == "first"
    held.close()


@pytest.mark.parametrize(
    "before",
    [
        lambda commitments: commitments.ask(a_commitment("2.25.9", "2.25.4")),
        lambda commitments: commitments.finish(commitments.ask(a_commitment()).id, state="reported"),
        lambda commitments: commitments.change(commitments.ask(a_commitment()).id, state="reported"),
    ],
    ids=["open, for other objects", "ended", "ended, with a crash in between"],
)
def test_a_transaction_uid_that_was_used_before_makes_a_duplicate(
    commitments: Commitments, before: Callable[[Commitments], object]
) -> None:
    before(commitments)

    again = commitments.ask(a_commitment())

    assert again.duplicate
    assert commitments.get(again.id) == again
    assert again.id != a_commitment().id


def test_two_senders_may_use_the_same_transaction_uid(commitments: Commitments) -> None:
    asked = [commitments.ask(a_commitment(calling_aet=aet)) for aet in ("CT1", "CT2")]

    assert [each.duplicate for each in asked] == [False, False]
    assert len(commitments.open()) == 2


def test_a_change_keeps_what_it_does_not_name(commitments: Commitments) -> None:
    asked = commitments.ask(a_commitment())
    failures = (Failure(Reference(CT, "2.25.3"), FailureReason.NO_SUCH_INSTANCE),)

    commitments.change(asked.id, state="decided", failures=failures)

    assert commitments.get(asked.id) == replace(asked, state="decided", failures=failures)
    assert [each.state for each in commitments.open()] == ["decided"]


def test_each_change_gives_a_new_version_and_the_end_gives_none(commitments: Commitments) -> None:
    asked = commitments.ask(a_commitment())
    versions = [commitments.version(asked.id)]
    for attempts in (1, 2):
        commitments.change(asked.id, attempts=attempts)
        versions.append(commitments.version(asked.id))
    commitments.finish(asked.id)

    assert len(set(versions)) == 3
    assert commitments.version(asked.id) == 0


def test_what_has_ended_is_open_no_more_and_can_still_be_shown(commitments: Commitments) -> None:
    asked = commitments.ask(a_commitment())

    commitments.finish(asked.id, state="reported", says="reported")

    assert commitments.open() == []
    assert commitments.get(asked.id) is None
    assert commitments.change(asked.id, says="late") is None
    assert commitments.finish(asked.id) is None
    [shown] = commitments.find("2.25.9")
    assert (shown.state, shown.says, shown.references) == ("reported", "reported", asked.references)
    assert [each.id for each in commitments.done()] == [asked.id]


def test_what_is_not_there_is_not_found(commitments: Commitments) -> None:
    with pytest.raises(NotFound, match=r"no storage commitment request 2\.25\.1"):
        commitments.find("2.25.1")


def test_what_ended_long_ago_is_forgotten_and_so_is_what_a_crash_left(commitments: Commitments, tmp_path: Path) -> None:
    old, new, waiting = (commitments.ask(a_commitment(f"2.25.{number}")) for number in range(3))
    for each in (old, new):
        commitments.finish(each.id)
    long_ago = NOON.timestamp()
    os.utime(tmp_path / "commitments" / "done" / f"{old.id}.json", (long_ago, long_ago))
    (tmp_path / "commitments" / "open" / ".half").write_text("{")

    commitments.forget_before(datetime.now(UTC) - timedelta(days=1))

    assert [each.id for each in commitments.done()] == [new.id]
    assert [each.id for each in commitments.open()] == [waiting.id]
    assert not list((tmp_path / "commitments" / "open").glob(".*"))


def test_an_ended_request_that_is_forgotten_frees_its_transaction_uid(commitments: Commitments) -> None:
    commitments.finish(commitments.ask(a_commitment()).id)
    commitments.forget_before(datetime.now(UTC) + timedelta(days=1))

    assert not commitments.ask(a_commitment()).duplicate


def test_a_file_that_is_none_of_ours_is_left_alone(commitments: Commitments, tmp_path: Path) -> None:
    stray = tmp_path / "commitments" / "open" / "notes.json"
    stray.write_text("{}")

    assert commitments.open() == []
    assert stray.exists()


def test_no_more_requests_are_taken_than_may_be_open(tmp_path: Path) -> None:
    commitments = Commitments(tmp_path, most_open=2)
    for number in range(2):
        commitments.ask(a_commitment(f"2.25.{number}"))

    with pytest.raises(TooMany):
        commitments.ask(a_commitment("2.25.2"))
    commitments.ask(a_commitment("2.25.1"))  # the same again is no other one


def test_requests_take_no_more_room_than_they_may(tmp_path: Path) -> None:
    commitments = Commitments(tmp_path, most_open_bytes=10_000)
    commitments.ask(a_commitment("2.25.1", *(f"2.25.{number}" for number in range(500))))

    with pytest.raises(TooMany):
        commitments.ask(a_commitment("2.25.2"))


def test_a_disk_that_is_nearly_full_takes_no_request(tmp_path: Path) -> None:
    commitments = Commitments(tmp_path, min_free_bytes=2**62)

    with pytest.raises(TooMany):
        commitments.ask(a_commitment())
    assert commitments.open() == []


def test_a_folder_that_cannot_be_made_is_a_matter_for_a_person(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Misconfigured, match=r"Correct spool\.path"):
        Commitments(tmp_path / "file")


def test_requests_that_come_at_once_are_all_kept(commitments: Commitments) -> None:
    threads = [threading.Thread(target=commitments.ask, args=(a_commitment(f"2.25.{number}"),)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(commitments.open()) == 16


def test_an_association_lives_until_it_is_closed(commitments: Commitments) -> None:
    held = commitments.hold("a1")
    assert commitments.lives("a1")

    held.close()
    held.close()
    assert not commitments.lives("a1")


def test_an_association_whose_process_was_killed_lives_no_more(commitments: Commitments) -> None:
    child = os.fork()
    if not child:
        commitments.hold("a1")
        os._exit(0)
    os.waitpid(child, 0)

    assert not commitments.lives("a1")


@pytest.mark.parametrize("association", ["", "never"])
def test_what_never_lived_does_not_live(commitments: Commitments, association: str) -> None:
    assert not commitments.lives(association)


def test_one_worker_at_a_time(commitments: Commitments, tmp_path: Path) -> None:
    other = Commitments(tmp_path / "commitments")
    with commitments.alone() as first, other.alone() as second:
        assert (first, second) == (True, False)
    with other.alone() as third:
        assert third
