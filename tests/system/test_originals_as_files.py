"""The way of an instance where the originals are files in a folder."""

from pathlib import Path

import pytest
from pydicom import dcmread

from bench.peers import dcmsend
from bench.running import running_hilum
from bench.wire import RawReceiver
from hilum.synthetic import write_ct_study
from hilum.testing import eventually

pytestmark = pytest.mark.system


def test_originals_are_files_and_none_is_lost_when_their_publisher_is_killed(tmp_path: Path) -> None:
    study, originals = write_ct_study(tmp_path / "ct", 40), tmp_path / "originals"
    pacs = RawReceiver()
    with running_hilum(tmp_path, pacs.port, f'[s3]\nfolder = "{originals}"\n', images_only=True) as hilum:
        dcmsend(study[:20], hilum.port, "HILUM")
        eventually(lambda: any(originals.rglob("*.dcm")), timeout_s=60)
        hilum.kill("publish")
        dcmsend(study[20:], hilum.port, "HILUM")
        account = hilum.come_to_rest()
        verified = hilum.command("reconcile", "--verify", "--json")

    pacs.close()
    assert (account.received, account.delivered, account.unaccounted) == (40, 80, 0)
    assert len(pacs.received) == 40
    assert {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in originals.rglob("*.dcm")} == set(pacs.received)
    assert verified.returncode == 0
