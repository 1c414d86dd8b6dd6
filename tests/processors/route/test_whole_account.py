"""The whole formula, over the stage `route`, the index, the ledger and its workers together, at every step of whatever happens:

expected = delivered + already_there + returned + rejected + cancelled + quarantined + pending

The stage decides, PostgreSQL has index and ledger, workers claim and record, people try again, cancel and send. What the log holds
and the ledger has not read is pending. `EXAMPLES=1000 ./dev test tests/processors/route/test_whole_account.py` tries more.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from psycopg.conninfo import make_conninfo

from hilum.database.deliveries import FINAL, OPEN, Selection, settled_id
from hilum.database.queries import list_studies, show_study
from hilum.deliveries import Run, cancel, hurry, retry
from hilum.errors import NotFound
from hilum.events import InstanceRouted
from hilum.runtime.delivery.outcomes import Outcome, Parked, PutOff
from hilum.runtime.delivery.queue import Queue
from hilum.runtime.state import PartitionState
from hilum.settings import Completeness, Sender
from hilum.sink import Delivery, Settled
from processors.route.facts import StudyRoute
from processors.route.study import REMEMBERED
from tests.processors.route.books import Books, settings_of
from tests.processors.route.hospital import DESTINATIONS, OTHER_STUDY, STUDY, FixedRules, a_note

pytestmark = pytest.mark.system

NAMES = sorted(DESTINATIONS)
SOPS = tuple(f"2.25.3{number}" for number in range(5))
#: Now and then an instance comes under another study: it is kept for a person.
STUDIES = (STUDY, STUDY, STUDY, OTHER_STUDY)
#: Rejection notes, and the study that each is of.
NOTES = {"2.25.80": STUDY, "2.25.81": STUDY, "2.25.82": OTHER_STUDY}
SENDERS = ("CT1", "CT2", "CT2", "PACS", "VIEWER")
#: Two images, two headers, two encodings.
DIGESTS = ("aa1", "aa2", "ab1", "ba1")
ROUTES = (
    StudyRoute(rule="all", to=("pacs",)),
    StudyRoute(rule="ct", to=("viewer",), send="matching", priority=3),
    StudyRoute(rule="research", to=("archive",), send="whole"),
)
OUTCOMES: list[Outcome] = [
    Settled(state="delivered"),
    Settled(state="already_there"),
    Settled(state="returned"),
    Settled(state="rejected", comment="Refused."),
    PutOff(after_s=0.0, comment="Full."),
    PutOff(after_s=3600.0, comment="Full."),
    Parked(comment="A person is needed."),
]
RULES = st.tuples(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(ROUTES)))


class WholeAccount(RuleBasedStateMachine):
    """Objects come, studies are complete, processes die, deliveries end in each way, people interfere."""

    dsn: str

    @initialize(rules=RULES, step=st.sampled_from([1, 2, 500]))
    def open_(self, rules: tuple[set[str], set[StudyRoute]], step: int) -> None:
        self.settings = settings_of(
            self.dsn,
            destinations=DESTINATIONS,
            completeness=Completeness(idle_s=60, maximum_s=600),
            senders={"CT2": Sender(corrections="take"), "VIEWER": Sender(corrections="ignore")},
        )
        fixed = FixedRules(now=sorted(rules[0] | {"archive"}), routes=sorted(rules[1], key=lambda route: route.rule))
        self.books = Books(self.settings, fixed, step=step)
        self.numbers = itertools.count(1)
        self.workers: dict[str, tuple[Queue, list[Delivery]]] = {}
        self.of_runs = 0
        for sop in SOPS[:2]:
            self.books.arrive(sop, calling_aet="CT1", sha256="aa1")

    def teardown(self) -> None:
        """In the end nothing waits any more but what is with a person."""
        if not hasattr(self, "books"):
            return
        try:
            self._let_all_end()
        finally:
            for queue, _ in self.workers.values():
                queue.close()
            self.books.close()

    # What comes

    @rule(
        sop=st.sampled_from(SOPS),
        study=st.sampled_from(STUDIES),
        sender=st.sampled_from(SENDERS),
        digest=st.sampled_from(DIGESTS),
        modality=st.sampled_from(["CT", "MR"]),
        patient=st.sampled_from(["MRN-1", "MRN-1", "MRN-1", "MRN-2"]),
        crash=st.booleans(),
    )
    def an_instance_comes(self, sop: str, study: str, sender: str, digest: str, modality: str, patient: str, crash: bool) -> None:
        """New, a duplicate, a correction, a conflict, a return, late, of another study or another patient; perhaps its worker dies."""
        what = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "Modality": modality, "PatientID": patient}
        self.books.arrive(sop, crash=crash, calling_aet=sender, sha256=digest, key=f"{sop}/{digest}", **what)

    @rule(note=st.sampled_from(sorted(NOTES)), sops=st.sets(st.sampled_from(SOPS), min_size=1), sender=st.sampled_from(SENDERS))
    def a_rejection_note_comes(self, note: str, sops: set[str], sender: str) -> None:
        what = {
            **a_note("113001", *sorted(sops), study=NOTES[note]),
            "StudyInstanceUID": NOTES[note],
            "SeriesInstanceUID": f"{NOTES[note]}.8",
        }
        self.books.arrive(note, calling_aet=sender, sha256="cc" + note[-1], key=note, **what)

    @rule(sops=st.sets(st.sampled_from(SOPS), min_size=1))
    def instances_are_announced(self, sops: set[str]) -> None:
        self.books.announce(*sorted(sops))

    @rule(study=st.sampled_from(STUDIES))
    def a_study_is_completed_by_hand(self, study: str) -> None:
        self.books.complete(study)

    @rule(rules=RULES)
    def other_rules_are_applied(self, rules: tuple[set[str], set[StudyRoute]]) -> None:
        self.books.rules.now = sorted(rules[0])
        self.books.rules.routes = tuple(sorted(rules[1], key=lambda route: route.rule))

    # Time, and processes that die

    @rule(seconds=st.sampled_from([1, 61, 700]))
    def time_passes(self, seconds: int) -> None:
        self.books.wait(seconds=seconds)

    @rule(seconds=st.sampled_from([61, 700]), crash=st.booleans())
    def one_timer_fires(self, seconds: int, crash: bool) -> None:
        self.books.clock.forward(seconds=seconds)
        self.books.fire(limit=1, crash=crash)

    @rule()
    def a_day_passes_and_rows_leave_memory(self) -> None:
        self.books.wait(minutes=20)
        self.books.catch_up()
        self.books.wait(seconds=REMEMBERED.total_seconds() + 1)

    @rule()
    def another_worker_takes_over(self) -> None:
        """Partitions are dealt anew: it restores rows and timers from the changelog."""
        restored = PartitionState(0)
        for key, value in self.books.state.rows.items():
            restored.apply(key, value)
        self.books.state = restored
        self.books.start()

    @rule(most=st.integers(1, 6))
    def the_index_reads_on(self, most: int) -> None:
        self.books.catch_up(most)

    @rule(most=st.integers(1, 6), crash=st.booleans())
    def the_ledger_reads_on(self, most: int, crash: bool) -> None:
        self.books.enter(most, crash=crash)

    # Deliveries

    @rule(destination=st.sampled_from(NAMES), outcomes=st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=6))
    def a_worker_delivers(self, destination: str, outcomes: list[Outcome]) -> None:
        self.books.enter()
        self.books.deliver(destination, f"w{next(self.numbers)}", outcomes)

    @rule(destination=st.sampled_from(NAMES), limit=st.integers(1, 6))
    def a_worker_claims(self, destination: str, limit: int) -> None:
        name = f"w{next(self.numbers)}"
        self.workers[name] = self.books.claim(destination, name, limit)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), killed=st.booleans())
    def a_worker_records_or_is_killed(self, data: st.DataObject, killed: bool) -> None:
        """Perhaps long after its leases ran out, or after a note or a person took away what it has."""
        queue, claimed = self.workers.pop(data.draw(st.sampled_from(sorted(self.workers))))
        if not killed:
            outcomes = [(each, data.draw(st.sampled_from(OUTCOMES))) for each in claimed]
            queue.record(outcomes)
        queue.close()

    @rule()
    def leases_run_out(self) -> None:
        self.books.rows("UPDATE delivery SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL RETURNING 1")

    # People

    @rule(destination=st.sampled_from(["", *NAMES]), states=st.sampled_from([(), ("parked",), ("rejected",), ("cancelled",), FINAL]))
    def somebody_retries(self, destination: str, states: tuple[str, ...]) -> None:
        retry(self.settings, Selection(destination=destination, states=states))

    @rule(destination=st.sampled_from(["", *NAMES]), study=st.sampled_from(STUDIES))
    def somebody_cancels(self, destination: str, study: str) -> None:
        cancel(self.settings, Selection(destination=destination, study=study))

    @rule(destination=st.sampled_from(NAMES), study=st.sampled_from(STUDIES), again=st.booleans())
    def somebody_sends(self, destination: str, study: str, again: bool) -> None:
        with suppress(NotFound):
            self.of_runs += Run(destination=destination, study=study, again=again).enter(self.settings)[1]

    @rule(study=st.sampled_from(STUDIES))
    def somebody_hurries(self, study: str) -> None:
        hurry(self.settings, study)

    # What holds at every step

    @invariant()
    def what_is_expected_is_what_there_is(self) -> None:
        books = self.books
        routed = [event for event in books.said if isinstance(event, InstanceRouted)]
        planned = [delivery.delivery_id for event in routed for delivery in event.deliveries]
        unread = {delivery.delivery_id for event in books.unentered for delivery in event.deliveries}
        states: Counter[str] = Counter(dict(books.rows("SELECT state, count(*) FROM delivery GROUP BY state")))

        expected = len(planned) + self.of_runs + len(books.quarantined)
        assert states.keys() <= {*FINAL, *OPEN}
        ended = states["delivered"] + states["already_there"] + states["returned"] + states["rejected"] + states["cancelled"]
        assert expected == ended + len(books.quarantined) + states["pending"] + states["parked"] + len(unread)
        # And they are these very ones, each once.
        entered = {delivery_id for (delivery_id,) in books.rows("SELECT delivery_id FROM delivery WHERE run = ''")}
        assert entered == set(planned) - unread
        assert len(set(planned)) == len(planned)

    @invariant()
    def each_arrival_has_one_outcome(self) -> None:
        decided = Counter(event.receipt for event in self.books.said if isinstance(event, InstanceRouted) and not event.revision)
        for event in self.books.arrivals:
            receipt = event.instance.receipt
            assert (decided[receipt] > 0) != (receipt in self.books.quarantined), receipt
        untold = sum(type(event).__name__ == "InstanceQuarantined" for event in self.books.untold)
        [(waiting,)] = self.books.rows("SELECT count(*) FROM quarantine WHERE state = 'waiting'")
        assert waiting + untold == len(self.books.quarantined)

    @invariant()
    def each_end_is_told_once(self) -> None:
        told = Counter(row[0] for row in self.books.rows("SELECT headers ->> 'ce_id' FROM outbox"))
        ends = {
            settled_id(delivery_id, n)
            for delivery_id, rounds, state in self.books.rows("SELECT delivery_id, round, state FROM delivery")
            for n in range(rounds + (state in FINAL))
        }
        assert told.keys() == ends
        assert set(told.values()) <= {1}

    @rule()
    def reconcile_says_the_same(self) -> None:
        account, books = self.books.account(), self.books
        assert account.details == ()
        assert account.ok
        assert account.received == account.accepted == len(books.arrivals)
        assert account.quarantined == len(books.quarantined)
        outcomes = account.routed + account.unrouted + account.waiting + account.duplicates + account.sent_back
        assert account.received == outcomes + account.ignored + account.withdrawn + account.quarantined
        ended = account.delivered + account.already_there + account.returned + account.rejected + account.cancelled
        assert account.expected_deliveries == ended + account.pending == len(books.deliveries) + self.of_runs

    def _let_all_end(self) -> None:
        books = self.books
        books.wait(minutes=20)
        self.reconcile_says_the_same()
        books.rows("UPDATE delivery SET lease_until = NULL, not_before = '-infinity' WHERE state = 'pending' RETURNING 1")
        for destination in NAMES:
            while books.deliver(destination, f"last-{destination}", [Settled(state="delivered")] * 50):
                pass
        self._counts_agree()
        account = books.account()
        assert account.waiting == account.stuck == 0
        assert account.pending == account.parked
        self.each_end_is_told_once()

    def _counts_agree(self) -> None:
        """Of studies that are complete: in lists, on pages, in views, and in what the stage says."""
        for study in list_studies(self.dsn):
            uid = study.study_instance_uid
            said = self.books.rows(
                "SELECT instance_count, (SELECT sum(instance_count) FROM v_series WHERE study_instance_uid = %s) FROM v_study"
                " WHERE study_instance_uid = %s",
                *(uid, uid),
            )
            [shown] = show_study(self.dsn, uid)
            assert said == [(study.instances, study.instances)]
            assert shown.summary.instances == sum(each.instances for each in shown.series) == study.instances
            indexed_elsewhere = (
                "SELECT 1 FROM receipt JOIN instance USING (sop_instance_uid)"
                " WHERE receipt.study_instance_uid = %s AND receipt.decision IS NOT NULL AND instance.study_instance_uid <> %s"
            )
            if self.books.rows(indexed_elsewhere, uid, uid):
                continue  # not so yet: an instance that waits in quarantine in one study and is taken in another is listed in the first
            states = self.books.rows("SELECT instances FROM study_state WHERE study_instance_uid = %s AND state = 'complete'", uid)
            assert states in ([(study.instances,)], []), uid


EXAMPLES = int(os.environ.get("EXAMPLES", "12"))


def test_every_object_and_every_delivery_is_accounted_for_whatever_happens(postgres: str) -> None:
    dsn = make_conninfo(postgres, options="-c synchronous_commit=off")
    run_state_machine_as_test(
        type("Machine", (WholeAccount,), {"dsn": dsn}),
        settings=hypothesis_settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)),
    )
