"""Read the header of an encoded data set (PS3.5 7) as DICOM JSON (PS3.18 F.2), by a walk over its bytes.

The walk takes every transfer syntax: explicit and implicit VR, little and big endian, deflated, encapsulated pixel data.
It reads headers ten times as fast as a general toolkit, since values become JSON at once and pixel data is never touched;
the tests hold it against pydicom, object by object.

Left out: pixel data, values over 1 KB that are numbers or bytes, the per-frame functional groups, and sequences larger than
the whole header may be. Group lengths and padding are no content and are left out without a word (PS3.18 F.2.2).
"""

from __future__ import annotations

import mmap
import struct
import sys
import zlib
from collections.abc import Set
from functools import lru_cache
from typing import Any, Literal

import msgspec
from msgspec import Struct
from pydicom.datadict import dictionary_VR

from hilum.dicom.values import BIG, DEFAULT_ENCODINGS, LITTLE, Convert, Encodings, UnsayableError, Vr, base64, encodings_of
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

#: Implicit VR Little Endian, and two old ones that differ from it in pixel data or not at all (GE's private one, Papyrus 3).
IMPLICIT_LITTLE = frozenset({"1.2.840.10008.1.2", "1.2.840.113619.5.2", "1.2.840.10008.1.20"})
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
#: Transfer syntaxes whose data set is a raw deflate stream (PS3.5 A.5, A.7).
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

#: Numbers and bytes longer than this stay in the object.
MAX_VALUE_BYTES = 1024
#: The JSON of a header in an event.
MAX_HEADER_BYTES = 64 * 1024
#: Even what is always kept is cut beyond this, lest the event be too large for Kafka.
MAX_KEPT_BYTES = 256 * 1024
MAX_DEPTH = 64
MAX_ELEMENTS = 2_000_000
#: Of a deflated data set no more than this is looked at.
MAX_INFLATED_BYTES = 64 * 2**20

_UNDEFINED = 0xFFFFFFFF
_PIXELS = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00008, 0x7FE00009, 0x7FE00010})
_CHARACTER_SET = 0x00080005
_PIXEL_REPRESENTATION = 0x00280103
_PER_FRAME = frozenset({0x52009230})
_PADDING = 0xFFFCFFFC


class DataSetError(ValueError):
    """The bytes are no data set in this transfer syntax. The text says what and where, and holds no value."""


class TruncatedError(DataSetError):
    """The data set ends before an element that it announces is complete."""


class Encoding(Struct, frozen=True):
    """How a data set is encoded: byte order (`<` little endian, `>` big endian), and whether VRs are explicit."""

    order: Literal["<", ">"]
    explicit: bool


def encoding_of(head: bytes, size_bytes: int, transfer_syntax_uid: str) -> Encoding:
    """How the data set of `size_bytes` bytes that begins with `head` (8 bytes at least) is encoded; it is not deflated.

    Explicit VR is taken for implicit, and the other way round, where the first element cannot be read otherwise: there are
    senders that name the wrong one. Raises `DataSetError` if it can be read neither way.
    """
    declared = declared_encoding(transfer_syntax_uid)
    if size_bytes == 0:
        raise DataSetError("There is no data set.")
    if size_bytes < 8:
        raise DataSetError("The data set ends within the head of its first element.")
    code, most = head[4:6], size_bytes - 8
    if declared.explicit and code.isalpha() and code.isupper():
        return declared
    group = int.from_bytes(head[:2], "little")
    length = int.from_bytes(head[4:8], "little")
    implicit = length <= most or length == _UNDEFINED
    if implicit and (not declared.explicit or (declared.order == "<" and group <= 8 and group % 2 == 0)):
        return Encoding("<", False)
    vr = LITTLE.get(code.decode("latin-1"))
    if not declared.explicit and vr is not None and (vr.long or int.from_bytes(head[6:8], "little") <= most):
        return Encoding("<", True)
    raise DataSetError("The data set does not begin as one in its transfer syntax does.")


