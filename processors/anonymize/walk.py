"""The fast engine: one walk over the bytes of a data set that finds what does not stay as it is.

Whatever stays is never copied, decoded or encoded: the result is the original with edits. What is done with an element is looked up by the
first bytes of its head, at its place among the attributes of the IOD, and nothing else happens to nearly all elements. Values are made
after the walk, when it is known whose object it is.
"""

from __future__ import annotations

import struct
from mmap import mmap
from typing import Any, NamedTuple

from processors.anonymize.charsets import Charset, charset
from processors.anonymize.comments import blanks
from processors.anonymize.held import AT_ITS_SOURCE, Held, HeldReason, shown
from processors.anonymize.known_elements import CARE, GO, KEEP, LONG, MATCH, PRIVATE, QUALIFIERS, VRS, WANTED, Entry, entry_of
from processors.anonymize.known_runs import KEY_BYTES, MOST_BYTES, NO_BLOCKS, Blocks, Run, Runs, blocks_of
from processors.anonymize.rules import Act, Level, Rules
from processors.anonymize.source import truncated, unreadable
from processors.anonymize.values import held_by, is_of_patient
from processors.anonymize.words import name_words

MAX_DEPTH = 32
#: Remembered for each place; an object can have any.
_MOST_HEADS = 8192
UNDEFINED = 0xFFFFFFFF
_UNDEFINED = b"\xff\xff\xff\xff"
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
ITEM_END_BYTES = b"\xfe\xff\x0d\xe0\0\0\0\0"
SEQUENCE_END_BYTES = b"\xfe\xff\xdd\xe0\0\0\0\0"
_PIXEL_DATA = 0x7FE00010
_U32 = struct.Struct("<I").unpack_from
_HEAD = struct.Struct("<HHI").unpack_from


class Unusual(Exception):
    """Legal or common, and not for this engine: the plain one takes it."""


class Later(NamedTuple):
    """An element whose new value is made after the walk."""

    start: int
    value_at: int
    end: int
    entry: Entry
    charset: Charset
    explicit: bool


class Known(NamedTuple):
    """A run that was met before, at its place in this object."""

    start: int
    run: Run
    end: int


#: From where to where the original is replaced, and by what; or what is to be made.
Edit = tuple[int, int, bytes] | Later | Known
#: Values longer than this are in no run: pixels above all.
_LONGEST_IN_RUN = 2048


