"""Where the last word decides, the broker drops what it is sent a second time: a late repetition undoes no later word."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hilum import bus
from hilum.applying import publish
from hilum.candidate import Candidate
from hilum.desired import change, destination
from hilum.events import ConfigApplied, ResourceWanted

if TYPE_CHECKING:
    from tests.conftest import Log

pytestmark = pytest.mark.system

#: Where a record batch of version 2 has its producer's id, in bytes.
_PRODUCER_ID = 43


def producer_id(servers: Path, topic: str) -> int:
    """The id by which the broker knows repetitions of the first batch of a topic, -1 without; no client tells it."""
    [segment] = (servers / "kafka").rglob(f"{topic}-0/*.log")
    (found,) = struct.unpack_from(">q", segment.read_bytes(), _PRODUCER_ID)
    return int(found)


def test_a_configuration_is_published_so_that_the_broker_drops_its_repetition(log: Log, servers_folder: Path) -> None:
    log.make()
    publish(log.settings, Candidate(destinations={"pacs": {"type": "archive"}}, rules=()))

    assert producer_id(servers_folder, bus.topic_of(log.settings, ConfigApplied)) >= 0


def test_what_is_wanted_is_said_so_that_the_broker_drops_its_repetition(log: Log, servers_folder: Path) -> None:
    log.make()
    change(log.settings, destination("pacs"), paused=True)

    assert producer_id(servers_folder, bus.topic_of(log.settings, ResourceWanted)) >= 0
