"""Whatever the order in which orders and studies come, that of each of them kept: what is told last is the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.events import MatchRequested, OrderChanged
from tests.processors.match.room import Room, a_study, an_order

ACCESSIONS = ("A1", "A2", None)
PATIENTS = ("4711", "9999")
UIDS = ("1.2.3", "1.2.4")


@st.composite
def orders_of(draw: st.DrawFn, number: int) -> list[OrderChanged]:
    return [
        an_order(
            str(number),
            accession=draw(st.sampled_from(ACCESSIONS)),
            issuer=draw(st.sampled_from(("", "NORTH"))),
            uid=draw(st.sampled_from((*UIDS, ""))),
            ids=(draw(st.sampled_from(PATIENTS)),),
            status=draw(st.sampled_from(("scheduled", "cancelled", "completed"))),
            modality=draw(st.sampled_from(("CT", "MR"))),
            version=version,
            change=draw(st.sampled_from(("changed", "changed", "superseded"))),
        )
        for version in range(1, draw(st.integers(1, 3)) + 1)
    ]


@st.composite
def studies_of(draw: st.DrawFn, uid: str) -> list[MatchRequested]:
    return [
        a_study(
            uid,
            accession=draw(st.sampled_from(("A1", "A2", ""))),
            patient=draw(st.sampled_from((*PATIENTS, ""))),
            modality=draw(st.sampled_from(("CT", "MR", "SR"))),
            instances=draw(st.sampled_from((1, 1, 1, 0))),
            replaces=draw(st.booleans()),
        )
        for _ in range(draw(st.integers(0, 2)))
    ]


QUEUES = st.tuples(orders_of(1), orders_of(2), orders_of(3), *(studies_of(uid) for uid in UIDS))


@settings(max_examples=100, deadline=None)
@given(QUEUES, st.data())
def test_arrival_in_another_order_ends_the_same(queues: tuple[list[OrderChanged | MatchRequested], ...], data: st.DataObject) -> None:
    straight, shuffled = Room(), Room()
    for queue in queues:
        straight.give(*queue)
    left = [list(queue) for queue in queues if queue]
    while left:
        queue = data.draw(st.sampled_from(left))
        shuffled.give(queue.pop(0))
        left = [each for each in left if each]
    for room in (straight, shuffled):
        room.pass_time(hours=200)

    assert shuffled.outcomes() == straight.outcomes()
    assert {subject: event.candidates for subject, event in ((e.subject, e) for e in shuffled.said)} == {
        subject: event.candidates for subject, event in ((e.subject, e) for e in straight.said)
    }
