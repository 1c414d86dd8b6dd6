"""A merge after the fact links pseudonyms, and rewrites nothing that left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hilum.anonymizing import package
from hilum.database import connect
from hilum.database.links import listed
from hilum.deid_sections import Deid
from hilum.order_events import Identifier, Patient
from hilum.runtime.delivery.linking import Linking
from hilum.settings import Postgres, Settings
from hilum.testing import Clock, eventually
from tests.hilum.test_anonymizing import SECRET
from tests.ledger import outbox

pytestmark = pytest.mark.system


class Site:
    """A ledger in which objects of patients left."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        key = folder / "key"
        key.write_text(SECRET)
        key.chmod(0o600)
        self.settings = Settings(postgres=Postgres(dsn=dsn), deid=Deid(key_path=str(key)))
        self.key_id = package("processors.anonymize.keys").read_key(key).id
        self.key = key

    def pseudonym(self, value: str, issuer: str = "NORTH", project: str = "research") -> str:
        found: str = package("processors.anonymize.linking").pseudonym_of(self.settings.deid, project, "")(value, issuer, "")
        return found

    def left(self, patient: str, project: str = "research") -> None:
        self.run(
            "INSERT INTO deidentified (delivery_id, destination, policy, policy_version, key_id, study_instance_uid, sop_instance_uid,"
            " sent_study, sent_series, sent_as, sent_at, project, sent_patient)"
            " VALUES (%s, 'lab', 'p', 'v', %s, '1.1', '1.2', '2.1', '2.2', '2.3', now(), %s, %s)",
            (patient, self.key_id, project, patient),
        )

    def patient(self, key: str, value: str, *, into: str | None = None) -> None:
        detail = Patient(key=key, ids=(Identifier(value=value, issuer="NORTH"),))
        self.run(
            "INSERT INTO patient (patient_key, version, patient_id, merged_into, detail, said_at, changed_at)"
            " VALUES (%s, 1, %s, %s, %s, now(), now()) ON CONFLICT (patient_key) DO UPDATE SET merged_into = excluded.merged_into",
            (key, value, into, msgspec.json.encode(detail).decode()),
        )
        self.run("INSERT INTO patient_id (value, issuer, patient_key) VALUES (%s, 'NORTH', %s) ON CONFLICT DO NOTHING", (value, key))

    def run(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        with connect(self.dsn) as connection:
            connection.execute(statement.encode(), values)

    def links(self, *, ended: bool = False) -> list[tuple[str, str]]:
        return [(each.prior, each.surviving) for each in listed(self.dsn, ended=ended)]

    def told(self) -> list[tuple[str, str, str]]:
        events = [msgspec.json.decode(bytes(each["value"])) for each in outbox(self.dsn)]
        return [(each["prior"], each["surviving"], each["state"]) for each in events]


@pytest.fixture
def site(postgres: str, tmp_path: Path) -> Site:
    made = Site(postgres, tmp_path)
    made.patient("b", "NEW1")
    made.patient("a", "OLD1", into="b")
    return made


def test_what_left_of_a_merged_patient_is_linked_once_and_told_once(site: Site) -> None:
    old, new = site.pseudonym("OLD1"), site.pseudonym("NEW1")
    site.left(old)

    assert Linking(site.settings).look() == {}
    Linking(site.settings).look()

    assert site.links() == [(old, new)]
    assert site.told() == [(old, new, "linked")]


def test_a_merge_that_is_taken_back_ends_the_link_and_the_record_of_it_stays(site: Site) -> None:
    old, new = site.pseudonym("OLD1"), site.pseudonym("NEW1")
    site.left(old)
    Linking(site.settings).look()

    site.patient("a", "OLD1", into=None)
    Linking(site.settings).look()

    assert site.links() == []
    assert site.links(ended=True) == [(old, new)]
    assert site.told() == [(old, new, "linked"), (old, new, "ended")]


def test_a_merge_made_again_is_a_link_of_its_own(site: Site) -> None:
    site.left(site.pseudonym("OLD1"))
    for into in ("b", None, "b"):
        site.patient("a", "OLD1", into=into)
        Linking(site.settings).look()

    assert len(site.links()) == 1
    assert len(site.links(ended=True)) == 2


def test_of_whom_nothing_left_there_is_no_link(site: Site) -> None:
    site.left(site.pseudonym("NEW1"))

    Linking(site.settings).look()

    assert site.links() == []


def test_an_object_that_did_not_name_its_issuer_is_linked_as_well(site: Site) -> None:
    site.left(site.pseudonym("OLD1", ""))

    Linking(site.settings).look()

    assert site.links() == [(site.pseudonym("OLD1", ""), site.pseudonym("NEW1"))]


def test_links_of_two_projects_have_nothing_in_common(site: Site) -> None:
    site.left(site.pseudonym("OLD1"))
    site.left(site.pseudonym("OLD1", project="other"), "other")

    Linking(site.settings).look()

    assert len({pseudonym for link in site.links() for pseudonym in link}) == 4


def test_without_the_key_of_that_time_links_wait_and_it_is_said(site: Site) -> None:
    site.left(site.pseudonym("OLD1"))
    site.key.unlink()

    assert "research" in Linking(site.settings).look()
    assert site.links() == []


class Asked(Clock):
    """A clock that knows how often it was asked."""

    times = 0

    def __call__(self) -> datetime:
        self.times += 1
        return super().__call__()

    def asked_again(self) -> None:
        """Wait until whoever goes by it has asked twice more, and so has seen where it stands."""
        so_far = self.times
        eventually(lambda: self.times > so_far + 2)


@contextmanager
def looking(site: Site, clock: Asked) -> Iterator[None]:
    """What looks for merges, by a clock that only moves when told to."""
    stop = threading.Event()
    thread = threading.Thread(target=Linking(site.settings, now=clock, poll_s=0.01).run, args=(stop,))
    thread.start()
    try:
        clock.asked_again()
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def test_merges_are_looked_for_every_five_minutes(site: Site) -> None:
    old, new, clock = site.pseudonym("OLD1"), site.pseudonym("NEW1"), Asked()
    site.left(old)
    with looking(site, clock):
        clock.forward(minutes=4, seconds=59)
        clock.asked_again()
        assert site.links() == []

        clock.forward(seconds=1)
        eventually(lambda: site.links() == [(old, new)])

        site.patient("a", "OLD1")  # taken back
        clock.forward(minutes=5)
        eventually(lambda: site.links() == [])
    assert site.told() == [(old, new, "linked"), (old, new, "ended")]


def test_a_clock_that_is_set_back_keeps_nobody_waiting_for_hours(site: Site) -> None:
    old, new, clock = site.pseudonym("OLD1"), site.pseudonym("NEW1"), Asked()
    site.left(old)
    with looking(site, clock):
        clock.forward(hours=-2)

        eventually(lambda: site.links() == [(old, new)])


def test_while_it_cannot_look_it_goes_on(site: Site) -> None:
    old, new, clock = site.pseudonym("OLD1"), site.pseudonym("NEW1"), Asked()
    site.left(old)
    aside = site.key.rename(site.key.with_name("aside"))
    with looking(site, clock):
        clock.forward(minutes=5)
        clock.asked_again()
        assert site.links() == []
        aside.rename(site.key)

        clock.forward(minutes=5)
        eventually(lambda: site.links() == [(old, new)])
