from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from hilum.hl7.message import parse
from hilum.hl7.values import code_of, identifier_cx, moment_of, person_name, physician_name
from hilum.order_events import Code, Identifier

VIENNA = ZoneInfo("Europe/Vienna")


def field(text: str) -> list[list[list[str]]]:
    segment = parse(f"MSH|^~\\&|\rZZZ|{text}").first("ZZZ")
    assert segment is not None
    return segment.field(1)


@pytest.mark.parametrize(
    ("xpn", "pn"),
    [
        ("Meier^Anna^Maria^Jr^Dr", "Meier^Anna^Maria^Dr^Jr"),  # suffix and prefix change places
        ("Meier", "Meier"),
        ("von Meier&von&Meier^Anna", "von Meier^Anna"),
        ("Wong^Lee^^^^^L^A~王^李^^^^^L^I", "Wong^Lee=王^李"),
        ("Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("Maiden^Anna^^^^^M~Meier^Anna^^^^^L", "Meier^Anna"),
        ("O=Neill^A\\S\\B", "O Neill^A B"),
    ],
)
def test_a_patients_name_has_the_components_and_groups_of_dicom(xpn: str, pn: str) -> None:
    assert person_name(field(xpn)) == pn


@pytest.mark.parametrize(
    ("xcn", "pn"),
    [("1234^Order^Otto^^^Dr", "Order^Otto^^Dr"), ("1234", ""), ("Otto Order", "Otto Order"), ("^Order^Otto", "Order^Otto")],
)
def test_a_physicians_identifier_is_no_part_of_the_name(xcn: str, pn: str) -> None:
    assert physician_name(field(xcn)) == pn


def test_an_identifier_has_its_own_issuer_before_the_senders() -> None:
    assert identifier_cx(field("4711^^^NORTH&1.2.3&ISO^MR")[0], "DEFAULT") == Identifier(
        value="4711", issuer="NORTH", universal_id="1.2.3", universal_id_type="ISO", type="MR"
    )
    assert identifier_cx(field("4711")[0], "DEFAULT") == Identifier(value="4711", issuer="DEFAULT")
    assert identifier_cx(field("4711^^^&1.2.3&ISO")[0], "DEFAULT") == Identifier(
        value="4711", universal_id="1.2.3", universal_id_type="ISO"
    )


def test_the_alternate_triplet_is_a_code_of_its_own() -> None:
    assert code_of(field("A^a^L^B^b^M")[0], 4) == Code(value="B", meaning="b", scheme="M")


@pytest.mark.parametrize(
    ("text", "date", "time", "at"),
    [
        ("20260702143000", "20260702", "143000", datetime(2026, 7, 2, 12, 30, tzinfo=UTC)),
        ("202611021430", "20261102", "143000", datetime(2026, 11, 2, 13, 30, tzinfo=UTC)),
        ("20261102", "20261102", "", datetime(2026, 11, 1, 23, tzinfo=UTC)),
        ("20261102143000+0000", "20261102", "153000", datetime(2026, 11, 2, 14, 30, tzinfo=UTC)),
        ("20261102143000.1234-0500", "20261102", "203000", datetime(2026, 11, 2, 19, 30, 0, 123400, tzinfo=UTC)),
    ],
)
def test_a_time_is_by_the_clocks_of_the_place(text: str, date: str, time: str, at: datetime) -> None:
    assert moment_of(text, VIENNA) == (date, time, at)


@pytest.mark.parametrize("text", ["", "yesterday", "20261399", "2026113012345", "20260231"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert moment_of(text, VIENNA) is None
