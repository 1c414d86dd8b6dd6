"""A configuration is published, workers say what they run, and what would be left behind is counted."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from hilum.applying import orphans, overtaken, publish, refuse_orphans, wait
from hilum.bundle import Following, current, history, in_force, workers
from hilum.candidate import Candidate
from hilum.database import connect
from hilum.errors import Misconfigured, Refused, TryAgain
from hilum.sections import Roles
from hilum.settings import Postgres, Settings
from hilum.testing import eventually

if TYPE_CHECKING:
    from tests.conftest import Log

pytestmark = pytest.mark.system

CT: dict[str, Any] = {"name": "ct", "when": "true", "to": ["pacs"]}
ONE = Candidate(destinations={"pacs": {"type": "archive"}}, rules=(CT,))
TWO = Candidate(destinations={"pacs": {"type": "archive"}}, rules=())
NOTHING = Candidate(destinations={}, rules=())


@pytest.fixture
def settings(log: Log, postgres: str) -> Settings:
    log.make()
    return msgspec.structs.replace(log.settings, postgres=Postgres(dsn=postgres), roles=Roles(processes=("route,deliver",)))


def taken(following: Following, refused: str = "") -> None:
    """Let a worker take what is in force; `refused` is a version that it cannot run."""

    def configure(settings: Settings) -> None:
        if settings.config_version == refused:
            raise Misconfigured("rule-invalid", "Rule 'ct' cannot be read.", fix="Correct it.")

    def begun() -> bool:
        try:
            return following.take(configure) or bool(following.version)
        except TryAgain:
            return False

    eventually(begun, what="the first configuration")


def test_what_is_published_is_in_force_with_who_and_why(settings: Settings) -> None:
    first = publish(settings, ONE, why="to begin with", actor="sam")
    second = publish(settings, TWO)

    assert [bundle.version for bundle in history(settings)] == [ONE.version, TWO.version]
    assert (first.offset, second.offset) == (0, 1)
    found = history(settings)[0].applied
    assert (found.actor, found.why) == ("sam", "to begin with")
    assert found.rules == ONE.rules


def test_somebody_elses_later_configuration_is_noticed(settings: Settings) -> None:
    first = publish(settings, ONE)
    assert overtaken(settings, first) == ""

    publish(settings, TWO)

    assert overtaken(settings, first) == TWO.version


def test_a_configuration_that_no_message_can_hold_is_refused(settings: Settings) -> None:
    with pytest.raises(Misconfigured, match="1,000,000 are the most"):
        publish(settings, Candidate(destinations={}, rules=({"name": "x" * 1_100_000},)))

    assert current(settings) is None


def test_it_is_waited_for_until_every_worker_runs_the_version(settings: Settings) -> None:
    with Following(settings, "route") as one, Following(settings, "deliver") as other:
        taken(one)
        taken(other)
        publish(settings, ONE)
        eventually(lambda: one.take(lambda _: None))
        eventually(lambda: [each.role for each in wait(settings, ONE.version, 0.0).stragglers] == ["deliver"])

        eventually(lambda: other.take(lambda _: None))
        waited = wait(settings, ONE.version, 10.0)

    assert (sorted(each.role for each in waited.running), waited.stragglers) == (["deliver", "route"], [])
    assert workers(settings.postgres.dsn) == []


def test_a_worker_that_refuses_the_version_is_named_with_why_and_not_waited_for(settings: Settings) -> None:
    with Following(settings, "route") as following:
        taken(following)
        before = following.version
        publish(settings, ONE)

        def refused() -> bool:
            taken(following, refused=ONE.version)
            return any(each.refuses for each in workers(settings.postgres.dsn))

        eventually(refused)
        alone = msgspec.structs.replace(settings, roles=Roles(processes=("route",)))
        clock = iter([0.0, 1.0])  # a second look would find it at its end
        [straggler] = wait(alone, ONE.version, 60.0, now=clock.__next__).stragglers

    assert (straggler.version, straggler.refuses) == (before, ONE.version)
    assert "cannot be read" in straggler.says


def heard_of(settings: Settings, worker: str, role: str, version: str, ago: str) -> None:
    with connect(settings.postgres.dsn) as connection:
        connection.execute(
            "INSERT INTO worker (worker, role, host, version, seen_at) VALUES (%s, %s, 'h', %s, now() - %s::interval)",
            (worker, role, version, ago),
        )


@pytest.mark.parametrize("version", ["old", ONE.version])
def test_a_worker_that_does_not_answer_is_named_with_when_it_was_heard_of(settings: Settings, version: str) -> None:
    heard_of(settings, "h/route/1-a", "route", version, "10 minutes")
    heard_of(settings, "h/deliver/1-b", "deliver", ONE.version, "1 second")

    waited = wait(settings, ONE.version, 0.0)

    assert [each.worker for each in waited.running] == ["h/deliver/1-b"]
    [straggler] = waited.stragglers
    assert (straggler.worker, straggler.silent, waited.done) == ("h/route/1-a", True, False)
    assert 599 < straggler.unheard_s < 700
    assert [each.worker for each in workers(settings.postgres.dsn)] == ["h/deliver/1-b", "h/route/1-a"]


def test_a_role_of_which_no_worker_is_there_is_named(settings: Settings) -> None:
    heard_of(settings, "h/route/1-a", "route", ONE.version, "1 second")

    waited = wait(settings, ONE.version, 0.0)

    assert (waited.absent, waited.stragglers, waited.done) == (["deliver"], [], False)


def test_a_worker_that_was_not_heard_of_for_an_hour_is_shown_and_not_waited_for(settings: Settings) -> None:
    heard_of(settings, "h/route/1-a", "route", "old", "61 minutes")
    for role in ("route", "deliver"):
        heard_of(settings, f"h/{role}/2-b", role, ONE.version, "1 second")

    assert wait(settings, ONE.version, 0.0).done
    assert "h/route/1-a" in [each.worker for each in workers(settings.postgres.dsn)]


def test_what_a_dead_process_of_this_machine_said_is_forgotten_by_the_one_after_it(settings: Settings) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    with connect(settings.postgres.dsn) as connection:
        for pid in (ended.stdout.strip(), os.getpid()):
            connection.execute(
                "INSERT INTO worker (worker, role, host, version) VALUES (%s, 'route', %s, 'old')",
                (f"{socket.gethostname()}/route/{pid}-a", socket.gethostname()),
            )

    with Following(settings, "deliver") as following:
        taken(following)
        eventually(lambda: len(workers(settings.postgres.dsn)) == 2)

    assert [each.worker.rpartition("/")[2] for each in workers(settings.postgres.dsn)] == [f"{os.getpid()}-a"]


def test_while_the_database_is_away_a_worker_takes_what_is_new(log: Log) -> None:
    log.make()
    with Following(log.settings, "route") as following:
        taken(following)
        publish(log.settings, ONE)

        eventually(lambda: following.take(lambda _: None))

    assert following.version == ONE.version


def test_deliveries_that_wait_for_a_destination_that_goes_are_counted(settings: Settings) -> None:
    with connect(settings.postgres.dsn) as connection:
        for number, (destination, state) in enumerate(
            [("pacs", "pending"), ("pacs", "parked"), ("pacs", "delivered"), ("other", "pending")]
        ):
            connection.execute(
                "INSERT INTO delivery (delivery_id, destination, receipt, study_instance_uid, sop_instance_uid, state)"
                " VALUES (%s, %s, 'r', '1.2', '1.2.3', %s)",
                (str(number), destination, state),
            )
    before = in_force(settings, publish(settings, ONE))

    found = orphans(settings, before, NOTHING.settings(settings))

    assert [(each.destination, each.pending) for each in found] == [("pacs", 2)]
    with pytest.raises(Refused, match=r"2 deliveries wait .*: 2 for pacs\."):
        refuse_orphans(found)
    assert orphans(settings, before, TWO.settings(settings)) == []
