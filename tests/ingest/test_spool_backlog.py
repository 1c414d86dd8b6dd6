"""How far behind a spool is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from hilum.database import connect
from hilum.database.known import IndexedInstances
from hilum.settings import Postgres, Settings
from hilum.spool import Spool, received_at
from hilum.testing import Clock, eventually, spooled
from ingest.backlog import LATE, SETTLES, Backlog

LONG = LATE + timedelta(seconds=1)


def test_a_spool_that_is_emptied_as_it_fills_is_not_behind(tmp_path: Path) -> None:
    spool, clock = Spool(tmp_path / "spool"), Clock()
    backlog = Backlog(Settings(), spool, clock)
    assert backlog.oldest() is None

    clock.moment = received_at(spooled(spool))
    clock.forward(seconds=1)
    assert backlog.oldest() is None


def test_it_is_behind_since_its_oldest_object_and_for_a_moment_after_that_was_published(tmp_path: Path) -> None:
    spool, clock = Spool(tmp_path / "spool"), Clock()
    backlog = Backlog(Settings(), spool, clock)
    first, second = spooled(spool), spooled(spool)
    clock.moment = received_at(second) + LONG

    assert backlog.oldest() == received_at(first)
    spool.remove([first, second])
    assert backlog.oldest() == received_at(first)
    clock.moment += SETTLES + timedelta(seconds=1)
    assert backlog.oldest() is None


def test_nobody_waits_for_what_cannot_be_published(tmp_path: Path) -> None:
    spool, clock = Spool(tmp_path / "spool"), Clock()
    receipt = spooled(spool)
    clock.moment = received_at(receipt) + LONG

    assert Backlog(Settings(), spool, clock).oldest({receipt}) is None


@pytest.mark.system
def test_what_a_publisher_tells_is_what_route_is_told(postgres: str, tmp_path: Path) -> None:
    settings, spool = Settings(postgres=Postgres(dsn=postgres)), Spool(tmp_path / "spool")
    known = IndexedInstances(settings)
    assert known.unpublished() is None
    came = received_at(spooled(spool))

    with Backlog(settings, spool, Clock(came + LONG)).told(tuple[str, ...]):
        eventually(lambda: known.unpublished() == came, what="what is told")

    with connect(postgres) as connection:
        connection.execute("UPDATE spool_backlog SET seen_at = now() - interval '2 minutes'")
    assert known.unpublished() is None
