"""Lists, pages and views count the same instances of a study."""

from __future__ import annotations

import pytest

from hilum.database import connect
from hilum.database.queries import list_studies, show_study

pytestmark = pytest.mark.system

#: Two images and a rejection note that names one of them; an image of another patient, which waits; one that waited and came again.
STUDY = """
INSERT INTO study (study_instance_uid, receipt, received_at) VALUES ('1.1', 'r1', now());
INSERT INTO series (series_instance_uid, study_instance_uid, receipt, received_at) VALUES ('1.1.1', '1.1', 'r1', now());
INSERT INTO instance (sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid, transfer_syntax_uid, bucket, object_key,
                      size_bytes, sha256, receipt, received_at)
    SELECT name, '1.1.1', '1.1', 'c', 't', 'b', name, 100, name, 'r-' || name, now()
    FROM unnest('{image,named,note,waits,came-again}'::text[]) AS name;
INSERT INTO receipt (receipt, study_instance_uid, sop_instance_uid, received_at, received, decision)
    SELECT 'r-' || name, '1.1', name, now(), true, 'deliver' FROM unnest('{image,named,note,came-again}'::text[]) AS name;
INSERT INTO receipt (receipt, study_instance_uid, sop_instance_uid, received_at, received, quarantine_reason)
    SELECT 'q-' || name, '1.1', name, now(), true, 'patient-differs' FROM unnest('{waits,came-again}'::text[]) AS name;
INSERT INTO quarantine (event_id, receipt, study_instance_uid, sop_instance_uid, stage, reason, sentence, fix, quarantined_at, input_type,
                        input_id, input, found, expected)
    SELECT name, 'q-' || name, '1.1', name, 'route', 'patient-differs', '', '', now(), 't', name, '', '', ''
    FROM unnest('{waits,came-again}'::text[]) AS name;
INSERT INTO withdrawn (sop_instance_uid, study_instance_uid, note, code, withdrawn_at) VALUES ('named', '1.1', 'note', '113001', now());
"""


def test_what_a_note_names_and_what_only_waits_in_quarantine_counts_nowhere(postgres: str) -> None:
    with connect(postgres) as connection:
        connection.execute(STUDY.encode())
        views = connection.execute(
            "SELECT s.instance_count, s.size_bytes, v.instance_count, v.size_bytes"
            " FROM v_study AS s JOIN v_series AS v USING (study_instance_uid)"
        ).fetchall()
    [listed], [shown] = list_studies(postgres), show_study(postgres, "1.1")

    assert views == [(3, 300, 3, 300)]
    assert (listed.instances, listed.size_bytes, listed.quarantined) == (3, 300, 2)
    assert [(each.instances, each.size_bytes) for each in shown.series] == [(3, 300)]
    assert shown.summary == listed
