"""Which corrections the ledger knows to come to a destination that may have what they correct."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from hilum import bus
from hilum.database import connect
from hilum.events import PlannedDelivery
from hilum.runtime.delivery.outcomes import PutOff
from hilum.runtime.delivery.queue import Queue
from hilum.settings import Settings
from hilum.sink import Settled
from processors.ledger import Ledger
from tests.processors.test_ledger import ENVELOPE, PACS, routed

pytestmark = pytest.mark.system

FIRST = routed(PACS)
CORRECTED = replace(
    routed(PlannedDelivery(delivery_id="corrected", destination="pacs", rules=("correction",)), receipt="receipt-2"),
    object=replace(FIRST.object, sha256="b" * 64),
    decision="corrected",
    cancels=("delivery-2",),
)
AGAIN = replace(
    CORRECTED,
    deliveries=(PlannedDelivery(delivery_id="again", destination="pacs", rules=("whole",)),),
    decision="deliver",
    revision=2,
    cancels=(),
)


def replaces(connection: psycopg.Connection, *events: Any) -> bool:
    """Whether the last delivery of these events is one that replaces what the destination may have."""
    for event in events:
        with connection.transaction():
            Ledger().apply(connection, [(event, ENVELOPE)])
    last = events[-1].deliveries[-1].delivery_id
    [(found,)] = connection.execute("SELECT replaces FROM delivery WHERE delivery_id = %s", (last,)).fetchall()
    return bool(found)


def work(dsn: str, *outcomes: Settled | PutOff) -> None:
    """A worker claims what there is and records these; without any it has it in its hands."""
    queue = Queue(dsn, "pacs", "w", bus.Writer(Settings(), "deliver"))
    queue.record(list(zip(queue.claim(8), outcomes, strict=False)))
    queue.close()


def test_a_correction_replaces_what_was_delivered(postgres: str) -> None:
    with connect(postgres) as connection:
        assert not replaces(connection, FIRST)
        work(postgres, Settled(state="delivered"))
        assert replaces(connection, CORRECTED)


def test_a_correction_may_replace_what_is_in_a_worker_s_hands_and_that_counts_as_an_attempt(postgres: str) -> None:
    with connect(postgres) as connection:
        replaces(connection, FIRST)
        work(postgres)
        assert replaces(connection, CORRECTED)
        assert connection.execute("SELECT state, attempts FROM delivery WHERE delivery_id = 'delivery-2'").fetchall() == [("cancelled", 1)]


def test_a_correction_may_replace_what_was_tried_without_an_answer(postgres: str) -> None:
    with connect(postgres) as connection:
        replaces(connection, FIRST)
        work(postgres, PutOff(after_s=0.0, comment="No answer."))
        assert replaces(connection, CORRECTED)


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "never tried"])
def test_a_correction_replaces_nothing_where_the_first_never_came(postgres: str, refused: bool) -> None:
    with connect(postgres) as connection:
        replaces(connection, FIRST)
        if refused:
            work(postgres, Settled(state="rejected"))
        assert not replaces(connection, CORRECTED)


def test_what_is_there_as_corrected_may_be_sent_once_more(postgres: str) -> None:
    with connect(postgres) as connection:
        replaces(connection, FIRST)
        work(postgres, Settled(state="delivered"))
        assert replaces(connection, CORRECTED, AGAIN)
        connection.execute("DELETE FROM delivery WHERE delivery_id = 'again'")
        work(postgres, Settled(state="delivered"))
        assert not replaces(connection, AGAIN)
