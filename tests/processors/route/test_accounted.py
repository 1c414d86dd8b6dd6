"""Whatever happens in whatever order, every object and every delivery is accounted for at every step.

expected = delivered + already_there + returned + rejected + cancelled + quarantined + pending
"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hilum.events import InstanceRouted, StudyChanged
from hilum.runtime.state import PartitionState
from hilum.settings import Completeness, Sender, Settings
from processors.route.facts import StudyRoute
from processors.route.rows import InstanceRow, StudyRow
from processors.route.study import REMEMBERED
from tests.processors.route.hospital import CODEC, DESTINATIONS, STATES, FixedRules, Hospital, a_note

SOPS = tuple(f"2.25.3{number}" for number in range(6))
SENDERS = ("CT1", "CT2", "PACS", "VIEWER")
#: Two images, two headers, two encodings.
DIGESTS = ("aa1", "aa2", "ab1", "ba1")
ROUTES = (
    StudyRoute(rule="all", to=("pacs",)),
    StudyRoute(rule="ct", to=("viewer",), send="matching", priority=3),
    StudyRoute(rule="research", to=("archive",), send="whole"),
)


class Interleavings(RuleBasedStateMachine):
    """Arrivals, repetitions, conflicts, notes, announcements, commands, time, crashes and rebalances, in any order."""

    @initialize(
        now=st.sets(st.sampled_from(sorted(DESTINATIONS))), routes=st.sets(st.sampled_from(ROUTES)), step=st.sampled_from([1, 2, 500])
    )
    def open_(self, now: set[str], routes: set[StudyRoute], step: int) -> None:
        settings = Settings(
            destinations=DESTINATIONS,
            completeness=Completeness(idle_s=60, maximum_s=600),
            senders={"CT2": Sender(corrections="take"), "VIEWER": Sender(corrections="ignore")},
        )
        rules = FixedRules(now=sorted(now), routes=sorted(routes, key=lambda route: route.rule))
        self.hospital = Hospital(rules, settings, step=step)

    # What happens

    @rule(
        sop=st.sampled_from(SOPS), sender=st.sampled_from(SENDERS), digest=st.sampled_from(DIGESTS), modality=st.sampled_from(["CT", "MR"])
    )
    def arrive(self, sop: str, sender: str, digest: str, modality: str) -> None:
        self.hospital.arrive(sop, calling_aet=sender, sha256=digest, Modality=modality)

    @rule(data=st.data())
    def the_same_event_again(self, data: st.DataObject) -> None:
        if self.hospital.arrivals:
            event = data.draw(st.sampled_from(self.hospital.arrivals))
            if event.instance.receipt not in self.hospital.quarantined and self._decided_of_its_own(event.instance.receipt):
                assert self.hospital.take(event) == [], "its decision is made"

    @rule(sop=st.sampled_from(SOPS), digest=st.sampled_from(DIGESTS))
    def a_transaction_is_undone_and_done_again(self, sop: str, digest: str) -> None:
        self.hospital.arrive(sop, calling_aet="CT2", sha256=digest, crash=True)

    @rule(note=st.sampled_from(["2.25.80", "2.25.81"]), sops=st.sets(st.sampled_from(SOPS), min_size=1), sender=st.sampled_from(SENDERS))
    def reject(self, note: str, sops: set[str], sender: str) -> None:
        self.hospital.arrive(note, calling_aet=sender, sha256="cc" + note[-1], **a_note("113001", *sorted(sops)))

    @rule(sops=st.sets(st.sampled_from(SOPS), min_size=1))
    def announce(self, sops: set[str]) -> None:
        self.hospital.announce(*sorted(sops))

    @rule()
    def complete_by_hand(self) -> None:
        self.hospital.complete()

    @rule(seconds=st.sampled_from([1, 30, 61, 700]))
    def time_passes(self, seconds: int) -> None:
        self.hospital.wait(seconds=seconds)

    @rule(seconds=st.sampled_from([61, 700]))
    def time_passes_and_only_one_timer_fires(self, seconds: int) -> None:
        self.hospital.clock.forward(seconds=seconds)
        self.hospital.fire(limit=1)

    @rule()
    def a_timer_s_transaction_is_undone(self) -> None:
        self.hospital.fire(crash=True)

    @rule()
    def a_day_passes_with_the_index_read(self) -> None:
        self.hospital.wait(minutes=20)
        self.hospital.catch_up()
        self.hospital.wait(seconds=REMEMBERED.total_seconds() + 1)

    @rule()
    def the_index_reads_on(self) -> None:
        self.hospital.catch_up()

    @rule()
    def another_worker_takes_over(self) -> None:
        """It restores rows and timers from the changelog."""
        restored = PartitionState(0)
        for key, value in self.hospital.state.rows.items():
            restored.apply(key, value)
        self.hospital.state = restored
        self.hospital.start()

    @rule(now=st.sets(st.sampled_from(sorted(DESTINATIONS))), routes=st.sets(st.sampled_from(ROUTES)))
    def other_rules_are_applied(self, now: set[str], routes: set[StudyRoute]) -> None:
        self.hospital.rules.now = sorted(now)
        self.hospital.rules.routes = tuple(sorted(routes, key=lambda route: route.rule))

    @precondition(lambda self: any(state == "pending" for state in self.hospital.deliveries.values()))
    @rule(data=st.data(), state=st.sampled_from(["delivered", "already_there", "returned", "rejected", "cancelled"]))
    def a_delivery_ends(self, data: st.DataObject, state: str) -> None:
        pending = sorted(each for each, now in self.hospital.deliveries.items() if now == "pending")
        self.hospital.deliveries[data.draw(st.sampled_from(pending))] = state

    # What holds at every step

    @invariant()
    def every_object_has_one_outcome_and_every_delivery_one_state(self) -> None:
        hospital = self.hospital
        planned = [delivery.delivery_id for event in self._routed() for delivery in event.deliveries]
        states = Counter(hospital.deliveries.values())
        expected = len(planned) + len(hospital.quarantined)
        assert set(states) <= set(STATES)
        assert expected == sum(states.values()) + len(hospital.quarantined)
        decided = Counter(event.receipt for event in self._routed() if not event.revision and not self._takes_back(event))
        for event in hospital.arrivals:
            receipt = event.instance.receipt
            assert decided[receipt] + (receipt in hospital.quarantined) == 1, receipt

    @invariant()
    def nothing_goes_back_to_where_it_came_from_in_that_form(self) -> None:
        senders = {event.instance.receipt: event.instance.source.calling_aet for event in self.hospital.arrivals}
        title = {"pacs": "PACS", "viewer": "VIEWER"}
        for event in self._routed():
            for delivery in event.deliveries:
                assert title.get(delivery.destination) != senders[event.receipt]

    @invariant()
    def revisions_are_complete_one_after_the_other_and_none_is_empty(self) -> None:
        completed = [event for event in self.hospital.said if isinstance(event, StudyChanged) and event.change == "completed"]
        assert [event.revision for event in completed] == list(range(1, len(completed) + 1))
        assert all(event.new > 0 for event in completed)

    @invariant()
    def nothing_waits_for_a_study_that_is_complete(self) -> None:
        rows = {key: CODEC.decode(value) for key, value in self.hospital.state.rows.items()}
        study = next((row for row in rows.values() if isinstance(row, StudyRow)), None)
        if study is None or study.open or study.closing is not None:
            return
        assert not any(isinstance(row, InstanceRow) and row.held for row in rows.values())
        waited = {event.receipt for event in self._routed() if event.decision == "waits"}
        ended = {event.sop_instance_uid for event in self._routed() if event.revision or event.decision == "withdrawn"}
        sops = {event.instance.receipt: event.instance.sop_instance_uid for event in self.hospital.arrivals}
        assert {sops[receipt] for receipt in waited} <= ended | {event.sop_instance_uid for event in self._routed() if event.deliveries}

    @invariant()
    def what_a_note_names_is_not_on_its_way_any_more(self) -> None:
        noted = {key for key, value in self.hospital.state.rows.items() if getattr(CODEC.decode(value), "note", "")}
        first_time = {delivery.delivery_id: event.sop_instance_uid for event in self._routed() for delivery in event.deliveries}
        for delivery_id, state in self.hospital.deliveries.items():
            assert not (state == "pending" and first_time[delivery_id] in noted)

    def _routed(self) -> list[InstanceRouted]:
        return [event for event in self.hospital.said if isinstance(event, InstanceRouted)]

    def _takes_back(self, event: InstanceRouted) -> bool:
        """A note's decision on an instance that had one."""
        return event.decision == "withdrawn" and event is not self._first(event.receipt)

    def _first(self, receipt: str) -> InstanceRouted:
        return next(event for event in self._routed() if event.receipt == receipt)

    def _decided_of_its_own(self, receipt: str) -> bool:
        return any(event.receipt == receipt and event.decision not in ("duplicate", "returned", "ignored") for event in self._routed())


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
