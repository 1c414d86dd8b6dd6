"""The fault test at the suite's size; `./dev bench faults` runs it with 30,000 objects."""

from pathlib import Path

import pytest

from bench.faults import run
from bench.running import running_hilum
from bench.wire import RawReceiver

pytestmark = pytest.mark.system


def test_nothing_is_lost_and_each_delivery_settles_once_while_every_part_is_killed(tmp_path: Path) -> None:
    pacs = RawReceiver()
    with running_hilum(tmp_path, pacs.port, images_only=True) as hilum:
        outcome = run(hilum, pacs, 1500, tmp_path, within_s=240)
    pacs.close()

    account = outcome.account
    assert (account.unaccounted, account.undecided, account.pending) == (0, 0, 0)
    assert account.expected_deliveries == 2 * 1500 == account.delivered
    assert set(outcome.settled.values()) == {1}
    assert len(outcome.settled) == account.expected_deliveries
    assert len(outcome.at_the_pacs) == 1500
    assert account.received >= 1500
