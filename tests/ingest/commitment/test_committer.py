from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hilum.commitments import Commitment, Commitments, Request
from hilum.dicom.commitment import Failure, FailureReason, Reference
from hilum.errors import Misconfigured, TryAgain
from hilum.settings import Commitment as Terms
from hilum.settings import Node
from hilum.telemetry import COMMITMENT_OBJECTS, COMMITMENTS_OPEN
from hilum.testing import Clock, eventually
from ingest.commitment import Committer
from ingest.commitment.decide import Decider, Decision, Waiting
from ingest.commitment.report import Reporter
from tests.commitment_scu import CT

Verdict = Decision | Waiting | Exception


class FakeDecider(Decider):
    """Says what the test wants of each request, by its transaction UID."""

    def __init__(self) -> None:
        self.verdicts: dict[str, Verdict] = {}
        self.looks: list[str] = []

    def look(self, commitment: Commitment) -> Decision | Waiting:
        self.looks.append(commitment.transaction_uid)
        verdict = self.verdicts.get(commitment.transaction_uid, Decision())
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    def forget(self, id_: str) -> None:
        pass


class FakeReporter(Reporter):
    """Notes what it is asked to tell, and knows where CT1 listens."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def node_of(self, calling_aet: str) -> Node | None:
        return Node(host="10.1.2.3", port=104) if calling_aet == "CT1" else None

    def tell(self, due: Callable[[], None] | list[Request]) -> None:  # type: ignore[override]  # a list, here
        assert isinstance(due, list)
        self.told += [request.transaction_uid for request in due]


class Hilum:
    """A committer on requests; `step` is one round."""

    def __init__(self, path: Path, **terms: float) -> None:
        self.clock = Clock()
        self.commitments = Commitments(path)
        self.decider = FakeDecider()
        self.reporter = FakeReporter()
        self.committer = Committer(Terms(**terms), self.commitments, lambda _: self.decider, self.reporter, self.clock)  # type: ignore[arg-type]  # numbers

    def ask(self, transaction: str = "2.25.9", aet: str = "CT1", association: str = "", **more: object) -> str:
        asked = Commitment(
            id=Commitments.id_of(aet, transaction),
            transaction_uid=transaction,
            calling_aet=aet,
            called_aet="HILUM",
            peer="10.1.2.3",
            association=association,
            asked_at=self.clock(),
            objects=2,
            references=(Reference(CT, "2.25.3"), Reference(CT, "2.25.4")),
            **more,  # type: ignore[arg-type]  # passed through
        )
        return self.commitments.ask(asked).id

    def step(self) -> None:
        self.committer.step(self.decider)

    def now(self, id_: str) -> Commitment:
        found = self.commitments.get(id_)
        assert found is not None
        return found


@pytest.fixture
def hilum(tmp_path: Path) -> Hilum:
    return Hilum(tmp_path)


def test_what_is_decided_is_kept_and_then_told(hilum: Hilum) -> None:
    id_ = hilum.ask()
    failures = (Failure(Reference(CT, "2.25.4"), FailureReason.NO_SUCH_INSTANCE),)
    hilum.decider.verdicts["2.25.9"] = Decision(failures=failures)
    before = COMMITMENT_OBJECTS.labels(outcome="no-such-instance")._value.get()

    hilum.step()

    decided = hilum.now(id_)
    assert (decided.state, decided.failures, decided.failed, decided.decided_at) == ("decided", failures, 1, hilum.clock())
    assert decided.says == "1 no-such-instance"
    assert COMMITMENT_OBJECTS.labels(outcome="no-such-instance")._value.get() == before + 1
    assert hilum.reporter.told == []
    hilum.step()
    assert hilum.reporter.told == ["2.25.9"]


def test_what_waits_says_for_what(hilum: Hilum) -> None:
    id_ = hilum.ask()
    hilum.decider.verdicts["2.25.9"] = Waiting(says="1 of 2 objects are not here.")
    hilum.step()

    assert (hilum.now(id_).state, hilum.now(id_).says) == ("asked", "1 of 2 objects are not here.")
    assert hilum.committer.health().ready
    assert hilum.committer.health().lag == 1
    assert COMMITMENTS_OPEN.labels(state="asked")._value.get() == 1


def test_while_the_association_lives_its_receiver_reports(hilum: Hilum) -> None:
    held = hilum.commitments.hold("a1")
    hilum.ask(association="a1")
    for _ in range(2):
        hilum.step()
    assert hilum.reporter.told == []

    held.close()
    hilum.step()
    assert hilum.reporter.told == ["2.25.9"]


@pytest.mark.parametrize(
    "outage", [TryAgain("PostgreSQL does not answer."), Misconfigured("s3-bucket-missing", "There is no bucket.", fix="Make it.")]
)
def test_an_outage_is_said_and_decides_nothing(hilum: Hilum, outage: Exception) -> None:
    id_ = hilum.ask()
    hilum.decider.verdicts["2.25.9"] = outage
    hilum.step()

    assert (hilum.now(id_).state, hilum.now(id_).says) == ("asked", str(outage))
    health = hilum.committer.health()
    assert (health.ready, health.says) == (False, str(outage))


def test_after_an_outage_it_is_decided_and_all_is_well(hilum: Hilum) -> None:
    id_ = hilum.ask()
    hilum.decider.verdicts["2.25.9"] = TryAgain("PostgreSQL does not answer.", after_s=0.0)
    hilum.step()
    del hilum.decider.verdicts["2.25.9"]

    def decided() -> bool:
        hilum.step()
        return hilum.now(id_).state == "decided"

    eventually(decided)
    assert hilum.committer.health().ready


@pytest.mark.parametrize("fault", [TryAgain("The object store answered InternalError.", after_s=0.0), KeyError("unforeseen")])
def test_a_request_that_fails_again_and_again_does_not_hold_up_the_others(hilum: Hilum, fault: Exception) -> None:
    hilum.decider.verdicts["2.25.1"] = fault
    bad, good = hilum.ask("2.25.1"), hilum.ask("2.25.2")

    def decided() -> bool:
        hilum.step()
        return hilum.now(good).state == "decided"

    eventually(decided)
    assert hilum.now(bad).state == "asked"
    assert not hilum.committer.health().ready


def test_a_request_that_waits_is_not_looked_at_in_every_round(hilum: Hilum) -> None:
    hilum.ask()
    hilum.decider.verdicts["2.25.9"] = Waiting(says="It waits.")
    hilum.clock.forward(minutes=5)
    for _ in range(5):
        hilum.step()

    assert hilum.decider.looks == ["2.25.9"]


def test_a_request_whose_objects_are_being_read_goes_on_in_the_next_round(hilum: Hilum) -> None:
    hilum.ask()
    hilum.decider.verdicts["2.25.9"] = Waiting(says="2 of 3 objects are still to be read.", soon=True)
    hilum.clock.forward(minutes=5)
    for _ in range(3):
        hilum.step()

    assert hilum.decider.looks == ["2.25.9"] * 3


def test_an_scu_whose_address_is_not_known_is_named(hilum: Hilum) -> None:
    id_ = hilum.ask(aet="CT2")
    for _ in range(3):
        hilum.step()

    assert hilum.reporter.told == []
    assert hilum.now(id_).says == "The settings do not say where CT2 listens: add [peers.CT2]."
    health = hilum.committer.health()
    assert health.ready
    assert "1 report could not be delivered yet: The settings do not say where CT2 listens" in health.says


def test_a_report_that_failed_waits_for_its_next_time(hilum: Hilum) -> None:
    id_ = hilum.ask()
    hilum.step()
    hilum.commitments.change(id_, attempts=1, not_before=hilum.clock() + timedelta(seconds=10), says="It cannot be reached.")
    hilum.step()
    assert hilum.reporter.told == []
    assert hilum.committer.health().says == "1 report could not be delivered yet: It cannot be reached."

    hilum.clock.forward(seconds=10)
    hilum.step()
    assert hilum.reporter.told == ["2.25.9"]


def test_an_scu_that_cannot_be_reached_for_days_is_given_up(hilum: Hilum) -> None:
    id_ = hilum.ask()
    hilum.step()
    hilum.commitments.change(id_, attempts=50, says="It cannot be reached.")
    hilum.clock.forward(days=7, seconds=1)
    hilum.step()

    [ended] = hilum.commitments.done()
    assert (ended.state, ended.ended_at, ended.says) == ("given-up", hilum.clock(), "given up: It cannot be reached.")
    assert hilum.reporter.told == []


def test_none_is_given_up_before_it_was_tried(tmp_path: Path) -> None:
    hilum = Hilum(tmp_path, retry_days=0)
    hilum.ask()
    hilum.step()
    hilum.clock.forward(days=1)
    hilum.step()

    assert hilum.reporter.told == ["2.25.9"]


def test_one_that_ended_in_a_crash_is_ended(hilum: Hilum) -> None:
    id_ = hilum.ask()
    hilum.commitments.change(id_, state="reported")
    hilum.step()

    assert hilum.commitments.open() == []
    assert [each.state for each in hilum.commitments.done()] == ["reported"]


def test_what_ended_is_forgotten_after_its_days(tmp_path: Path) -> None:
    hilum = Hilum(tmp_path, keep_days=30)
    hilum.commitments.finish(hilum.ask(), state="reported")
    hilum.clock.moment = datetime.now(UTC) + timedelta(days=31)
    hilum.step()

    assert hilum.commitments.done() == []


def test_a_second_worker_stands_by_until_the_first_one_ends(hilum: Hilum) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=hilum.committer.run, args=(stop,))
    with hilum.commitments.alone():
        thread.start()
        eventually(lambda: "stands by" in hilum.committer.health().says)
        id_ = hilum.ask()
        assert hilum.now(id_).state == "asked"
    eventually(lambda: hilum.now(id_).state == "decided")
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
