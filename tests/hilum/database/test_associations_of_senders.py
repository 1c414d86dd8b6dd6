from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hilum.database import connect
from hilum.database.associations import associations_of, list_senders

pytestmark = pytest.mark.system

RECORDS = """
INSERT INTO association (association, calling_aet, called_aet, peer, max_pdu_bytes, contexts, refused, ended, objects, size_bytes,
                         statuses, opened_at, ended_at, adapter, requests) VALUES
    ('a1', 'CT1', 'HILUM', '10.0.0.1', 0, '[]', NULL, 'released', 3, 30, '{"0x0000": 3}', '2024-02-29T11:59Z', '2024-02-29T12:00Z',
     'dicom', 1),
    ('s1', 'PORTAL', '', '10.0.0.2', 0, '[]', NULL, '40 requests', 80, 800, '{"0x0000": 80}', '2024-02-29T12:00Z', '2024-02-29T12:01Z',
     'stow', 40),
    ('s2', 'PORTAL', '', '10.0.0.2', 0, '[]', 'This sender is blocked (blocked)', '7 requests', 0, 0, '{"403": 7}', '2024-02-29T12:01Z',
     '2024-02-29T12:02Z', 'stow', 7),
    ('m1', 'PORTAL', '', 'import', 0, '[]', NULL, 'complete', 2, 20, '{"taken": 2}', '2024-02-29T12:02Z', '2024-02-29T12:03Z', 'media', 1);
"""


@pytest.fixture
def dsn(postgres: str) -> str:
    with connect(postgres) as connection:
        connection.execute(RECORDS)
    return postgres


def test_a_sender_is_listed_with_all_the_ways_in_which_it_sent(dsn: str) -> None:
    portal, scanner = list_senders(dsn)

    assert (portal.calling_aet, portal.adapters, portal.peers) == ("PORTAL", ["media", "stow"], ["10.0.0.2", "import"])
    assert (scanner.calling_aet, scanner.adapters, scanner.associations) == ("CT1", ["dicom"], 1)


def test_a_record_counts_for_the_requests_that_it_sums_up(dsn: str) -> None:
    portal = list_senders(dsn)[0]

    assert (portal.associations, portal.refused, portal.objects, portal.size_bytes) == (48, 7, 82, 820)
    assert portal.last_refused is None
    assert portal.last_at == datetime(2024, 2, 29, 12, 3, tzinfo=UTC)


def test_the_records_of_a_sender_are_the_latest_first_and_one_is_found_by_its_id(dsn: str) -> None:
    found = associations_of(dsn, "PORTAL")
    assert [(each.association, each.adapter, each.requests) for each in found] == [
        ("m1", "media", 1),
        ("s2", "stow", 7),
        ("s1", "stow", 40),
    ]

    [one] = associations_of(dsn, "s2")
    assert (one.refused, one.statuses) == ("This sender is blocked (blocked)", {"403": 7})
