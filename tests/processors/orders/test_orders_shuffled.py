"""Whatever the order in which messages of several senders come, that of each sender kept: orders and patients are the same in the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hilum.events import Event, OrderChanged, PatientChanged
from hilum.order_events import Patient
from tests.processors.orders.ris import Site, adt, order_message

PATIENTS = ("A", "B", "C")
MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.just("adt"), st.sampled_from(PATIENTS), st.sampled_from(("Meier^Anna", "Maier^Anna", "", '""'))),
        st.tuples(st.just("merge"), st.sampled_from(PATIENTS), st.sampled_from(PATIENTS)),
        st.tuples(st.just("order"), st.sampled_from(("P1", "P2")), st.sampled_from(PATIENTS), st.sampled_from(("NW", "XO", "CA", "SC"))),
    ),
    max_size=5,
)


def text_of(message: tuple[str, ...], at: str) -> str:
    if message[0] == "adt":
        return adt("A08", patient=message[1], name=message[2], at=at)
    if message[0] == "merge":
        return adt("A40", patient=message[1], prior=message[2], at=at)
    _, placer, patient, control = message
    return order_message(
        placer=placer, filler=placer.replace("P", "F"), accession=placer, patient=patient, control=control, at=at, name="", status=""
    )


def sorted_of(patient: Patient) -> Patient:
    return replace(patient, former_ids=tuple(sorted(patient.former_ids, key=lambda each: each.value)))


def last_told(said: list[Event]) -> dict[str, Any]:
    """What was told of each order and patient last, without when and on what ground."""
    found: dict[str, Any] = {}
    for event in said:
        if isinstance(event, OrderChanged):
            found[event.order.order_id] = replace(event.order, version=0, patient=sorted_of(event.order.patient))
        elif isinstance(event, PatientChanged):
            found[event.patient.key] = (sorted_of(event.patient), event.merged_into)
    return found


@settings(max_examples=100, deadline=None)
@given(st.lists(MESSAGES, min_size=2, max_size=3), st.data())
def test_arrival_in_another_order_ends_the_same(senders: list[list[tuple[str, ...]]], data: st.DataObject) -> None:
    began = datetime(2026, 11, 26, 7, tzinfo=UTC)
    queues = {}
    for number, messages in enumerate(senders):
        moments = sorted(data.draw(st.lists(st.integers(0, 20), min_size=len(messages), max_size=len(messages))))
        queues[f"s{number}"] = [
            text_of(message, f"{began + timedelta(minutes=minute, seconds=number):%Y%m%d%H%M%S}+0000")
            for message, minute in zip(messages, moments, strict=True)
        ]
    total = sum(len(queue) for queue in queues.values())
    straight, shuffled = Site(), Site()
    for name, queue in queues.items():
        for text in queue:
            straight.take(text, name)
    left = {name: list(queue) for name, queue in queues.items()}
    for _ in range(total):
        name = data.draw(st.sampled_from(sorted(name for name, queue in left.items() if queue)))
        shuffled.take(left[name].pop(0), name)

    assert last_told(shuffled.said) == last_told(straight.said)
