"""The second look: is anything of an original's own identifying values in what is about to leave?

It is apart from the engine by reader and by logic: it does not know what the policy does with which attribute. It takes what identifies
from the original (`identifying`), thinks of the forms in which that may turn up (`forms`), and looks for them in every element of the
output, at every depth, in private data, in bytes of which nobody knows what they are, and in the text of documents; pixel data is left
out. What is found is told by its place and its kind, never by its value.

What it cannot find is told in docs/decisions/0037-the-second-look.md: values that the original does not name as anybody's, misspelt names,
text in pixels, what is encrypted or compressed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import re2
from msgspec import Struct

from processors.anonymize.verify.bulk import has_text_of_its_own, readings
from processors.anonymize.verify.elements import Element, place_of
from processors.anonymize.verify.facts import Fact, facts_of, facts_of_patient, identity_of
from processors.anonymize.verify.files import Data, Source, Unreadable
from processors.anonymize.verify.folding import both, is_escaped, is_plain, searchable
from processors.anonymize.verify.hints import Searched
from processors.anonymize.verify.identifying import DATE, STANDARD_UIDS, UID, kind_of
from processors.anonymize.verify.passages import MOST_TOGETHER, Passage
from processors.anonymize.verify.reading import Reader
from processors.anonymize.verify.retained import kinds_within
from processors.anonymize.verify.scope import Scope
from processors.anonymize.verify.sought import Sought, sought

__all__ = ["Fact", "Hit", "Scope", "facts_of", "facts_of_patient", "second_look"]

#: Lanes of an output.
_TEXT, _NUMBER, _DAY, _OUTPUT_UID, _BYTES = 1, 2, 3, 4, 5
_LANES = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"), _TEXT),
    **dict.fromkeys(("AS", "DS", "IS", "TM"), _NUMBER),
    **dict.fromkeys(("DA", "DT"), _DAY),
    "UI": _OUTPUT_UID,
}
#: Nobody reads more.
MOST_HITS = 100
#: Shorter ones are parts of others.
_LEAST_UID = 10
_OF_NUMBERS = b"0123456789.+-eE:\\ \0\x01"
#: UIDs in which nothing else can be, beside registered ones: pseudonyms; and, where the policy keeps UIDs, any that is one (PS3.5 9.1).
_OURS = re.compile(rb"(?:2\.25\.[1-9][0-9]{29,38}[ \0]*(?:\\|\Z))*\Z")
_ANY = re.compile(rb"(?:[012](?:\.(?:0|[1-9][0-9]*)){2,}[ \0]*(?:\\|\Z))*\Z")
#: DeidentificationMethod.
_METHOD = 0x00120063
_UIDS_APART = bytes.maketrans(b"\\", b"\x01")
_NO_CONTROLS = bytes(each for each in range(256) if each >= 0x20 or each in b"\t\n\f\r\x1b")
#: A shorter number is everywhere.
_LEAST_NUMBER = 6
#: A date of six digits is a time of day as well.
_LEAST_DATE = 8


class _Left:
    """What the policy lets into an output: nothing of an original can be in it. One for each scope, by identity."""

    __slots__ = ("method", "retained", "uid")

    def __init__(self, scope: Scope) -> None:
        #: UIDs in which nothing else can be; and whether they are the original's, in which a number may be.
        self.uid, self.retained = (_ANY, True) if scope.uids else (_OURS, False)
        #: The value of DeidentificationMethod that names the policy.
        self.method = b"Hilum policy " + scope.name.encode()

    def of_method(self, path: tuple[int, ...], value: bytes) -> bytes:
        """A value of DeidentificationMethod without what the engine writes there with the policy's name, which is at the top level."""
        return value if path else b"\\".join(each for each in value.split(b"\\") if each.strip(b" ") != self.method)


_left_by = lru_cache(maxsize=64)(_Left)


class Hit(Struct, frozen=True):
    """Something of the original that is in the output."""

    #: A path of tags, `preamble`, or `original` or `output` if that cannot be read.
    place: str
    #: `name`, `id`, `phrase` (address, institution), `date`, `uid`, `same` (an attribute as it was), or `unreadable`.
    kind: str


def second_look(original: Data, output: Data, scope: Scope = Scope(), also: Iterable[Fact] = ()) -> tuple[Hit, ...]:  # noqa: B008  # frozen
    """What of `original` is still in `output`, each place and kind once, at most `MOST_HITS`; empty if nothing was found.

    Both are Part 10 files, whole or in parts one after the other; a file that cannot be read to its end is a hit. `scope` is what the
    policy keeps. `also` are values that identify but are not in `original`: `facts_of` the object before it was set right by its order,
    `facts_of_patient` of the patient that survived a merge. Never raises on its content, and shows no value.
    """
    try:
        identity = identity_of(original, scope)
    except Unreadable:
        return (Hit("original", "unreadable"),)
    try:
        passages = _output.passages(output)
    except Unreadable:
        return (Hit("output", "unreadable"),)
    try:
        looked_for = sought(identity.facts.union(also), identity.own, scope)
        return _hits(output, passages, looked_for, identity.uids, _left_by(scope))
    except re2.error:  # values too long for what can be looked for
        return (Hit("original", "unreadable"),)


