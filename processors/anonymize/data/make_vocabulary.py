"""Write `vocabulary.txt`: the words that cleaned text may keep. Run by hand after a change of pydicom; the result is committed.

Taken from the code meanings of PS3.16 (as pydicom has them) and from the names of attributes in PS3.6, and read by hand for words that
are names of people: those are in `not_words.txt`. Words that requests, protocols and reports have besides are in `more_words.txt`.
Breeds of animals are left out, since they are named after places and people.

    python -m processors.anonymize.data.make_vocabulary
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydicom.datadict import DicomDictionary  # type: ignore[attr-defined]
from pydicom.sr._concepts_dict import concepts

HERE = Path(__file__).parent
#: Context groups of breeds and breed registries (PS3.16), whose meanings are full of names.
BREEDS = frozenset({7480, 7481, 7482, 7483, 7484, 7485, 7486})


def words(text: str) -> list[str]:
    """The words of a text as they stand, with a possessive left on them."""
    return re.findall(r"[A-Za-z][A-Za-z0-9]*(?:'s)?", text)


def meanings() -> Iterator[str]:
    """Every code meaning of the context groups, those of breeds left out."""
    every: dict[str, dict[str, dict[str, tuple[str, list[int]]]]] = concepts  # type: ignore[assignment]  # its stub says less
    for codes in every.values():
        for variants in codes.values():
            for meaning, context_groups in variants.values():
                if not BREEDS.intersection(context_groups):
                    yield meaning


def vocabulary() -> set[str]:
    """All words, in lower case."""
    found = set((HERE / "more_words.txt").read_text(encoding="utf-8").split())
    for meaning in meanings():
        for at, word in enumerate(words(meaning)):
            # Within a meaning only names begin with a capital letter; at its beginning, every word does.
            if not word.endswith("'s") and (word.islower() or at == 0):
                found.add(word.lower())
    for _, _, name, _, _ in DicomDictionary.values():
        found.update(word.lower() for word in words(name) if not word.endswith("'s"))
    names = set((HERE / "not_words.txt").read_text(encoding="utf-8").split())
    # A single letter is somebody's initial, unless it is an article or a side; long numbers in a word are somebody's number.
    return {
        word
        for word in found
        if word not in names and (len(word) > 1 or word in "alrs") and not re.fullmatch(r"[a-z]*\d{2,}[a-z0-9]*", word)
    }


if __name__ == "__main__":
    (HERE / "vocabulary.txt").write_text("\n".join(sorted(vocabulary())) + "\n", encoding="utf-8")
