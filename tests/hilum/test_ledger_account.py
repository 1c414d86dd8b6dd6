"""Whatever happens to the ledger in whatever order: each delivery has one state, the account adds up, and each end is told once."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from hilum import bus
from hilum.database import connect
from hilum.database.deliveries import FINAL, OPEN, Selection, settled_id
from hilum.deliveries import Run, cancel, hurry, retry
from hilum.errors import NotFound
from hilum.events import InstanceRouted, ObjectRef, PlannedDelivery, delivery_id_for
from hilum.runtime.delivery.outcomes import Outcome, Parked, PutOff
from hilum.runtime.delivery.queue import Queue
from hilum.runtime.tables import Envelope
from hilum.settings import Postgres, Settings
from hilum.sink import Delivery, Settled
from processors.ledger import Ledger

pytestmark = pytest.mark.system

DESTINATIONS = ("pacs", "archive")
STUDIES = ("2.25.1", "2.25.2", "2.25.3")
OUTCOMES: list[Outcome] = [
    Settled(state="delivered"),
    Settled(state="already_there"),
    Settled(state="returned"),
    Settled(state="rejected", comment="Refused."),
    PutOff(after_s=0.0, comment="Full."),
    PutOff(after_s=3600.0, comment="Full."),
    Parked(comment="A person is needed."),
]


class LedgerMachine(RuleBasedStateMachine):
    """Events arrive, workers claim, die, lose their leases and record; people retry, cancel, hurry, hold and send."""

    dsn: str

    @initialize()
    def begin(self) -> None:
        """An empty ledger."""
        self.connection = connect(self.dsn)
        self.connection.execute("TRUNCATE delivery, delivery_run, outbox, urgent_study, instance, destination_pace")
        self.settings = Settings(postgres=Postgres(dsn=self.dsn))
        self.numbers = itertools.count(1)
        self.workers: dict[str, tuple[Queue, list[Delivery]]] = {}
        self.planned: set[str] = set()
        self.of_runs = 0
        self.routed: list[InstanceRouted] = []
        self.paused: set[str] = set()
        self.held: set[str] = set()
        for study in STUDIES:
            for priority in (0, 5):
                self.an_instance_is_routed(study, set(DESTINATIONS), priority)

    def teardown(self) -> None:
        """Let go of connections."""
        for queue, _ in getattr(self, "workers", {}).values():
            queue.close()
        if hasattr(self, "connection"):
            self.connection.close()

    # Events

    @rule(study=st.sampled_from(STUDIES), to=st.sets(st.sampled_from(DESTINATIONS), min_size=1), priority=st.sampled_from([0, 5]))
    def an_instance_is_routed(self, study: str, to: set[str], priority: int) -> None:
        n = next(self.numbers)
        uid, sha256 = f"{study}.{n}", f"{n:064x}"
        now = datetime.now(UTC)
        event = InstanceRouted(
            receipt=f"receipt-{n}",
            study_instance_uid=study,
            series_instance_uid=f"{study}.0",
            sop_instance_uid=uid,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            object=ObjectRef(bucket="b", key=uid, size_bytes=1000, sha256=sha256),
            received_at=now,
            decision="deliver",
            deliveries=tuple(
                PlannedDelivery(delivery_id=delivery_id_for(sha256, uid, name), destination=name, rules=("r",), priority=priority)
                for name in sorted(to)
            ),
            config_version="v1",
            decided_at=now,
        )
        self.routed.append(event)
        self.planned |= {each.delivery_id for each in event.deliveries}
        self._apply(event)
        self.connection.execute(
            "INSERT INTO instance (sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid, transfer_syntax_uid, bucket,"
            " object_key, size_bytes, sha256, receipt, received_at) VALUES (%s, %s, %s, 'c', 't', 'b', 'k', 1000, %s, %s, now())",
            (uid, f"{study}.0", study, sha256, event.receipt),
        )

    @precondition(lambda self: self.routed)
    @rule(data=st.data())
    def an_event_is_read_again(self, data: st.DataObject) -> None:
        self._apply(data.draw(st.sampled_from(self.routed)))

    def _apply(self, event: InstanceRouted) -> None:
        with self.connection.transaction():
            Ledger().apply(self.connection, [(event, Envelope(id=event.receipt, time=event.decided_at, traceparent=""))])

    # Workers

    @rule(destination=st.sampled_from(DESTINATIONS), grouped=st.booleans(), limit=st.integers(1, 8))
    def a_worker_claims(self, destination: str, grouped: bool, limit: int) -> None:
        if destination in self.paused:
            return
        name = f"w{next(self.numbers)}"
        queue = Queue(self.dsn, destination, name, bus.Writer(Settings(), "deliver"), grouped=grouped)
        claimed = queue.claim(limit, held=self.held)
        mine = {row[0] for row in self.connection.execute("SELECT delivery_id FROM delivery WHERE claimed_by = %s", (name,))}
        assert {each.delivery_id for each in claimed} == mine
        assert not {each.study_instance_uid for each in claimed} & self.held
        if grouped:
            assert len({each.study_instance_uid for each in claimed}) <= 1
        assert [-each.priority for each in claimed] == sorted(-each.priority for each in claimed)
        # A lease that ran out may be in two hands; only one of them settles.
        self.workers[name] = (queue, claimed)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def a_worker_records(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        queue, claimed = self.workers.pop(name)
        outcomes = [(each, data.draw(st.sampled_from(OUTCOMES))) for each in claimed]
        mine = {row[0] for row in self._rows("SELECT delivery_id FROM delivery WHERE claimed_by = %s", name)}
        others = "SELECT delivery_id, state, attempts, coalesce(claimed_by, '') FROM delivery WHERE NOT delivery_id = ANY(%s)"
        before = sorted(self._rows(others, list(mine)))
        settled = queue.record(outcomes)
        assert sorted(self._rows(others, list(mine))) == before  # what somebody else has by now is left alone
        if data.draw(st.booleans()):
            assert queue.record(outcomes) == set()  # said twice after an answer that was lost
        queue.close()
        assert settled == mine & {each.delivery_id for each, outcome in outcomes if isinstance(outcome, Settled)}

    @rule(destination=st.sampled_from(DESTINATIONS), outcomes=st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=8))
    def a_worker_claims_and_records(self, destination: str, outcomes: list[Outcome]) -> None:
        queue = Queue(self.dsn, destination, f"w{next(self.numbers)}", bus.Writer(Settings(), "deliver"))
        claimed = queue.claim(len(outcomes), held=self.held)
        queue.record(list(zip(claimed, outcomes, strict=False)))
        queue.close()

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), killed=st.booleans())
    def a_worker_gives_back_or_is_killed(self, data: st.DataObject, killed: bool) -> None:
        queue, claimed = self.workers.pop(data.draw(st.sampled_from(sorted(self.workers))))
        if not killed:
            if claimed:
                queue.defer(claimed[0], 0.0)
            queue.release(claimed)
        queue.close()

    @rule()
    def leases_run_out(self) -> None:
        self.connection.execute("UPDATE delivery SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL")

    # People

    @rule(destination=st.sampled_from(("", *DESTINATIONS)), states=st.sampled_from([(), ("parked",), ("rejected",), ("cancelled",), FINAL]))
    def somebody_retries(self, destination: str, states: tuple[str, ...]) -> None:
        retry(self.settings, Selection(destination=destination, states=states))

    @rule(destination=st.sampled_from(DESTINATIONS), study=st.sampled_from(STUDIES))
    def somebody_cancels(self, destination: str, study: str) -> None:
        cancel(self.settings, Selection(destination=destination, study=study))

    @rule(study=st.sampled_from(STUDIES), destination=st.sampled_from(DESTINATIONS), what=st.sampled_from(["hurry", "pause", "hold"]))
    def somebody_hurries_pauses_or_holds(self, study: str, destination: str, what: str) -> None:
        if what == "hurry":
            hurry(self.settings, study)
        elif what == "pause":
            self.paused ^= {destination}
        else:
            self.held ^= {study}

    @rule(study=st.sampled_from(STUDIES), destination=st.sampled_from(DESTINATIONS), again=st.booleans())
    def somebody_sends(self, study: str, destination: str, again: bool) -> None:
        with suppress(NotFound):
            self.of_runs += Run(destination=destination, study=study, again=again).enter(self.settings)[1]

    # What must hold at every step

    @invariant()
    def the_account_adds_up(self) -> None:
        states = Counter[str](dict(self._rows("SELECT state, count(*) FROM delivery GROUP BY state")))
        [(of_runs,)] = self._rows("SELECT coalesce(sum(deliveries), 0)::bigint FROM delivery_run")

        assert of_runs == self.of_runs
        assert sum(states[state] for state in (*FINAL, *OPEN)) == states.total() == len(self.planned) + of_runs

    @invariant()
    def what_has_ended_is_in_nobodys_hands_and_has_its_moment(self) -> None:
        wrong = self._rows(
            "SELECT delivery_id FROM delivery WHERE (settled_at IS NOT NULL) <> (state = ANY(%s))"
            " OR (parked_at IS NOT NULL) <> (state = 'parked')"
            " OR (state <> 'pending' AND (claimed_by IS NOT NULL OR lease_until IS NOT NULL))",
            list(FINAL),
        )
        assert wrong == []

    @invariant()
    def each_end_is_told_once(self) -> None:
        told = Counter(row[0] for row in self._rows("SELECT headers ->> 'ce_id' FROM outbox"))
        ends = {
            settled_id(delivery_id, n)
            for delivery_id, rounds, state in self._rows("SELECT delivery_id, round, state FROM delivery")
            for n in range(rounds + (state in FINAL))
        }

        assert set(told) == ends
        assert set(told.values()) <= {1}

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self.connection.execute(query.encode(), values).fetchall()


@pytest.fixture
def machine(postgres: str) -> type[LedgerMachine]:
    return type("Machine", (LedgerMachine,), {"dsn": postgres})


def test_the_account_of_the_ledger_adds_up_whatever_happens(machine: type[LedgerMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=20, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)),
    )
