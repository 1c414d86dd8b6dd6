"""PS3.15 Table E.1-1 as data, and what Hilum does with attributes that are not in it.

`data/e1_1.csv` is the table: the Basic Profile's column is of edition 2026c, the options' columns are of 2024b. Attributes that are newer
than 2024b have no options here: for them the Basic Profile's action holds under every option, which removes more, never less.

The table is a minimum ("at least those", PS3.15 E.1.1), and attributes that it does not name may hold identities, too. `data/beyond.csv`
says in the same form what becomes of those that Hilum has judged one by one; for the rest the VR decides (`DEFAULTS`).
"""

from __future__ import annotations

import csv
import importlib.resources
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache

from msgspec import Struct
from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR, keyword_for_tag

from processors.anonymize.options import COLUMNS

#: Of the Basic Profile's actions; the options' columns are of `EDITION_OF_OPTIONS`.
EDITION = "PS3.15 2026c"
EDITION_OF_OPTIONS = "PS3.15 2024b"


class Row(Struct, frozen=True):
    """One attribute: its action in the Basic Profile, and those of options (PS3.15 Table E.1-1a)."""

    name: str
    basic: str
    #: Action by column, of those that are not empty.
    options: Mapping[str, str]
    #: `E.1-1`, `beyond it`, or `its VR`: where the row comes from.
    source: str

    @property
    def in_table(self) -> bool:
        """Whether the standard itself names the attribute."""
        return self.source == "E.1-1"


class Table(Struct, frozen=True):
    """Rows by tag, and those of whole groups by their pattern (`60xx3000`, `50xxxxxx`, `private`)."""

    rows: Mapping[int, Row]
    patterns: Mapping[str, Row]


def _rows(name: str, source: str) -> Iterator[tuple[str, Row]]:
    text = (importlib.resources.files("processors.anonymize.data") / name).read_text(encoding="utf-8")
    for each in csv.DictReader(text.splitlines()):
        yield each["tag"], Row(each["name"], each["basic"], {column: each[column] for column in COLUMNS if each[column]}, source)


@cache
def standard() -> Table:
    """Table E.1-1."""
    rows, patterns = {}, {}
    for tag, row in _rows("e1_1.csv", "E.1-1"):
        if "x" in tag or tag == "private":
            patterns[tag] = row
        else:
            rows[int(tag, 16)] = row
    return Table(rows, patterns)


@cache
def beyond() -> Mapping[int, Row]:
    """What Hilum has decided of attributes that are not in the table."""
    return {int(tag, 16): row for tag, row in _rows("beyond.csv", "beyond it")}


#: Values that are names of private creators: of dimension indices, functional groups and selectors (PS3.3 C.7.6.17, C.7.6.16, 10.17).
PRIVATE_CREATORS = frozenset({0x00209213, 0x00209238, 0x00720054, 0x00720056})
_CLEANED = {"descriptors": "C"}
_TIMES = {"full_dates": "K", "modified_dates": "C"}
#: By VR, the Basic Profile's action and those of options for attributes named nowhere. What is not here is kept: coded strings, numbers,
#: sequences (for what is in them), samples. Its grammar is checked all the same.
DEFAULTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    **dict.fromkeys(("LO", "LT", "SH", "ST", "UC", "UT"), ("X/Z/D", _CLEANED)),
    **dict.fromkeys(("AE",), ("X/Z/D", {"device": "K"})),
    **dict.fromkeys(("PN", "UR", "UN", "OB"), ("X/Z/D", {})),
    **dict.fromkeys(("DA", "TM", "DT"), ("X/Z/D", _TIMES)),
    "AS": ("X/Z/D", {"patient": "K"}),
    "UI": ("U", {"uids": "K"}),
}


@lru_cache(maxsize=16_384)
def vr_of(tag: int) -> str:
    """The VR of an attribute in PS3.6 (`US or SS` as it stands there), `""` if the pinned dictionary does not know it."""
    return str(dictionary_VR(tag)) if dictionary_has_tag(tag) else ""


#: Bytes of one number, by VR.
SIZES: Mapping[str, int] = {"US": 2, "SS": 2, "US or SS": 2, "UL": 4, "SL": 4, "FL": 4, "AT": 4, "FD": 8, "UV": 8, "SV": 8}


@lru_cache(maxsize=16_384)
def longest_of(tag: int) -> int:
    """How many bytes the numbers of an attribute may have by its value multiplicity (PS3.6), 2**32 if it has no end.

    A number that is longer holds what comes behind it in a spoilt object.
    """
    most = dictionary_VM(tag).rpartition("-")[2]
    return int(most) * SIZES[vr_of(tag)] if most.isdecimal() else 2**32


@lru_cache(maxsize=1024)
def least_of(tag: int) -> int:
    """How many values an attribute has at least (PS3.6), 1 if it may have none."""
    least = dictionary_VM(tag).partition("-")[0]
    return max(int(least), 1) if least.isdecimal() else 1


@lru_cache(maxsize=16_384)
def row_of(tag: int) -> Row | None:
    """The row that holds for a standard attribute, from wherever it comes; None if nothing is known of it."""
    row = standard().rows.get(tag) or beyond().get(tag)
    if row is not None:
        return row
    vr = vr_of(tag)
    if not vr:
        return None
    basic, options = DEFAULTS.get(vr, ("K", {}))
    return Row(keyword_for_tag(tag) or f"{tag:08X}", basic, options, "its VR")
