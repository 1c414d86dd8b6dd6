"""A step that fails, or finds something, lets nothing out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from hilum.anonymizing import NotAnonymized, SurvivorOf
from hilum.errors import HilumError, Misconfigured
from hilum.order_events import Identifier, Patient
from processors.anonymize.delivering import Outgoing
from processors.anonymize.policy import policy
from processors.anonymize.verify import Hit
from tests.processors.anonymize.objects import KEY, part10
from tests.processors.anonymize.test_pixels import an_image


def stopped(survivor_of: SurvivorOf | None = None, **steps: Any) -> HilumError:
    with pytest.raises(HilumError) as stop:
        Outgoing(policy("research"), KEY, **steps).made(part10(an_image(PatientName="Vandermeulen^Josefine")), survivor_of=survivor_of)
    return stop.value


def fails(*_: object, **__: object) -> Any:
    raise RuntimeError("Vandermeulen")


def test_what_the_second_look_finds_does_not_leave() -> None:
    held = stopped(looks=lambda *_: (Hit("(0008,1030)", "name"),))

    assert isinstance(held, NotAnonymized)
    assert held.reason == "second-look"
    assert "name at (0008,1030)" in held.sentence


def test_the_second_look_is_told_of_the_surviving_patient() -> None:
    asked: list[object] = []
    survivor = Patient(key="k", ids=(Identifier(value="P7777777", issuer="NORTH"),), name="Other^Surviving")

    def looks(_original: object, _output: object, _scope: object, also: Sequence[Any]) -> tuple[Hit, ...]:
        asked.extend(also)
        return ()

    Outgoing(policy("research"), KEY, looks=looks).made(part10(an_image()), survivor_of=lambda _ids: survivor)

    assert "P7777777" in str(asked)


@pytest.mark.parametrize("step", [{"looks": fails}, {"makes": fails}, {"survivor_of": fails}], ids=lambda step: next(iter(step)))
def test_nothing_leaves_when_a_step_fails(step: dict[str, Any]) -> None:
    held = stopped(**step)

    assert isinstance(held, NotAnonymized)
    assert held.reason == "anonymizer-failed"
    assert "Vandermeulen" not in str(held)


def test_what_this_machine_lacks_is_the_destinations_trouble_and_not_the_objects() -> None:
    def lacks(*_: object, **__: object) -> Any:
        raise Misconfigured("extra-missing", "The extra `ocr` is not installed.", fix="Install it.")

    assert isinstance(stopped(makes=lacks), Misconfigured)
