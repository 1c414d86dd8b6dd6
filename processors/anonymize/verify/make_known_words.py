"""Write `known_words.txt`: the vocabulary of the second look. Run by hand; the result is read, corrected here, and committed.

Words of at least four letters from the names of attributes (PS3.6) and from code meanings (PS3.16), as pydicom has them, and those of
`terms.txt`: defined terms (PS3.3), makers and models, and what protocols and series are called. Breeds, and words that begin with a
capital within a meaning, are left out: they are names (`Crohn`, `Holstein`), and a patient may have the same one. So are those in
`people.txt`, which are read by hand: words of the standard that are common as names, too (`Cooper`, `Stone`).

    python -m processors.anonymize.verify.make_known_words
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom._dicom_dict import DicomDictionary
from pydicom._uid_dict import UID_dictionary
from pydicom.sr import _concepts_dict

from processors.anonymize.verify.folding import folded
from processors.anonymize.verify.forms import LEAST

HERE = Path(__file__).parent
_BREEDS = range(7480, 7487)


def words(text: str) -> list[str]:
    """The words of a text as they stand, with a possessive left on them."""
    return re.findall(r"[^\W\d_]\w*(?:'s)?", text)


def found() -> Iterator[str]:
    """Every word that counts, in any case, some twice."""
    yield from (HERE / "terms.txt").read_text(encoding="utf-8").split()
    concepts: dict[str, Any] = _concepts_dict.concepts
    for codes in concepts.values():
        for variants in codes.values():
            for meaning, groups in variants.values():
                if any(group in _BREEDS for group in groups):
                    continue
                for at, word in enumerate(words(meaning)):
                    if not word.endswith("'s") and (at == 0 or not word[0].isupper()):
                        yield word
    for _, _, name, _, keyword in DicomDictionary.values():
        yield from (word for word in words(name) if not word.endswith("'s"))
        yield from re.findall("[A-Z][a-z]+", keyword)
    for name, *_ in UID_dictionary.values():
        yield from (word for word in words(name) if not word.endswith("'s"))


def vocabulary() -> list[str]:
    """What is written."""
    people = frozenset((HERE / "people.txt").read_text(encoding="utf-8").split())
    return sorted({word for each in found() if len(word := folded(each)) >= LEAST and word not in people and word.isalnum()})


if __name__ == "__main__":
    (HERE / "known_words.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