def declared_encoding(transfer_syntax_uid: str) -> Encoding:
    """The encoding that a transfer syntax means (PS3.5 A); a private one is Explicit VR Little Endian, as PS3.5 10.2 has it."""
    return Encoding(">" if transfer_syntax_uid == EXPLICIT_BIG else "<", transfer_syntax_uid not in IMPLICIT_LITTLE)


class ReadHeader(Struct, frozen=True, kw_only=True):
    """What could be read of a data set."""

    #: DICOM JSON; what came before the fault, if there is one.
    json: dict[str, Any]
    #: Tags (`GGGGEEEE`) of the top level of which something was left out.
    cut: tuple[str, ...] = ()
    #: Whether more than pixel data and bulk values was left out, so that a full header would say more.
    cut_beyond_bulk: bool = False
    #: Explicit or Implicit VR Little Endian, if the data set is encoded so and its transfer syntax means the other; else `""`.
    encoded_as: str = ""
    #: What is wrong with the data set, `""` if nothing; holds no value.
    fault: str = ""
    #: Whether the fault is that it ends too early.
    truncated: bool = False

    def uid(self, tag: str) -> str:
        """The first value of a UI attribute of the top level, `""` if there is none."""
        values = self.json.get(tag, {}).get("Value")
        return str(values[0] or "") if values else ""


def read_header(
    data: bytes | mmap.mmap, transfer_syntax_uid: str, *, start: int = 0, keep: Set[str] = frozenset(), full: bool = False
) -> ReadHeader:
    """Read the header of the data set that begins at `start` of `data` and goes to its end. Never raises on its content.

    Tags in `keep` are not shortened for their size. With `full`, only pixel data and bulk values are left out.
    """
    end = len(data)
    whole = True
    if transfer_syntax_uid in DEFLATED:
        data, whole, fault = _inflated(data, start)
        start, end = 0, len(data)
        if fault:
            return ReadHeader(json={}, fault=fault)
    try:
        encoding = encoding_of(data[start : start + 8], end - start, transfer_syntax_uid)
    except DataSetError as error:
        return ReadHeader(json={}, fault=str(error))
    encoded_as = ""
    if encoding != declared_encoding(transfer_syntax_uid):
        encoded_as = EXPLICIT_VR_LITTLE_ENDIAN if encoding.explicit else IMPLICIT_VR_LITTLE_ENDIAN
    walk = _Walk(data, encoding, keep, full)
    header: dict[str, Any] = {}
    fault, truncated = "", False
    try:
        walk.elements(start, end, header, DEFAULT_ENCODINGS, 0)
    except TruncatedError as error:
        if whole:
            fault, truncated = str(error), True
    except DataSetError as error:
        fault = str(error)
    if walk.unsorted:
        header = dict(sorted(header.items()))
    return ReadHeader(
        json=header,
        cut=tuple(sorted(walk.cut)),
        cut_beyond_bulk=walk.cut_beyond_bulk,
        encoded_as=encoded_as,
        fault=fault,
        truncated=truncated,
    )


def fitted(header: ReadHeader, keep: Set[str], max_bytes: int = MAX_HEADER_BYTES) -> tuple[bytes, tuple[str, ...]]:
    """The header as JSON of at most `max_bytes`, and the tags of which something is not in it.

    The largest attributes go first, those in `keep` never, unless they alone pass 256 KB.
    """
    encoded = msgspec.json.encode(header.json)
    if len(encoded) <= max_bytes:
        return encoded, header.cut
    left = dict(header.json)
    cut = set(header.cut)
    sizes = sorted(((len(msgspec.json.encode(value)), tag) for tag, value in left.items()), reverse=True)
    over = len(encoded) - max_bytes
    for size, tag in sizes:
        if over > 0 and tag not in keep:
            del left[tag]
            cut.add(tag)
            over -= size + len(tag) + 4  # quotes, colon and comma
    over += max_bytes - max(max_bytes, MAX_KEPT_BYTES)
    for size, tag in sizes:
        if over > 0 and tag in left:
            del left[tag]
            cut.add(tag)
            over -= size + len(tag) + 4
    return msgspec.json.encode(left), tuple(sorted(cut))


