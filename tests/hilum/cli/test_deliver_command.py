"""How `hilum deliver`, `hilum dest` and `hilum send --to` answer, with Kafka and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from hilum import bundle, bus, desired
from hilum.cli import app
from hilum.database import connect
from hilum.errors import HilumError, Misconfigured, NotFound, TryAgain
from hilum.events import Limits
from hilum.runtime.delivery.outcomes import Parked, PutOff
from hilum.runtime.delivery.queue import Queue
from hilum.settings import Postgres, Settings
from hilum.sink import Settled
from hilum.testing import MemoryStore, eventually
from tests.conftest import Log
from tests.ledger import DELIVERED, enter, rows, some, states

pytestmark = pytest.mark.system

Hilum = Callable[..., Result]


@pytest.fixture
def settings(log: Log, postgres: str) -> Settings:
    log.make()
    settings = msgspec.structs.replace(log.settings, postgres=Postgres(dsn=postgres), destinations={"pacs": {"type": "archive"}})
    eventually(partial(topics_answer, settings))
    return settings


def topics_answer(settings: Settings) -> bool:
    """Whether the topics that were just made have their leaders."""
    try:
        desired.read(settings)
        bundle.current(settings)
    except TryAgain:
        return False
    return True


@pytest.fixture
def hilum(settings: Settings, tmp_path: Path) -> Hilum:
    """Run a command as a person would."""
    config = tmp_path / "hilum.toml"
    config.write_text('[destinations.pacs]\ntype = "archive"\n')
    kafka = {f"HILUM_KAFKA__{name.upper()}": str(getattr(settings.kafka, name)) for name in settings.kafka.__struct_fields__}
    environment = kafka | {
        "HILUM_CONFIG": str(config),
        "HILUM_POSTGRES__DSN": settings.postgres.dsn,
        "HILUM_S3__ENDPOINT": "http://none:1",
    }

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, words, env=environment)

    return run


def error_of(result: Result) -> HilumError:
    assert isinstance(result.exception, HilumError), result.output
    return result.exception


@pytest.fixture
def ledger(settings: Settings) -> str:
    """A ledger with one delivery of each kind: delivered, rejected, parked, put off; and one that waits for its first attempt."""
    dsn = settings.postgres.dsn
    enter(dsn, *some(MemoryStore(), 4))
    queue = Queue(dsn, "pacs", "w", bus.Writer(Settings(), "deliver"))
    outcomes = (
        DELIVERED,
        Settled(state="rejected", peer_status="0xA900"),
        Parked(comment="A person is needed."),
        PutOff(after_s=3600, comment="Full."),
    )
    queue.record(list(zip(queue.claim(4), outcomes, strict=True)))
    queue.close()
    enter(dsn, *some(MemoryStore(), 1, "2.25.2"))
    return dsn


def test_deliveries_are_listed_with_their_next_attempt(hilum: Hilum, ledger: str) -> None:
    found = json.loads(hilum("deliver", "list", "--json").stdout)

    assert sorted(each["state"] for each in found) == ["delivered", "parked", "pending", "pending", "rejected"]
    assert len(hilum("deliver", "list", "--state", "parked", "--destination", "pacs").stdout.splitlines()) == 2
    assert hilum("deliver", "list", "--state", "cancelled").stdout == "There is no such delivery.\n"
    assert ledger


def test_a_state_that_there_is_not_is_refused_with_the_nearest(hilum: Hilum) -> None:
    error = error_of(hilum("deliver", "list", "--state", "park"))

    assert isinstance(error, Misconfigured)
    assert error.fix == "Did you mean parked?"


def test_a_retry_is_counted_and_done_only_if_confirmed(hilum: Hilum, ledger: str) -> None:
    said = hilum("deliver", "retry", "--destination", "pacs").stdout
    assert "would be tried again; --yes does it." in said
    assert sorted(row["state"] for row in rows(ledger).values()).count("parked") == 1

    done = hilum("deliver", "retry", "--destination", "pacs", "--yes")
    assert (done.exit_code, "3 were retried." in done.stdout) == (0, True)
    assert states(ledger) == {"delivered", "pending"}


def test_a_retry_says_what_stays_because_a_correction_took_its_place(hilum: Hilum, ledger: str) -> None:
    with connect(ledger) as connection:
        connection.execute(
            "INSERT INTO receipt (receipt, sop_instance_uid, study_instance_uid, sha256, decision, received_at)"
            " SELECT 'fixed', sop_instance_uid, study_instance_uid, 'f', 'corrected', now() FROM delivery WHERE state = 'parked'"
        )

    said = hilum("deliver", "retry", "--state", "parked").stdout

    assert "0 would be tried again; --yes does it." in said
    assert "1 stay as they are: corrections took the place of their objects." in said


def test_a_destination_that_there_is_not_is_named_with_the_nearest(hilum: Hilum, ledger: str) -> None:
    for command in (("retry", "--yes"), ("cancel", "--yes"), ("list",)):
        error = error_of(hilum("deliver", *command, "--destination", "pac"))
        assert isinstance(error, NotFound)
        assert error.fix == "Did you mean pacs?"
    assert rows(ledger)


def test_what_arrived_is_not_tried_again(hilum: Hilum, ledger: str) -> None:
    error = error_of(hilum("deliver", "retry", "--state", "delivered", "--yes"))

    assert "hilum deliver resend" in error.fix
    assert ledger


def test_everything_is_not_cancelled_by_mistake(hilum: Hilum, ledger: str) -> None:
    assert "every delivery there is" in str(error_of(hilum("deliver", "cancel", "--yes")))

    assert "3 were cancelled." in hilum("deliver", "cancel", "--destination", "pacs", "--yes").stdout
    assert states(ledger) == {"delivered", "rejected", "cancelled"}


def test_a_study_is_hurried_held_and_released(hilum: Hilum, ledger: str, settings: Settings) -> None:
    assert hilum("deliver", "urgent", "2.25.2").stdout.startswith("1 deliveries that wait go first now")
    assert rows(ledger)["2.25.2.0"]["priority"] == 100
    assert hilum("deliver", "hold", "2.25.2").stdout == "Study 2.25.2 is held.\n"
    assert set(desired.read(settings).held) == {"2.25.2"}
    assert hilum("deliver", "release", "2.25.2").stdout == "Study 2.25.2 is released.\n"
    assert desired.read(settings).held == {}
    assert isinstance(error_of(hilum("deliver", "hold", "MRN-1")), NotFound)


def test_what_is_held_is_said_wherever_it_waits_and_listed_also_if_nothing_of_it_has_come(hilum: Hilum, ledger: str) -> None:
    hilum("deliver", "hold", "2.25.2", "--why", "vip")
    assert "Nothing of it has come yet: check the UID." in hilum("deliver", "hold", "2.25.404", "--why", "typed wrongly").stdout
    hilum("deliver", "urgent", "2.25.405")
    [listed] = json.loads(hilum("deliver", "list", "--study", "2.25.2", "--json").stdout)
    [shown] = json.loads(hilum("deliver", "show", "2.25.2.0", "--json").stdout)
    [row] = json.loads(hilum("dest", "list", "--json").stdout)

    for each in (listed, shown):
        assert "held by" in each["waits_because"]
        assert ": vip; " in each["waits_because"]
        assert each["next_attempt_at"] is None
    assert "1 of held studies" in row["waits_because"]
    marks = {mark["study_instance_uid"]: mark for mark in json.loads(hilum("deliver", "holds", "--json").stdout)}
    assert {uid: (mark["what"], mark["why"], mark["objects"], mark["waiting"]) for uid, mark in marks.items()} == {
        "2.25.2": ("held", "vip", 0, 1),
        "2.25.404": ("held", "typed wrongly", 0, 0),
        "2.25.405": ("urgent", "", 0, 0),
    }
    assert "held by" in hilum("study", "show", "2.25.404").stdout
    assert rows(ledger)


def test_every_waiting_delivery_says_why_and_none_is_to_be_tried_in_the_past(hilum: Hilum, ledger: str) -> None:
    hilum("dest", "pause", "pacs", "--why", "moved")
    found = [each for each in json.loads(hilum("deliver", "list", "--json").stdout) if each["state"] == "pending"]

    assert len(found) == 2
    assert all("paused by" in each["waits_because"] for each in found)
    assert [each["next_attempt_at"] is None for each in sorted(found, key=lambda each: str(each["comment"]))] == [False, True]
    assert "Full." in [each["comment"] for each in found]
    assert rows(ledger)


def test_a_second_limit_keeps_the_first(hilum: Hilum, settings: Settings) -> None:
    hilum("dest", "limit", "pacs", "--objects-per-s", "2")
    hilum("dest", "limit", "pacs", "--associations", "1")

    assert desired.read(settings).destinations["pacs"].limits == Limits(objects_per_s=2.0, max_associations=1)
    assert "2 objects/s, 1 association" in hilum("dest", "list").stdout


def test_a_destination_that_was_removed_stays_listed_while_the_account_counts_it(hilum: Hilum, settings: Settings) -> None:
    enter(settings.postgres.dsn, *some(MemoryStore(), 1, destination="t1"))
    queue = Queue(settings.postgres.dsn, "t1", "w", bus.Writer(Settings(), "deliver"))
    queue.record([(queue.claim(1)[0], Settled(state="rejected", peer_status="0xA900"))])
    queue.close()

    [row] = [row for row in json.loads(hilum("dest", "list", "--json").stdout) if row["name"] == "t1"]
    assert (row["type"], row["counts"]["rejected"], row["waits_because"]) == ("(removed)", 1, "")


def test_what_was_delivered_is_sent_again_if_confirmed(hilum: Hilum, ledger: str) -> None:
    assert hilum("deliver", "resend", "--to", "pacs", "--since", "1h").stdout.startswith("1 objects of 1 studies")
    assert hilum("deliver", "resend", "--to", "pacs", "--since", "1h", "--yes").stdout.startswith("1 objects wait for pacs now, as run ")
    with connect(ledger) as connection:
        assert connection.execute("SELECT command, deliveries FROM delivery_run").fetchall() == [("resend", 1)]

    assert "Did you mean pacs?" in error_of(hilum("deliver", "resend", "--to", "pac", "--since", "1h")).fix
    assert "no moment" in str(error_of(hilum("deliver", "resend", "--to", "pacs", "--since", "yesterday")))
    assert "what is to be sent again" in str(error_of(hilum("deliver", "resend", "--to", "pacs")))


def test_a_study_that_is_not_there_is_not_sent(hilum: Hilum) -> None:
    assert isinstance(error_of(hilum("send", "2.25.404", "--to", "pacs")), NotFound)
    assert "--to names a destination" in str(error_of(hilum("send", "2.25.404", "--to", "pacs", "--aet", "X")))


def test_a_destination_is_paused_limited_and_resumed(hilum: Hilum, ledger: str) -> None:
    hilum("dest", "pause", "pacs", "--why", "moved until Monday")
    hilum("dest", "limit", "pacs", "--objects-per-s", "5")
    [row] = json.loads(hilum("dest", "list", "--json").stdout)
    assert (row["wanted"]["paused"], row["wanted"]["limits"]["objects_per_s"]) == (True, 5.0)
    assert "moved until Monday" in row["waits_because"]
    assert (row["counts"]["pending"], row["counts"]["parked"]) == (2, 1)

    hilum("dest", "resume", "pacs")
    hilum("dest", "limit", "pacs", "--none")
    [row] = json.loads(hilum("dest", "list", "--json").stdout)
    assert row["wanted"] is None
    assert "paused" not in row["waits_because"]
    assert "no span of hours" in str(error_of(hilum("dest", "limit", "pacs", "--hours", "always")))
    assert "Say which limits" in str(error_of(hilum("dest", "limit", "pacs")))
    assert isinstance(error_of(hilum("dest", "pause", "pac")), NotFound)
    assert ledger


def test_a_destination_is_added_and_removed_only_if_nothing_waits_or_that_is_confirmed(hilum: Hilum, settings: Settings) -> None:
    added = hilum("dest", "add", "test", "--set", "type=dicom", "--set", "host=192.0.2.60", "--set", "port=104", "--set", "aet=TEST")
    assert added.stdout.startswith("test is a destination now.")
    enter(settings.postgres.dsn, *some(MemoryStore(), 2, destination="test"))

    assert "2 deliveries wait for test" in str(error_of(hilum("dest", "remove", "test")))
    assert hilum("dest", "remove", "test", "--yes").stdout == "test is removed. 2 deliveries that waited for it are cancelled.\n"
    assert states(settings.postgres.dsn) == {"cancelled"}
    assert desired.read(settings).destinations == {}


def test_a_group_is_added_with_its_members_which_stay_as_long_as_it_does(hilum: Hilum, settings: Settings) -> None:
    hilum("dest", "add", "one", "--set", "type=archive")
    assert hilum("dest", "add", "both", "--set", "type=group", "--set", 'members=["pacs", "one"]').stdout.startswith(
        "both is a destination"
    )

    assert desired.read(settings).added["both"]["members"] == ["pacs", "one"]
    assert "one is a member of both" in str(error_of(hilum("dest", "remove", "one")))
    assert "one is a group itself" in str(error_of(hilum("dest", "add", "one", "--set", "type=group", "--set", "members=pacs")))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("pacs", "--set", "type=archive"), "is in the settings"),
        (("a b", "--set", "type=archive"), "cannot be called"),
        (("x", "--set", "type=dicon"), "there is no destination type"),
        (("x", "--set", "type"), "has no value"),
        (("x", "--set", "type=hl7", "--set", "host=h", "--set", "port=1"), "not added by hand"),
        (("x", "--set", "type=archive", "--set", "secret_key=s"), "is a secret"),
        (("x", "--set", "type=group", "--set", 'members=["pacs", "nobody"]'), "there is no destination 'nobody'"),
        (("x", "--set", "type=group", "--set", "members=x"), "x is a group itself"),
        (("x", "--set", "type=group", "--set", 'members=["pacs'), "is no value of TOML"),
        (("x", "--set", "type=archive", "--set", "hours=25:00"), "hours"),
    ],
)
def test_a_destination_that_cannot_be_is_not_added(hilum: Hilum, settings: Settings, words: tuple[str, ...], says: str) -> None:
    assert says in str(error_of(hilum("dest", "add", *words)))
    assert desired.read(settings).destinations == {}
