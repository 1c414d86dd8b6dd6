"""Numbers and nouns, as people say them."""

from __future__ import annotations


def counted(number: int, singular: str, plural: str = "") -> str:
    """`1 file`, `2 files`; `plural` where it is not made by an s."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
