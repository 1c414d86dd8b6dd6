"""Records of associations, on their way from the receiver to Kafka."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hilum.events import AssociationEnded
from hilum.records import MOST_WAITING, Records


def test_those_that_nobody_publishes_are_kept_up_to_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilum.records.MOST_WAITING", 300)
    kept = Records(tmp_path)
    now = datetime.now(UTC)
    for number in range(600):
        at = now + timedelta(milliseconds=number)
        kept.put(
            AssociationEnded(association=f"{number:03}", calling_aet="A", called_aet="B", peer="p", ended="", opened_at=now, ended_at=at)
        )

    assert 300 <= len(kept.waiting()) < 600
    assert kept.waiting()[-1].endswith("-599.json")
    assert MOST_WAITING >= 1000


def test_a_file_that_is_no_record_is_removed(tmp_path: Path) -> None:
    kept = Records(tmp_path)
    (tmp_path / "1-x.json").write_text("{")

    assert kept.read("1-x.json") is None
    assert kept.waiting() == []
