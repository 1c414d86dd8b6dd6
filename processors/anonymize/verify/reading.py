"""The second look's own reader of Part 10 files (PS3.10 7, PS3.5 7): every element at every depth, of pixel data the edges of fragments.

It shares nothing with the engine's, so that what one misses the other may see. It is quick because it decides by the first bytes of an
element what becomes of it, and remembers that; values are slices, and nothing is decoded.
"""

from __future__ import annotations

import struct

from processors.anonymize.verify.elements import Element, Path, Plan, Seen
from processors.anonymize.verify.files import DEFLATED, Data, Source, Unreadable, encoding_of, inflated, vr_of
from processors.anonymize.verify.frames import edges
from processors.anonymize.verify.passages import KEY_BYTES, LONGEST, Passage, Passages

#: So much of a file that is not in memory in one piece is taken at once: most headers, and little of the pixels behind them.
WINDOW_BYTES = 16 * 1024
_MOST_META = 32 * 1024
#: After so many files it is tried again whether what varied from one to the next still does.
TRIED_AGAIN_AFTER = 256
MAX_DEPTH = 64
_MAX_KNOWN = 20_000
_UNDEFINED = 0xFFFFFFFF
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_SHORT = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FL", "FD", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"}
)
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_CHARSET, _ITEM, _ITEM_END, _SEQUENCE_END = 0x00080005, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_TRANSFER_SYNTAX = 0x00020010
#: By whether it is big endian: two numbers of 16 bits, one of 32, and where the low and the high byte of a short length are.
_NUMBERS = {
    False: (struct.Struct("<HH").unpack_from, struct.Struct("<I").unpack_from, 6, 7),
    True: (struct.Struct(">HH").unpack_from, struct.Struct(">I").unpack_from, 7, 6),
}


class _Short(Exception):
    """The window ends before the element does."""


_Known = dict[str, dict[bytes, tuple[int, bool, Seen]]]


def _end_of_meta(head: bytes) -> int:
    return 144 + int.from_bytes(head[140:144], "little")


