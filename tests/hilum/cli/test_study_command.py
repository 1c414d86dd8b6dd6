"""How `hilum study` puts a study into words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hilum.cli.ordered import order_in_words
from hilum.cli.studies import completeness, open_matters
from hilum.database.order_queries import MatchOfStudy
from hilum.database.ordered import Ordered
from hilum.database.queries import StudySummary


def a_summary(**counts: Any) -> StudySummary:
    return StudySummary(
        study_instance_uid="2.25.1",
        patient_id=None,
        patient_name=None,
        accession_number=None,
        study_date=None,
        study_description=None,
        modalities=[],
        series=1,
        instances=1,
        size_bytes=1,
        received_at=datetime(2024, 2, 29, tzinfo=UTC),
        **{"pending": 0, "rejected": 0, "unrouted": 0, "quarantined": 0} | counts,
    )


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({}, ""),
        ({"pending": 3}, "3 to deliver"),
        ({"rejected": 2}, "2 rejected"),
        ({"unrouted": 4}, "4 sent nowhere by any rule"),
        ({"pending": 1, "rejected": 2, "quarantined": 5}, "1 to deliver, 2 rejected, 5 in quarantine"),
    ],
)
def test_a_study_is_settled_only_if_nothing_was_rejected_or_left_without_a_rule(counts: dict[str, int], said: str) -> None:
    assert open_matters(a_summary(**counts)) == said


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({}, ""),
        ({"state": "open", "revision": 0}, "awaited"),
        ({"state": "open", "revision": 1, "missing": 2}, "awaited, revision 1 before, 2 missing"),
        ({"state": "complete", "revision": 2, "reason": "idle", "withdrawn": 1}, "revision 2 (idle), 1 withdrawn"),
    ],
)
def test_whether_a_study_is_complete_is_said_with_revision_and_reason(state: dict[str, Any], said: str) -> None:
    assert completeness(a_summary(**state)) == said


def a_match(**fields: Any) -> Ordered:
    match = MatchOfStudy(
        study_instance_uid="2.25.1",
        **{
            "outcome": "matched",
            "by": None,
            "version": 2,
            "order_ids": [],
            "candidates": [],
            "differences": [],
            "coercible": False,
            "notes": None,
            "cause": "images",
            "changed_at": datetime(2024, 2, 29, tzinfo=UTC),
            "accepted_version": None,
            "accepted_by": None,
            "accepted_why": None,
        }
        | fields,
    )
    return Ordered(match=match, orders=[], candidates=[], performed=[])


@pytest.mark.parametrize(
    ("match", "said"),
    [
        ({"by": "accession-number"}, "matched, by its accession number"),
        ({"outcome": "unmatched"}, "no order yet"),
        ({"outcome": "no-order", "candidates": ["o1", "o2"]}, "no order in time; 2 might be its, see below"),
        ({"outcome": "order-cancelled"}, "its order was called off"),
        (
            {"outcome": "mismatched", "differences": [{"attribute": "PatientName"}, {"attribute": "PatientSex"}], "coercible": True},
            "mismatched: PatientName, PatientSex differ (`hilum study match`); set right on the way out",
        ),
        ({"outcome": "no-order", "accepted_version": 2}, "no order in time; accepted as it is"),
    ],
)
def test_how_a_study_fits_its_order_is_said_in_words(match: dict[str, Any], said: str) -> None:
    assert order_in_words(a_match(**match)) == said
