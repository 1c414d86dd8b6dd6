"""What is looked for in an output: made of the original's values, once for all objects that share them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import date
from functools import lru_cache
from importlib.resources import files
from operator import attrgetter
from typing import Any

import re2
from msgspec import Struct

from hilum.nobody import stands_for_nobody
from processors.anonymize.verify import forms
from processors.anonymize.verify.birth import birth_forms
from processors.anonymize.verify.dates import date_forms, day_key, day_of, written
from processors.anonymize.verify.facts import Fact
from processors.anonymize.verify.folding import folded, texts
from processors.anonymize.verify.forms import Form
from processors.anonymize.verify.hints import Searched
from processors.anonymize.verify.identifying import DATE, ID, NAME, PATIENT_BIRTH_DATE, PHRASE, TAGS
from processors.anonymize.verify.lookalikes import of_one_script
from processors.anonymize.verify.retained import Within, within_uids
from processors.anonymize.verify.scope import Scope

#: Objects of a study share their values; this many studies are at work at the same time.
_CACHED = 64
#: Values of which the forms are remembered, and how long one may be.
_FACTS, _LONGEST_REMEMBERED = 2048, 1024
#: RE2 keeps what it learns of a pattern while it searches: at most so much for each.
_PATTERN_BYTES = 4 * 2**20
#: Characters of one pattern, with which RE2 stays within that.
_MOST_TOGETHER = 8000
#: Shorter forms come about by chance in bytes that are no text, unless there is text around them.
_LEAST_IN_BYTES, _LEAST_TEXT, _FEW_BYTES = 6, 8, 256
_PRINTABLE = frozenset((*range(0x20, 0x7F), 9, 10, 13))
_UNPRINTABLE = bytes(each for each in range(256) if each not in _PRINTABLE)
_EDGES = bytes(each for each in range(128) if not chr(each).isalnum())


class Sought(Struct, frozen=True):
    """What is looked for."""

    #: With the kind of each.
    forms: tuple[tuple[str, Form], ...]
    #: Days that are looked for in text, by `day_key`; and whether as eight digits in any order.
    dates: tuple[tuple[int, date, bool], ...]
    #: Hints of all forms, but those that hold another one of them; and keys of all dates.
    hints: tuple[bytes, ...]
    keys: frozenset[int]
    #: Tag and value that must not both be the same in the output.
    same: frozenset[tuple[int, bytes]]
    #: Days of the original by tag, as `YYYYMMDD`.
    days: frozenset[tuple[int, bytes]]
    all_days: frozenset[bytes]
    #: What is looked for within UIDs, where the policy keeps them.
    within_uids: tuple[Within, ...]

    def may_be_in(self, searched: Searched) -> bool:
        """Whether it is worth while to ask `is_in`: false for nearly all texts in which nothing is."""
        if searched.is_long:
            return True
        bare = searched.bare
        for hint in self.hints:  # a generator takes twice as long, and this is asked for each object
            if hint in bare:
                return True
        return not self.keys.isdisjoint(searched.days)

    def is_in(self, searched: Searched) -> bool:
        """Whether any form is in a folded text. Raises `re2.error` if it cannot be told."""
        if searched.is_long:
            return any(each.search(searched.text) is not None for each in _together(self))
        return self.may_be_in(searched) and next(self._kinds_in(searched), None) is not None

    def kinds_in(self, searched: Searched) -> Iterator[tuple[str, str]]:
        """Kind and pattern of each form that is in a folded text. Raises `re2.error` if it cannot be told."""
        if self.is_in(searched) if searched.is_long else self.may_be_in(searched):
            yield from self._kinds_in(searched)

    def _kinds_in(self, searched: Searched) -> Iterator[tuple[str, str]]:
        text, is_long = searched.text, searched.is_long
        for kind, form in self.forms:
            if (is_long or any(hint in searched.bare for hint in form.hints)) and _compiled(form.pattern).search(text) is not None:
                yield kind, form.pattern
        for key, day, compact in self.dates:
            if is_long or key in searched.days:
                pattern = date_forms(day, compact=compact)
                if _compiled(pattern).search(text) is not None:
                    yield DATE, pattern

    def stands_out(self, pattern: str, text: bytes) -> bool:
        """Whether a form in bytes that may be no text is there by more than chance: it is long, or has text around it."""
        for found in _compiled(pattern).finditer(text):
            begin, end = found.span()
            if len(text[begin:end].strip(_EDGES)) >= _LEAST_IN_BYTES:
                return True
            while begin > 0 and text[begin - 1] in _PRINTABLE:
                begin -= 1
            while end < len(text) and text[end] in _PRINTABLE:
                end += 1
            run = text[begin:end].strip(_UNPRINTABLE)
            if len(run) >= _LEAST_TEXT or len(text) <= _FEW_BYTES:
                return True
        return False


@lru_cache(maxsize=_CACHED)
def sought(facts: frozenset[Fact], own: frozenset[bytes], scope: Scope) -> Sought:
    """What to look for, given an original's values and what it says of its maker and model, which are in an output by nature.

    Those are free text, in which anything can stand: their words excuse an identifier of a device that is named like its model. A
    person's name or a patient's identifier they excuse only as the whole name of a known maker (`makers.txt`).
    """
    device, people = _known(own), _known(own & makers())
    found: dict[Form, str] = {}
    same: set[tuple[int, bytes]] = set()
    days: set[tuple[int, bytes]] = set()
    for fact in sorted(facts, key=_in_order):
        if fact.kind == DATE:
            if (day := day_of(fact.value)) is not None:
                days.add((fact.tag, written(day)))
            continue
        known = device if TAGS.get(fact.tag, ("", ""))[1] == "device" else people
        forms_of = _forms if len(fact.value) <= _LONGEST_REMEMBERED else _forms.__wrapped__
        tells, of_fact = forms_of(fact.kind, fact.value, fact.charset, known)
        if fact.tag and tells:
            same.add((fact.tag, fact.value.strip(b" \0")))
        found.update(dict.fromkeys(of_fact, fact.kind))
    birth = {day for tag, day in days if tag == PATIENT_BIRTH_DATE}
    others = {day for tag, day in days if tag != PATIENT_BIRTH_DATE}
    # Where dates are kept, whoever is born on the day of the study has no date to hide.
    looked_for = birth - others if scope.dates == "kept" else birth | others
    found.update((form, DATE) for each in birth & looked_for for form in birth_forms(each))
    dates = tuple((day_key(day), day, each in birth) for each in sorted(looked_for) if (day := day_of(each)))
    return Sought(
        forms=tuple((kind, form) for form, kind in found.items()),
        dates=dates,
        hints=_shortest({hint for form in found for hint in form.hints}),
        keys=frozenset([key for key, _, _ in dates]),
        same=frozenset(same),
        days=frozenset(entry for entry in days if entry[1] in looked_for),
        all_days=frozenset(looked_for),
        within_uids=within_uids(facts, birth, others) if scope.uids else (),
    )


def _shortest(hints: Iterable[bytes]) -> tuple[bytes, ...]:
    """Of strings those that hold none of the others: one of all is in a text if one of these is."""
    found: list[bytes] = []
    for hint in sorted(hints, key=len):
        if not any(each in hint for each in found):
            found.append(hint)
    return tuple(found)


_in_order = attrgetter("tag", "kind", "value", "charset")


@lru_cache(maxsize=_CACHED)
def _together(looked_for: Sought) -> tuple[Any, ...]:
    """All forms in as few patterns as RE2 likes: for long texts, which are gone through once for many of them."""
    found: list[Any] = []
    some: list[str] = []
    for pattern in (
        *(form.pattern for _, form in looked_for.forms),
        *(date_forms(day, compact=compact) for _, day, compact in looked_for.dates),
    ):
        if some and sum(map(len, some)) + len(pattern) > _MOST_TOGETHER:
            found.append(_compiled("|".join(some)))
            some = []
        some.append(pattern)
    if some:
        found.append(_compiled("|".join(some)))
    return tuple(found)


@lru_cache(maxsize=_FACTS)
def _forms(kind: str, value: bytes, charset: bytes, known: Known) -> tuple[bool, tuple[Form, ...]]:
    """Whether a value says anything by itself, and its forms. Institutions, devices and staff are in the objects of many patients."""
    stripped = value.strip(b" \0")
    said = texts(stripped, charset)
    found = list(forms.raw_forms(stripped, said)) if kind == NAME and not stripped.isascii() else []
    for text in dict.fromkeys(each for one in said for each in (one, of_one_script(one))):
        for each in text.split("\\"):
            found += _forms_of_text(kind, each, known)
    return bool(stripped) and not stands_for_nobody(stripped.decode("latin-1")), tuple(found)


def _forms_of_text(kind: str, value: str, known: Known) -> Iterable[Form]:
    if kind == NAME:
        return forms.name_forms(value, known, known.own)
    if kind == ID:
        return forms.id_forms(value, known)
    if kind == PHRASE:
        return forms.phrase_forms(value, known)
    return ()


@lru_cache(maxsize=512)
def _compiled(form: str) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = True
    options.log_errors = False
    options.max_mem = _PATTERN_BYTES
    return re2.compile(form.encode("ascii"), options)


class Known(Collection[str]):
    """The vocabulary, with the words of some values, and other ones."""

    def __init__(self, own: frozenset[bytes]) -> None:
        self.own = frozenset(folded(word) for each in own for word in each.decode("latin-1").split())
        self._all = vocabulary()

    def __contains__(self, word: object) -> bool:
        return word in self.own or word in self._all

    def __iter__(self) -> Iterator[str]:
        yield from self.own | self._all

    def __len__(self) -> int:
        return len(self.own | self._all)


@lru_cache(maxsize=256)
def _known(own: frozenset[bytes]) -> Known:
    """One for all objects that say the same of maker and model: what is remembered of values goes by it."""
    return Known(own)


@lru_cache(maxsize=1)
def makers() -> frozenset[bytes]:
    """Names of makers as their devices write them in Manufacturer, in lower case."""
    return frozenset((files(__package__) / "makers.txt").read_bytes().splitlines())


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    """Folded words of at least four letters that tell of nobody: of the standard, of medicine, of makers (`make_known_words.py`)."""
    return frozenset((files(__package__) / "known_words.txt").read_text("utf-8").split())
