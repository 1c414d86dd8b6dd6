"""A correction at a destination whose Success is no proof that it replaces."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hilum.database import connect
from hilum.database.deliveries import Selection
from hilum.deliveries import retry
from hilum.settings import Postgres, Settings
from hilum.testing import MemoryStore, eventually
from tests.ledger import DELIVERED, Scripted, enter, rows, some, states, working

pytestmark = pytest.mark.system


@dataclass
class Correction:
    dsn: str
    store: MemoryStore

    def entered(self) -> None:
        """One delivery replaces what the destination may have; another does not."""
        enter(self.dsn, *some(self.store, 2))
        with connect(self.dsn) as connection:
            connection.execute("UPDATE delivery SET replaces = true WHERE sop_instance_uid = '2.25.1.0'")


class Asks(Scripted, frozen=True, kw_only=True):
    def asks_before_replacing(self, settings: Settings) -> bool:
        return True


@pytest.fixture
def correction(postgres: str) -> Correction:
    found = Correction(postgres, MemoryStore())
    found.entered()
    return found


def test_a_correction_waits_for_a_person_without_having_been_sent_and_the_others_go_on(correction: Correction) -> None:
    sink = Asks(answer=lambda *_: DELIVERED)

    with working(correction.dsn, correction.store, sink):
        eventually(lambda: states(correction.dsn) == {"parked", "delivered"})

    assert sink.seen == ["2.25.1.1"]
    parked = rows(correction.dsn)["2.25.1.0"]
    assert (parked["state"], parked["attempts"]) == ("parked", 0)
    assert "may answer Success and keep the first" in parked["comment"]


def test_it_is_sent_once_a_person_has_looked(correction: Correction) -> None:
    settings = Settings(postgres=Postgres(dsn=correction.dsn))

    with working(correction.dsn, correction.store, Asks(answer=lambda *_: DELIVERED)):
        eventually(lambda: states(correction.dsn) == {"parked", "delivered"})
        assert retry(settings, Selection(states=("parked",))) == 1
        eventually(lambda: states(correction.dsn) == {"delivered"})


def test_having_pending_ones_tried_at_once_is_no_look_at_them(correction: Correction) -> None:
    with connect(correction.dsn) as connection:
        connection.execute("UPDATE delivery SET not_before = now() + interval '1 hour'")
    assert retry(Settings(postgres=Postgres(dsn=correction.dsn)), Selection()) == 2

    with working(correction.dsn, correction.store, Asks(answer=lambda *_: DELIVERED)):
        eventually(lambda: states(correction.dsn) == {"parked", "delivered"})


def test_a_destination_that_replaces_gets_it_at_once(correction: Correction) -> None:
    with working(correction.dsn, correction.store, Scripted(answer=lambda *_: DELIVERED)):
        eventually(lambda: states(correction.dsn) == {"delivered"})