def _hits(output: Data, passages: list[Passage], looked_for: Sought, uids: frozenset[bytes], left: _Left) -> tuple[Hit, ...]:
    preamble = Source(output).read(0, 128)
    if not _suspicious(passages, preamble, looked_for, uids, left):
        return ()
    hits: dict[Hit, None] = {}
    for hit in _each(_output.read(output), preamble, looked_for, uids, left):
        hits[hit] = None
        if len(hits) == MOST_HITS:
            break
    return tuple(hits)


def _of_output(tag: int, vr: str) -> tuple[int, str]:
    kind, _ = kind_of(tag, vr)
    return _TEXT if kind not in ("", DATE, UID) else _LANES.get(vr, _BYTES), kind


_output = Reader(_of_output, 6)


class _Digest(Struct, frozen=True):
    """What is searched of an output, or of a passage of it, as a whole."""

    #: Text in ASCII and bytes of which nobody knows what they are, in lower case; other text, folded.
    raw: Searched
    text: Searched
    uids: frozenset[bytes]
    #: UIDs of the original that may stay, where they may.
    retained: bytes
    #: Values as they stand, of attributes that must not have the original's.
    same: frozenset[tuple[int, bytes]]
    days: frozenset[bytes]
    #: Whether each element must be looked at in any case: a date that is none, a document.
    odd: bool


def _digest(lanes: list[list[Element]], left: _Left) -> _Digest:
    ascii_texts: list[bytes] = []
    others: list[bytes] = []
    for path, seen, as_written, charset in lanes[_TEXT]:
        value = as_written if seen.tag != _METHOD else left.of_method(path, as_written)
        if is_plain(value):
            ascii_texts.append(value)
        else:
            others.append(searchable(value, charset))
    ascii_texts += [value for _, _, value, _ in lanes[_NUMBER]]
    uid_values = [value for _, _, value, _ in lanes[_OUTPUT_UID]]
    ascii_texts += [value for value in uid_values if not _is_plain(left, value)]
    unknown = [value for _, _, value, _ in lanes[_BYTES]]
    others += [searchable(value, charset) for _, _, value, charset in lanes[_BYTES] if _has_readings(value)]
    days = [value for _, _, value, _ in lanes[_DAY] if value]
    uids = frozenset(b"\x01".join(uid_values).translate(_UIDS_APART, b"\0 ").split(b"\x01"))
    return _Digest(
        raw=Searched.of(b"\x01".join([*ascii_texts, *unknown]).lower()),
        text=Searched.of(b"\x01".join(others)),
        uids=uids,
        retained=b"\x01".join(uids - STANDARD_UIDS) if left.retained else b"",
        same=frozenset([(seen.tag, value.strip(b" \0")) for _, seen, value, _ in lanes[_TEXT] if seen.note]),
        days=frozenset([value[:8] for value in days]),
        odd=any(not value[:8].isdigit() or b"\\" in value for value in days)
        or any(has_text_of_its_own(value) for value in unknown if len(value) > 16),
    )


def _joined(digests: list[_Digest]) -> _Digest:
    nothing: frozenset[Any] = frozenset()
    return _Digest(
        raw=Searched.joined([each.raw for each in digests]),
        text=Searched.joined([each.text for each in digests]),
        uids=nothing.union(*[each.uids for each in digests]),
        retained=b"\x01".join([each.retained for each in digests]),
        same=nothing.union(*[each.same for each in digests]),
        days=nothing.union(*[each.days for each in digests]),
        odd=any(each.odd for each in digests),
    )


@lru_cache(maxsize=MOST_TOGETHER)
def _of_met(passages: tuple[Passage, ...], left: _Left) -> _Digest:
    return _joined([passage.made(left, lambda lanes: _digest(lanes, left)) for passage in passages])


def _suspicious(passages: list[Passage], preamble: bytes, looked_for: Sought, uids: frozenset[bytes], left: _Left) -> bool:
    """Whether it is worth while to look at each element: quick, and true too often rather than too seldom."""
    new, *met = passages
    digests = _digest(new.lanes or [], left), _of_met(tuple(met), left)
    raw = Searched.joined([_searched(preamble.lower()), *[each.raw for each in digests]])
    text = Searched.joined([each.text for each in digests])
    if looked_for.is_in(text) or (looked_for.may_be_in(raw) and (looked_for.is_in(raw) or looked_for.is_in(raw.without_nul()))):
        return True
    for each in digests:
        if each.odd or not (
            uids.isdisjoint(each.uids) and looked_for.all_days.isdisjoint(each.days) and looked_for.same.isdisjoint(each.same)
        ):
            return True
        if each.retained and next(kinds_within(each.retained, looked_for.within_uids), None) is not None:
            return True
    return any(len(uid) >= _LEAST_UID and (uid in raw.text or uid in text.text) for uid in uids)