def _inflated(data: bytes | mmap.mmap, start: int) -> tuple[bytes, bool, str]:
    """The inflated data set, whether all of it, and what is wrong with the stream."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        with memoryview(data) as view, view[start:] as rest:
            inflated = stream.decompress(rest, MAX_INFLATED_BYTES)
    except zlib.error:
        return b"", False, "The data set is no deflate stream (PS3.5 A.5)."
    return inflated, stream.eof or not stream.unconsumed_tail, ""


_READERS = {order: tuple(struct.Struct(order + layout).unpack_from for layout in ("HHI", "I", "H")) for order in "<>"}
_CODES = {order: {name.encode(): vr for name, vr in table.items()} for order, table in (("<", LITTLE), (">", BIG))}


class _TooLongError(Exception):
    """A sequence is larger than may be kept."""


class _Walk:
    """One walk over one data set."""

    def __init__(self, data: bytes | mmap.mmap, encoding: Encoding, keep: Set[str], full: bool) -> None:
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
        self._count = 0

    def elements(self, pos: int, end: int, out: dict[str, Any] | None, encodings: Encodings, depth: int, delimited: bool = False) -> int:
        """Put the elements from `pos` to `end` into `out`; with `delimited`, to the item's delimiter. Returns where it stopped.

        Without `out`, only walk.
        """
        if depth > MAX_DEPTH:
            raise DataSetError(f"Sequences are nested more than {MAX_DEPTH} deep.")
        data = self._data
        # Heads seen before, of elements with nothing special about them: the way of nearly all elements.
        plain, width = (self._plain, 6) if self._explicit else (_IMPLICIT, 4)
        size_of_length = self._size if self._explicit else self._long
        last = ""
        while pos + 8 <= end:
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
                    self.unsorted |= name < last
                    last = name
                    pos = stop
                    self._count += 1
                    continue
            group, element, length = self._implicit_head(data, pos)
            tag = group << 16 | element
            if tag == 0xFFFEE00D and depth:
                if not delimited:
                    raise DataSetError("An item of defined length holds a delimiter.")
                return pos + 8
            name = f"{tag:08X}"
            if not depth:
                self._top = name
            self.unsorted |= name < last
            last = name
            pos, encodings = self._element(tag, name, pos, end, out, encodings, depth)
            self._count += 1
        if self._count > MAX_ELEMENTS:
            raise DataSetError(f"The data set has more than {MAX_ELEMENTS} elements.")
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
        if length == _UNDEFINED or vr.name == "SQ":
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
        if length == _UNDEFINED:
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
        if length != _UNDEFINED and pos + length > end:
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
        if not too_long and (length == _UNDEFINED or pos + length <= self._stop_at):
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
        return pos + length if length != _UNDEFINED else self._items(pos, length, end, None, encodings, depth)

    def _items(self, pos: int, length: int, end: int, items: list[Any] | None, encodings: Encodings, depth: int) -> int:
        data = self._data
        stop = end if length == _UNDEFINED else pos + length
        while pos < stop:
            if pos > self._stop_at:
                raise _TooLongError
            if stop - pos < 8:
                raise TruncatedError("The data set ends within the head of an item.")
            group, element, size = self._implicit_head(data, pos)
            pos += 8
            if group == 0xFFFE and element == 0xE0DD and length == _UNDEFINED:
                return pos
            if group != 0xFFFE or element != 0xE000:
                raise DataSetError(f"A sequence holds ({group:04X},{element:04X}) where an item is expected.")
            item: dict[str, Any] | None = None
            if items is not None:
                items.append(item := {})
            if size == _UNDEFINED:
                pos = self.elements(pos, stop, item, encodings, depth + 1, delimited=True)
            elif pos + size > stop:
                raise TruncatedError(f"The data set ends {pos + size - stop} bytes before the end of an item.")
            else:
                pos = self.elements(pos, pos + size, item, encodings, depth + 1)
        if length == _UNDEFINED:
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
            if group != 0xFFFE or element != 0xE000 or size == _UNDEFINED:
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
