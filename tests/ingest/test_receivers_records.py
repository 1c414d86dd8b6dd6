from __future__ import annotations

import hilum.records
import ingest.records


def test_the_receivers_leave_the_records_that_all_ways_in_leave() -> None:
    assert ingest.records.Records is hilum.records.Records
