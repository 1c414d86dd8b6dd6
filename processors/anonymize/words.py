"""Free text cleaned by what is known to be harmless, not by what is known to be somebody's: only words of a vocabulary stay.

So the name or the telephone number of somebody of whom the object says nothing else goes as well. What stays are terms of PS3.16 and
PS3.6, common words of requests and reports, a site's own words, and numbers that say nothing (`numerals`); see
`data/make_vocabulary.py`.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Set
from functools import cache, lru_cache

from processors.anonymize.numerals import harmless

_TOKEN = re.compile(r"[^\W_]+(?:[.,]\d+(?![^\W_]))?|[\W_]+")
_KEPT_BETWEEN = frozenset(" .,;:/()-+%=<>*[]#&'\"\r\n\t")
#: After these comes a name.
_TITLES = frozenset(
    ["dr", "mr", "mrs", "ms", "miss", "prof", "professor", "sir", "herr", "frau", "mme", "mlle", "sra", "sr", "dott", "md", "mbbs", "frcr"]
)
_AFTER_TITLE = 3
#: Characters of text that is remembered with what became of it: that of headers, which comes again and again.
_LONGEST_REMEMBERED = 1024


@cache
def vocabulary() -> frozenset[str]:
    """The shipped words, in lower case."""
    text = (importlib.resources.files("processors.anonymize.data") / "vocabulary.txt").read_text(encoding="utf-8")
    return frozenset(text.split())


@lru_cache(maxsize=4096)
def name_words(name: bytes) -> frozenset[str]:
    """The words of the value of a PN, in lower case, which cleaned text may not keep even if they are of the vocabulary.

    Those are of ASCII, so the character set does not matter.
    """
    return frozenset(word.casefold() for word in re.findall(r"[^\W\d_]{2,}", name.decode("utf-8", "replace")))


def cleaned(text: str, more: frozenset[str] = frozenset(), names: Set[str] = frozenset()) -> str:
    """`text` without what is not known to be harmless; `more` are words that may stay, `names` words that may not, in lower case.

    Equal for equal arguments.
    """
    if len(text) > _LONGEST_REMEMBERED:
        return _cleaned(text, more, names)
    return _remembered(text, more, names & _words_of(text))  # other names say nothing of it, and differ from patient to patient


@lru_cache(maxsize=8192)
def _words_of(text: str) -> frozenset[str]:
    return frozenset(token.casefold() for token in _TOKEN.findall(text) if token[0].isalnum())


def _cleaned(text: str, more: frozenset[str], names: Set[str]) -> str:
    tokens = _TOKEN.findall(text)
    words = [(n, token) for n, token in enumerate(tokens) if token[0].isalnum()]
    kept = _harmless(tokens, words, more, names)
    if len(kept) == len(words) and _KEPT_BETWEEN.issuperset("".join(token for token in tokens if not token[0].isalnum())):
        return text
    out: list[str] = []
    last = -1
    for n, token in words:
        if n not in kept:
            continue
        if last >= 0:
            out.append(_between(tokens[last + 1 : n]))
        out.append(token)
        last = n
    return "".join(out)


_remembered = lru_cache(maxsize=8192)(_cleaned)


def _harmless(tokens: list[str], words: list[tuple[int, str]], more: frozenset[str], names: Set[str]) -> set[int]:
    known = vocabulary()
    numbers = harmless(tokens, words)
    kept: set[int] = set()
    after_title = 0
    for at, (n, token) in enumerate(words):
        low = token.casefold()
        if low == "ms" and words[at - 1][0] in numbers & kept:  # milliseconds, not a title
            kept.add(n)
            continue
        if low in _TITLES:
            after_title = _AFTER_TITLE
            continue
        if after_title and not (low in known and token.islower()):
            after_title -= 1
            continue
        after_title = 0
        if low in names:
            continue
        if n in numbers or low in known or low in more:
            kept.add(n)
    return kept


def _between(tokens: list[str]) -> str:
    """What stood between two words that stay: as it was if nothing else did, else a space, or the end of the line."""
    if len(tokens) == 1 and _KEPT_BETWEEN.issuperset(tokens[0]):
        return tokens[0]
    return "\r\n" if any("\n" in token for token in tokens) else " "
