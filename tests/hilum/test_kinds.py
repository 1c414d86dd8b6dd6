from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from hilum.kinds import kind_in_words


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (str, "text"),
        (Path, "path"),
        (tuple[str, ...], "list of text"),
        (Literal["a", "b"], '"a" or "b"'),
        (int | None, "whole number"),
        (Annotated[int, Meta(ge=0, le=65535)], "whole number from 0 to 65,535"),
        (Annotated[int, Meta(ge=1)], "whole number at least 1"),
        (Annotated[float, Meta(gt=0, le=86_400)], "number above 0, at most 86,400"),
        (Annotated[str, Meta(min_length=1)], "text not empty"),
        (Annotated[str, Meta(pattern="x", description="an x")], "text: an x"),
    ],
)
def test_a_type_is_said_with_its_bounds(hint: Any, words: str) -> None:
    assert kind_in_words(hint) == words
