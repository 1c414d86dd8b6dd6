"""Attribute matching of PS3.4 C.2.2.2 as the worklist has it (K.2.2.1): one value of a key against the values of an entity.

A key without a value, or of asterisks alone, matches everything (universal); otherwise an entity without a value matches nothing
(K.2.2.1.1.1). Names are compared without regard to case and accents, which C.2.2.2.1 leaves to the SCP; everything else exactly.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

#: Values of an entity, as `packed` has them: does one of them match?
Matcher = Callable[[Sequence[Any]], bool]

_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
#: VRs that take wild cards (C.2.2.2.4).
_WILD = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_COMPONENTS = 5
_AROUND_STARS = re.compile(r" *\* *")
#: Of a key that is no UID: nobody means more, and each is held against every step.
MOST_VALUES = 64
_SECOND = 1_000_000
DAY_END = 24 * 3600 * _SECOND - 1


class BadKey(ValueError):
    """A key is no value of its VR. The text holds no value."""


def matcher(vr: str, keys: Sequence[Any]) -> Matcher | None:
    """What matches `keys`, the values of one key; None for universal matching (C.2.2.2.3). Raises `BadKey`.

    Several values match if one of them does: of UIDs that is the list of C.2.2.2.2, of others it is more than is asked for.
    """
    present = [key for key in keys if key not in (None, "", {})]
    if not present or all(_is_universal(key) for key in present):
        return None
    if vr == "UI":
        uids = frozenset(map(str, present))
        return lambda values: not uids.isdisjoint(values)
    if len(present) > MOST_VALUES:
        raise BadKey("a key has too many values")
    one = {"DA": _date, "TM": _time, "PN": _name}.get(vr, _text if vr in _WILD else _exact)
    matchers = [one(key) for key in present]
    return matchers[0] if len(matchers) == 1 else lambda values: any(each(values) for each in matchers)


def _is_universal(key: Any) -> bool:
    if isinstance(key, dict):
        return all(_is_universal(group) for group in key.values())
    return isinstance(key, str) and not key.strip("* ")


def _exact(key: Any) -> Matcher:
    wanted = str(key)
    return lambda values: any(str(value) == wanted for value in values if value is not None)


def _text(key: Any) -> Matcher:
    """Single value or wild card matching, with case (C.2.2.2.1, C.2.2.2.4)."""
    pattern = str(key)
    if "*" not in pattern and "?" not in pattern:
        return lambda values: pattern in values
    fits = wild(pattern)
    return lambda values: any(fits(value) for value in values if value)


# Names


def folded(group: str) -> str:
    """A component group for comparison: without case, accents, width and empty components at its end (PS3.5 6.2.1)."""
    plain = unicodedata.normalize("NFKD", group.casefold())
    bare = "".join(character for character in plain if not unicodedata.combining(character))
    return "^".join(" ".join(component.split()) for component in bare.split("^")).rstrip("^")


@lru_cache(maxsize=65_536)
def _groups(name: str) -> tuple[str, str, str]:
    alphabetic, ideographic, phonetic = (folded(group) for group in (*name.split("=", 2), "", "")[:3])
    return alphabetic, ideographic, phonetic


def remember(names: Iterable[str]) -> None:
    """Prepare names for comparison, before somebody asks."""
    for name in names:
        _groups(name)


def _name(key: Any) -> Matcher:
    """Each group that the key has against the same of the entity; a key of one group against whichever the entity has."""
    said = key if isinstance(key, dict) else {"Alphabetic": str(key)}
    # Spaces at the end of a component mean nothing, and after `*` nobody knows where that is.
    groups = {label: _AROUND_STARS.sub("*", folded(group)) for label, group in said.items() if group}
    tests = [(_GROUPS.index(label), _name_test(group)) for label, group in groups.items() if group.strip("*")]
    if len(tests) == 1:
        [(_, is_it)] = tests

        def match_any(values: Sequence[Any]) -> bool:
            for value in values:
                alphabetic, ideographic, phonetic = _groups(value)
                if is_it(alphabetic) or (ideographic and is_it(ideographic)) or (phonetic and is_it(phonetic)):
                    return True
            return False

        return match_any
    return lambda values: any(all(is_it(_groups(value)[place]) for place, is_it in tests) for value in values)


def _name_test(wanted: str) -> Callable[[str], bool]:
    if "*" not in wanted and "?" not in wanted:
        return lambda name: name == wanted
    fits = wild(wanted)
    if "^" not in wanted:
        return lambda name: bool(name) and fits(name)
    # `Doe^*` is meant to find `Doe`, too: empty components at the end may be there or not.
    return lambda name: bool(name) and (fits(name) or fits(name + "^" * max(0, _COMPONENTS - 1 - name.count("^"))))


# Wild cards


def wild(pattern: str) -> Callable[[str], bool]:
    """Whether a text is what `pattern` says: `*` any characters, `?` one (C.2.2.2.4). In time that grows with both, not faster."""
    first, *rest = pattern.split("*")
    if not rest:
        return lambda text: len(first) == len(text) and _at(first, text, 0)
    *middle, last = rest
    middle = [piece for piece in middle if piece]
    fixed = len(first) + len(last)

    def fits(text: str) -> bool:
        if len(text) < fixed or not _at(first, text, 0) or not _at(last, text, len(text) - len(last)):
            return False
        at, end = len(first), len(text) - len(last)
        for piece in middle:
            at = _find(piece, text, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True

    return fits


def _at(piece: str, text: str, at: int) -> bool:
    if "?" not in piece:
        return text.startswith(piece, at)
    return all(wanted in ("?", text[at + n]) for n, wanted in enumerate(piece))


def _find(piece: str, text: str, start: int, end: int) -> int:
    if "?" not in piece:
        return text.find(piece, start, end)
    return next((at for at in range(start, end - len(piece) + 1) if _at(piece, text, at)), -1)


# Dates and times


def is_range(keys: Sequence[Any]) -> bool:
    """Whether a date's or time's key is one range (C.2.2.2.5)."""
    return len(keys) == 1 and isinstance(keys[0], str) and "-" in keys[0]


def read_dates(key: str) -> tuple[str, str]:
    """First and last date of a key of VR DA, as `YYYYMMDD`. Raises `BadKey`."""
    first, last = _ends(key)
    return _read_date(first) if first else "00000000", _read_date(last) if last else "99999999"


def read_times(key: str) -> tuple[int, int]:
    """First and last moment of a key of VR TM, in microseconds of the day: 10 is all from 10:00 to 10:59:59.999999. Raises `BadKey`."""
    first, last = _ends(key)
    return read_time(first)[0] if first else 0, read_time(last)[1] if last else DAY_END


@lru_cache(maxsize=16_384)
def read_time(text: str) -> tuple[int, int]:
    """First and last microsecond of a time of VR TM, by its precision (PS3.5 6.2). Raises `BadKey`."""
    whole, _, fraction = text.strip().replace(":", "").partition(".")
    if len(whole) not in (2, 4, 6) or not whole.isdigit() or not whole.isascii() or (fraction and not fraction.isdigit()):
        raise BadKey("a time is not as PS3.5 6.2 has it")
    hours, minutes, seconds = (int(whole[at : at + 2] or 0) for at in (0, 2, 4))
    if hours > 23 or minutes > 59 or seconds > 60:
        raise BadKey("a time is not as PS3.5 6.2 has it")
    first = ((hours * 60 + minutes) * 60 + seconds) * _SECOND
    if fraction:
        fraction = fraction[:6]
        first += int(fraction.ljust(6, "0"))
        return first, first + 10 ** (6 - len(fraction)) - 1
    return first, first + {2: 3600, 4: 60, 6: 1}[len(whole)] * _SECOND - 1


def _ends(key: str) -> tuple[str, str]:
    first, dash, last = key.partition("-")
    first, last = first.strip(), last.strip()
    if not dash:
        return first, first
    if (not first and not last) or "-" in last:
        raise BadKey("a range has no end")
    return first, last


def _read_date(text: str) -> str:
    date = text.replace(".", "") if len(text) == 10 else text
    if len(date) != 8 or not date.isdigit() or not date.isascii() or not ("01" <= date[4:6] <= "12" and "01" <= date[6:] <= "31"):
        raise BadKey("a date is not as PS3.5 6.2 has it")
    return date


def _date(key: Any) -> Matcher:
    first, last = read_dates(str(key))
    return lambda values: any(first <= value <= last for value in values if value)


def _time(key: Any) -> Matcher:
    first, last = read_times(str(key))

    def match(values: Sequence[Any]) -> bool:
        return any(first <= moment <= last for moment in map(moment_of, values) if moment is not None)

    return match


def moment_of(value: Any) -> int | None:
    """The moment of an entity's time, in microseconds of the day; None if it has none that can be read."""
    try:
        return read_time(str(value))[0] if value else None
    except BadKey:
        return None
