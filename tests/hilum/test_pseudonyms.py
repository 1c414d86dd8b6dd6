from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hilum.errors import Misconfigured
from hilum.order_sections import Orders
from hilum.pseudonyms import Pseudonyms, pseudonyms
from hilum.settings import Settings


def test_equal_values_have_equal_names_and_kinds_are_apart() -> None:
    names = Pseudonyms(b"a secret")

    assert names.of("patient", "NORTH", "4711") == names.of("patient", "NORTH", "4711")
    assert len({names.of("patient", "NORTH", "4711"), names.of("placer", "NORTH", "4711"), names.of("patient", "NORTH4", "711")}) == 3


def test_another_secret_gives_other_names() -> None:
    assert Pseudonyms(b"a").of("patient", "", "1") != Pseudonyms(b"b").of("patient", "", "1")


def test_the_secret_is_made_once_for_its_owner_only_whoever_asks_first(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path / "data"))
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: pseudonyms(settings).of("patient", "", "1"), range(8)))

    file = tmp_path / "data" / "site-secret"
    assert len(found) == 1
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["site-secret"]


def test_a_secret_of_ones_own_must_be_there_and_long_enough(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    settings = Settings(orders=Orders(secret=str(file)))
    with pytest.raises(Misconfigured) as missing:
        pseudonyms(settings)
    file.write_text("short")
    with pytest.raises(Misconfigured) as short:
        pseudonyms(settings)

    assert (missing.value.reason, short.value.reason) == ("secret-missing", "secret-short")
