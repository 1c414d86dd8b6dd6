"""What the stage `match` is told of arriving images."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from hilum.events import Event, MatchRequested
from hilum.order_events import Identifier
from tests.processors.route.hospital import Hospital, a_note


def requests(events: Iterable[Event]) -> list[MatchRequested]:
    return [event for event in events if isinstance(event, MatchRequested)]


def test_the_first_image_of_a_study_tells_its_order_and_patient() -> None:
    hospital = Hospital()
    (told,) = requests(hospital.arrive(IssuerOfPatientID="NORTH", calling_aet="CT01"))

    assert told.accessions == (Identifier(value="A-1"),)
    assert told.patient_ids == (Identifier(value="MRN-1", issuer="NORTH"),)
    assert (told.patient_name, told.modalities, told.sender, told.instances) == ("Marked^Patient", ("CT",), "CT01", 1)
    assert told.first_received_at == hospital.clock()


def test_further_images_that_say_the_same_tell_nothing() -> None:
    hospital = Hospital()
    hospital.arrive("2.25.3")

    assert requests(hospital.arrive("2.25.4", SeriesInstanceUID="2.25.22", sha256="ba")) == []


def test_an_image_that_says_something_new_tells_it() -> None:
    hospital = Hospital()
    hospital.arrive("2.25.3")
    (told,) = requests(hospital.arrive("2.25.4", sha256="ba", Modality="SR"))

    assert (told.modalities, told.instances, told.replaces) == (("SR",), 2, False)


def test_the_accession_numbers_of_all_requests_are_told_with_their_issuers() -> None:
    request = {
        "00080050": {"vr": "SH", "Value": ["A-2"]},
        "00080051": {"vr": "SQ", "Value": [{"00400031": {"vr": "UT", "Value": ["RIS"]}}]},
    }
    (told,) = requests(Hospital().arrive(RequestAttributesSequence=[request]))

    assert told.accessions == (Identifier(value="A-1"), Identifier(value="A-2", issuer="RIS"))


def test_the_same_object_again_and_a_rejection_note_tell_nothing_of_an_order() -> None:
    hospital = Hospital()
    hospital.arrive("2.25.3")
    hospital.arrive("2.25.5", sha256="ca")

    assert requests(hospital.arrive("2.25.3")) == []
    assert requests(hospital.arrive("2.25.88", sha256="da", **a_note("113001", "2.25.3"))) == []


def test_a_study_of_which_all_is_rejected_is_told_and_told_anew_if_more_of_it_comes() -> None:
    hospital = Hospital()
    hospital.arrive("2.25.3")
    said = requests(hospital.arrive("2.25.88", sha256="da", **a_note("113037", "2.25.3")))
    again = requests(hospital.arrive("2.25.4", sha256="ba"))

    assert [told.instances for told in said] == [0]
    assert [told.accessions[0].value for told in again] == ["A-1"]


@pytest.mark.parametrize("forgets", [False, True])
def test_a_study_is_told_as_rejected_with_the_last_of_several_notes(forgets: bool) -> None:
    hospital = Hospital()
    hospital.arrive("2.25.3")
    hospital.arrive("2.25.4", sha256="ba")
    first = requests(hospital.arrive("2.25.88", sha256="da", **a_note("113001", "2.25.3")))
    if forgets:
        hospital.wait(days=2)
        hospital.catch_up()
        hospital.wait(days=2)
        assert hospital.state.rows == {}
    second = requests(hospital.arrive("2.25.89", sha256="ea", **a_note("113001", "2.25.4")))

    assert (first, [told.instances for told in second]) == ([], [0])


def test_a_note_that_rejects_a_note_leaves_the_images_that_nobody_names() -> None:
    hospital = Hospital()
    hospital.arrive("2.25.3")
    hospital.arrive("2.25.4", sha256="ba")
    hospital.arrive("2.25.88", sha256="da", **a_note("113001", "2.25.3"))
    said = hospital.arrive("2.25.89", sha256="ea", **a_note("113001", "2.25.88"))

    assert requests(said) == []
    assert [told.instances for told in requests(hospital.arrive("2.25.90", sha256="fa", **a_note("113001", "2.25.4")))] == [0]


def test_no_row_names_a_patient() -> None:
    hospital = Hospital()
    hospital.arrive()

    rows = b"".join(hospital.state.rows.values())
    assert not any(word in rows for word in (b"Marked", b"MRN-1", b"A-1"))
