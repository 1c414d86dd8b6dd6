from __future__ import annotations

import pytest

from hilum.words import counted


@pytest.mark.parametrize(("number", "said"), [(0, "0 entries"), (1, "1 entry"), (2, "2 entries")])
def test_one_thing_is_singular(number: int, said: str) -> None:
    assert counted(number, "entry", "entries") == said


def test_most_plurals_need_not_be_said() -> None:
    assert counted(2, "file") == "2 files"
