"""Attributes that a class cannot be without and that have no value that says nothing: codes, numbers and samples.

Text, names, dates and UIDs that must be there get another value. A number in a number's place would be taken for a measurement, and a code
in a code's for what it stands for: where a policy wants these gone, it makes no object.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from processors.anonymize.table import row_of, vr_of
from processors.anonymize.types import types
from processors.anonymize.vrs import FREE, TIMES

_REPLACEABLE = FREE | TIMES | {"AE", "AS", "PN", "SQ", "UI", "UR"}
#: Encapsulated PDF, CDA, STL, OBJ and MTL: what is in them cannot be looked at here (PS3.15 E.1.1 has the attribute replaced).
DOCUMENTS = "1.2.840.10008.5.1.4.1.1.104."
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NAMED = 5


def has_no_dummy(tag: int) -> bool:
    """Whether no value can take the place of an attribute's; what the profile itself replaces has one."""
    row = row_of(tag)
    return vr_of(tag) not in _REPLACEABLE and row is not None and row.basic == "K"


@lru_cache(maxsize=1024)
def classes_that_need(path: tuple[int, ...]) -> tuple[str, ...]:
    """SOP classes in whose IOD an attribute is of type 1 without condition, at its place from the top, and has no dummy."""
    return tuple(sorted(_classes(path), key=lambda uid: (not uid.startswith(_STORAGE), len(uid), uid))) if has_no_dummy(path[-1]) else ()


def _classes(path: tuple[int, ...]) -> Iterator[str]:
    known = types()
    for uid, place in known.classes.items():
        for tag in path[:-1]:
            place = known.inside(place, tag)
        if known.type_of(place, path[-1]) == "1" and not uid.startswith(DOCUMENTS):
            yield uid


def in_words(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
