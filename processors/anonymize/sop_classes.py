"""SOP classes as a policy names them: by UID, or by their name or keyword in PS3.6 Table A-1."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from pydicom._uid_dict import UID_dictionary

from hilum.misfits import nearest
from processors.anonymize.types import types


@cache
def by_name() -> Mapping[str, tuple[str, ...]]:
    """UIDs of storage SOP classes by UID, name and keyword. A retired class may have the name of its successor: then the name is both."""
    found: dict[str, tuple[str, ...]] = {}
    for uid in types().classes:
        name, _, _, _, keyword = UID_dictionary.get(uid, ("", "", "", "", ""))
        for each in filter(None, (uid, name, keyword)):
            found[each] = (*found.get(each, ()), uid)
    return found


def name_of(uid: str) -> str:
    """The name of a SOP class, or its UID where the pinned dictionary does not have it."""
    return UID_dictionary[uid][0] if uid in UID_dictionary else uid


def meant(name: str, others: tuple[str, ...] = ()) -> str:
    """The SOP class, or one of `others`, that is probably meant by what is no name of one; `""` if none is near."""
    text = name.strip().casefold()
    beginning = [each for each in by_name() if text and each.casefold().startswith(f"{text} ")]
    near = nearest(text, {*by_name(), *others}, cutoff=0.7)
    return near if near.casefold() == text else next(iter(sorted(beginning, key=len)), near)
