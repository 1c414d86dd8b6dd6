from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

import pytest

from hilum.database.known import Person
from hilum.dicom.lossy import Lossy
from hilum.errors import Quarantine, Reason
from hilum.events import InstanceRouted, StudyChanged
from hilum.order_sections import Orders
from hilum.settings import Completeness, Rule, Sender, Settings
from processors.route.facts import StudyRoute
from processors.route.rules import Rules
from processors.route.study import REMEMBERED
from tests.processors.route.hospital import DESTINATIONS, OTHER_STUDY, STUDY, FixedRules, Hospital, a_note, changes_of, decisions

TO_PACS = StudyRoute(rule="whole-study", to=("pacs",))


def waiting(*routes: StudyRoute, step: int = 500, **settings: object) -> Hospital:
    """A hospital whose rules ask for complete studies."""
    rules = FixedRules(routes=routes or (TO_PACS,))
    return Hospital(rules, Settings(destinations=DESTINATIONS, **settings), step=step)  # type: ignore[arg-type]


#: What Hilum makes of 2.25.3 for a destination that wants it compressed with loss.
MADE = Lossy(ratio=10.0).uid_of("2.25.3")


def naming(source: str) -> dict[str, Any]:
    """The attribute by which it says of what it was made."""
    return {"SourceImageSequence": [{"00081155": {"vr": "UI", "Value": [source]}}]}


