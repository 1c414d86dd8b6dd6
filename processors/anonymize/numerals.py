"""Which numbers of a text say nothing of anybody: small ones by themselves, and those with a unit; not ages over 89, days, telephones.

It is the number's surroundings that tell: a month beside it makes it a date, a word such as `phone` before it a telephone number, others
close by a part of one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NUMBER = re.compile(r"\d+(?:[.,]\d+)?\Z", re.ASCII)
_MEASURE = re.compile(
    r"(?:\d{1,4}(?:[.,]\d{1,3})?(?:mm2?|cm|ml|mg|kg|kv|kvp|ma|mas|mgy|mbq|gy|hz|mhz|ms)|\d{1,3}(?:[.,]\d{1,3})?(?:s|min|hr)"
    r"|\d{1,2}(?:[.,]\d{1,3})?(?:h|d|w|t|x|th|st|nd|rd))\Z",
    re.ASCII,
)
_UNITS = _words(
    """
    mm cm ml mg kg kv kvp ma mas mgy mbq bq kbq gy hz khz mhz ms sec s min hr h hu cc um nm deg bpm t tesla years year days
    """
)
_YEARS = frozenset(["y", "yo", "yr", "yrs", "year", "years", "jahre", "jahr", "ans", "anni", "anos", "jaar"])
_MONTHS = _words(
    """
    jan january januar jänner janvier enero gennaio janeiro januari feb february februar feber février fevrier febrero febbraio fevereiro
    februari mar march märz maerz mrz mars marzo março marco maart apr april avr avril abr abril aprile may mai mayo maggio maio mei jun
    june juni juin junio giugno junho jul july juli juil juillet julio luglio julho aug august août aout ago agosto augustus sep sept
    september septembre septiembre settembre setembro oct october okt oktober octobre octubre ottobre outubro nov november novembre
    noviembre novembro dec december dez dezember décembre decembre dic diciembre dicembre dezembro
    """
)
#: After these comes a number that is somebody's.
_ANNOUNCING = _words(
    """
    tel telephone telefon telefono téléphone phone fon fax call called calls cell mobile mobil mob handy gsm pager bleep beep ext extension
    dect durchwahl dw rufnummer contact mrn pid pin ssn nhs svnr dob born geb geboren né née nee nato nata nacido nacida accession
    """
)
_AFTER_ANNOUNCED = 8
_BESIDE_MONTH = 2
_OLDEST = 89  # as everywhere in the profile: who is older is one of few
#: Digits in front of the decimal point: of a number by itself, and of one with a unit. The least digits of a telephone number.
_LONGEST_ALONE, _LONGEST_MEASURED, _LEAST_TELEPHONE = 2, 4, 7
_LONGEST = 8


def harmless(tokens: Sequence[str], words: Sequence[tuple[int, str]]) -> set[int]:
    """Of `words` (their places among `tokens`, which hold what is between them as well) those that are numbers and may stay, by place."""
    if not any(word[0].isdigit() for _, word in words):
        return set()
    low = [word.casefold() for _, word in words]
    bare = [at for at, word in enumerate(low) if _NUMBER.match(word) and not _is_measured(tokens, words, low, at)]
    somebodys = _telephones(low, bare)
    last = -_AFTER_ANNOUNCED
    kept = set()
    for at, (n, _) in enumerate(words):
        word = low[at]
        if word in _ANNOUNCING:
            last = at
        if not word[0].isdigit() or at - last < _AFTER_ANNOUNCED or at in somebodys:
            continue
        if _MEASURE.match(word):
            if not (word[-2:] in ("th", "st", "nd", "rd") and _is_by_month(low, at)):
                kept.add(n)
        elif _NUMBER.match(word) and _may_stay(tokens, words, low, at):
            kept.add(n)
    return kept


def _may_stay(tokens: Sequence[str], words: Sequence[tuple[int, str]], low: Sequence[str], at: int) -> bool:
    whole = re.split("[.,]", low[at])[0]
    if len(low[at]) > _LONGEST or (len(whole) > 1 and whole[0] == "0"):
        return False
    if _is_measured(tokens, words, low, at):
        return len(whole) <= _LONGEST_MEASURED and not (low[at + 1 : at + 2] and low[at + 1] in _YEARS and int(whole) > _OLDEST)
    beside = any(0 <= near < len(low) and _NUMBER.match(low[near]) for near in (at - 1, at + 1))
    return len(whole) <= _LONGEST_ALONE and int(whole) <= _OLDEST and not beside and not _is_by_month(low, at)


def _is_measured(tokens: Sequence[str], words: Sequence[tuple[int, str]], low: Sequence[str], at: int) -> bool:
    n = words[at][0]
    return (at + 1 < len(low) and low[at + 1] in _UNITS) or "".join(tokens[n + 1 : n + 2]).lstrip(" ").startswith("%")


def _is_by_month(low: Sequence[str], at: int) -> bool:
    return any(word.lstrip("0123456789") in _MONTHS for word in low[max(0, at - _BESIDE_MONTH) : at + _BESIDE_MONTH + 1])


def _telephones(low: Sequence[str], bare: Sequence[int]) -> set[int]:
    """Numbers without units, at most one word apart, that together have as many digits as a telephone number."""
    found: set[int] = set()
    run: list[int] = []
    for at in bare:
        if run and at - run[-1] > _BESIDE_MONTH:
            run = []
        run.append(at)
        if sum(len(low[each]) for each in run) >= _LEAST_TELEPHONE:
            found.update(run)
    return found