class Walk:
    """One walk. `edits` are in the order of the object; `found` are values of the top level, from where to where they go; `names` the words
    of people's names.
    """

    def __init__(self, data: bytes | mmap, rules: Rules, stamps: tuple[tuple[int, bytes], ...]) -> None:
        self.edits: list[Edit] = []
        self.found: dict[int, tuple[int, int]] = {}
        self.names: list[frozenset[str]] = []
        self.blocks: Blocks = {}
        self._runs: Runs | None = None
        self._data = data
        self._rules = rules
        self._assumed = rules.policy.character_set
        self._stamps = [*stamps, (1 << 40, b"")]
        self.charset = charset(b"", self._assumed)

    def data_set(self, start: int, *, explicit: bool) -> None:
        """Walk to the end of the data. Raises `Held` and `Unusual`."""
        end = len(self._data)
        self._runs = self._rules.runs[explicit]
        self._elements(start, end, self._rules.top, self.charset, explicit, 0, delimited=False)
        for _, stamp in self._stamps[:-1]:
            self.edits.append((end, end, stamp))

    def _elements(self, pos: int, end: int, level: Level, text: Charset, explicit: bool, depth: int, *, delimited: bool) -> int:
        data, edits = self._data, self.edits
        heads: dict[bytes, Any] = level.explicit if explicit else level.implicit
        known, width = heads.get, 6 if explicit else 4
        blocks: Blocks = {} if depth else self.blocks
        last = -1
        gone_from = gone_to = -1  # of the last edit, if that takes something away
        stamp_before = self._stamps[0][0] if not depth else 1 << 40
        runs = self._runs if not depth else None
        run_at = runs.get if runs is not None else None
        marks: list[int] = []  # where elements begin that may become a run, and their tags
        tags: list[int] = []
        first: tuple[Charset, Blocks] = text, NO_BLOCKS  # what holds where they begin
        while pos < end:
            if runs is not None and run_at is not None and pos + 8 <= end:
                length = data[pos + width]
                run = run_at(data[pos : pos + 8 + (length if length < KEY_BYTES else KEY_BYTES)])
                if run is not None and data[pos : pos + len(run.whole)] != run.whole:
                    run = runs.parted(run, data, pos)
                if (
                    run is not None
                    and run.text is text
                    and run.tags[0] > last
                    and (run.blocks == blocks_of(blocks, run.tags[0]) if blocks else not run.blocks)
                ):
                    if marks:
                        self._learn(runs, first, marks, tags, pos)
                        marks, tags = [], []
                    if run.tags[0] > stamp_before:
                        stamp_before = self._stamp(pos, run.tags[0])
                    if run.tags[-1] <= stamp_before:
                        pos, text = self._known(run, pos, explicit)
                        last = run.tags[-1]
                        gone_to = -1
                        continue
            head = data[pos : pos + width]
            entry: Entry | None = known(head)
            if entry is None:
                entry = entry_of(head, level, explicit=explicit)
                if len(heads) < _MOST_HEADS:
                    heads[head] = entry
            how, tag, decision, value_at, match, _ = entry
            if tag <= last:
                if tag == last:
                    raise unreadable("The same element is there twice.", shown(tag))
                raise Unusual
            last = tag
            if tag > stamp_before:
                stamp_before = self._stamp(pos, tag)
                gone_to = -1
                if marks:
                    self._learn(runs, first, marks, tags, pos)
                    marks, tags = [], []
            start = pos + value_at
            if explicit and value_at == 8:
                length = data[pos + 6] | data[pos + 7] << 8
            else:
                (length,) = _U32(data, start - 4)
                if value_at == 12 and (data[pos + 6] or data[pos + 7]):
                    raise Unusual  # reserved bytes, which would stay
            if runs is not None:
                apart = tag in runs.varying or (length > _LONGEST_IN_RUN and (length != UNDEFINED or tag == _PIXEL_DATA))
                if marks and (apart or pos - marks[0] > MOST_BYTES // 2):
                    self._learn(runs, first, marks, tags, pos)
                    marks, tags = [], []
                if not apart:
                    if not marks:
                        first = text, blocks_of(blocks, tag)
                    marks.append(pos)
                    tags.append(tag)
            if how == PRIVATE and tag & 0xFFFF > 0xFF and ((block := blocks.get(tag >> 8)) is None or tag & 0xFF not in block[1]):
                how = GO
            if how >= CARE or length == UNDEFINED:
                if tag == _ITEM_END and delimited:
                    _check_empty(length)
                    return pos + 8
                pos, text = self._care(pos, start, length, end, entry, level, text, explicit, depth, blocks)
                continue
            stop = start + length
            if stop > end:
                raise truncated(shown(tag))
            if how == KEEP or (how == MATCH and match(data, start, stop)):  # type: ignore[misc]  # it has one
                pos = stop
                continue
            if how == GO:
                if gone_to == pos:
                    edits[-1] = (gone_from, stop, b"")
                else:
                    edits.append((pos, stop, b""))
                    gone_from = pos
                gone_to = stop
            else:
                later = Later(pos, start, stop, entry, text, explicit)
                edits.append(later)
                if not depth and tag in WANTED:
                    self.found[tag] = (start, stop)
                if decision.vr == "PN":
                    self.names.append(name_words(bytes(data[start:stop])))
            pos = stop
        if delimited:
            raise truncated()
        if marks:
            self._learn(runs, first, marks, tags, pos)
        return pos

    def _learn(self, runs: Runs | None, first: tuple[Charset, Blocks], marks: list[int], tags: list[int], pos: int) -> None:
        """Remember the elements from the first mark to `pos`; one by itself is sooner walked."""
        if runs is not None and len(marks) > 1:
            begin = marks[0]
            ends = [each - begin for each in marks[1:]]
            runs.add(Run(bytes(self._data[begin:pos]), [*ends, pos - begin], tags, *first))

    def _known(self, run: Run, pos: int, explicit: bool) -> tuple[int, Charset]:
        """A run that was met before; returns the position behind it, and the character set there."""
        stop = pos + len(run.whole)
        if run.edits is None:
            walk = Walk(run.whole, self._rules, ())
            walk.charset, walk.blocks = run.text, dict(run.blocks)
            walk._elements(0, len(run.whole), self._rules.top, run.text, explicit, 0, delimited=False)
            run.names, run.found, run.blocks_after, run.text_after = tuple(walk.names), walk.found, walk.blocks, walk.charset
            run.of_patient = any(isinstance(edit, Later) and is_of_patient(edit.entry.decision) for edit in walk.edits)
            run.edits = walk.edits  # at last: by it another thread knows that all is there
        self.charset = run.text_after
        self.names += run.names
        self.blocks |= run.blocks_after
        for tag, (begin, end) in run.found.items():
            self.found[tag] = (pos + begin, pos + end)
        if run.edits:
            self.edits.append(Known(pos, run, stop))
        return stop, run.text_after

    def _stamp(self, pos: int, tag: int) -> int:
        while self._stamps[0][0] < tag:
            self.edits.append((pos, pos, self._stamps.pop(0)[1]))
        return self._stamps[0][0]

    def _care(
        self,
        pos: int,
        start: int,
        length: int,
        end: int,
        entry: Entry,
        level: Level,
        text: Charset,
        explicit: bool,
        depth: int,
        blocks: Blocks,
    ) -> tuple[int, Charset]:
        """One element that needs a closer look; returns the position behind it and the character set from there on."""
        tag, decision = entry.tag, entry.decision
        if tag >> 16 == 0xFFFE:
            raise unreadable("A delimiter where an element is expected.")
        undefined = length == UNDEFINED
        stop = start + length
        if not undefined and stop > end:
            raise truncated(shown(tag))
        if tag >> 16 & 1:
            return self._private(pos, start, length, end, entry, text, explicit, blocks), text
        if decision.act is Act.CHARACTER_SET and not undefined:
            found = charset(bytes(self._data[start:stop]), self._assumed)
            if not depth:
                self.charset = found
            return stop, found
        if tag == _PIXEL_DATA and undefined and decision.act is Act.KEEP:
            stop = self._skip_items(start, end, explicit, depth)
            self.edits += blanks(self._data, start, stop - 8)
            return stop, text
        vr = self._data[pos + 4 : pos + 6] if explicit else b""
        is_sequence = decision.vr == "SQ" and vr in (b"", b"SQ", b"UN")
        inside_explicit = vr == b"SQ"  # what is in UN is in implicit VR (PS3.5 6.2.2)
        if tag == QUALIFIERS and not depth:
            self.found[tag] = (pos, self._skip_items(start, end, inside_explicit, depth) if undefined else stop)
        if decision.act is Act.DESCEND and is_sequence:
            return self._sequence(start, length, end, level.inside(decision), text, inside_explicit, depth + 1), text
        if undefined:
            stop = self._skip_items(start, end, inside_explicit, depth)
            if decision.act is Act.REMOVE:
                self.edits.append((pos, stop, b""))
                return stop, text
            if decision.act is not Act.EMPTY or not is_sequence:
                raise unreadable("It has no length, and is no sequence.", shown(tag))
        if decision.act is Act.HOLD:
            raise held_by(decision)
        if decision.vr == "SQ" and decision.act is Act.EMPTY:
            self.edits.append((pos, stop, bytes(self._data[pos : start - 4]) + b"\0\0\0\0"))
            return stop, text
        if decision.act is Act.REMOVE:
            self.edits.append((pos, stop, b""))
            return stop, text
        if decision.vr == "SQ":
            raise Held(HeldReason.VR_UNEXPECTED, "A sequence that is encoded as something else.", fix=AT_ITS_SOURCE, place=shown(tag))
        self.edits.append(Later(pos, start, stop, entry, text, explicit))
        return stop, text

    def _private(self, pos: int, start: int, length: int, end: int, entry: Entry, text: Charset, explicit: bool, blocks: Blocks) -> int:
        """A private element, under the option that keeps safe ones."""
        tag = entry.tag
        group, element = tag >> 16, tag & 0xFFFF
        if length == UNDEFINED:
            stop = self._skip_items(start, end, explicit and entry.vr == b"SQ", 0)
            self.edits.append((pos, stop, b""))
            return stop
        stop = start + length
        if 0x10 <= element <= 0xFF:
            creator = bytes(self._data[start:stop]).decode("latin-1").strip("\0 ")
            places = self._rules.creators.get((creator, group))
            if places is None:
                self.edits.append((pos, stop, b""))
                return stop
            blocks[group << 8 | element] = (creator, places)
            if entry.vr not in (b"", b"LO", b"UN"):
                raise Held(HeldReason.PRIVATE_CREATOR, "A private creator is LO (PS3.5 7.8.1).", fix=AT_ITS_SOURCE, place=shown(tag))
            return stop
        block = blocks.get(group << 8 | element >> 8)
        decision = self._rules.of_private(block[0], tag) if block else None
        if decision is None:
            self.edits.append((pos, stop, b""))
            return stop
        if entry.vr not in (b"", b"UN", decision.vr.encode()):
            raise Held(
                HeldReason.PRIVATE_CREATOR,
                f"The element is not what the creator of its block makes it: it says that it is {entry.vr.decode()}, not {decision.vr}.",
                fix="Take it out of the policy's private elements, or have the sender corrected.",
                place=shown(tag),
            )
        self.edits.append(Later(pos, start, stop, entry._replace(decision=decision), text, explicit))
        return stop

    def _sequence(self, start: int, length: int, end: int, level: Level, text: Charset, explicit: bool, depth: int) -> int:
        """The items of a sequence that stays. One in which nothing changes is left as it is, its length as well."""
        if depth > MAX_DEPTH:
            raise Held(HeldReason.NESTING, f"Sequences are nested more than {MAX_DEPTH} deep.", fix=AT_ITS_SOURCE)
        data, edits = self._data, self.edits
        before = len(edits)
        at, stop = start, end if length == UNDEFINED else start + length
        while at < stop:
            if stop - at < 8:
                raise truncated()
            group, element, size = _HEAD(data, at)
            if group != 0xFFFE or element not in (0xE000, 0xE0DD):
                raise unreadable("A sequence holds something else than items.", shown(group << 16 | element))
            if element == 0xE0DD:
                if length != UNDEFINED:
                    raise unreadable("A sequence of defined length holds a delimiter.")
                _check_empty(size)
                return at + 8
            at += 8
            if size == UNDEFINED:
                at = self._elements(at, stop, level, text, explicit, depth, delimited=True)
                continue
            if at + size > stop:
                raise truncated()
            first = len(edits)
            begin = at
            at = self._elements(at, at + size, level, text, explicit, depth, delimited=False)
            if len(edits) > first:
                edits.insert(first, (begin - 4, begin, _UNDEFINED))
                edits.append((at, at, ITEM_END_BYTES))
        if length == UNDEFINED:
            raise truncated()
        if len(edits) > before:
            edits.insert(before, (start - 4, start, _UNDEFINED))
            edits.append((at, at, SEQUENCE_END_BYTES))
        return at

    def _skip_items(self, pos: int, end: int, explicit: bool, depth: int) -> int:
        """The position behind a value of undefined length: items, or fragments."""
        if depth > MAX_DEPTH:
            raise Held(HeldReason.NESTING, f"Sequences are nested more than {MAX_DEPTH} deep.", fix=AT_ITS_SOURCE)
        while True:
            if end - pos < 8:
                raise truncated()
            group, element, size = _HEAD(self._data, pos)
            pos += 8
            if group != 0xFFFE:
                raise unreadable("A value without length holds something else than items.", shown(group << 16 | element))
            if element == 0xE0DD:
                _check_empty(size)
                return pos
            if size != UNDEFINED:
                pos += size
                continue
            while True:
                if end - pos < 8:
                    raise truncated()
                group, element, length = _HEAD(self._data, pos)
                if group == 0xFFFE:
                    pos += 8
                    break
                if explicit:
                    code = bytes(self._data[pos + 4 : pos + 6])
                    if code not in VRS:
                        raise unreadable("It has no VR that is known.", shown(group << 16 | element))
                    if code in LONG:
                        (length,) = _U32(self._data, pos + 8)
                        pos += 12
                    else:
                        length = length >> 16
                        pos += 8
                    nested = code == b"SQ"
                else:
                    pos, nested = pos + 8, False
                pos = self._skip_items(pos, end, nested, depth + 1) if length == UNDEFINED else pos + length


def _check_empty(length: int) -> None:
    """Of a delimiter, which stays as it is: four bytes that hold nothing (PS3.5 7.5.2)."""
    if length:
        raise Unusual
