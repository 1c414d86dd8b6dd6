"""What a peer has, asked by storage commitment."""

from __future__ import annotations

import pytest

from hilum.errors import TryAgain
from hilum.settings import Settings
from hilum.sink import Expected
from tests.committing import committing, sink_for
from tests.ingest.dicom.running import Running
from tests.peers import CT


def expected(*uids: str) -> list[Expected]:
    return [Expected(series_instance_uid="2.25.2", sop_class_uid=CT, sop_instance_uid=uid) for uid in uids]


def test_what_a_peer_commits_anew_is_there_and_what_it_does_not_know_is_missing(hilum: Settings) -> None:
    with committing(same=True, failing={"2.25.11": 0x0112}) as there:
        found = sink_for(there.port, commit_report="same", verify_by="commitment").holdings(hilum, "2.25.1", expected("2.25.10", "2.25.11"))

    assert found == {"2.25.10"}
    assert list((hilum.spool_dir / "commitments" / "sent").iterdir()) == []


def test_a_peer_that_reports_on_a_new_association_is_waited_for(hilum: Settings, receiver: Running) -> None:
    with committing(report_to=receiver.receiver.port) as there:
        assert sink_for(there.port, verify_by="commitment").holdings(hilum, "2.25.1", expected("2.25.10")) == {"2.25.10"}


@pytest.mark.parametrize(
    ("how", "more", "words"),
    [
        ({}, {"commit_within_s": 0.2}, r"did not report within 0\.2 s what it commits"),
        ({"same": True, "failing": {"2.25.10": 0x0110}}, {"commit_report": "same"}, "does not say of 1 objects whether it has them"),
        ({"status": 0x0213}, {}, "answered 0x0213"),
    ],
    ids=["never", "it cannot tell", "refused"],
)
def test_a_peer_that_does_not_say_is_not_taken_to_lack_anything(
    hilum: Settings, how: dict[str, object], more: dict[str, object], words: str
) -> None:
    with committing(**how) as there, pytest.raises(TryAgain, match=words):
        sink_for(there.port, verify_by="commitment", **more).holdings(hilum, "2.25.1", expected("2.25.10"))
