"""The role `worklist`: what is put into the file of steps, and when a step leaves it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from hilum.database import connect
from hilum.errors import TryAgain
from hilum.events import MatchChanged, OrderChanged, ProcedureStepChanged
from hilum.order_events import Difference, MatchOutcome, Order
from hilum.procedure_events import PerformedOf
from hilum.procedures import Procedures
from hilum.runtime.tables import Envelope
from hilum.settings import Postgres, Settings
from hilum.settings import Spool as SpoolSettings
from hilum.settings import Worklist as Terms
from hilum.worklist import Worklist
from ingest.worklist.items import items_of
from ingest.worklist.keeper import Keeper
from ingest.worklist.packed import unpack
from ingest.worklist.source import Open, Source
from ingest.worklist.telling import Teller
from processors.index import Index
from tests.ingest.worklist.steps import ORDERS, a_step, an_order
from tests.ingest.worklist.test_performed import CREATE, END, WRONG_ENTRY, Modality

NOW = datetime.now(UTC)


class Listed:
    """Orders in a list."""

    def __init__(self, *orders: Order) -> None:
        self.all = list(orders)
        self.away = False
        self.asked: list[str] = []

    def open(self) -> list[Open]:
        if self.away:
            raise TryAgain("PostgreSQL is away.")
        return [
            Open(order.order_id, place.procedure, place.step, order.version, *_ids(order, place.procedure, place.step))
            for order in self.all
            for place, _ in items_of(order)
        ]

    def orders(self, order_ids: Iterable[str]) -> Mapping[str, Order]:
        self.asked = sorted(order_ids)
        return {order.order_id: order for order in self.all if order.order_id in self.asked}


def _ids(order: Order, procedure: int, step: int) -> tuple[str, str]:
    found = order.procedures[procedure]
    return found.study_instance_uid, found.steps[step].step_id


class Running:
    """A keeper without Kafka, and what is in its file."""

    def __init__(self, path: Path, *orders: Order, **terms: Any) -> None:
        settings = Settings(data=str(path), spool=SpoolSettings(min_free_bytes=0), worklist=Terms(**terms))
        self.settings = settings
        self.orders = Listed(*orders)
        self.worklist = Worklist(settings)
        self.modality = Modality(settings)
        procedures = Procedures(settings)
        self.keeper = Keeper(settings, self.orders, self.worklist, procedures, Teller(settings, procedures, _no_kafka))

    def steps(self) -> list[str]:
        self.keeper.refresh()
        return sorted(self.worklist.versions())


def _no_kafka() -> Any:
    raise TryAgain("Kafka is away.")


def test_every_step_of_every_order_is_kept_with_its_order_and_patient(tmp_path: Path) -> None:
    running = Running(tmp_path, *ORDERS)

    assert len(running.steps()) == 11
    item = unpack(running.worklist.since(-1).steps["o9/0/1"] or b"")
    assert item["00100010"] == ("O'Hara^Pat",)
    assert item["0020000D"] == ("2.25.109",)
    assert item["00400100"][0]["00400009"] == ("SPS9B",)


def test_only_what_has_changed_is_read_again(tmp_path: Path) -> None:
    running = Running(tmp_path, *ORDERS)
    running.steps()
    before = running.worklist.since(-1).version
    running.steps()
    assert running.orders.asked == []
    assert running.worklist.since(before).steps == {}

    running.orders.all[0] = replace(ORDERS[0], version=2)
    running.orders.all.pop()
    running.steps()

    assert running.orders.asked == ["o1"]
    changes = running.worklist.since(before)
    assert {id_: body is not None for id_, body in changes.steps.items()} == {"o1/0/0": True, "o10/0/0": False}
    assert not changes.whole


def test_after_a_restart_it_goes_on_from_its_file(tmp_path: Path) -> None:
    Running(tmp_path, *ORDERS).steps()

    running = Running(tmp_path, *ORDERS)
    running.steps()

    assert running.orders.asked == []


def test_while_the_database_is_away_the_steps_stay_and_it_says_so(tmp_path: Path) -> None:
    running = Running(tmp_path, *ORDERS)
    running.keeper.step()
    running.orders.away = True
    running.keeper._refresh_at = 0.0
    running.keeper.step()

    health = running.keeper.health()
    assert not health.ready
    assert "PostgreSQL is away" in health.says
    assert len(running.worklist.versions()) == 11


def test_a_full_disk_ends_nothing_and_is_said(small_disk: Path) -> None:
    filler = small_disk / "filler"
    disk = os.statvfs(small_disk)
    filler.write_bytes(bytes(disk.f_bavail * disk.f_frsize))
    running = Running(small_disk, *ORDERS)

    running.keeper.step()
    assert "disk fails" in running.keeper.health().says
    filler.unlink()
    assert len(running.steps()) == 11


@pytest.mark.parametrize(
    ("leaves", "begun", "ended", "wrong"),
    [(("started",), 10, 10, 11), (("completed",), 11, 10, 11), (("images",), 11, 11, 11)],
)
def test_a_step_leaves_when_a_modality_says_so_and_comes_back_after_a_wrong_choice(
    tmp_path: Path, leaves: tuple[str, ...], begun: int, ended: int, wrong: int
) -> None:
    running = Running(tmp_path, *ORDERS, leaves=leaves)
    scheduled = {"StudyInstanceUID": "2.25.101", "ScheduledProcedureStepID": "SPS1"}
    running.modality.create(ScheduledStepAttributesSequence=scheduled)
    assert len(running.steps()) == begun

    running.modality.set(END)
    assert len(running.steps()) == ended

    again = Running(tmp_path / "again", *ORDERS, leaves=leaves)
    again.modality.create(ScheduledStepAttributesSequence=scheduled)
    again.modality.set(WRONG_ENTRY)
    assert len(again.steps()) == wrong


def test_an_unscheduled_step_takes_none_from_the_list(tmp_path: Path) -> None:
    running = Running(tmp_path, *ORDERS)
    running.modality.create(ScheduledStepAttributesSequence={"StudyInstanceUID": "2.25.101", "ScheduledProcedureStepID": ""})

    assert CREATE["Modality"] == "CT"
    assert len(running.steps()) == 11


def test_a_reader_that_is_far_behind_reads_all(tmp_path: Path) -> None:
    running = Running(tmp_path, *ORDERS)
    running.steps()

    changes = running.worklist.since(10**6)

    assert changes.whole
    assert len(changes.steps) == 11


def test_long_text_is_cut_and_a_backslash_makes_no_second_value() -> None:
    order = an_order("1", a_step("1", "202607050800", description="x" * 80, location="Room 1\\2"))

    [(_, item)] = items_of(order)

    step = item["00400100"]["Value"][0]
    assert step["00400007"]["Value"] == ["x" * 64]
    assert step["00400011"]["Value"] == ["Room 1/2"]


# By the database


def put(connection: psycopg.Connection, *orders: Order) -> None:
    envelope = Envelope(id="1", time=NOW, traceparent="")
    with connection.transaction():
        Index().apply(connection, [(OrderChanged(order=order, change="new", changed_at=NOW), envelope) for order in orders])


def a_performed(revision: int, state: Any, *, reason: str = "") -> ProcedureStepChanged:
    return ProcedureStepChanged(
        sop_instance_uid="2.25.500",
        revision=revision,
        state=state,
        study_instance_uid="2.25.101",
        scheduled=(PerformedOf(study_instance_uid="2.25.101", step_id="SPS1"),),
        reason_code=reason,
        reason_scheme="DCM" if reason else "",
        changed_at=NOW + timedelta(seconds=revision),
    )


@pytest.mark.system
class TestSource:
    """What the database says."""

    def source(self, dsn: str, **terms: Any) -> Source:
        return Source(Settings(postgres=Postgres(dsn=dsn), worklist=Terms(**terms)))

    def waiting(self, *orders: Order) -> list[Order]:
        later = NOW + timedelta(hours=1)
        return [
            replace(
                order,
                procedures=tuple(
                    replace(each, steps=tuple(replace(step, start_at=later) for step in each.steps)) for each in order.procedures
                ),
            )
            for order in orders
        ]

    def test_open_steps_are_listed_and_orders_are_read_whole(self, postgres: str) -> None:
        orders = self.waiting(*ORDERS)
        with connect(postgres) as connection:
            put(connection, *orders)
        source = self.source(postgres)

        assert sorted(step.step_id for step in source.open()) == sorted(
            step.step_id for order in orders for procedure in order.procedures for step in procedure.steps
        )
        assert source.orders(["o5", "o5", "nobody"]) == {"o5": orders[4]}
        source.close()

    def test_cancelled_superseded_ended_and_old_ones_are_not(self, postgres: str) -> None:
        one, two, three, four, *_ = self.waiting(*ORDERS)
        old = replace(
            four,
            procedures=(replace(four.procedures[0], steps=(replace(four.procedures[0].steps[0], start_at=NOW - timedelta(hours=80)),)),),
        )
        ended = replace(two, procedures=(replace(two.procedures[0], steps=(replace(two.procedures[0].steps[0], status="completed"),)),))
        with connect(postgres) as connection:
            put(connection, replace(one, status="cancelled"), ended, old, three)
        source = self.source(postgres)

        assert [step.step_id for step in source.open()] == ["SPS3"]
        source.close()

    def test_a_performed_step_takes_its_own_off_the_list_until_it_was_the_wrong_choice(self, postgres: str) -> None:
        envelope = Envelope(id="1", time=NOW, traceparent="")
        source, completed = self.source(postgres), self.source(postgres, leaves=("completed",))
        with connect(postgres) as connection:
            put(connection, *self.waiting(ORDERS[0], ORDERS[1]))
            Index().apply(connection, [(a_performed(1, "in-progress"), envelope)])
            assert [step.step_id for step in source.open()] == ["SPS2"]
            assert len(completed.open()) == 2

            Index().apply(
                connection, [(a_performed(2, "discontinued", reason="110514"), envelope), (a_performed(1, "in-progress"), envelope)]
            )
            assert len(source.open()) == 2
            assert connection.execute("SELECT state, wrong_entry, study_instance_uid FROM v_performed_step").fetchall() == [
                ("discontinued", True, "2.25.101")
            ]
            Index().apply(connection, [(a_performed(1, "in-progress"), envelope)])
            assert len(source.open()) == 2
        source.close()
        completed.close()

    def test_an_order_that_modalities_alone_have_ended_leaves_the_list_as_the_settings_say(self, postgres: str) -> None:
        one, two, *_ = self.waiting(*ORDERS)
        source, images = self.source(postgres), self.source(postgres, leaves=("images",))
        with connect(postgres) as connection:
            put(connection, replace(one, status="completed", performed="completed"), replace(two, status="completed"))
            Index().apply(connection, [(a_performed(1, "completed"), Envelope(id="1", time=NOW, traceparent=""))])

        assert source.open() == []
        assert [step.step_id for step in images.open()] == ["SPS1"]
        source.close()
        images.close()

    def test_orders_and_steps_say_what_modalities_say_of_them(self, postgres: str) -> None:
        envelope = Envelope(id="1", time=NOW, traceparent="")
        with connect(postgres) as connection:
            put(connection, *self.waiting(ORDERS[0], ORDERS[1]))

            def said() -> list[tuple[Any, ...]]:
                orders = connection.execute("SELECT order_id, performed FROM v_order ORDER BY 1").fetchall()
                return orders + connection.execute("SELECT step_id, performed FROM v_scheduled_step ORDER BY 1").fetchall()

            assert said() == [("o1", None), ("o2", None), ("SPS1", None), ("SPS2", None)]
            Index().apply(connection, [(a_performed(1, "in-progress"), envelope)])
            assert said() == [("o1", "in-progress"), ("o2", None), ("SPS1", "in-progress"), ("SPS2", None)]
            Index().apply(connection, [(a_performed(2, "completed"), envelope)])
            assert said() == [("o1", "completed"), ("o2", None), ("SPS1", "completed"), ("SPS2", None)]
            Index().apply(connection, [(a_performed(3, "discontinued", reason="110514"), envelope)])
            assert said() == [("o1", None), ("o2", None), ("SPS1", None), ("SPS2", None)]

    def test_a_complete_study_with_a_series_of_its_modality_does_too(self, postgres: str) -> None:
        source, without = self.source(postgres), self.source(postgres, leaves=("started",))
        with connect(postgres) as connection:
            put(connection, *self.waiting(ORDERS[8]))
            a_series(connection, "2.25.109")
            assert len(source.open()) == 2
            complete(connection, "2.25.109")
            assert [step.step_id for step in source.open()] == ["SPS9"]
            assert len(without.open()) == 2
        source.close()
        without.close()

    @pytest.mark.parametrize(
        ("outcome", "differing", "waiting"),
        [("matched", (), 0), ("mismatched", ("PatientName",), 0), ("mismatched", ("PatientID",), 1), ("order-cancelled", (), 1)],
    )
    def test_so_does_one_that_is_its_orders_by_accession_number(
        self, postgres: str, outcome: MatchOutcome, differing: tuple[str, ...], waiting: int
    ) -> None:
        source = self.source(postgres)
        with connect(postgres) as connection:
            put(connection, *self.waiting(ORDERS[0]))
            a_series(connection, "2.25.7777")
            complete(connection, "2.25.7777")
            assert len(source.open()) == 1
            a_match(connection, "2.25.7777", outcome, differing)

            assert len(source.open()) == waiting
        source.close()

    def test_if_the_order_has_another_procedure_of_the_modality_it_may_be_of_that(self, postgres: str) -> None:
        source = self.source(postgres)
        (order,) = self.waiting(ORDERS[0])
        second = replace(order.procedures[0], procedure_id="RPB", study_instance_uid="2.25.102")
        with connect(postgres) as connection:
            put(connection, replace(order, procedures=(*order.procedures, second)))
            a_series(connection, "2.25.7777")
            complete(connection, "2.25.7777")
            a_match(connection, "2.25.7777", "matched")

            assert len(source.open()) == 2
        source.close()

    def test_so_does_one_with_a_uid_that_was_offered_before(self, postgres: str) -> None:
        source = self.source(postgres)
        (order,) = self.waiting(ORDERS[0])
        with connect(postgres) as connection:
            put(connection, replace(order, procedures=(replace(order.procedures[0], former_uids=("2.25.7777",)),)))
            a_series(connection, "2.25.7777")
            complete(connection, "2.25.7777")

            assert source.open() == []
        source.close()

    def test_images_by_the_wrong_entry_take_no_step_off_the_list(self, postgres: str) -> None:
        envelope = Envelope(id="1", time=NOW, traceparent="")
        source = self.source(postgres)
        with connect(postgres) as connection:
            put(connection, *self.waiting(ORDERS[0]))
            a_series(connection, "2.25.101")
            complete(connection, "2.25.101")
            assert source.open() == []
            Index().apply(connection, [(a_performed(2, "discontinued", reason="110514"), envelope)])
            assert [step.step_id for step in source.open()] == ["SPS1"]

            right = replace(a_performed(1, "completed"), sop_instance_uid="2.25.501")
            Index().apply(connection, [(right, envelope)])
            assert source.open() == []
        source.close()


def a_series(connection: psycopg.Connection, study: str) -> None:
    connection.execute(
        "INSERT INTO series (series_instance_uid, study_instance_uid, modality, receipt, received_at, header)"
        " VALUES (%s, %s, 'CT', 'r', now(), '{}')",
        (f"{study}.1", study),
    )


def complete(connection: psycopg.Connection, study: str) -> None:
    connection.execute(
        "INSERT INTO study_state (study_instance_uid, step, state, revision, instances, new, missing, withdrawn, changed_at)"
        " VALUES (%s, 1, 'complete', 1, 1, 1, 0, 0, now())",
        (study,),
    )


def a_match(connection: psycopg.Connection, study: str, outcome: MatchOutcome, differing: tuple[str, ...] = ()) -> None:
    differences = tuple(Difference(attribute=each, ordered="a", found="b") for each in differing)
    match = MatchChanged(
        about="study",
        study_instance_uid=study,
        order_ids=("o1",),
        outcome=outcome,
        by="accession-number",
        differences=differences,
        cause="images",
        version=1,
        changed_at=NOW,
    )
    Index().apply(connection, [(match, Envelope(id="2", time=NOW, traceparent=""))])
