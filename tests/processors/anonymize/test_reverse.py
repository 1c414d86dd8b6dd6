"""Back from a pseudonym: sealed, bound, and told before it is answered."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hilum.anonymizing import Sealed
from hilum.deid_sections import Deid
from hilum.errors import HilumError, Misconfigured, NotFound, Refused
from processors.anonymize.keys import Key, key_of, make_key
from processors.anonymize.reverse import LookUp, Original, look_up, seal, table_key

KEY, OTHER = key_of(bytes(range(32))), key_of(bytes(range(1, 33)))


def a_row() -> Sealed:
    return seal(KEY, "study-a", "patient", "DQBD", "4711 Ü", "NORTH")


def asked(
    *rows: Sealed, pseudonym: str = "DQBD", who: str = "rita", why: str = "incidental finding", key: Key = KEY
) -> tuple[list[Original], list[LookUp]]:
    told: list[LookUp] = []
    found = look_up(lambda: rows, lambda _: key, "study-a", pseudonym, who=who, why=why, audit=told.append)
    return found, told


def test_a_row_leads_back_and_the_look_up_is_told() -> None:
    found, told = asked(a_row())

    assert found == [Original(kind="patient", value="4711 Ü", issuer="NORTH")]
    assert told == [LookUp(who="rita", why="incidental finding", project="study-a", pseudonym="DQBD")]


def test_no_row_shows_its_original_nor_do_equal_ones_look_equal() -> None:
    assert b"4711" not in a_row().sealed
    assert a_row().sealed != a_row().sealed


def test_a_look_up_that_finds_nothing_is_told_as_well() -> None:
    told: list[LookUp] = []
    with pytest.raises(NotFound):
        look_up(list, lambda _: KEY, "a", "X", who="rita", why="w", audit=told.append)
    assert len(told) == 1


def test_nothing_is_read_that_cannot_be_told() -> None:
    read: list[bool] = []

    def broken(_: LookUp) -> None:
        raise OSError("full")

    def rows() -> list[Sealed]:
        read.append(True)
        return [a_row()]

    with pytest.raises(OSError, match="full"):
        look_up(rows, lambda _: KEY, "study-a", "DQBD", who="rita", why="w", audit=broken)
    assert not read


@pytest.mark.parametrize(("who", "why"), [("", "w"), ("rita", " ")])
def test_who_asks_says_who_and_why(who: str, why: str) -> None:
    with pytest.raises(Refused):
        asked(a_row(), who=who, why=why)


def test_a_row_opens_for_its_own_pseudonym_and_key_only() -> None:
    for row, key in ((replace(a_row(), pseudonym="OTHER"), KEY), (a_row(), OTHER), (replace(a_row(), sealed=b"x"), KEY)):
        with pytest.raises(HilumError, match="changed"):
            asked(row, pseudonym=row.pseudonym, key=key)


def test_the_key_of_the_table_is_not_that_of_the_pseudonyms(tmp_path: Path) -> None:
    file = tmp_path / "key"
    make_key(file)

    with pytest.raises(Misconfigured, match="pseudonyms"):
        table_key(Deid(key_path=str(file), reverse_key_path=str(file)))
    with pytest.raises(Misconfigured, match="reverse_key_path"):
        table_key(Deid(key_path=str(file)))
