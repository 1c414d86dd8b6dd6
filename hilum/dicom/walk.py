"""The walk over the bytes of a data set that `hilum.dicom.dataset` makes."""

from __future__ import annotations

import mmap
import struct
import sys
from collections.abc import Set
from functools import lru_cache
from typing import Any

from pydicom.datadict import dictionary_VR

from hilum.dicom.encoding import UNDEFINED, DataSetError, Encoding, TruncatedError
from hilum.dicom.values import BIG, DEFAULT_ENCODINGS, LITTLE, Convert, Encodings, UnsayableError, Vr, base64, encodings_of

#: Numbers and bytes longer than this stay in the object.
MAX_VALUE_BYTES = 1024
#: The JSON of a header in an event.
MAX_HEADER_BYTES = 64 * 1024
MAX_DEPTH = 64
MAX_ELEMENTS = 1_000_000

_PIXELS = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00008, 0x7FE00009, 0x7FE00010})
_CHARACTER_SET = 0x00080005
_PIXEL_REPRESENTATION = 0x00280103
_PER_FRAME = frozenset({0x52009230})
_PADDING = 0xFFFCFFFC

_READERS = {order: tuple(struct.Struct(order + layout).unpack_from for layout in ("HHI", "I", "H")) for order in "<>"}
_CODES = {order: {name.encode(): vr for name, vr in table.items()} for order, table in (("<", LITTLE), (">", BIG))}


class _TooLongError(Exception):
    """A sequence is larger than may be kept."""


