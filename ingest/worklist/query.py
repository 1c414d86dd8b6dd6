"""A worklist query: which steps match its keys, and what of them it wants to be told (PS3.4 K.2.2, K.4.1, K.6.1.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from hilum.dicom.dataset import read_header
from hilum.dicom.writing import SPECIFIC_CHARACTER_SET

from .attributes import START_DATE, START_TIME, WORKLIST, Table
from .matching import DAY_END, BadKey, is_range, matcher, moment_of, read_dates, read_times
from .packed import Item, as_json

Test = Callable[[Item], bool]


class BadQuery(ValueError):
    """The identifier is none that can be answered (A900H). The text names attributes, never a value."""


class Query(Struct, frozen=True):
    """What a C-FIND asks for."""

    tests: tuple[Test, ...]
    wanted: Mapping[str, Any]
    #: Whether it has keys that Hilum does not know: each answer then says so (FF01H).
    has_unsupported: bool
    #: The values of its (0008,0005).
    character_set: tuple[str, ...]

    def matches(self, item: Item) -> bool:
        """Whether a step is among what is asked for."""
        return all(test(item) for test in self.tests)

    def answer(self, item: Item) -> dict[str, Any]:
        """What the query wants of a step: each key that Hilum knows, also without a value (K.2.2.1.2)."""
        return _select(self.wanted, WORKLIST, item)


def read_query(data_set: bytes, transfer_syntax_uid: str) -> Query:
    """Read the identifier of a C-FIND. Raises `BadQuery`."""
    header = read_header(data_set, transfer_syntax_uid, full=True)
    if header.fault:
        raise BadQuery("the identifier cannot be parsed")
    keys = {tag: element for tag, element in header.json.items() if tag != SPECIFIC_CHARACTER_SET}
    if not keys:
        raise BadQuery("the identifier has no keys")
    tests, wanted, unsupported = _level(keys, WORKLIST)
    terms = header.json.get(SPECIFIC_CHARACTER_SET, {}).get("Value", ())
    return Query(tuple(tests), wanted, unsupported, tuple(term or "" for term in terms))


def _level(keys: Mapping[str, Any], table: Table) -> tuple[list[Test], dict[str, Any], bool]:
    """Tests, wanted attributes and whether there are others, of one level of an identifier."""
    tests: list[Test] = []
    wanted: dict[str, Any] = {}
    unsupported = False
    combined = _combined(keys)
    if combined is not None:
        tests.append(combined)
    for tag, element in keys.items():
        kind = table.get(tag)
        if kind is None:
            unsupported = True
        elif isinstance(kind, str):
            wanted[tag] = None
            if combined is None or tag not in (START_DATE, START_TIME):
                tests += _single(tag, kind, element.get("Value", ()))
        else:
            below, wanted[tag], more = _sequence(tag, kind, element.get("Value") or ())
            tests += below
            unsupported = unsupported or more
    return tests, wanted, unsupported


def _single(tag: str, vr: str, keys: Any) -> list[Test]:
    try:
        match = matcher(vr, keys)
    except BadKey as error:
        raise BadQuery(f"({tag[:4]},{tag[4:]}): {error}") from None
    return [lambda item: match(item.get(tag, ()))] if match is not None else []


def _sequence(tag: str, table: Table, items: Any) -> tuple[list[Test], Any, bool]:
    """Sequence matching (C.2.2.2.6): one item of keys, of which one item of the entity must match all."""
    if len(items) > 1:
        raise BadQuery(f"({tag[:4]},{tag[4:]}): a sequence of keys has one item")
    if not items or not items[0]:
        return [], None, False
    tests, wanted, unsupported = _level(items[0], table)
    if not tests:
        return [], wanted, unsupported

    def match(item: Item) -> bool:
        return any(all(test(each) for test in tests) for each in item.get(tag, ()))

    return [match], wanted, unsupported


def _combined(keys: Mapping[str, Any]) -> Test | None:
    """Start date and time that are both ranges are one range, from the first moment to the last (Table K.6-1)."""
    dates, times = (keys.get(tag, {}).get("Value", ()) for tag in (START_DATE, START_TIME))
    if not is_range(dates) or not is_range(times):
        return None
    try:
        (first_date, last_date), (first_time, last_time) = read_dates(dates[0]), read_times(times[0])
    except BadKey as error:
        raise BadQuery(f"(0040,0002) or (0040,0003): {error}") from None
    first, last = (first_date, first_time), (last_date, last_time)
    if last_date == "99999999":
        last = (last_date, DAY_END)

    def match(item: Item) -> bool:
        moment = moment_of(next(iter(item.get(START_TIME, ())), None))
        date = next(iter(item.get(START_DATE, ())), None)
        return date is not None and moment is not None and first <= (date, moment) <= last

    return match


def _select(wanted: Mapping[str, Any], table: Table, item: Item) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tag, below in wanted.items():
        kind = table[tag]
        values = item.get(tag, ())
        if isinstance(kind, str) or below is None:
            found[tag] = as_json(kind, values)
        else:
            found[tag] = {"vr": "SQ", "Value": [_select(below, kind, each) for each in values]}
    return found
