from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hilum.errors import Misconfigured
from hilum.hl7.envelope import Envelope
from hilum.hl7_sections import Hl7
from ingest.hl7.senders import Senders


def senders(**hl7: Any) -> Senders:
    return Senders(msgspec.convert(hl7, Hl7))


def named(found: Senders, peer: str = "192.0.2.7", application: str = "RIS", facility: str = "NORTH") -> str | None:
    sender = found.find(peer, Envelope(sending_application=application, sending_facility=facility))
    return None if sender is None else sender[0]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "ris"),
        ({"addresses": ["192.0.2.0/24"]}, "ris"),
        ({"addresses": ["192.0.3.0/24"]}, ""),
        ({"applications": ["RIS"], "facilities": ["NORTH", "SOUTH"]}, "ris"),
        ({"applications": ["PAS"]}, ""),
        ({"facilities": ["SOUTH"]}, ""),
    ],
)
def test_a_sender_is_known_by_all_that_its_settings_say(settings: dict[str, Any], name: str) -> None:
    assert named(senders(senders={"ris": settings})) == name


def test_the_first_that_fits_is_meant() -> None:
    found = senders(senders={"a": {"applications": ["PAS"]}, "b": {"applications": ["RIS"]}, "c": {}})

    assert (named(found), named(found, application="PAS"), named(found, application="x")) == ("b", "a", "c")


def test_unknown_senders_may_be_refused_already_when_they_connect() -> None:
    found = senders(unknown_senders="refuse", senders={"ris": {"addresses": ["192.0.2.7"]}})

    assert (named(found), named(found, peer="192.0.2.8")) == ("ris", None)
    assert (found.may_connect("192.0.2.7"), found.may_connect("192.0.2.8")) == (True, False)


def test_an_address_of_version_4_within_version_6_is_the_same() -> None:
    assert named(senders(senders={"ris": {"addresses": ["192.0.2.7"]}}), peer="::ffff:192.0.2.7") == "ris"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"senders": {"ris": {"addresses": ["nowhere"]}}}, "is no address and no network"),
        ({"senders": {"ris": {"character_set": "KLINGON"}}}, "is no character set"),
        ({"character_set": "UNICODE UTF-9"}, "Did you mean 'UNICODE UTF-8'"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        senders(**settings)
