from __future__ import annotations

import pytest

from hilum.database import connect
from hilum.database.associations import associations_of, list_senders

pytestmark = pytest.mark.system

ASSOCIATIONS = """
INSERT INTO association (association, calling_aet, called_aet, peer, max_pdu_bytes, contexts, refused, ended, objects, size_bytes, statuses,
                         opened_at, ended_at) VALUES
    ('a1', 'CT1', 'HILUM', '192.0.2.7', 0, '[]', NULL, 'released', 2, 10, '{}', '2024-02-29T12:00Z', '2024-02-29T12:01Z'),
    ('a2', 'CT1', 'HILUM', '192.0.2.8', 0, '[]', 'the sender is blocked (1/1/3)', 'rejected', 0, 0, '{}',
     '2024-02-29T12:02Z', '2024-02-29T12:03Z'),
    ('a3', '', '', '198.51.100.1', 0, '[]', 'it sent a PDU of unknown type', 'it sent a PDU of unknown type', 0, 0, '{}',
     '2024-02-29T12:04Z', '2024-02-29T12:05Z'),
    ('a4', '', '', '198.51.100.2', 0, '[]', 'its TLS handshake failed', 'its TLS handshake failed', 0, 0, '{}',
     '2024-02-29T12:06Z', '2024-02-29T12:07Z');
"""


@pytest.fixture
def dsn(postgres: str) -> str:
    with connect(postgres) as connection:
        connection.execute(ASSOCIATIONS)
    return postgres


def test_senders_are_listed_by_title_and_by_address_where_they_gave_none(dsn: str) -> None:
    listed = [(each.calling_aet, each.peers, each.associations, each.last_refused) for each in list_senders(dsn)]

    assert listed == [
        ("", ["198.51.100.2"], 1, "its TLS handshake failed"),
        ("", ["198.51.100.1"], 1, "it sent a PDU of unknown type"),
        ("CT1", ["192.0.2.7", "192.0.2.8"], 2, "the sender is blocked (1/1/3)"),
    ]


def test_associations_are_found_by_title_by_id_and_by_the_address_of_who_gave_no_title(dsn: str) -> None:
    found = {which: [each.association for each in associations_of(dsn, which)] for which in ("CT1", "a1", "198.51.100.1", "192.0.2.7")}

    assert found == {"CT1": ["a2", "a1"], "a1": ["a1"], "198.51.100.1": ["a3"], "192.0.2.7": []}
