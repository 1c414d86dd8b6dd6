from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
import pytest

from hilum.events import InstanceAccepted, InstanceReceived, InstanceRouted
from hilum.runtime.processor import Memory, Processor, Wiring, processor, said
from hilum.testing import an_instance


class Row(msgspec.Struct):
    count: int = 0


def test_the_signature_of_a_function_is_its_wiring() -> None:
    @processor
    def validate(event: InstanceReceived) -> InstanceAccepted | None: ...

    wiring = Wiring.of(validate)

    assert (wiring.name, wiring.inputs, wiring.outputs, wiring.state) == ("validate", (InstanceReceived,), (InstanceAccepted,), None)


def test_the_signature_of_handle_is_the_wiring_of_a_class() -> None:
    class Everything:
        name = "everything"
        State = Row

        def prepare(self, events: Sequence[InstanceReceived | InstanceRouted]) -> None: ...

        def work(self, event: InstanceReceived | InstanceRouted) -> bytes:
            return b""

        def handle(self, event: InstanceReceived | InstanceRouted, memory: Memory[Row], work: bytes) -> Iterable[InstanceAccepted]:
            return ()

        def due(self, key: str, memory: Memory[Row], now: datetime) -> Iterable[InstanceAccepted | InstanceRouted]:
            return ()

    wiring = Wiring.of(Everything())

    assert wiring.inputs == (InstanceReceived, InstanceRouted)
    assert wiring.outputs == (InstanceAccepted, InstanceRouted)
    assert (wiring.state, wiring.takes_work) == (Row, True)
    assert None not in (wiring.prepare, wiring.work, wiring.due)


class WithoutHints:
    name = "silent"

    def handle(self, event): ...  # type: ignore[no-untyped-def]  # that is what the test is about


class MemoryWithoutState:
    name = "forgetful"

    def handle(self, event: InstanceReceived, memory: Memory[Row]) -> None: ...


class DueWithoutState:
    name = "timeless"

    def handle(self, event: InstanceReceived) -> None: ...

    def due(self, key: str, memory: Memory[Row], now: datetime) -> None: ...


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (WithoutHints(), "silent: `handle` must say in type hints"),
        (MemoryWithoutState(), r"forgetful: `handle` takes \(event, memory\), but its class asks for \(event\)"),
        (DueWithoutState(), "timeless: `due` needs a `State`"),
    ],
)
def test_a_processor_that_cannot_be_wired_is_refused_in_words(what: Processor, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Wiring.of(what)


def test_a_handler_may_give_one_event_several_or_none() -> None:
    event = an_instance()

    assert [list(said(result)) for result in (None, event, [event, event])] == [[], [event], [event, event]]