class Reader:
    """Reads with a plan; what is known of elements stays from one file to the next."""

    def __init__(self, plan: Plan, lanes: int) -> None:
        self._plan = plan
        self._lanes = lanes
        self._known: _Known = {"explicit": {}, "implicit": {}, "big": {}}
        self._files = 0
        self._passages = {"explicit": Passages(6), "implicit": Passages(4), "big": Passages(7)}

    def read(self, data: Data) -> list[list[Element]]:
        """The elements of each lane, in the order of the file; lane 0 is empty. Raises `Unreadable`."""
        found: list[list[Element]] = [[] for _ in range(self._lanes)]
        self._read(data, found, None)
        return found

    def passages(self, data: Data) -> list[Passage]:
        """The same elements, as passages in no order, most of which were met before. Raises `Unreadable`."""
        self._files += 1
        if self._files % TRIED_AGAIN_AFTER == 0:
            for passages in self._passages.values():
                passages.try_again()
        met: list[Passage] = []
        rest: list[list[Element]] = [[] for _ in range(self._lanes)]
        self._read(data, rest, met)
        return [Passage(lanes=rest), *met]

    def _read(self, data: Data, found: list[list[Element]], met: list[Passage] | None) -> None:
        source = Source(data)
        head = source.whole if source.whole is not None else source.read(0, WINDOW_BYTES)
        if head[128:132] != b"DICM":
            raise Unreadable("no Part 10 file")
        if len(head) == WINDOW_BYTES < _end_of_meta(head):
            head = source.read(0, _MOST_META)
        try:
            at, syntax = self._meta(head, found, met)
            if syntax in DEFLATED:
                head = inflated(source.read(at, source.size))
                source, at = Source(head), 0
            encoding = encoding_of(syntax, source.read(at, 8))
            walk = _Walk(source, encoding, self._known, self._plan, found)
            if met is not None:
                walk.meet(self._passages[encoding], met)
            walk.run(head, at)
        except (_Short, IndexError, struct.error):
            raise Unreadable("ends too early") from None

    def _meta(self, head: bytes, found: list[list[Element]], met: list[Passage] | None) -> tuple[int, bytes]:
        if head[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
            raise Unreadable("no group length in File Meta")
        end = _end_of_meta(head)
        if end > min(len(head), _MOST_META):
            raise Unreadable("File Meta is too long")
        walk = _Walk(Source(head), "explicit", self._known, self._plan, found)
        if met is not None:
            walk.meet(self._passages["explicit"], met)
        return end, walk.meta(head[:end], 144)


class _Walk:
    """One walk over one file."""

    def __init__(self, source: Source, encoding: str, known: _Known, plan: Plan, found: list[list[Element]]) -> None:
        self._encoding = encoding
        self._explicit = encoding != "implicit"
        self._source = source
        self._all_known = known
        self._known = known[encoding]
        self._plan = plan
        self._found = found
        self._pair, self._u32, self._low, self._high = _NUMBERS[encoding == "big"]
        self._data = b""
        self._last = True
        self._charset = b""
        self._syntax = b""
        #: Where the element of the top level begins that is being read, and how much had been found before it.
        self._top = 0
        self._marks: list[int] = []
        self._passages: Passages | None = None
        self._met: list[Passage] = []

    def meet(self, passages: Passages, met: list[Passage]) -> None:
        """Read no passage that is known again: it goes to `met`."""
        self._passages, self._met = passages, met

    def meta(self, data: bytes, at: int) -> bytes:
        """Read File Meta, which is all of `data` from `at`; returns the transfer syntax."""
        self._data = data
        self._elements(at, len(data), (), b"", delimited=False)
        return self._syntax

    def run(self, data: bytes, at: int = 0, charset: bytes = b"") -> None:
        """Read on from `at`, in `data`, which is the source's beginning or all of it."""
        base, size, window = 0, self._source.size, WINDOW_BYTES
        while base + at < size:
            self._data = data
            self._last = base + len(data) >= size
            self._top, self._marks = at, [len(each) for each in self._found]
            try:
                _, charset = self._elements(at, len(data), (), charset, delimited=False)
                base, at = base + len(data), 0  # an element may end just where the window does
                if self._last:
                    return
            except (_Short, IndexError, struct.error):
                for lane, mark in zip(self._found, self._marks, strict=True):
                    del lane[mark:]
                charset = self._charset
                moved = self._beyond(base)
                if moved == base + at:
                    if self._last:
                        raise
                    window *= 4
                else:
                    window = WINDOW_BYTES
                base, at = moved, 0
            data = self._source.read(base, window)

    def _beyond(self, base: int) -> int:
        """Where to go on: behind pixel data, or at the element for which the window is too small."""
        here = base + self._top
        self._data = self._source.read(here, 12)
        tag, vr, length, value_at = self._head(0, len(self._data))
        if tag not in _PIXELS:
            return here
        at = here + value_at
        if length != _UNDEFINED:
            if at + length > self._source.size:
                raise Unreadable("ends within pixel data")
            return at + length
        if vr == "SQ":
            return here
        seen, places = Seen(tag, vr, *self._plan(tag, vr)), list[tuple[int, int]]()
        while True:
            self._data = self._source.read(at, 8)
            (tag, length), at = self._item(0), at + 8
            if tag == _SEQUENCE_END:
                if seen.lane:
                    self._found[seen.lane].append(((), seen, edges(self._source.read, places), self._charset))
                return at
            places.append((at, length))
            at += length
            if at > self._source.size:
                raise Unreadable("ends within pixel data")

    def _elements(self, pos: int, end: int, path: Path, charset: bytes, *, delimited: bool) -> tuple[int, bytes]:
        data, known, found, low, high = self._data, self._known, self._found, self._low, self._high
        u32 = self._u32
        width = 6 if self._explicit else 4
        top = not path
        passages = self._passages if top else None
        by_beginning = passages.by_beginning if passages is not None else {}
        varying = passages.varying if passages is not None else set()
        low_of_length = low if self._explicit else 4
        begins: list[int] = []  # of elements that may become a passage, and the character set there
        before = charset
        if top:
            self._charset = charset
        while pos < end:
            if passages is not None and pos + 8 <= end:
                length = data[pos + low_of_length]
                met = by_beginning.get(data[pos : pos + 8 + (length if length < KEY_BYTES else KEY_BYTES)])
                if met is not None and not (met.charset == charset and data.startswith(met.whole, pos)):
                    met = passages.parted(met, data, pos, charset)
                if met is not None:
                    if begins:
                        passages.learn(data, begins, pos, before)
                        begins = []
                    if met.lanes is None:
                        self._read_in(met)
                    self._met.append(met)
                    pos += len(met.whole)
                    charset = self._charset = met.charset_after
                    if met.syntax:
                        self._syntax = met.syntax
                    continue
            entry = known.get(data[pos : pos + width])
            if entry is not None:
                lane, long, seen = entry
                if long:
                    at = pos + 12 if width == 6 else pos + 8
                    stop = at + u32(data, at - 4)[0]
                else:
                    at = pos + 8
                    stop = at + (data[pos + low] | data[pos + high] << 8)
                if stop <= end:
                    if passages is not None:
                        if stop - at <= LONGEST and data[pos : pos + 4] not in varying:
                            if not begins:
                                before = charset
                            begins.append(pos)
                        elif begins:
                            passages.learn(data, begins, pos, before)
                            begins = []
                    if lane:
                        found[lane].append((path, seen, data[at:stop], charset))
                    pos = stop
                    continue
            if top:
                self._top = pos
                self._marks = [len(each) for each in found]
            tag, vr, length, at = self._head(pos, end)
            if passages is not None:
                if tag in _PIXELS or LONGEST < length < _UNDEFINED or data[pos : pos + 4] in varying:
                    passages.learn(data, begins, pos, before)
                    begins = []
                else:
                    if not begins:
                        before = charset
                    begins.append(pos)
            if tag == _ITEM_END:
                if not delimited:
                    raise Unreadable("a delimiter where none belongs")
                return at, charset
            if tag == _CHARSET and length < 1024:
                charset = data[at : at + length]
                if top:
                    self._charset = charset
            elif tag == _TRANSFER_SYNTAX and top:
                self._syntax = data[at : at + length].rstrip(b"\0 ")
            pos = self._value(tag, vr, pos, at, length, end, path, charset)
        if delimited:
            raise _Short
        if passages is not None:
            passages.learn(data, begins, pos, before)
        return pos, charset

    def _read_in(self, passage: Passage) -> None:
        lanes: list[list[Element]] = [[] for _ in self._found]
        walk = _Walk(Source(passage.whole), self._encoding, self._all_known, self._plan, lanes)
        walk.run(passage.whole, 0, passage.charset)
        passage.charset_after, passage.syntax = walk._charset, walk._syntax
        passage.lanes = lanes  # at last: by it another thread knows that all is there

    def _value(self, tag: int, vr: str, pos: int, at: int, length: int, end: int, path: Path, charset: bytes) -> int:
        if vr == "SQ":
            return self._items(at, length, end, (*path, tag), charset)
        if vr == "UN":
            if length == _UNDEFINED:
                return self._as_implicit()._items(at, length, end, (*path, tag), charset)
            if (vr := vr_of(tag)) == "SQ":
                return self._perhaps_items(tag, pos, at, length, end, path, charset)
        if tag >> 16 == 0xFFFE:
            raise Unreadable("an item where none belongs")
        if length == _UNDEFINED:
            places: list[tuple[int, int]] = []
            stop, seen = self._fragments(at, end, places), Seen(tag, vr, *self._plan(tag, vr))
            if seen.lane:  # what is no pixel data is looked at whole: nobody else may hide anything in fragments
                value = edges(Source(self._data).read, places) if tag in _PIXELS else self._data[at:stop]
                self._found[seen.lane].append((path, seen, value, charset))
            return stop
        return self._leaf(tag, vr, pos, at, length, end, path, charset)

    def _perhaps_items(self, tag: int, pos: int, at: int, length: int, end: int, path: Path, charset: bytes) -> int:
        """A sequence that somebody did not know; if it is none, it is bytes."""
        marks = [len(each) for each in self._found]
        if at + length > end:
            raise _Short
        try:
            return self._as_implicit()._items(at, length, end, (*path, tag), charset)
        except (Unreadable, _Short, IndexError, struct.error):
            for lane, mark in zip(self._found, marks, strict=True):
                del lane[mark:]
            return self._leaf(tag, "UN", pos, at, length, end, path, charset)

    def _leaf(self, tag: int, vr: str, pos: int, at: int, length: int, end: int, path: Path, charset: bytes) -> int:
        stop = at + length
        if stop > end:
            raise _Short
        if tag in _PIXELS:
            return stop
        entry = self._learn(tag, vr, pos)
        if entry.lane:
            self._found[entry.lane].append((path, entry, self._data[at:stop], charset))
        return stop

    def _as_implicit(self) -> _Walk:
        """What lies in an element that somebody did not know is implicit VR, whatever surrounds it (PS3.5 6.2.2)."""
        if not self._explicit:
            return self
        walk = _Walk(self._source, "implicit", self._all_known, self._plan, self._found)
        walk._data = self._data
        return walk

    def _learn(self, tag: int, vr: str, pos: int) -> Seen:
        seen = Seen(tag, vr, *self._plan(tag, vr))
        if tag not in (_CHARSET, _TRANSFER_SYNTAX) and len(self._known) < _MAX_KNOWN:
            width = 6 if self._explicit else 4
            head = self._data[pos : pos + width]
            self._known[head] = (seen.lane, not self._explicit or head[4:].decode("latin-1") not in _SHORT, seen)
        return seen

    def _items(self, at: int, length: int, end: int, path: Path, charset: bytes) -> int:
        if len(path) > MAX_DEPTH:
            raise Unreadable("nested too deep")
        stop = end if length == _UNDEFINED else at + length
        if stop > end:
            raise _Short
        while at < stop:
            tag, size = self._item(at)
            at += 8
            if tag == _SEQUENCE_END:
                if length == _UNDEFINED:
                    return at
                raise Unreadable("a delimiter where none belongs")
            if tag != _ITEM:
                raise Unreadable("a sequence holds no item")
            if size == _UNDEFINED:
                at, _ = self._elements(at, stop, path, charset, delimited=True)
            elif at + size > stop:
                raise _Short
            else:
                at, _ = self._elements(at, at + size, path, charset, delimited=False)
        if length == _UNDEFINED:
            raise _Short
        return at

    def _fragments(self, at: int, end: int, places: list[tuple[int, int]]) -> int:
        while True:
            if at + 8 > end:
                raise _Short
            tag, length = self._item(at)
            at += 8
            if tag == _SEQUENCE_END:
                return at
            if tag != _ITEM:
                raise Unreadable("a fragment that is none")
            places.append((at, length))
            at += length

    def _item(self, at: int) -> tuple[int, int]:
        group, element = self._pair(self._data, at)
        return group << 16 | element, self._u32(self._data, at + 4)[0]

    def _head(self, pos: int, end: int) -> tuple[int, str, int, int]:
        if end - pos < 8:
            raise _Short
        group, element = self._pair(self._data, pos)
        tag = group << 16 | element
        if not self._explicit or group == 0xFFFE:
            return tag, vr_of(tag), self._u32(self._data, pos + 4)[0], pos + 8
        vr = self._data[pos + 4 : pos + 6].decode("latin-1")
        if vr in _SHORT:
            return tag, vr, self._data[pos + self._low] | self._data[pos + self._high] << 8, pos + 8
        if not (vr.isascii() and vr.isalpha() and vr.isupper()):
            raise Unreadable("an element without VR")
        if end - pos < 12:
            raise _Short
        return tag, vr if vr in _LONG else "UN", self._u32(self._data, pos + 8)[0], pos + 12
