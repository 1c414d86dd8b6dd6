"""The forms in which an identifying value may turn up, as RE2 patterns over folded UTF-8 (see `folding`).

A pattern's letters are in lower case; what is not ASCII is in it byte by byte, since RE2 is told that it reads Latin-1. Patterns have no
groups that capture and no look-around, so that they can be joined into one. With each goes what must be in a text for it to be there:
nearly no text has that, and only for those that do a pattern is compiled.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import Any

from msgspec import Struct

from hilum.nobody import WORDS as _NOBODY
from processors.anonymize.verify.dates import day_of
from processors.anonymize.verify.folding import APOSTROPHES, folded
from processors.anonymize.verify.hints import bared
from processors.anonymize.verify.spelling import hints_of, parted, spellings, usual, without_letters

#: The least length of a word that is looked for by itself, and of an identifier (issue of the second look: four characters).
LEAST = 4
#: From here on, an identifier is looked for with and without punctuation anywhere in it.
LOOSE = 6
#: And of so many digits, with letters right before and behind it, and without those that it has.
LONG = 7
#: The least letters of a word that is looked for with its letters apart, and with an initial in the same word.
LEAST_APART = 5
#: What may stand between the parts of a name, within a word of it, between its letters apart, and in an identifier.
_BETWEEN = r"[ \t\r\n^,.:;|+_=/\-]{1,3}"
_IN_PARTS, _APART = r"[ '`._/\-]{0,3}", r"[ \r\n._/\-]{1,3}"
#: Of a name in signs, so many are its hint.
_SIGNS_OF_HINT = 4
_BETWEEN_SIGNS = r"(?:[ ^,]|\xe3\x80\x80)?"
#: What is written before a name in one word with it: titles, and days in names of files; and behind it.
_TITLES = ("dr", "prof", "mr", "mrs", "ms", "mme", "herr", "frau")
_NUMBERED = "[0-9]{0,14}"
_PUNCTUATION = r"(?:[ ._/\-]{0,2}| [/\-] )"
_LEFT, _RIGHT = r"(?:^|[^0-9a-z])", r"(?:[^0-9a-z]|$)"
_LEFT_WIDE, _RIGHT_WIDE = r"(?:^|[^0-9a-z\x80-\xff])", r"(?:[^0-9a-z\x80-\xff]|$)"
_LEFT_NUMBER, _RIGHT_NUMBER = r"(?:^|[^0-9a-z.,])", r"(?:[^0-9a-z.,]|[.,](?:[^0-9]|$)|$)"
#: Codes that every de-identified object holds (PS3.16 CID 7050).
_CODES = frozenset(str(code) for code in range(113100, 113113))
_KINDS_OF_WORD = re.compile(r"[^\W_]+")
_DIGITS = re.compile("[0-9]+")
#: Sequences that designate a character set (PS3.5 6.1.2.5).
_DESIGNATES = re.compile(rb"\x1b[ -/]+[0-~]")


#: Each byte as a pattern that matches it.
_LITERALS = [chr(byte) if byte < 0x80 and chr(byte).isalnum() else f"\\x{byte:02x}" for byte in range(256)]


class Form(Struct, frozen=True, gc=False):
    """One form of a value."""

    #: At least one of these is in a text in which the pattern is, once that is bared (see `hints`).
    hints: tuple[bytes, ...]
    #: What makes its pattern, of what: for most forms, nobody ever asks for it.
    make: Callable[..., str]
    of_what: tuple[Any, ...]

    @classmethod
    def of(cls, letters: Iterable[str | bytes], make: Callable[..., str], *of_what: Any) -> Form:
        """A form with what it has as letters and digits, in any of several spellings."""
        hints = [bared(each.encode("utf-8", "replace") if isinstance(each, str) else each) for each in letters]
        return cls(tuple(dict.fromkeys(hints)) if len(hints) > 1 else tuple(hints), make, of_what)

    @property
    def pattern(self) -> str:
        """Its pattern."""
        return _made(self.make, self.of_what)


@lru_cache(maxsize=4096)
def _made(make: Callable[..., str], of_what: tuple[Any, ...]) -> str:
    return make(*of_what)


def _as_it_is(pattern: str) -> str:
    return pattern


def literal(text: str) -> str:
    """`text` as a pattern that matches its UTF-8."""
    if text.isascii() and text.isalnum():
        return text
    return "".join([_LITERALS[byte] for byte in text.encode("utf-8", "replace")])


def is_common(word: str, known: Collection[str]) -> bool:
    """Whether a folded word says nothing of anybody: a term of the standard or of medicine, a month, a stand-in for a name."""
    return word in known or word in _NOBODY


def name_forms(value: str, known: Collection[str], own: Collection[str] = ()) -> Iterator[Form]:
    """Patterns for a name (PN or as text): its words of at least four letters, alone; and family and given name side by side.

    A word that is common, or short, says nothing alone; with its neighbour, in either order, it does. Names in scripts without spaces
    between words are looked for as two signs by themselves, or as the whole name within other text. `own` are words that are in an output
    by nature, even side by side.
    """
    for group in value.split("="):
        every = [_words(component) for component in group.split("^")]
        components = every[:3]
        if len([each for each in components if each]) < 2:  # as text: "Doe, John"
            components = [[word] for word in _words(group)]
        family, *others = components or [[]]
        initials = "".join(sorted({folded(word)[:1] for words in others for word in words}))
        for word in dict.fromkeys(word for words in components for word in words):
            yield from _word_forms(word, known, initials if word in family else "")
        for one in family[:3]:
            for other in [word for words in others for word in words][:4]:
                if folded(one) not in own or folded(other) not in own:
                    yield from _pair_forms(one, other)
        for words in every:
            if len(words) > 1 and len(folded(joined := "".join(words))) >= LOOSE:
                yield from _word_forms(joined, known)


def raw_forms(value: bytes, charset_texts: Collection[str]) -> Iterator[Form]:
    """Patterns for the parts of a name outside ASCII as their bytes are: for data of which nobody knows the character set."""
    parts = {part.lower() for each in (value, _DESIGNATES.sub(b"", value)) for part in re.split(rb"[\\^= \0]+", each)}
    for text in charset_texts:
        for part in re.split(r"[\\^= \0]+", text):
            for cased in (part.lower(), part.upper(), part.title()):
                parts.add(cased.encode("utf-8", "replace").lower())
                parts.add(cased.encode("latin-1", "replace").lower())
    dense = any(map(_dense, charset_texts))
    for part in parts:
        if len(part) >= LEAST and not part.isascii() and b"?" not in part:
            first, last = ("a", "a") if dense else (chr(part[0]), chr(part[-1]))
            yield Form.of([part], _as_it_is, _between_words(first, "".join([_LITERALS[byte] for byte in part]), last))
    for part in dict.fromkeys(each for text in charset_texts for each in re.split(r"[\\^= \0]+", text)):
        if len(part) >= (2 if _dense(part) else LEAST) and min(part) > "\xff":  # what has Latin letters is found without their zeros
            for cased in dict.fromkeys((part.lower(), part.upper(), part.title())):
                for codec in ("utf-16-le", "utf-16-be"):
                    encoded = cased.encode(codec, "replace").lower()
                    yield Form.of([encoded], _as_it_is, "".join([_LITERALS[byte] for byte in encoded]))


def _words(text: str) -> list[str]:
    if text.isalpha() and text.isascii():
        return [text]
    return [unicodedata.normalize("NFC", each) for each in _KINDS_OF_WORD.findall(_seen(text).translate(APOSTROPHES)) if not each.isdigit()]


def _seen(text: str) -> str:
    """`text` without characters of formats, which end no word."""
    return text if text.isascii() else "".join(each for each in text if unicodedata.category(each) != "Cf")


def _dense(word: str) -> bool:
    """Whether it is of a script in which a name has one to three signs."""
    return not word.isascii() and any(
        "\u3040" <= each <= "\u9fff" or "\uac00" <= each <= "\ud7a3" or "\U00020000" <= each <= "\U0003ffff" for each in word
    )


def _word_forms(word: str, known: Collection[str], initials: str = "") -> Iterator[Form]:
    one = folded(word)
    if _dense(word):
        if len(word) >= 2:
            yield Form.of([one], _bounded, one)
    elif len(one) >= LEAST and not is_common(one, known):
        yield Form.of(hints_of(word), _word_pattern, word, known, initials)


def _word_pattern(word: str, known: Collection[str], initials: str) -> str:
    """A word of a name in its spellings, whole and in parts, with what is written before and behind it; and with its letters apart."""
    found: list[str] = []
    for spelling in sorted(spellings(word)):
        if len(spelling) < LEAST or is_common(spelling, known):
            continue
        begins = parted(word, spelling, known)
        whole = "".join([(_IN_PARTS if at in begins else "") + literal(letter) for at, letter in enumerate(spelling)])
        found.append(_beginning(spelling, known, initials) + whole + _ending(spelling, known, initials))
        if len(spelling) >= LEAST_APART and spelling in usual(word):
            found.append(_APART.join(map(literal, spelling)))
    if without_letters(word):
        found.append("".join([literal(folded(each)) if each.isascii() else "[?]{1,4}" for each in word]))
    one = folded(word)
    return _between_words(one[0], f"(?:{'|'.join(found)})", one[-1])


def _beginning(word: str, known: Collection[str], initials: str) -> str:
    """What may stand before the word of a name, in one with it: an initial or a title, and numbers."""
    if len(word) < LEAST_APART:
        return ""
    before = [each for each in (*initials, *_TITLES) if each.isascii() and not is_common(each + word, known)]
    return f"{_NUMBERED if len(word) >= LOOSE else ''}(?:{'|'.join(before)})?"


def _ending(word: str, known: Collection[str], initials: str) -> str:
    """What may follow the word of a name: an initial and numbers, as in names of users and files, and an s."""
    if len(word) < LEAST_APART:
        return ""
    behind = "".join(each for each in initials if each.isascii() and not is_common(word + each, known))
    initial = f"[{behind}]?" if behind else ""
    if len(word) < LOOSE:
        return initial
    return initial + (_NUMBERED if is_common(f"{word}s", known) else f"(?:s|{_NUMBERED})")


def _pair_forms(one: str, other: str) -> Iterator[Form]:
    first, second = folded(one), folded(other)
    if _dense(one) and _dense(other):
        if len(one) + len(other) >= 3:
            yield Form.of(_spaced((first + second)[:_SIGNS_OF_HINT]), _signs, first + second)
        else:
            yield Form.of([first + second], _bounded, first + second)
            yield Form.of([first + second], _as_it_is, _LEFT_WIDE + literal(first) + "[ ^]" + literal(second) + _RIGHT_WIDE)
        return
    if len(first) + len(second) < LEAST or min(len(first), len(second)) < 2 or {first, second} <= _NOBODY:
        return
    yield Form.of([each for a in usual(one) for b in usual(other) for each in (a + b, b + a)], _pair_pattern, one, other)


def _spaced(signs: str) -> list[str]:
    """The signs with or without the space that is as wide as they are between any two of them, as bytes that are not folded may have it."""
    return [signs[0] + "".join(rest) for rest in product(*((each, f"\u3000{each}") for each in signs[1:]))]


def _signs(signs: str) -> str:
    return _BETWEEN_SIGNS.join(map(literal, signs))


def _pair_pattern(one: str, other: str) -> str:
    between = _BETWEEN if len(folded(one)) + len(folded(other)) < LOOSE else _BETWEEN.replace("{1,3}", "{0,3}")
    firsts, seconds = _alternatives(sorted(usual(one))), _alternatives(sorted(usual(other)))
    return f"{_LEFT}(?:{firsts}{between}{seconds}|{seconds}{between}{firsts}){_RIGHT}"


def _alternatives(spelled: list[str]) -> str:
    return literal(spelled[0]) if len(spelled) == 1 else f"(?:{'|'.join(literal(each) for each in spelled)})"


def _bounded(word: str) -> str:
    return _between_words(word[0], literal(word), word[-1])


def _between_words(first: str, pattern: str, last: str) -> str:
    """A pattern that begins and ends with these letters, where words begin and end."""
    return (_LEFT if first.isascii() else _LEFT_WIDE) + pattern + (_RIGHT if last.isascii() else _RIGHT_WIDE)


def id_forms(value: str, known: Collection[str]) -> Iterator[Form]:
    """Patterns for an identifier or a telephone number: as it is, and with and without punctuation and leading zeros.

    What has less than four characters is not looked for, nor a term, nor a number as it is everywhere: a year, a power of two, hundreds,
    a code of CID 7050.
    """
    for part in {value, value.split("^")[0]}:
        core = "".join(each for each in folded(part) if each.isalnum())
        if len(core) < LEAST or is_common(core, known) or core in _CODES:
            continue
        numeric = core.isascii() and core.isdigit()
        if len(core) < LOOSE:
            if numeric and _is_everywhere(int(core)):
                continue
            left, right = (_LEFT_NUMBER, _RIGHT_NUMBER) if numeric else (_LEFT, _RIGHT)
            spelled = folded(part.strip())
            for form in {core, spelled} if not numeric or spelled == core else {spelled}:
                yield Form.of([form], _as_it_is, left + literal(form) + right)
            continue
        stripped = core.lstrip("0")
        if len(stripped) >= LOOSE:
            yield Form.of([stripped], _id_pattern, "0*", stripped)
        else:
            yield Form.of([core], _id_pattern, "", core)
        if not numeric:
            for digits in _DIGITS.findall(core):
                if len(digits.lstrip("0")) >= LONG and day_of(digits[:8].encode()) is None:
                    yield Form.of([digits.lstrip("0")], _id_pattern, "0*", digits.lstrip("0"))
        if numeric and len(core) >= 10:  # a telephone number without its country or area
            yield Form.of([core[-8:]], _as_it_is, _loose(core[-8:]) + _RIGHT)


def _id_pattern(before: str, core: str) -> str:
    if core.isascii() and core.isdigit() and len(core) >= LONG:
        thousands = "[,']".join([core[max(0, end - 3) : end] for end in range(len(core) % 3 or 3, len(core) + 1, 3)])
        return f"(?:^|[^0-9]){before}(?:{_loose(core)}|{thousands})(?:[^0-9]|$)"
    return _LEFT + before + _loose(core) + _RIGHT


def _loose(core: str) -> str:
    return _PUNCTUATION.join(core if core.isascii() else [literal(each) for each in core])


def _is_everywhere(number: int) -> bool:
    return number % 100 == 0 or number & (number - 1) == 0 or 1900 <= number < 2100


def phrase_forms(value: str, known: Collection[str]) -> Iterator[Form]:
    """Patterns for addresses and names of institutions: line by line and part by part, as the words stand."""
    for part in re.split(r"[\r\n^,;]+", value):
        words = [folded(each) for each in _KINDS_OF_WORD.findall(part)]
        if sum(map(len, words)) < LOOSE or all(is_common(each, known) or each.isdigit() or len(each) < LEAST for each in words):
            continue
        yield Form.of(["".join(words)], _phrase_pattern, tuple(words))


def _phrase_pattern(words: tuple[str, ...]) -> str:
    return _LEFT + r"[^0-9a-z\x80-\xff]{1,3}".join(map(literal, words)) + _RIGHT
