from __future__ import annotations

import pytest

from processors.match.compare import same_id, same_modality, same_name


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Meier^Anna", "MEIER^ANNA"),
        ("Müller^Jörg", "MUELLER^JOERG"),
        ("Müller^Jörg", "Muller^Jorg"),
        ("Groß^Uwe", "GROSS^UWE"),
        ("Dvořák^Antonín", "Dvorak^Antonin"),
        ("O'Neill^Sean", "ONEILL^SEAN"),
        ("Meier-Huber^Anna", "Meier Huber^Anna"),
        ("Meier^Anna^Maria^Dr", "Meier^Anna Maria"),
        ("Meier^Anna", "Meier^Anna^Maria^^"),
        ("Meier", "Meier^Anna"),
        ("", "Meier^Anna"),
        ("Wang^XiaoDong=王^小東", "=王^小東"),
        ("Yamada^Tarou=山田^太郎", "YAMADA^TAROU"),
        ("Yamada^Tarou", "=山田^太郎"),  # nothing to compare
    ],
)
def test_names_of_one_person(first: str, second: str) -> None:
    assert same_name(first, second)
    assert same_name(second, first)


@pytest.mark.parametrize(
    ("first", "second"),
    [("Meier^Anna", "Maier^Anna"), ("Meier^Anna", "Meier^Berta"), ("Anna^Meier", "Meier^Anna"), ("=王^小東", "=李^小東")],
)
def test_names_of_two(first: str, second: str) -> None:
    assert not same_name(first, second)


def test_an_issuer_that_nobody_says_is_any() -> None:
    assert same_id(("1", ""), ("1", "NORTH"))
    assert not same_id(("1", "SOUTH"), ("1", "NORTH"))


@pytest.mark.parametrize(
    ("ordered", "made", "same"),
    [
        (("CT",), ("CT", "SR"), True),
        (("DX",), ("CR",), True),
        (("PT",), ("CT", "PT"), True),
        (("CT",), ("SR",), True),  # nothing that was ordered
        (("CT",), ("MR",), False),
        ((), ("MR",), True),
    ],
)
def test_modalities_that_were_ordered_and_made(ordered: tuple[str, ...], made: tuple[str, ...], same: bool) -> None:
    assert same_modality(ordered, made) is same
