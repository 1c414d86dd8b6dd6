"""Whether what an order says and what images say is the same, as a person would see it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from .rows import Id, OrderRow, StudyRow

#: Modalities by which one kind of examination is ordered and made (PS3.3 C.7.3.1.1.1).
_ALIKE = (frozenset({"CR", "DX", "DR", "RG"}), frozenset({"XA", "RF"}), frozenset({"PT", "NM"}), frozenset({"MG", "DX", "CR"}))
#: What is made of images and ordered by nobody.
_NOT_ORDERED = frozenset({"SR", "PR", "KO", "OT", "SC", "DOC", "REG", "SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "AU", "ECG"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "æ": "ae", "œ": "oe", "đ": "d", "ł": "l", "þ": "th"})
_LETTERS = re.compile(r"[^\w]|_")


def differences(order: OrderRow, study: StudyRow) -> list[tuple[str, str, str]]:
    """Attributes of patient and order that both say and not alike: keyword, as ordered, as found. An empty value differs from none."""
    found = []
    if order.ids and study.ids and not same_patient(order.ids, study.ids):
        found.append(("PatientID", *_apart(order.ids[0], study.ids[0])))
    if not same_name(order.name, study.name):
        found.append(("PatientName", order.name, study.name))
    if order.birth_date and study.birth_date and order.birth_date != study.birth_date:
        found.append(("PatientBirthDate", order.birth_date, study.birth_date))
    if {order.sex, study.sex} == {"M", "F"}:
        found.append(("PatientSex", order.sex, study.sex))
    if order.accession is not None and study.accessions and not any(same_id(order.accession, each) for each in study.accessions):
        found.append(("AccessionNumber", *_apart(order.accession, study.accessions[0])))
    return found


def same_id(first: Id, second: Id) -> bool:
    """The same value, of the same issuer as far as both say."""
    return first[0] == second[0] and (not first[1] or not second[1] or first[1] == second[1])


def _apart(ordered: Id, found: Id) -> tuple[str, str]:
    """Two identifiers as a person can tell them apart: with their issuers, if that is what differs."""
    if ordered[0] != found[0]:
        return ordered[0], found[0]
    return f"{ordered[0]} of {ordered[1]}", f"{found[0]} of {found[1]}"


def same_patient(first: Sequence[Id], second: Iterable[Id]) -> bool:
    """Whether both have an identifier in common."""
    return any(same_id(one, other) for other in second for one in first)


def same_modality(ordered: Iterable[str], made: Iterable[str]) -> bool:
    """Whether images are of a modality that was ordered; of a kind, or if nobody says, they are."""
    wanted = {each for each in ordered if each}
    found = {each for each in made if each and each not in _NOT_ORDERED}
    if not wanted or not found or wanted & found:
        return True
    return any(alike & wanted and alike & found for alike in _ALIKE)


@lru_cache(maxsize=4096)
def same_name(first: str, second: str) -> bool:
    """Whether two PN values name one person: without regard to case, accents, hyphens and titles.

    Component groups are compared where both have one (PS3.5 6.2.1): alphabetic with alphabetic, ideographic with ideographic. A given
    name that only one of them has, or has more of, is no difference; nor is an empty name.
    """
    if first == second:
        return True
    pairs = [(a, b) for a, b in zip(_groups(first), _groups(second), strict=True) if a.strip("^ ") and b.strip("^ ")]
    return not pairs or any(_same_group(a, b) for a, b in pairs)


def _groups(name: str) -> list[str]:
    return [*name.split("="), "", "", ""][:3]


def _same_group(first: str, second: str) -> bool:
    one, other = _parts(first), _parts(second)
    if not (_forms(one[0]) & _forms(other[0])):
        return False
    return all(_forms(a) & _forms(b) for a, b in zip(one[1], other[1], strict=False))


def _parts(group: str) -> tuple[str, list[str]]:
    """Family name, and the words of given and middle names."""
    components = [*group.split("^"), "", ""]
    return components[0], f"{components[1]} {components[2]}".replace("-", " ").split()


def _forms(text: str) -> frozenset[str]:
    """How a word may be written in plain letters: with its accents left out, and with ae for ä."""
    if text.isascii():
        return frozenset((_LETTERS.sub("", text.casefold()),))
    small = unicodedata.normalize("NFKC", text).casefold()
    bare = "".join(c for c in unicodedata.normalize("NFKD", small) if not unicodedata.combining(c))
    spelled = unicodedata.normalize("NFC", small).translate(_UMLAUTS)
    spelled = "".join(c for c in unicodedata.normalize("NFKD", spelled) if not unicodedata.combining(c))
    return frozenset(_LETTERS.sub("", each) for each in (bare, spelled))
