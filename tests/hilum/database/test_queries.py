from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from hilum.database import connect
from hilum.database.queries import (
    count_quarantined,
    destination_counts,
    kinds_of_objects,
    list_quarantined,
    list_studies,
    rejected_deliveries,
    show_quarantined,
    show_study,
)
from hilum.errors import Misconfigured, NotFound, TryAgain

pytestmark = pytest.mark.system
NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)

STUDIES = """
INSERT INTO study (study_instance_uid, patient_id, patient_name, accession_number, study_date, study_description, receipt, received_at)
VALUES
    ('1.1', 'MRN-1', 'Marked^Patient', 'A-1', '20240229', 'CT chest', 'r1', '2024-02-29T12:00Z'),
    ('1.2', 'MRN-2', 'Other^100%_Sure', 'A-2', NULL, NULL, 'r4', '2024-02-29T13:00Z'),
    ('1.3', 'MRN-3', 'Third^Patient', 'A-1', NULL, NULL, 'r9', '2024-02-28T13:00Z');
INSERT INTO series (series_instance_uid, study_instance_uid, modality, series_number, series_description, receipt, received_at) VALUES
    ('1.1.1', '1.1', 'CT', '2', 'axial', 'r1', '2024-02-29T12:00Z'), ('1.1.2', '1.1', 'SR', '10', NULL, 'r3', '2024-02-29T12:00Z');
INSERT INTO receipt (receipt, study_instance_uid, sop_instance_uid, calling_aet, peer, adapter, received_at, received, decision,
                     delivery_ids, bucket, object_key) VALUES
    ('r1', '1.1', '1.1.1.1', 'CT1', '10.0.0.1', 'dicom', '2024-02-29T12:00Z', true, 'deliver', '{d1,d2}', 'b', 'k1'),
    ('r2', '1.1', '1.1.1.2', 'CT1', '10.0.0.1', 'dicom', '2024-02-29T12:01Z', true, 'deliver', '{d3,d4}', 'b', 'k2'),
    ('r3', '1.1', '1.1.2.1', 'WS1', '10.0.0.2', 'dicom', '2024-02-29T12:02Z', true, 'no-rule', '{}', 'b', 'k3'),
    ('r5', '1.1', '1.1.1.1', 'CT1', '10.0.0.1', 'dicom', '2024-02-29T12:03Z', true, 'duplicate', '{}', 'b', 'k1');
INSERT INTO receipt (receipt, study_instance_uid, sop_instance_uid, calling_aet, peer, adapter, received_at, received, quarantine_reason,
                     quarantine_stage, quarantined_at, bucket, object_key) VALUES
    ('r6', '1.1', '1.1.1.9', 'CT1', '10.0.0.1', 'dicom', '2024-02-29T12:04Z', true, 'uid-invalid', 'validate', '2024-02-29T12:05Z',
     'b', 'k6'),
    ('r7', '1.9', '1.9.1.1', 'US1', '10.0.0.3', 'dicom', '2024-02-29T12:06Z', true, 'unreadable', 'validate', '2024-02-29T12:07Z',
     'b', 'k7');
INSERT INTO instance (sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid, transfer_syntax_uid, bucket, object_key,
                      size_bytes, sha256, receipt, received_at) VALUES
    ('1.1.1.1', '1.1.1', '1.1', 'c', 't', 'b', 'k1', 100, 'x', 'r1', '2024-02-29T12:00Z'),
    ('1.1.1.2', '1.1.1', '1.1', 'c', 't', 'b', 'k2', 150, 'x', 'r2', '2024-02-29T12:01Z'),
    ('1.1.2.1', '1.1.2', '1.1', 'c', 't', 'b', 'k3', 7, 'x', 'r3', '2024-02-29T12:02Z');
INSERT INTO quarantine (event_id, receipt, study_instance_uid, sop_instance_uid, stage, reason, sentence, fix, found, quarantined_at,
                        input_type, input_id, input, state) VALUES
    ('q6', 'r6', '1.1', '1.1.1.9', 'validate', 'uid-invalid', 'A UID is no UID.', 'Correct it.', '1.2.x', '2024-02-29T12:05Z',
     't', 'r6', '', 'waiting'),
    ('q7', 'r7', '1.9', '1.9.1.1', 'validate', 'unreadable', 'No DICOM.', 'Send again.', '', '2024-02-29T12:07Z', 't', 'r7', '', 'waiting'),
    ('q8', NULL, NULL, NULL, 'index', 'processing-failed', 'Cannot be written.', 'Report it.', '', '2024-02-29T12:01Z',
     't', 'e8', '', 'waiting'),
    ('q0', 'r0', '1.1', '1.1.0', 'validate', 'unreadable', 'No DICOM.', 'Send again.', '', '2024-02-29T11:00Z', 't', 'r0', '', 'released');
INSERT INTO delivery (delivery_id, destination, receipt, study_instance_uid, sop_instance_uid, state, attempts, peer_status, comment,
                      received_at, not_before, settled_at) VALUES
    ('d1', 'archive', 'r1', '1.1', '1.1.1.1', 'delivered', 1, '', '', '2024-02-29T12:00Z', now(), '2024-02-29T12:00:01Z'),
    ('d2', 'pacs', 'r1', '1.1', '1.1.1.1', 'delivered', 1, '0x0000', '', '2024-02-29T12:00Z', now(), '2024-02-29T12:00:02Z'),
    ('d3', 'archive', 'r2', '1.1', '1.1.1.2', 'delivered', 2, '', 'late', '2024-02-29T12:01Z', now(), '2024-02-29T12:01:01Z'),
    ('d4', 'pacs', 'r2', '1.1', '1.1.1.2', 'pending', 3, '0xA700', 'Out of resources', '2024-02-29T12:01Z', '2024-02-29T12:30Z', NULL);
"""