#: The preamble, which is nearly always zeros.
_searched = lru_cache(maxsize=64)(Searched.of)


@lru_cache(maxsize=4096)
def _is_plain(left: _Left, value: bytes) -> bool:
    """Whether nothing else can be in the value of a UI."""
    return left.uid.match(value) is not None or value.rstrip(b"\0 ") in STANDARD_UIDS


def _each(lanes: list[list[Element]], preamble: bytes, looked_for: Sought, uids: frozenset[bytes], left: _Left) -> Iterator[Hit]:
    """Every element by itself."""
    for path, seen, value, charset in lanes[_TEXT]:
        place = place_of(path, seen.tag)
        if (seen.tag, value.strip(b" \0")) in looked_for.same:
            yield Hit(place, seen.note)
        text = searchable(value if seen.tag != _METHOD else left.of_method(path, value), charset)
        yield from (Hit(place, kind) for kind in _kinds(text, looked_for, uids))
    for path, seen, value, charset in lanes[_NUMBER]:
        yield from (Hit(place_of(path, seen.tag), kind) for kind in _kinds_in_number(value, charset, looked_for, uids))
    for path, seen, value, charset in lanes[_DAY]:
        yield from (Hit(place_of(path, seen.tag), kind) for kind in _kinds_in_day(seen.tag, value, charset, looked_for, uids))
    for path, seen, value, charset in lanes[_OUTPUT_UID]:
        place = place_of(path, seen.tag)
        each_uid = frozenset(each.strip(b" \0") for each in value.split(b"\\"))
        if not uids.isdisjoint(each_uid):
            yield Hit(place, UID)
        if left.retained:
            yield from (Hit(place, kind) for kind in kinds_within(b"\x01".join(each_uid - STANDARD_UIDS), looked_for.within_uids))
        if not _is_plain(left, value):
            yield from (Hit(place, kind) for kind in _kinds(searchable(value, charset), looked_for, uids))
    for kind in _kinds_in_bytes(preamble, b"", looked_for, uids):
        yield Hit("preamble", kind)
    for path, seen, value, charset in lanes[_BYTES]:
        yield from (Hit(place_of(path, seen.tag), kind) for kind in _kinds_in_bytes(value, charset, looked_for, uids))


def _kinds(text: bytes, looked_for: Sought, uids: frozenset[bytes]) -> Iterator[str]:
    """The kinds of what is in a folded text."""
    yield from (kind for kind, _ in looked_for.kinds_in(Searched.of(text)))
    if any(uid in text for uid in uids if len(uid) >= _LEAST_UID):
        yield UID


def _kinds_in_number(value: bytes, charset: bytes, looked_for: Sought, uids: frozenset[bytes]) -> Iterator[str]:
    """A number by chance looks like a short identifier: only one that is the whole of a long one counts."""
    if value.translate(None, _OF_NUMBERS):
        yield from _kinds(searchable(value, charset), looked_for, uids)
        return
    for each in value.split(b"\\"):
        number = each.strip(b" \0")
        if number.isdigit() and len(number) >= _LEAST_NUMBER:
            found = _kinds(number, looked_for, uids)
            yield from found if len(number) >= _LEAST_DATE else (kind for kind in found if kind != DATE)


def _kinds_in_day(tag: int, value: bytes, charset: bytes, looked_for: Sought, uids: frozenset[bytes]) -> Iterator[str]:
    """A date that was moved may be another date of the original by chance: one that stands where it stood counts, or where none was."""
    there = {of for of, _ in looked_for.days}
    for each in value.split(b"\\"):
        text = each.strip(b" \0")
        if not text[:8].isdigit() or len(text) < 8:
            yield from _kinds(searchable(text, charset), looked_for, uids)
        elif text[:8] in looked_for.all_days and ((tag, text[:8]) in looked_for.days or tag not in there):
            yield DATE


def _kinds_in_bytes(value: bytes, charset: bytes, looked_for: Sought, uids: frozenset[bytes]) -> Iterator[str]:
    """Bytes of which it is not known what they are: as text, as text of two bytes a letter, and as documents are read."""
    for text in {value.lower(), value.lower().replace(b"\0", b"")}:
        yield from (kind for kind, form in looked_for.kinds_in(Searched.of(text)) if looked_for.stands_out(form, text))
        if any(uid in text for uid in uids if len(uid) >= _LEAST_UID):
            yield UID
    if _has_readings(value):
        yield from _kinds(searchable(value, charset), looked_for, uids)
    for reading in readings(value):
        for each in both(reading):
            yield from _kinds(each.encode("utf-8", "replace"), looked_for, uids)


def _has_readings(value: bytes) -> bool:
    return (not value.isascii() or is_escaped(value)) and _is_text(value)


def _is_text(value: bytes) -> bool:
    """Whether bytes of an unknown kind may be text: no control characters but those of text, and NUL as padding."""
    return not value.rstrip(b"\0").translate(None, _NO_CONTROLS)
