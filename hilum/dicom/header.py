"""The header of an instance as the stages read it, and what makes a UID usable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw

from hilum.errors import TryAgain

#: A UID that systems can work with: digits and single dots, at most 64 characters (PS3.5 9.1). Leading zeros in a component
#: are wrong by the standard and common in life; `uid_has_leading_zero` finds them.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z")


def uid_is_usable(uid: str) -> bool:
    """Whether `uid` can serve as an identifier (PS3.5 9.1), leading zeros allowed."""
    return 0 < len(uid) <= 64 and _UID.match(uid) is not None


def uid_has_leading_zero(uid: str) -> bool:
    """Whether a component of `uid` starts with a zero that is not its only digit (forbidden by PS3.5 9.1)."""
    return any(len(part) > 1 and part[0] == "0" for part in uid.split("."))


@lru_cache(maxsize=4096)
def tag_of(keyword: str) -> str:
    """The tag `GGGGEEEE` of a DICOM keyword, or of a tag written as such. Raises `KeyError` for any other word."""
    if len(keyword) == 8 and all(c in "0123456789ABCDEFabcdef" for c in keyword):
        return keyword.upper()
    from pydicom.datadict import keyword_dict  # its dictionaries take long to load, and many processes never ask

    return f"{keyword_dict[keyword]:08X}"


class CutValue(TryAgain):
    """The header that travels with the event left this value out: read it in the stored object."""

    def __init__(self, keyword: str) -> None:
        super().__init__(f"The value of {keyword} is not in the event's header; it must be read from the stored object.")
        self.keyword = keyword


class Header:
    """A data set's header as DICOM JSON (PS3.18 F.2): `{"00100020": {"vr": "LO", "Value": ["…"]}, …}`.

    `cut` holds the tags whose values were left out. Asking for one of them raises `CutValue`: it is never taken for
    absent.
    """

    __slots__ = ("cut", "json")

    _decoder = msgspec.json.Decoder(dict[str, Raw])

    def __init__(self, json: dict[str, Any], cut: frozenset[str] = frozenset()) -> None:
        self.json = json
        self.cut = cut

    @classmethod
    def of_json(cls, encoded: bytes | Raw, cut: frozenset[str] = frozenset()) -> Header:
        """The header in `encoded`. An attribute is decoded when it is asked for: stages read ten of a hundred and fifty."""
        return cls(cls._decoder.decode(encoded), cut)

    def __contains__(self, keyword: object) -> bool:
        return isinstance(keyword, str) and (tag_of(keyword) in self.json or tag_of(keyword) in self.cut)

    def element(self, keyword: str) -> dict[str, Any] | None:
        """A top-level attribute as DICOM JSON (`vr`, `Value`, `InlineBinary`), None if absent. Raises `CutValue`."""
        tag = tag_of(keyword)
        if tag in self.cut:
            raise CutValue(keyword)
        found: dict[str, Any] | Raw | None = self.json.get(tag)
        if isinstance(found, Raw):
            decoded: dict[str, Any] = msgspec.json.decode(found)
            found = self.json[tag] = decoded
        return found

    def values(self, keyword: str) -> list[Any]:
        """All values of a top-level attribute, `[]` if absent or empty. Raises `CutValue`."""
        found = self.element(keyword)
        values: list[Any] = found.get("Value", []) if found is not None else []
        return values

    def value(self, keyword: str) -> Any:
        """The first value of a top-level attribute, None if absent or empty. Person names as `str`. Raises `CutValue`."""
        values = self.values(keyword)
        first = values[0] if values else None
        if isinstance(first, dict) and ("Alphabetic" in first or "Ideographic" in first or "Phonetic" in first):
            groups = [first.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
            return "=".join(groups).rstrip("=")
        return first

    def text(self, keyword: str) -> str:
        """The first value of a top-level attribute as text, `""` if absent or empty. Raises `CutValue`."""
        value = self.value(keyword)
        return "" if value is None else str(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self.json)