@pytest.fixture
def dsn(postgres: str) -> str:
    with connect(postgres) as connection:
        connection.execute(STUDIES)
    return postgres


class TestListingStudies:
    def test_the_study_received_last_comes_first(self, dsn: str) -> None:
        assert [study.study_instance_uid for study in list_studies(dsn)] == ["1.2", "1.1", "1.3"]
        assert [study.study_instance_uid for study in list_studies(dsn, limit=1)] == ["1.2"]

    def test_a_study_is_summed_up_in_a_line(self, dsn: str) -> None:
        [study] = list_studies(dsn, like="1.1")

        assert (study.patient_id, study.patient_name, study.accession_number) == ("MRN-1", "Marked^Patient", "A-1")
        assert (study.modalities, study.series, study.instances, study.size_bytes) == (["CT", "SR"], 2, 3, 257)
        assert (study.pending, study.rejected, study.unrouted, study.quarantined) == (1, 0, 1, 1)
        assert study.received_at == NOON

    @pytest.mark.parametrize(
        ("like", "found"),
        [
            ("A-1", ["1.1", "1.3"]),
            ("MRN-2", ["1.2"]),
            ("marked", ["1.1"]),
            ("PATIENT", ["1.1", "1.3"]),
            ("100%_", ["1.2"]),
            ("%", ["1.2"]),
            ("x", []),
        ],
    )
    def test_studies_are_found_by_uid_accession_number_patient_id_and_part_of_a_name(self, dsn: str, like: str, found: list[str]) -> None:
        assert [study.study_instance_uid for study in list_studies(dsn, like=like)] == found


class TestShowingAStudy:
    def test_its_series_are_in_the_order_of_their_numbers(self, dsn: str) -> None:
        [study] = show_study(dsn, "1.1")

        assert [(s.series_number, s.modality, s.instances, s.size_bytes) for s in study.series] == [("2", "CT", 2, 250), ("10", "SR", 1, 7)]

    def test_what_came_is_told_by_sender_and_outcome(self, dsn: str) -> None:
        [study] = show_study(dsn, "1.1")

        assert [(a.calling_aet, a.outcome, a.receipts, a.first_received_at) for a in study.arrivals] == [
            ("CT1", "deliver", 2, NOON),
            ("WS1", "no-rule", 1, NOON + timedelta(minutes=2)),
            ("CT1", "duplicate", 1, NOON + timedelta(minutes=3)),
            ("CT1", "quarantined", 1, NOON + timedelta(minutes=4)),
        ]

    def test_where_it_went_is_told_by_destination_and_state_with_the_latest_answer(self, dsn: str) -> None:
        [study] = show_study(dsn, "1.1")

        assert [(d.destination, d.state, d.deliveries, d.attempts, d.peer_status, d.comment) for d in study.deliveries] == [
            ("archive", "delivered", 2, 2, None, "late"),
            ("pacs", "delivered", 1, 1, "0x0000", None),
            ("pacs", "pending", 1, 3, "0xA700", "Out of resources"),
        ]
        assert [d.next_attempt_at for d in study.deliveries] == [None, None, NOON + timedelta(minutes=30)]

    def test_what_waits_for_a_person_is_told_and_what_was_released_is_not(self, dsn: str) -> None:
        [study] = show_study(dsn, "1.1")

        assert [event.event_id for event in study.quarantined] == ["q6"]

    def test_an_accession_number_that_was_used_twice_shows_both_studies(self, dsn: str) -> None:
        assert [study.summary.study_instance_uid for study in show_study(dsn, "A-1")] == ["1.1", "1.3"]

    def test_a_study_of_which_all_is_in_quarantine_is_shown(self, dsn: str) -> None:
        [study] = show_study(dsn, "1.9")

        assert (study.summary.instances, study.summary.patient_id, study.summary.quarantined) == (0, None, 1)
        assert study.summary.received_at == NOON + timedelta(minutes=6)

    def test_a_study_that_is_not_there_is_not_repeated_in_the_error(self, dsn: str) -> None:
        with pytest.raises(NotFound) as stop:
            show_study(dsn, "MRN-1")

        assert "MRN-1" not in str(stop.value)