class TestComplete:
    def test_a_study_is_complete_once_nothing_came_for_it_for_a_while_and_then_its_instances_go(self) -> None:
        hospital = waiting()
        assert decisions(hospital.arrive("2.25.3")) == [("waits", ())]
        hospital.wait(seconds=30)
        hospital.arrive("2.25.4")

        assert hospital.wait(seconds=59) == []
        said = hospital.wait(seconds=2)

        assert changes_of(said) == [("completed", 1, "idle")]
        assert decisions(said) == [("deliver", ("pacs",)), ("deliver", ("pacs",))]

    def test_a_series_that_still_grows_holds_its_study_open_for_as_long_as_its_modality_asks(self) -> None:
        hospital = waiting(completeness=Completeness(idle_s=60, modalities={"MR": 300}))
        hospital.arrive("2.25.3", Modality="MR", SeriesInstanceUID="2.25.21")
        hospital.wait(seconds=200)
        hospital.arrive("2.25.4", Modality="CT")

        assert hospital.wait(seconds=99) == []
        assert changes_of(hospital.wait(seconds=2)) == [("completed", 1, "idle")]

    def test_what_comes_later_makes_a_further_revision_that_sends_only_what_is_new(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")
        hospital.wait(minutes=2)

        assert changes_of(hospital.arrive("2.25.4")) == [("reopened", 2, "images")]
        said = hospital.wait(minutes=2)

        assert changes_of(said) == [("completed", 2, "idle")]
        assert [event.sop_instance_uid for event in said if isinstance(event, InstanceRouted)] == ["2.25.4"]

    def test_a_repetition_makes_no_further_revision(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")
        hospital.wait(minutes=2)

        assert decisions(hospital.arrive("2.25.3")) == [("duplicate", ())]
        assert hospital.wait(minutes=2) == []

    def test_the_hard_maximum_ends_a_study_that_never_rests(self) -> None:
        hospital = waiting(completeness=Completeness(idle_s=60, maximum_s=120))
        said = []
        for number in range(5):
            said += hospital.arrive(f"2.25.3{number}")
            said += hospital.wait(seconds=29)

        assert changes_of(said) == [("opened", 1, ""), ("completed", 1, "maximum")]

    def test_announced_instances_hold_a_study_open_until_the_last_of_them_is_here(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")
        hospital.announce("2.25.3", "2.25.4")

        assert hospital.wait(minutes=10) == []
        hospital.arrive("2.25.4")
        assert changes_of(hospital.wait(seconds=6)) == [("completed", 1, "expected")]

    def test_instances_that_never_come_are_counted_as_missing_in_the_end(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")
        hospital.announce("2.25.3", "2.25.4")

        completed = hospital.wait(hours=5)[0]

        assert isinstance(completed, StudyChanged)
        assert (completed.reason, completed.missing) == ("maximum", 1)

    def test_storage_commitment_keeps_a_study_open_and_does_not_end_it_unless_the_settings_say_so(self) -> None:
        hospital, believing = waiting(), waiting(completeness=Completeness(lists=("storage-commitment",)))
        for each in (hospital, believing):
            each.arrive("2.25.3")
            each.announce("2.25.3", source="storage-commitment")

        assert changes_of(hospital.wait(seconds=6)) == []
        assert changes_of(believing.wait(seconds=6)) == [("completed", 1, "expected")]

    def test_a_manifest_says_what_its_study_has(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")
        hospital.arrive("2.25.80", **a_note("113030", "2.25.3", "2.25.4"))

        assert hospital.wait(minutes=10) == []
        hospital.arrive("2.25.4")
        assert changes_of(hospital.wait(seconds=6)) == [("completed", 1, "expected")]

    def test_a_study_of_which_its_sender_has_more_waits_for_them_and_is_complete_once_as_many_are_here(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")
        hospital.count(2)

        assert hospital.wait(minutes=10) == []
        hospital.arrive("2.25.4")
        assert changes_of(hospital.wait(seconds=6)) == [("completed", 1, "expected")]

    def test_what_a_sender_says_last_holds_and_what_never_comes_is_missing(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")
        hospital.count(9)
        hospital.count(3)

        completed = hospital.wait(hours=5)[0]

        assert isinstance(completed, StudyChanged)
        assert (completed.reason, completed.missing) == ("maximum", 2)

    def test_a_sender_that_has_fewer_than_came_is_not_believed(self) -> None:
        hospital = waiting()
        for number in range(3):
            hospital.arrive(f"2.25.3{number}")
        hospital.count(2)

        assert hospital.wait(seconds=59) == []
        assert changes_of(hospital.wait(seconds=2)) == [("completed", 1, "idle")]

    def test_an_answer_that_comes_when_the_study_is_complete_does_not_hold_its_next_revision(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")
        hospital.wait(minutes=2)
        hospital.count(9)
        hospital.arrive("2.25.4")

        assert changes_of(hospital.wait(minutes=2)) == [("completed", 2, "idle")]

    def test_a_number_only_holds_a_study_open_where_the_settings_do_not_believe_it(self) -> None:
        hospital = waiting(completeness=Completeness(lists=()))
        hospital.arrive("2.25.3")
        hospital.count(1)

        assert hospital.wait(seconds=59) == []
        assert changes_of(hospital.wait(seconds=2)) == [("completed", 1, "idle")]

    def test_a_person_may_say_that_it_is_complete(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")

        outcome = hospital.complete()

        assert (outcome.done, outcome.sentence) == (True, "Revision 1 is complete with 1 instances.")
        assert decisions(hospital.wait(seconds=1)) == [("deliver", ("pacs",))]
        assert hospital.complete().sentence == "Nothing came since revision 1 of the study was complete."

    def test_a_command_for_another_revision_than_there_is_does_nothing(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")

        outcome = hospital.complete(expected_revision=3)

        assert not outcome.done
        assert "revision 0" in outcome.sentence

    def test_thresholds_are_those_of_the_sender(self) -> None:
        hospital = waiting(senders={"CT1": Sender(completeness=Completeness(idle_s=600))})
        hospital.arrive("2.25.3", calling_aet="CT1")

        assert hospital.wait(seconds=599) == []
        assert changes_of(hospital.wait(seconds=2)) == [("completed", 1, "idle")]

    def test_idle_time_runs_from_when_an_object_came_in(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3", received_at=hospital.clock() - timedelta(seconds=9))

        assert changes_of(hospital.wait(seconds=52)) == [("completed", 1, "idle")]

    def test_a_spool_that_drains_after_an_outage_makes_no_revision_for_each_of_its_objects(self) -> None:
        hospital = waiting()
        said = []
        for number in range(5):
            said += hospital.arrive(f"2.25.3{number}", received_at=hospital.clock() - timedelta(hours=7))
            said += hospital.wait(seconds=5)
        said += hospital.wait(seconds=60)

        assert changes_of(said) == [("opened", 1, ""), ("completed", 1, "idle")]

    def test_rules_are_asked_with_the_facts_of_the_study(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")
        hospital.arrive("2.25.4", Modality="MR", SeriesInstanceUID="2.25.22")
        hospital.wait(minutes=2)

        [(facts, matched)] = hospital.rules.asked
        assert (facts.instances, facts.series, facts.modalities, facts.revision, facts.reason) == (2, 2, ("CT", "MR"), 1, "idle")
        assert matched == {"ct": 1}

    def test_a_rule_may_take_only_what_matches(self) -> None:
        hospital = waiting(StudyRoute(rule="ct", to=("pacs",), send="matching"))
        hospital.arrive("2.25.3")
        hospital.arrive("2.25.4", Modality="MR", SeriesInstanceUID="2.25.22")

        assert sorted(decisions(hospital.wait(minutes=2))) == [("deliver", ("pacs",)), ("no-rule", ())]

    def test_priority_is_the_most_urgent_rule_s(self) -> None:
        hospital = waiting(TO_PACS, StudyRoute(rule="urgent", to=("pacs",), priority=9))
        hospital.arrive("2.25.3")

        [_, routed] = hospital.wait(minutes=2)

        assert isinstance(routed, InstanceRouted)
        assert (routed.deliveries[0].priority, routed.deliveries[0].rules) == (9, ("whole-study", "urgent"))

    def test_an_instance_that_went_at_once_does_not_go_there_again(self) -> None:
        hospital = Hospital(FixedRules(now=("pacs",), routes=(TO_PACS,)))
        hospital.arrive("2.25.3")

        assert decisions(hospital.wait(minutes=2)) == []

    def test_a_large_study_is_written_some_instances_at_a_time_and_a_late_one_is_of_the_next_revision(self) -> None:
        hospital = waiting(step=10)
        for number in range(25):
            hospital.arrive(f"2.25.3{number:02}")
        hospital.clock.forward(minutes=2)
        sizes = []
        for _ in range(4):
            _, said = hospital.fire()
            sizes.append(len(decisions(said)))
            hospital.clock.forward(milliseconds=2)
            if len(sizes) == 2:
                hospital.start()
                assert changes_of(hospital.arrive("2.25.999")) == [("reopened", 2, "images")]

        assert sizes == [0, 10, 10, 5]
        assert decisions(hospital.wait(minutes=2)) == [("deliver", ("pacs",))]

    def test_steps_are_due_at_once_also_where_a_partition_is_behind(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")
        hospital.complete()

        due = hospital.state.next_due()
        assert due is not None
        assert due < 10_000_000

    def test_two_steps_of_one_study_never_have_the_same_moment(self) -> None:
        hospital = waiting(step=1)
        for number in range(3):
            hospital.arrive(f"2.25.3{number}")
        hospital.clock.forward(minutes=2)
        moments = []
        while hospital.study().closing is not None or hospital.study().open:
            moments.append(hospital.state.next_due())
            hospital.fire()
            hospital.clock.forward(milliseconds=1)

        assert len(set(moments)) == len(moments) == 4

    def test_a_study_that_left_memory_goes_on_with_its_next_revision(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")
        hospital.wait(minutes=2)
        hospital.catch_up()
        hospital.wait(seconds=REMEMBERED.total_seconds() + 1)
        assert not hospital.state.rows

        assert changes_of(hospital.arrive("2.25.4")) == [("reopened", 2, "images")]

    def test_rows_stay_until_the_index_has_them(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")
        hospital.wait(minutes=2)
        hospital.wait(seconds=REMEMBERED.total_seconds() + 1)

        assert len(hospital.state.rows) == 2

    def test_what_waits_for_its_study_never_leaves_memory(self) -> None:
        hospital = waiting(completeness=Completeness(idle_s=400_000, maximum_s=900_000))
        hospital.arrive("2.25.3")
        hospital.catch_up()
        hospital.wait(hours=30)

        row = hospital.instance("2.25.3")
        assert row is not None
        assert row.held is not None


class TestObjects:
    """Reports and the like come later, and tell of what is there already."""

    REPORT: ClassVar[dict[str, Any]] = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.22", "Modality": "SR", "SeriesInstanceUID": "2.25.77"}
    WHOLE = StudyRoute(rule="research", to=("viewer",), send="whole")

    def test_a_late_image_has_the_study_sent_whole_where_a_rule_says_so(self) -> None:
        hospital = waiting(self.WHOLE)
        hospital.arrive("2.25.3")
        hospital.wait(minutes=2)
        hospital.catch_up()
        hospital.arrive("2.25.4")

        said = hospital.wait(minutes=2)

        assert sorted(event.sop_instance_uid for event in said if isinstance(event, InstanceRouted)) == ["2.25.3", "2.25.4"]
        assert len(hospital.deliveries) == 3

    def test_a_late_report_makes_a_revision_of_its_own_kind_and_does_not_send_the_study_whole(self) -> None:
        hospital = waiting(self.WHOLE)
        hospital.arrive("2.25.3")
        hospital.wait(minutes=2)
        hospital.catch_up()

        assert changes_of(hospital.arrive("2.25.70", **self.REPORT)) == [("reopened", 2, "objects")]
        said = hospital.wait(minutes=2)

        assert [event.sop_instance_uid for event in said if isinstance(event, InstanceRouted)] == ["2.25.70"]

    def test_a_report_does_not_go_back_to_where_it_came_from(self) -> None:
        hospital = waiting(StudyRoute(rule="all", to=("pacs", "viewer")))
        hospital.arrive("2.25.70", **self.REPORT, calling_aet="VIEWER")

        assert decisions(hospital.wait(minutes=2)) == [("deliver", ("pacs",))]


class TestReturns:
    def test_an_image_that_was_compressed_with_loss_for_it_is_returned(self) -> None:
        hospital = Hospital(FixedRules(now=("pacs", "archive")))
        hospital.arrive("2.25.3")

        assert decisions(hospital.arrive(MADE, calling_aet="PACS", sha256="zz", **naming("2.25.3"))) == [("returned", ())]
        assert decisions(hospital.arrive(MADE, calling_aet="PACS", sha256="zz", **naming("2.25.3"))) == [("returned", ())]

    def test_it_is_known_when_its_source_has_left_memory(self) -> None:
        hospital = Hospital(FixedRules(now=("pacs", "archive")))
        hospital.arrive("2.25.3")
        hospital.catch_up()
        hospital.wait(hours=30)
        assert hospital.instance("2.25.3") is None

        assert decisions(hospital.arrive(MADE, calling_aet="PACS", sha256="zz", **naming("2.25.3"))) == [("returned", ())]

    def test_of_an_image_that_is_not_here_it_is_as_good_as_any(self) -> None:
        hospital = Hospital(FixedRules(now=("pacs", "archive")))

        assert decisions(hospital.arrive(MADE, calling_aet="PACS", sha256="zz", **naming("2.25.3"))) == [("deliver", ("archive",))]

    @pytest.mark.parametrize(("sop", "source"), [(MADE, "2.25.4"), ("2.25.99", "2.25.3")])
    def test_an_image_that_only_says_so_was_not_made_here(self, sop: str, source: str) -> None:
        hospital = Hospital(FixedRules(now=("pacs", "archive")))
        hospital.arrive("2.25.3")
        hospital.arrive("2.25.4", sha256="bb")

        assert decisions(hospital.arrive(sop, calling_aet="PACS", sha256="zz", **naming(source))) == [("deliver", ("archive",))]

    @pytest.mark.parametrize("calling", ["PACS", "WORKSTATION"])
    def test_what_left_de_identified_is_returned_whoever_sends_it(self, calling: str) -> None:
        hospital = Hospital(FixedRules(now=("pacs", "archive")))
        hospital.index.made = {MADE}

        came = hospital.arrive(MADE, calling_aet=calling, StudyInstanceUID="2.25.77", PatientID="PSEUDONYM")

        assert decisions(came) == [("returned", ())]
        assert changes_of(came) == []
        assert changes_of(hospital.wait(minutes=2)) == []

    def test_what_was_made_of_what_left_is_told_from_originals(self) -> None:
        hospital = Hospital(FixedRules(now=("pacs", "archive")))
        hospital.index.studies_that_left = {MADE}

        came = hospital.arrive("2.25.99", StudyInstanceUID=MADE, PatientID="PSEUDONYM")
        came += hospital.arrive("2.25.98", StudyInstanceUID="2.25.77")

        routed = [[finding.code for finding in event.findings] for event in came if isinstance(event, InstanceRouted)]
        assert routed == [["study-deidentified"], []]

    def test_what_a_destination_sends_back_is_returned_whatever_it_made_of_it(self) -> None:
        hospital = Hospital(FixedRules(now=("pacs", "viewer")))
        hospital.arrive("2.25.3")

        assert decisions(hospital.arrive("2.25.3", calling_aet="PACS", sha256="zz", PatientName="Coerced^Name")) == [("returned", ())]
        assert not hospital.quarantined

    def test_what_a_destination_sends_first_goes_everywhere_else(self) -> None:
        hospital = Hospital(FixedRules(now=("pacs", "viewer")))

        assert decisions(hospital.arrive("2.25.3", calling_aet="PACS")) == [("deliver", ("viewer",))]

    def test_what_a_destination_sends_itself_while_its_study_waits_is_not_sent_there(self) -> None:
        hospital = waiting(StudyRoute(rule="all", to=("pacs", "viewer")))
        hospital.arrive("2.25.3", calling_aet="CT1")
        hospital.arrive("2.25.3", calling_aet="PACS")

        assert decisions(hospital.wait(minutes=2)) == [("deliver", ("viewer",))]

    def test_a_sender_may_be_a_destination_under_another_title(self) -> None:
        settings = Settings(destinations=DESTINATIONS, senders={"PACS_OUT": Sender(returns=("pacs",))})
        hospital = Hospital(FixedRules(now=("pacs",)), settings)
        hospital.arrive("2.25.3")

        assert decisions(hospital.arrive("2.25.3", calling_aet="PACS_OUT", sha256="zz")) == [("returned", ())]


class TestRejections:
    def test_a_note_takes_back_what_waits_and_goes_to_whoever_got_the_images(self) -> None:
        hospital = Hospital(FixedRules(now=("pacs",)))
        hospital.arrive("2.25.3")
        [pending] = hospital.deliveries
        hospital.rules.now = ()

        said = hospital.arrive("2.25.80", **a_note("113001", "2.25.3"))

        assert decisions(said) == [("deliver", ("pacs",)), ("withdrawn", ())]
        assert hospital.deliveries[pending] == "cancelled"
        assert hospital.study().withdrawn == 1
        [change] = [each for each in said if isinstance(each, StudyChanged)]
        assert (change.change, change.code, change.sop_instance_uids, change.instances) == ("withdrawn", "113001", ("2.25.3",), 1)

    @pytest.mark.parametrize("code", ["113001", "113037", "113038", "113039"])
    def test_an_image_that_comes_after_its_note_goes_nowhere(self, code: str) -> None:
        hospital = Hospital(FixedRules(now=("pacs",)))
        hospital.arrive("2.25.80", **a_note(code, "2.25.3"))

        assert decisions(hospital.arrive("2.25.3")) == [("withdrawn", ())]
        assert hospital.study().withdrawn == 1

    def test_a_note_is_remembered_by_the_index(self) -> None:
        hospital = Hospital(FixedRules(now=("pacs",)))
        hospital.arrive("2.25.80", **a_note("113001", "2.25.3"))
        hospital.wait(minutes=2)
        hospital.catch_up()
        hospital.wait(hours=30)
        assert not hospital.state.rows

        assert decisions(hospital.arrive("2.25.3")) == [("withdrawn", ())]

    @pytest.mark.parametrize("forgotten", [False, True])
    def test_an_image_that_comes_in_another_study_than_its_note_is_new(self, forgotten: bool) -> None:
        hospital = Hospital(FixedRules(now=("pacs",)))
        hospital.arrive("2.25.80", **a_note("113001", "2.25.3"))
        if forgotten:
            hospital.wait(minutes=2)
            hospital.catch_up()
            hospital.wait(hours=30)
            assert not hospital.state.rows

        assert decisions(hospital.arrive("2.25.3", StudyInstanceUID=OTHER_STUDY)) == [("deliver", ("pacs",))]
        assert hospital.study(OTHER_STUDY).withdrawn == 0

    def test_what_a_note_of_another_study_named_is_rejected_by_one_of_its_own(self) -> None:
        hospital = Hospital(FixedRules(now=("pacs",)))
        hospital.arrive("2.25.80", **a_note("113001", "2.25.3"))
        own = {**a_note("113001", "2.25.3", study=OTHER_STUDY), "StudyInstanceUID": OTHER_STUDY}
        hospital.arrive("2.25.81", **own)

        assert decisions(hospital.arrive("2.25.3", StudyInstanceUID=OTHER_STUDY)) == [("withdrawn", ())]

    def test_what_a_note_of_another_study_named_is_taken_back_by_one_of_its_own_that_comes_later(self) -> None:
        hospital = Hospital(FixedRules(now=("pacs",)))
        hospital.arrive("2.25.80", **a_note("113001", "2.25.3"))
        hospital.arrive("2.25.3", StudyInstanceUID=OTHER_STUDY)
        own = {**a_note("113001", "2.25.3", study=OTHER_STUDY), "StudyInstanceUID": OTHER_STUDY}

        assert decisions(hospital.arrive("2.25.81", **own)) == [("deliver", ("pacs",)), ("withdrawn", ())]

    def test_a_rejected_image_is_not_sent_when_its_study_is_complete(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3")
        hospital.arrive("2.25.80", **a_note("113001", "2.25.3"))

        said = hospital.wait(minutes=2)

        assert [event.sop_instance_uid for event in said if isinstance(event, InstanceRouted)] == ["2.25.80"]

    def test_another_key_object_selection_rejects_nothing(self) -> None:
        hospital = Hospital(FixedRules(now=("pacs",)))
        hospital.arrive("2.25.3")

        assert decisions(hospital.arrive("2.25.80", **a_note("113000", "2.25.3"))) == [("deliver", ("pacs",))]
        assert hospital.study().withdrawn == 0

    def test_instances_of_another_study_are_not_acted_on_and_that_is_noted(self) -> None:
        hospital = Hospital(FixedRules(now=("pacs",)))
        [routed, *_] = hospital.arrive("2.25.80", **a_note("113001", "2.25.5", study="2.25.999"))

        assert isinstance(routed, InstanceRouted)
        assert [finding.code for finding in routed.findings] == ["rejects-elsewhere"]


class TestFitting:
    def test_a_study_with_a_second_patient_waits_for_a_person_and_no_value_is_in_the_sentence(self) -> None:
        hospital = Hospital()
        hospital.arrive("2.25.3", PatientID="MRN-1")
        hospital.arrive("2.25.4", PatientID="MRN-2")

        why = hospital.quarantined["receipt-1"]
        assert why.reason is Reason.PATIENT_DIFFERS
        assert "MRN" not in str(why)
        assert (why.found, why.expected) == ("PatientID: MRN-2", "PatientID: MRN-1")

    def test_two_patients_of_whom_a_message_said_that_they_are_one_fit_and_so_do_their_names(self) -> None:
        hospital = Hospital()
        hospital.index.patients = {
            ("MRN-1", ""): Person(key="stays", patient_id="MRN-2", issuer="", merged=True),
            ("MRN-2", ""): Person(key="stays", patient_id="MRN-2", issuer="", merged=False),
        }
        hospital.arrive("2.25.3", PatientID="MRN-1", PatientName="Meyer^Ana")
        [routed, *_] = hospital.arrive("2.25.4", PatientID="MRN-2", PatientName="Meier^Anna")

        assert isinstance(routed, InstanceRouted)
        assert (hospital.quarantined, routed.findings) == ({}, ())

    def test_once_the_merge_is_taken_back_they_are_two_again(self) -> None:
        hospital = Hospital()
        stays = Person(key="stays", patient_id="MRN-2", issuer="", merged=False)
        hospital.index.patients = {("MRN-1", ""): stays, ("MRN-2", ""): stays}
        hospital.arrive("2.25.3", PatientID="MRN-1")
        hospital.arrive("2.25.4", PatientID="MRN-2")
        hospital.index.patients[("MRN-1", "")] = Person(key="itself", patient_id="MRN-1", issuer="", merged=False)
        hospital.arrive("2.25.5", PatientID="MRN-2")

        assert [why.reason for why in hospital.quarantined.values()] == [Reason.PATIENT_DIFFERS]

    def test_an_identifier_is_of_its_sender_s_issuer_where_objects_do_not_say(self) -> None:
        settings = Settings(
            destinations=DESTINATIONS, senders={"CT01": Sender(issuer_of_patient_id="SOUTH")}, orders=Orders(issuer_of_patient_id="NORTH")
        )
        hospital = Hospital(settings=settings)
        one = Person(key="stays", patient_id="MRN-2", issuer="NORTH", merged=True)
        hospital.index.patients = {("MRN-1", "NORTH"): one, ("MRN-2", "SOUTH"): one}
        hospital.arrive("2.25.3", PatientID="MRN-1", calling_aet="MR01")
        hospital.arrive("2.25.4", PatientID="MRN-2", calling_aet="CT01")
        hospital.arrive("2.25.5", PatientID="MRN-2", calling_aet="MR01")

        assert list(hospital.quarantined) == ["receipt-2"]

    def test_an_empty_patient_id_is_not_another_patient_s(self) -> None:
        hospital = Hospital()
        hospital.arrive("2.25.3", PatientID="MRN-1")

        assert decisions(hospital.arrive("2.25.4", PatientID="")) == [("deliver", ("archive",))]

    def test_attributes_of_the_study_that_disagree_are_noted(self) -> None:
        hospital = Hospital()
        hospital.arrive("2.25.3", AccessionNumber="A-1")
        [routed, *_] = hospital.arrive("2.25.4", AccessionNumber="A-2")

        assert isinstance(routed, InstanceRouted)
        assert [finding.code for finding in routed.findings] == ["study-differs"]

    def test_no_row_and_no_event_of_a_study_names_a_patient(self) -> None:
        hospital = waiting()
        hospital.arrive("2.25.3", PatientID="MRN-1", PatientName="Marked^Patient")
        hospital.wait(minutes=2)

        assert all(b"MRN" not in row and b"Marked" not in row for row in hospital.state.rows.values())


def test_a_rule_sees_who_the_patient_is_after_merges_and_how_the_study_fits_its_order() -> None:
    rules = [
        Rule(name="vip", when='PatientID == "MRN-2" and IssuerOfPatientID == "NORTH"', to=("viewer",)),
        Rule(name="ordered", on="study", when="true", study='order_match == "matched"', to=("pacs",)),
    ]
    hospital = Hospital(Rules(rules), Settings(destinations=DESTINATIONS))
    hospital.index.patients = {("MRN-1", ""): Person(key="stays", patient_id="MRN-2", issuer="NORTH", merged=True)}
    at_once = decisions(hospital.arrive("2.25.3", PatientID="MRN-1"))
    hospital.index.order_matches[STUDY] = "matched"
    complete = decisions(hospital.wait(minutes=2))

    assert (at_once, complete) == ([("deliver", ("viewer",))], [("deliver", ("pacs",))])


def test_rules_of_the_settings_are_asked_about_complete_studies() -> None:
    rules = [
        Rule(name="ct", on="study", when='Modality == "CT"', study="matching >= 2 and reason == 'idle'", send="matching", to=("pacs",)),
        Rule(name="urgent", on="study", when="true", study="revision == 1", to=("viewer",), priority=5),
        Rule(name="at-once", when='Modality == "MR"', to=("archive",), priority=7),
    ]
    hospital = Hospital(Rules(rules), Settings(destinations=DESTINATIONS))
    hospital.arrive("2.25.3")
    hospital.arrive("2.25.4")
    [mr, *_] = hospital.arrive("2.25.5", Modality="MR", SeriesInstanceUID="2.25.22")

    assert isinstance(mr, InstanceRouted)
    assert [(each.destination, each.priority) for each in mr.deliveries] == [("archive", 7)]
    said = decisions(hospital.wait(minutes=2))
    assert sorted(said) == [("deliver", ("pacs", "viewer")), ("deliver", ("pacs", "viewer")), ("deliver", ("viewer",))]


def test_a_study_whose_rule_cannot_be_evaluated_waits_for_a_better_one() -> None:
    def fails(*_: object) -> tuple[StudyRoute, ...]:
        raise Quarantine(Reason.RULE_FAILED, "Rule 'ct' divides by zero.")

    hospital = waiting()
    works, hospital.rules.of_study = hospital.rules.of_study, fails  # type: ignore[method-assign, assignment]
    hospital.arrive("2.25.3")

    [stuck] = hospital.wait(minutes=2)
    assert isinstance(stuck, StudyChanged)
    assert (stuck.change, stuck.revision, stuck.reason) == ("stuck", 1, "rule-failed")
    assert "divides by zero" in stuck.says
    assert hospital.wait(minutes=30) == [], "it is said once"
    assert "divides by zero" in hospital.complete().sentence
    hospital.rules.of_study = works  # type: ignore[method-assign]
    assert decisions(hospital.wait(minutes=11)) == [("deliver", ("pacs",))]


def test_a_study_whose_rule_was_corrected_is_looked_at_when_that_is_asked_for_and_not_before_its_time() -> None:
    def fails(*_: object) -> tuple[StudyRoute, ...]:
        raise Quarantine(Reason.RULE_FAILED, "Rule 'ct' divides by zero.")

    hospital = waiting()
    works, hospital.rules.of_study = hospital.rules.of_study, fails  # type: ignore[method-assign, assignment]
    hospital.arrive("2.25.3")
    assert changes_of(hospital.look()) == [], "its time has not come"
    hospital.wait(minutes=2)
    assert changes_of(hospital.look()) == [], "and nothing new is to be said"
    hospital.rules.of_study = works  # type: ignore[method-assign]

    assert changes_of(hospital.look()) == [("completed", 1, "idle")]
    assert hospital.study().stuck == ""


def test_a_study_row_stays_small_however_many_instances_there_are() -> None:
    hospital = waiting()
    for number in range(300):
        hospital.arrive(f"2.25.3{number}")

    assert len(hospital.state.rows[f"study/{STUDY}"]) < 500
    assert max(map(len, hospital.state.rows.values())) < 700


def test_all_of_a_revision_is_decided_by_the_version_that_sealed_it_whatever_is_applied_meanwhile() -> None:
    hospital = waiting(step=2)
    for number in range(5):
        hospital.arrive(f"2.25.3{number}")
    hospital.clock.forward(minutes=2)
    hospital.fire()  # it is sealed, and nothing is written yet
    hospital.clock.forward(milliseconds=2)
    hospital.fire()
    sealed_by = {event.config_version for event in hospital.said if isinstance(event, StudyChanged) and event.change == "completed"}
    other = Settings(destinations=DESTINATIONS, rules=(Rule(name="viewer", to=("viewer",), on="study"),))
    hospital.route.configure(other)
    said = hospital.wait(seconds=1)

    assert decisions(said) == [("deliver", ("pacs",))] * 3
    assert {event.config_version for event in hospital.said if isinstance(event, InstanceRouted) and event.revision} == sealed_by
    assert other.config_version not in sealed_by
    hospital.arrive("2.25.40")
    assert {event.config_version for event in hospital.wait(minutes=2) if isinstance(event, InstanceRouted)} == {other.config_version}


def test_of_rules_that_were_asked_when_an_instance_came_those_count_that_are_still_there_when_its_study_is_complete() -> None:
    hospital = Hospital(Rules([Rule(name="ct", to=("pacs",), on="study", send="matching"), Rule(name="gone", to=("archive",), on="study")]))
    hospital.arrive("2.25.3")
    hospital.route.configure(
        Settings(
            destinations=DESTINATIONS,
            rules=(
                Rule(name="ct", to=("viewer",), on="study", send="matching"),
                Rule(name="new", to=("archive",), on="study", send="matching"),
            ),
        )
    )
    hospital.arrive("2.25.4")

    said = [event for event in hospital.wait(minutes=2) if isinstance(event, InstanceRouted)]

    assert {event.sop_instance_uid: sorted(each.destination for each in event.deliveries) for event in said} == {
        "2.25.3": ["viewer"],
        "2.25.4": ["archive", "viewer"],
    }


def test_an_outage_is_no_silence_while_objects_of_before_lie_in_a_spool() -> None:
    hospital = waiting()
    hospital.arrive("2.25.3")
    hospital.clock.forward(seconds=30)
    came, hospital.index.spooled_at = hospital.clock(), hospital.clock()  # Kafka is away: it lies in the spool
    assert hospital.wait(hours=1) == []
    hospital.arrive("2.25.4", received_at=came)
    hospital.index.spooled_at = None

    said = hospital.wait(minutes=2)

    assert changes_of(said) == [("completed", 1, "idle")]
    assert len(decisions(said)) == 2


def test_a_spool_holds_no_study_that_was_complete_before_its_oldest_object_came_nor_one_beyond_its_maximum() -> None:
    hospital = waiting(completeness=Completeness(maximum_s=600))
    hospital.arrive("2.25.3")
    hospital.clock.forward(seconds=61)
    hospital.index.spooled_at = hospital.clock()
    assert changes_of(hospital.wait(seconds=1)) == [("completed", 1, "idle")]

    hospital.arrive("2.25.4")
    assert changes_of(hospital.wait(minutes=5)) == []
    assert changes_of(hospital.wait(minutes=6)) == [("completed", 2, "maximum")]