class Walk:
    """One walk over one data set. `cut`, `cut_beyond_bulk` and `unsorted` tell afterwards what was met."""

    def __init__(self, data: bytes | mmap.mmap, encoding: Encoding, keep: Set[str], *, full: bool) -> None:
        order = encoding.order
        self.cut: set[str] = set()
        self.cut_beyond_bulk = False
        self.unsorted = False
        self._data = data
        self._explicit = encoding.explicit
        self._implicit_head, self._long, self._size = _READERS[order]
        self._vrs = _CODES[order]
        self._plain = _EXPLICIT_BIG if order == ">" else _EXPLICIT_LITTLE
        self._keep = keep
        self._full = full
        self._top = ""
        #: Where the sequence at hand becomes too long to be kept.
        self._stop_at = sys.maxsize
        self._signed = False
        self._elements_left = MAX_ELEMENTS

    def elements(
        self,
        pos: int,
        end: int,
        out: dict[str, Any] | None,
        encodings: Encodings = DEFAULT_ENCODINGS,
        depth: int = 0,
        *,
        delimited: bool = False,
    ) -> int:
        """Put the elements from `pos` to `end` into `out`; with `delimited`, to the item's delimiter. Returns where it stopped.

        Without `out`, only walk. Raises `DataSetError`; what came before the fault is in `out`.
        """
        if depth > MAX_DEPTH:
            raise DataSetError(f"Sequences are nested more than {MAX_DEPTH} deep.")
        data = self._data
        # Heads seen before, of elements with nothing special about them: the way of nearly all elements.
        plain, width = (self._plain, 6) if self._explicit else (_IMPLICIT, 4)
        size_of_length = self._size if self._explicit else self._long
        last = ""
        left = self._elements_left
        while pos + 8 <= end:
            left -= 1
            if left < 0:
                raise DataSetError(f"The data set has more than {MAX_ELEMENTS} elements.")
            known = plain.get(data[pos : pos + width])
            if known is not None and out is not None:
                name, vr, convert = known
                (length,) = size_of_length(data, pos + width)
                stop = pos + 8 + length
                if length <= MAX_VALUE_BYTES and stop <= end:
                    try:
                        values = convert(data[pos + 8 : stop], encodings)
                        out[name] = {"vr": vr, "Value": values} if values else {"vr": vr}
                    except UnsayableError:
                        self.cut.add(self._top if depth else name)
                    if name < last:
                        self.unsorted = True
                    last = name
                    pos = stop
                    continue
            group, element, length = self._implicit_head(data, pos)
            tag = group << 16 | element
            if tag == 0xFFFEE00D and depth:
                if not delimited:
                    raise DataSetError("An item of defined length holds a delimiter.")
                self._elements_left = left
                return pos + 8
            name = f"{tag:08X}"
            if not depth:
                self._top = name
            if name < last:
                self.unsorted = True
            last = name
            self._elements_left = left
            pos, encodings = self._element(tag, name, pos, end, out, encodings, depth)
            left = self._elements_left
        self._elements_left = left
        if pos < end:
            raise TruncatedError(f"The data set ends within the head of an element, {end - pos} bytes after the last.")
        if delimited:
            raise TruncatedError("The data set ends within an item that has no end.")
        return pos

    def _element(
        self, tag: int, name: str, pos: int, end: int, out: dict[str, Any] | None, encodings: Encodings, depth: int
    ) -> tuple[int, Encodings]:
        """One element of any kind; returns the position behind it and the character sets from there on."""
        vr, implicit_inside, length, value_at = self._head(tag, pos, end)
        if length == UNDEFINED or vr.name == "SQ":
            return self._nested(tag, name, vr, implicit_inside, value_at, length, end, out, encodings, depth), encodings
        stop = value_at + length
        if stop > end:
            raise TruncatedError(f"The data set ends {stop - end} bytes before the end of element {_shown(tag)}.")
        if tag & 0xFFFF == 0 or tag == _PADDING:
            return stop, encodings
        if tag in _PIXELS or (length > MAX_VALUE_BYTES and vr.bulk and name not in self._keep):
            self.cut.add(self._top)
            return stop, encodings
        raw = self._data[value_at:stop]
        if tag == _CHARACTER_SET:
            encodings = encodings_of(raw)
        elif tag == _PIXEL_REPRESENTATION and length == 2:
            (signed,) = self._size(raw, 0)
            self._signed = signed == 1
        if out is not None:
            try:
                if vr.convert is None:
                    out[name] = {"vr": vr.name, "InlineBinary": base64(raw)} if raw else {"vr": vr.name}
                else:
                    values = vr.convert(raw, encodings)
                    out[name] = {"vr": vr.name, "Value": values} if values else {"vr": vr.name}
            except UnsayableError:
                self.cut.add(self._top)
        return stop, encodings

    def _head(self, tag: int, pos: int, end: int) -> tuple[Vr, bool, int, int]:
        """VR, whether what lies in it is implicit VR by itself, length, and where the value begins."""
        if not self._explicit:
            vr, remember = self._looked_up(tag)
            if remember:
                self._remember(_IMPLICIT, self._data[pos : pos + 4], tag, vr)
            return vr, False, self._long(self._data, pos + 4)[0], pos + 8
        code = self._data[pos + 4 : pos + 6]
        found = self._vrs.get(code)
        if found is None:
            if not (code.isalpha() and code.isupper()):
                raise DataSetError(f"Element {_shown(tag)} has no VR.")
            found = self._vrs[b"UN"]  # a VR of a later edition: bytes with a 32-bit length (PS3.5 6.2.2)
        if not found.long:
            self._remember(self._plain, self._data[pos : pos + 6], tag, found)
            return found, False, self._size(self._data, pos + 6)[0], pos + 8
        if end - pos < 12:
            raise TruncatedError(f"The data set ends within the head of element {_shown(tag)}.")
        (length,) = self._long(self._data, pos + 8)
        if code != b"UN":
            return found, False, length, pos + 12
        # What some system on the way did not know is what it is, in implicit VR whatever surrounds it (PS3.5 6.2.2).
        if length == UNDEFINED:
            return LITTLE["SQ"], True, length, pos + 12
        return self._looked_up(tag)[0], True, length, pos + 12

    def _remember(self, plain: dict[bytes, tuple[str, str, Convert]], head: bytes, tag: int, vr: Vr) -> None:
        special = tag & 0xFFFF == 0 or tag in (_CHARACTER_SET, _PIXEL_REPRESENTATION)
        if vr.convert is not None and not special and len(plain) < _MAX_KNOWN:
            plain[head] = (f"{tag:08X}", vr.name, vr.convert)

    def _looked_up(self, tag: int) -> tuple[Vr, bool]:
        """The VR of an element in implicit VR, and whether it is the same in every data set."""
        name = _dictionary(tag)
        if name == "US or SS":
            return LITTLE["SS" if self._signed else "US"], False
        return LITTLE[name], True

    def _nested(
        self,
        tag: int,
        name: str,
        vr: Vr,
        implicit_inside: bool,
        pos: int,
        length: int,
        end: int,
        out: dict[str, Any] | None,
        encodings: Encodings,
        depth: int,
    ) -> int:
        """A sequence, or fragments of pixel data; returns the position behind."""
        if tag in _PIXELS or vr.name in ("OB", "OW"):
            self.cut.add(self._top)
            return self._behind_fragments(pos, end, tag)
        if vr.name not in ("SQ", "UN"):
            raise DataSetError(f"Element {_shown(tag)} of VR {vr.name} has no length.")
        if length != UNDEFINED and pos + length > end:
            raise TruncatedError(f"The data set ends {pos + length - end} bytes before the end of sequence {_shown(tag)}.")
        before, self._explicit = self._explicit, self._explicit and not implicit_inside
        try:
            return self._sequence(tag, name, pos, length, end, out, encodings, depth)
        finally:
            self._explicit = before

    def _sequence(
        self, tag: int, name: str, pos: int, length: int, end: int, out: dict[str, Any] | None, encodings: Encodings, depth: int
    ) -> int:
        if out is None:
            return self._items(pos, length, end, None, encodings, depth)
        if not depth:
            self._stop_at = sys.maxsize if self._full or name in self._keep else pos + MAX_HEADER_BYTES
        too_long = tag in _PER_FRAME and self._stop_at < sys.maxsize
        if not too_long and (length == UNDEFINED or pos + length <= self._stop_at):
            items: list[Any] = []
            try:
                behind = self._items(pos, length, end, items, encodings, depth)
            except _TooLongError:
                if depth:
                    raise
            else:
                out[name] = {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
                return behind
        if depth and not too_long:
            raise _TooLongError
        self.cut.add(self._top)
        self.cut_beyond_bulk = True
        self._stop_at = sys.maxsize if not depth else self._stop_at
        return pos + length if length != UNDEFINED else self._items(pos, length, end, None, encodings, depth)

    def _items(self, pos: int, length: int, end: int, items: list[Any] | None, encodings: Encodings, depth: int) -> int:
        data = self._data
        stop = end if length == UNDEFINED else pos + length
        signed = self._signed
        while pos < stop:
            self._signed = signed  # an item may have a PixelRepresentation of its own
            if pos > self._stop_at:
                raise _TooLongError
            if stop - pos < 8:
                raise TruncatedError("The data set ends within the head of an item.")
            group, element, size = self._implicit_head(data, pos)
            pos += 8
            if group == 0xFFFE and element == 0xE0DD and length == UNDEFINED:
                return pos
            if group != 0xFFFE or element != 0xE000:
                raise DataSetError(f"A sequence holds ({group:04X},{element:04X}) where an item is expected.")
            item: dict[str, Any] | None = None
            if items is not None:
                items.append(item := {})
            if size == UNDEFINED:
                pos = self.elements(pos, stop, item, encodings, depth + 1, delimited=True)
            elif pos + size > stop:
                raise TruncatedError(f"The data set ends {pos + size - stop} bytes before the end of an item.")
            else:
                pos = self.elements(pos, pos + size, item, encodings, depth + 1)
        self._signed = signed
        if length == UNDEFINED:
            raise TruncatedError("The data set ends within a sequence that has no end.")
        return pos

    def _behind_fragments(self, pos: int, end: int, tag: int) -> int:
        """The position behind encapsulated pixel data (PS3.5 A.4)."""
        while True:
            if end - pos < 8:
                raise TruncatedError(f"The data set ends within the fragments of element {_shown(tag)}.")
            group, element, size = self._implicit_head(self._data, pos)
            pos += 8
            if group == 0xFFFE and element == 0xE0DD:
                return pos
            if group != 0xFFFE or element != 0xE000 or size == UNDEFINED:
                raise DataSetError(f"The fragments of element {_shown(tag)} hold ({group:04X},{element:04X}).")
            pos += size
            if pos > end:
                raise TruncatedError(f"The data set ends {pos - end} bytes before the end of a fragment of element {_shown(tag)}.")


#: Heads of plain elements by their first bytes (tag, and VR if it is explicit): tag and VR as text, and how to read the value.
_EXPLICIT_LITTLE: dict[bytes, tuple[str, str, Convert]] = {}
_EXPLICIT_BIG: dict[bytes, tuple[str, str, Convert]] = {}
_IMPLICIT: dict[bytes, tuple[str, str, Convert]] = {}
_MAX_KNOWN = 20_000


@lru_cache(maxsize=_MAX_KNOWN)
def _dictionary(tag: int) -> str:
    """The VR of an element in implicit VR (PS3.6); `US or SS` is for the data set to decide."""
    group, element = tag >> 16, tag & 0xFFFF
    if group & 1:
        vr = "LO" if 0x10 <= element <= 0xFF else "UN"
    elif element == 0:
        vr = "UL"
    else:
        try:
            vr = str(dictionary_VR(tag))
        except KeyError:
            vr = "UN"
        if vr not in LITTLE and vr != "US or SS":
            vr = "OW"  # `OB or OW`, `US or OW`, `US or SS or OW`: in implicit VR the bytes are those of OW (PS3.5 A.1)
    return vr


def _shown(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