class TestQuarantine:
    def test_what_waits_is_listed_oldest_first(self, dsn: str) -> None:
        assert [event.event_id for event in list_quarantined(dsn)] == ["q8", "q6", "q7"]
        assert [event.event_id for event in list_quarantined(dsn, limit=1)] == ["q8"]
        assert [event.event_id for event in list_quarantined(dsn, reason="unreadable")] == ["q7"]

    def test_what_waits_is_counted_and_what_was_released_is_not(self, dsn: str) -> None:
        assert count_quarantined(dsn) == 3

    @pytest.mark.parametrize("which", ["q6", "r6", "1.1.1.9"])
    def test_an_event_is_shown_by_its_id_its_receipt_and_its_instance(self, dsn: str, which: str) -> None:
        [event] = show_quarantined(dsn, which)

        assert (event.event_id, event.found, event.calling_aet, event.peer) == ("q6", "1.2.x", "CT1", "10.0.0.1")
        assert (event.bucket, event.object_key) == ("b", "k6")

    def test_an_event_that_could_not_be_read_is_shown_by_the_id_of_its_input(self, dsn: str) -> None:
        [event] = show_quarantined(dsn, "e8")

        assert (event.event_id, event.receipt) == ("q8", None)

    def test_a_decided_event_is_still_shown(self, dsn: str) -> None:
        assert [event.state for event in show_quarantined(dsn, "r0")] == ["released"]

    def test_an_id_that_nothing_has_is_said(self, dsn: str) -> None:
        with pytest.raises(NotFound):
            show_quarantined(dsn, "x")


def test_destinations_are_counted_by_state_with_the_oldest_that_waits(dsn: str) -> None:
    archive, pacs = destination_counts(dsn)

    assert (archive.destination, archive.delivered, archive.pending, archive.oldest_pending) == ("archive", 2, 0, None)
    assert (pacs.destination, pacs.delivered, pacs.pending, pacs.oldest_pending) == ("pacs", 1, 1, NOON + timedelta(minutes=1))


def test_what_was_rejected_is_listed_latest_first(dsn: str) -> None:
    assert rejected_deliveries(dsn) == []
    with connect(dsn) as connection:
        connection.execute("UPDATE delivery SET state = 'rejected' WHERE delivery_id <> 'd4'")

    assert [each.delivery_id for each in rejected_deliveries(dsn)] == ["d3", "d2", "d1"]
    assert [each.delivery_id for each in rejected_deliveries(dsn, destination="archive", limit=1)] == ["d3"]
    assert [study.rejected for study in list_studies(dsn, like="1.1")] == [3]


def test_the_kinds_of_objects_are_told_the_most_frequent_first(dsn: str) -> None:
    with connect(dsn) as connection:
        connection.execute("UPDATE instance SET transfer_syntax_uid = 'rare' WHERE sop_instance_uid = '1.1.2.1'")

    kinds = kinds_of_objects(dsn, limit=10)

    assert [(kind.sop_class_uid, kind.transfer_syntax_uid) for kind in kinds] == [("c", "t"), ("c", "rare")]
    assert kinds_of_objects(dsn, limit=1) == kinds[:1]


def test_an_empty_database_has_no_studies_and_no_destinations(postgres: str) -> None:
    assert list_studies(postgres) == []
    assert kinds_of_objects(postgres, limit=10) == []
    assert destination_counts(postgres) == []


def test_a_database_without_tables_is_a_matter_for_a_person(postgres: str) -> None:
    with connect(postgres) as connection:
        connection.execute("DROP TABLE quarantine CASCADE")

    with pytest.raises(Misconfigured, match="hilum provision"):
        list_quarantined(postgres)


def test_a_database_that_is_away_is_to_be_tried_again(free_port: int) -> None:
    with pytest.raises(TryAgain):
        list_studies(f"postgresql://hilum@127.0.0.1:{free_port}/hilum")
