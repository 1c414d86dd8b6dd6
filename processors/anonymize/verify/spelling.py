"""The spellings of a word of a name: with umlauts as two letters, in parts (`Mac Donaghy`), with its letters apart (`S m i t h`)."""

from __future__ import annotations

import re
from collections.abc import Collection

from processors.anonymize.verify.folding import folded

#: What family names begin with, and what is often written apart from the rest: once, and one behind the other.
_FIRST = ("mac", "mc", "o", "d", "l", "fitz", "ap")
_PARTICLES = (
    *("van", "vande", "vanden", "vander", "von", "vom", "zum", "zur", "zu", "ter", "ten", "den", "der", "des", "dos", "das", "du", "di"),
    *("da", "de", "del", "della", "delle", "dello", "dal", "dalla", "la", "le", "lo", "el", "al", "abu", "ibn", "ben", "bin", "bint"),
    *("abd", "saint", "sankt", "santa", "san", "st"),
)
#: The least letters behind them.
_LEAST_REST = 4
#: Where a word in mixed case goes on with another: `McDonaghy`, `OBrien`, `DeLaCruz`.
_CAPITALS = re.compile("(?<=[a-z])[A-Z]|[A-Z](?=[a-z])")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
#: Letters that may have had an umlaut, and those that stand for one; what is between them is in each spelling.
_ONE = re.compile("(?<!a)a(?![ae]|$)|[ou](?![aeiou]|$)")
_TWO = re.compile("ae|oe|ue|aa")
_BETWEEN = re.compile("[aou]+e?")
_LEAST_BETWEEN = 4
_NOT_ASCII = re.compile("[^\0-\x7f]+")
#: A word of so many letters besides is found with so many of them lost.
_LEAST_LEFT, _MOST_LOST = 4, 2
#: A longer word is no name that anybody spells otherwise.
_LONGEST = 24


def usual(word: str) -> set[str]:
    """A word folded, and with umlauts as two letters, or two letters as one."""
    one = folded(word)
    if word.isascii() and _TWO.search(one) is None:
        return {one}
    two = folded(word.lower().translate(_UMLAUTS))
    return {one, two, one.replace("ae", "a").replace("oe", "o").replace("ue", "u").replace("aa", "a")}


def spellings(word: str) -> set[str]:
    """The usual ones; those with one letter as two, or two as one, since a name in ASCII may have lost an umlaut; and Mac as Mc."""
    found, one = usual(word), folded(word)
    if len(one) > _LONGEST:
        return found
    found.update(f"{one[: each.end()]}e{one[each.end() :]}" for each in _ONE.finditer(one))
    found.update(one[: each.start() + 1] + one[each.end() :] for each in _TWO.finditer(one))
    if one.startswith(("mac", "mc")) and len(rest := one.removeprefix("mac").removeprefix("mc")) >= _LEAST_REST:
        found |= {f"mac{rest}", f"mc{rest}"}
    return found


def without_letters(word: str) -> str:
    """What is left of it where all letters are lost but those of ASCII (`M?ller`), if that still tells; `""` otherwise."""
    left = "" if word.isascii() else "".join(each for each in word.lower() if each.isascii())
    return left if len(left) >= _LEAST_LEFT and len(word) - len(left) <= _MOST_LOST else ""


def hints_of(word: str) -> tuple[str, ...]:
    """Letters of which at least some are in a text, bared, in which a spelling of the word is."""
    left = without_letters(word)
    first, *others = [folded(part) for part in _NOT_ASCII.split(word)] if left else [folded(word)]
    in_each = [
        *_BETWEEN.split(f"ma{first[1:]}" if first.startswith("mc") else first),
        *(each for part in others for each in _BETWEEN.split(part)),
    ]
    longest = max(in_each, key=len)
    if len(longest) >= _LEAST_BETWEEN:
        return (longest,)
    return (*spellings(word), left) if left else tuple(spellings(word))


def parted(word: str, spelling: str, known: Collection[str]) -> set[int]:
    """Where the parts of a spelling of a word may begin: behind its particles, and where the word has capitals.

    Before a word that says nothing by itself none does: it is found in text of any kind.
    """
    begins = {len(particle) for particle in _FIRST if spelling.startswith(particle)}
    found = {0}
    for _ in range(3):
        found |= {at + len(each) for at in found for each in _PARTICLES if spelling.startswith(each, at)}
    begins |= found
    if not word.islower() and not word.isupper() and spelling == folded(word):
        begins |= {each.start() for each in _CAPITALS.finditer(word)}
    return {at for at in begins if 0 < at <= len(spelling) - _LEAST_REST and spelling[at:] not in known}
