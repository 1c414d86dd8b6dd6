"""A data set written in another uncompressed encoding, value by value as bytes: nothing is parsed that need not be, so nothing is lost.

Explicit and Implicit VR Little Endian are what it writes (PS3.5 7.1, A.1, A.2); it reads these and Explicit VR Big Endian (A.3).
Sequences and items are written with undefined length (PS3.5 7.5), group lengths are left out (PS3.5 7.2), odd lengths are padded
(PS3.5 6.2). Large values are slices of what is read: nothing is copied.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from msgspec import Struct

from hilum.dicom.character_sets import python_encoding
from hilum.dicom.encoding import UNDEFINED, Encoding
from hilum.dicom.file_meta import LONG_VRS
from hilum.dicom.values import DEFAULT_ENCODINGS, Encodings, decoded, encodings_of
from hilum.dicom.vrs import private_vr, standard_vr

PIXEL_DATA = 0x7FE00010
_CHARACTER_SET = 0x00080005
#: Text whose characters are those of (0008,0005) (PS3.5 6.1.2.2).
_CHARACTERS = frozenset({b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT"})
MAX_DEPTH = 50
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
#: Where the items of a sequence end, or fragments.
DELIMITER = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
_PIXEL_REPRESENTATION, _BITS_ALLOCATED = 0x00280103, 0x00280100
#: Padded with a space (PS3.5 6.2); all others with a zero byte.
_TEXT = frozenset({b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"LO", b"LT", b"PN", b"SH", b"ST", b"TM", b"UC", b"UR", b"UT"})
#: Bytes of a number, which are the other way round in big endian.
_WORD_BYTES = {
    **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), 2),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OF", b"OL"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"UV", b"SV"), 8),
}


class CannotRecode(ValueError):
    """The data set cannot be written so. The text says what and where, and holds no value."""


class OtherCharacters(CannotRecode):
    """Its text is not of the character set that it is to be written in."""


class Change(Struct, frozen=True):
    """A top-level element as it is to be; `value` is of even length, in little endian, or its bytes come from elsewhere."""

    vr: bytes
    value: bytes = b""
    #: Instead of `value`: so many bytes that the one who sends the parts puts where None is among them.
    from_elsewhere_bytes: int = 0
    #: What comes from elsewhere are fragments, delimiter included (PS3.5 A.4).
    encapsulated: bool = False
    #: `value` are items, encoded as the data set is to be, that come after those that the sequence has.
    appended: bool = False


#: What is written, in order; None is where the bytes from elsewhere belong.
Parts = list["bytes | memoryview | None"]


def recoded(
    data: memoryview,
    source: Encoding,
    *,
    explicit: bool,
    changes: Mapping[int, Change | None] | None = None,
    character_set: str = "",
) -> Parts:
    """The data set `data`, which is encoded as `source`, in Explicit or Implicit VR Little Endian.

    `changes` replace top-level elements by tag, add them, or remove them (None). Encapsulated pixel data must be among them,
    unless it stays in explicit VR as it is. With `character_set`, a term of PS3.3 C.12.1.1.2 without code extensions, all text is written
    so, that of items too; `changes` are so already. Raises `CannotRecode`, also for text that is not of the character set that it is
    said to be, and `OtherCharacters` for text that is not of this one.
    """
    changed = dict(changes or {})
    if character_set:
        changed[_CHARACTER_SET] = Change(b"CS", character_set.encode())
    return _Recoding(data, explicit, changed, character_set).run(source)


def has_odd_value(data: memoryview, source: Encoding) -> bool:
    """Whether a value or fragment has an odd length, which PS3.5 7.1.1 forbids. Raises `CannotRecode`."""
    recoding = _Recoding(data, source.explicit, {})
    recoding.run(source)
    return recoding.padded


class _Scope(Struct):
    """What the elements of one data set say that later ones depend on."""

    signed: bool = False
    bits_allocated: int = 16
    waveform_bits: int = 16
    encodings: Encodings = DEFAULT_ENCODINGS


class _Recoding:
    def __init__(self, data: memoryview, explicit: bool, changes: dict[int, Change | None], character_set: str = "") -> None:
        self._character_set = character_set
        self._data = data
        self._explicit = explicit
        self._changes = changes
        self._coming = sorted(changes)
        self._parts: Parts = []
        #: Whether what is met now is in a sequence that is left out.
        self._dropping = False
        #: Whether anything had to be padded.
        self.padded = False

    def run(self, source: Encoding) -> Parts:
        self._data_set(0, len(self._data), source, _Scope(), 0, delimited=False)
        self._changes_before(1 << 32)
        return self._parts

    # Reading

    def _data_set(self, at: int, end: int, source: Encoding, scope: _Scope, depth: int, *, delimited: bool) -> int:
        """Write the elements from `at` to `end`, or to the item's delimiter; where they ended."""
        if depth > MAX_DEPTH:
            raise CannotRecode(f"its sequences are nested more than {MAX_DEPTH} deep")
        creators: dict[int, str] = {}
        while at < end:
            if at + 8 > end:
                raise CannotRecode("it ends within an element")
            group, element = struct.unpack_from(source.order + "HH", self._data, at)
            tag = group << 16 | element
            if tag == _ITEM_END and delimited:
                return at + 8
            if group == 0xFFFE:
                raise CannotRecode("a delimiter is where an element should be")
            vr, length, at = self._head(at, end, tag, source, scope, creators)
            if length != UNDEFINED and at + length > end:
                raise CannotRecode(f"it ends within element {_shown(tag)}")
            at = self._element(tag, vr, length, at, end, source, scope, depth, creators)
        if delimited:
            raise CannotRecode("it ends within an item")
        return at

    def _head(self, at: int, end: int, tag: int, source: Encoding, scope: _Scope, creators: dict[int, str]) -> tuple[bytes, int, int]:
        """VR, length, and where the value begins."""
        if not source.explicit:
            (length,) = struct.unpack_from("<I", self._data, at + 4)
            return self._looked_up(tag, length, scope, creators), length, at + 8
        vr = bytes(self._data[at + 4 : at + 6])
        if vr in LONG_VRS:
            if at + 12 > end:
                raise CannotRecode("it ends within an element")
            return vr, struct.unpack_from(source.order + "I", self._data, at + 8)[0], at + 12
        if not (vr.isalpha() and vr.isupper()):
            raise CannotRecode(f"element {_shown(tag)} has no VR")
        return vr, struct.unpack_from(source.order + "H", self._data, at + 6)[0], at + 8

    def _element(
        self,
        tag: int,
        vr: bytes,
        length: int,
        at: int,
        end: int,
        source: Encoding,
        scope: _Scope,
        depth: int,
        creators: dict[int, str],
    ) -> int:
        """Write one element whose value begins at `at`; where it ended."""
        more = self._appended(tag) if depth == 0 and vr == b"SQ" else None
        if depth == 0:
            self._changes_before(tag)
        changed = depth == 0 and tag in self._changes and more is None
        if length == UNDEFINED and vr in (b"OB", b"OW") and tag == PIXEL_DATA:
            return self._encapsulated(at, end, kept=not changed, depth=depth)
        if length == UNDEFINED or vr == b"SQ":
            inside = Encoding("<", False) if vr == b"UN" and length == UNDEFINED else source  # PS3.5 6.2.2, note 2
            kept = len(self._parts)
            if changed:
                self._dropping = True
            else:
                self._write_head(tag, b"SQ", UNDEFINED if length or more is not None else 0)
            at = self._items(at, end if length == UNDEFINED else at + length, inside, scope, depth, delimited=length == UNDEFINED)
            if changed:
                self._dropping = False
                del self._parts[kept:]
            elif more is not None:
                self._parts += (more.value, DELIMITER)
            elif length:
                self._parts.append(DELIMITER)
            return at
        value = self._data[at : at + length]
        self._remember(tag, value, source, scope, creators)
        if not changed and tag & 0xFFFF:
            written = _swapped(tag, vr, value, scope) if source.order == ">" else value
            if self._character_set and not self._dropping:
                written = _in_characters(tag, vr, written, scope, self._character_set)
            self._write(tag, vr, written)
        return at + length

    def _items(self, at: int, end: int, source: Encoding, scope: _Scope, depth: int, *, delimited: bool) -> int:
        while at < end:
            if at + 8 > end:
                raise CannotRecode("it ends within a sequence")
            group, element, length = struct.unpack_from(source.order + "HHI", self._data, at)
            tag, at = group << 16 | element, at + 8
            if tag == _SEQUENCE_END and delimited:
                return at
            if tag != _ITEM:
                raise CannotRecode("a sequence holds something that is no item")
            if length != UNDEFINED and at + length > end:
                raise CannotRecode("it ends within an item")
            self._parts.append(struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED))
            inner = _Scope(signed=scope.signed, bits_allocated=scope.bits_allocated, encodings=scope.encodings)
            stop = end if length == UNDEFINED else at + length
            at = self._data_set(at, stop, source, inner, depth + 1, delimited=length == UNDEFINED)
            self._parts.append(struct.pack("<HHI", 0xFFFE, 0xE00D, 0))
        if delimited:
            raise CannotRecode("it ends within a sequence")
        return at

    def _encapsulated(self, at: int, end: int, *, kept: bool, depth: int) -> int:
        """Fragments (PS3.5 A.4), which are copied or passed over."""
        if kept and not self._dropping and (not self._explicit or PIXEL_DATA in self._changes):
            raise CannotRecode("it holds a compressed image within a sequence" if depth else "its pixel data are compressed")
        if kept:
            self._parts.append(struct.pack("<HH2s2xI", PIXEL_DATA >> 16, PIXEL_DATA & 0xFFFF, b"OB", UNDEFINED))
        while at + 8 <= end:
            group, element, length = struct.unpack_from("<HHI", self._data, at)
            tag, at = group << 16 | element, at + 8
            if tag == _SEQUENCE_END:
                if kept:
                    self._parts.append(DELIMITER)
                return at
            if tag != _ITEM or at + length > end:
                break
            if kept:
                self._parts += (struct.pack("<HHI", 0xFFFE, 0xE000, length + length % 2), self._data[at : at + length])
                self._pad(length, b"OB")
            at += length
        raise CannotRecode("its pixel data end within a fragment")

    def _remember(self, tag: int, value: memoryview, source: Encoding, scope: _Scope, creators: dict[int, str]) -> None:
        if tag in (_PIXEL_REPRESENTATION, _BITS_ALLOCATED, 0x54001004) and len(value) == 2:
            number = struct.unpack(source.order + "H", value)[0]
            if tag == _PIXEL_REPRESENTATION:
                scope.signed = number == 1
            elif tag == _BITS_ALLOCATED:
                scope.bits_allocated = number
            else:
                scope.waveform_bits = number
        elif tag == _CHARACTER_SET and self._character_set:
            scope.encodings = encodings_of(bytes(value))
        elif tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF and len(value) <= 64:
            creators[tag >> 16 << 8 | tag & 0xFF] = bytes(value).decode("latin-1").strip(" \0")

    def _looked_up(self, tag: int, length: int, scope: _Scope, creators: dict[int, str]) -> bytes:
        """The VR of an element of implicit VR (PS3.5 A.1, PS3.6)."""
        if tag >> 16 & 1:
            if 0x10 <= tag & 0xFFFF <= 0xFF:
                return b"LO"
            creator = creators.get(tag >> 16 << 8 | tag >> 8 & 0xFF, "")
            return private_vr(tag, creator) if creator else b"UN"
        vr = standard_vr(tag)
        if vr == "US or SS":
            return b"SS" if scope.signed else b"US"
        if vr == "US or SS or OW":
            return b"OW" if length > 2 else b"SS" if scope.signed else b"US"
        if vr == "US or OW":
            return b"OW" if length > 2 else b"US"
        if vr == "OB or OW":
            if tag == PIXEL_DATA:
                return b"OW" if scope.bits_allocated > 8 else b"OB"
            return b"OB" if tag >> 16 == 0x5400 and scope.waveform_bits <= 8 else b"OW"
        return vr.encode()

    # Writing

    def _appended(self, tag: int) -> Change | None:
        """What is to come after the items of this sequence, which then is no change before it."""
        change = self._changes.get(tag)
        if change is None or not change.appended or tag not in self._coming:
            return None
        self._coming.remove(tag)
        return change

    def _changes_before(self, tag: int) -> None:
        """Write what is to come before `tag`, or in its place."""
        while self._coming and self._coming[0] <= tag:
            at = self._coming.pop(0)
            change = self._changes[at]
            if change is None:
                continue
            if change.appended:
                self._write_head(at, b"SQ", UNDEFINED)
                self._parts += (change.value, DELIMITER)
            elif change.encapsulated:
                self._write_head(at, change.vr, UNDEFINED)
                self._parts.append(None)
            elif change.from_elsewhere_bytes:
                self._write_head(at, change.vr, change.from_elsewhere_bytes + change.from_elsewhere_bytes % 2)
                self._parts.append(None)
                if change.from_elsewhere_bytes % 2:
                    self._parts.append(b"\0")
            else:
                self._write(at, change.vr, memoryview(change.value))

    def _write(self, tag: int, vr: bytes, value: memoryview | bytes) -> None:
        self._write_head(tag, vr, len(value) + len(value) % 2)
        self._parts.append(value)
        self._pad(len(value), vr)

    def _pad(self, length: int, vr: bytes) -> None:
        if length % 2:
            self.padded = True
            self._parts.append(b" " if vr in _TEXT else b"\0")

    def _write_head(self, tag: int, vr: bytes, length: int) -> None:
        group, element = tag >> 16, tag & 0xFFFF
        if not self._explicit:
            self._parts.append(struct.pack("<HHI", group, element, length))
        elif vr in LONG_VRS or length > 0xFFFF:  # too long for its VR: UN (PS3.5 6.2.2)
            self._parts.append(struct.pack("<HH2s2xI", group, element, vr if vr in LONG_VRS else b"UN", length))
        else:
            self._parts.append(struct.pack("<HH2sH", group, element, vr, length))


def pieces(parts: Parts, size: int, elsewhere: Iterator[bytes | memoryview] | None = None) -> Iterator[bytes | memoryview]:
    """`parts` in pieces of `size` bytes, the last one shorter; what is None among them comes from `elsewhere`."""
    waiting: list[bytes | memoryview] = []
    held = 0
    for part in _flat(parts, elsewhere):
        view = memoryview(part)
        while held + len(view) >= size:
            take = size - held
            yield b"".join((*waiting, view[:take])) if waiting else view[:take]
            waiting, held, view = [], 0, view[take:]
        if len(view):
            waiting.append(view)
            held += len(view)
    if waiting:
        yield b"".join(waiting)


def _flat(parts: Parts, elsewhere: Iterator[bytes | memoryview] | None) -> Iterator[bytes | memoryview]:
    for part in parts:
        if part is not None:
            yield part
        elif elsewhere is not None:
            yield from elsewhere


def _in_characters(tag: int, vr: bytes, value: bytes | memoryview, scope: _Scope, character_set: str) -> bytes | memoryview:
    """Text of the data set's character set in another one."""
    if tag == _CHARACTER_SET:
        return character_set.encode()
    raw = bytes(value)
    if vr not in _CHARACTERS or (raw.isascii() and b"\x1b" not in raw):
        return value
    text = decoded(raw, scope.encodings)
    if "\ufffd" in text:
        raise CannotRecode(f"element {_shown(tag)} is not of the character set that it is said to be")
    try:
        return text.encode(python_encoding[character_set])
    except UnicodeEncodeError:
        raise OtherCharacters(f"element {_shown(tag)} is not of {character_set}") from None


def _swapped(tag: int, vr: bytes, value: memoryview, scope: _Scope) -> bytes | memoryview:
    """A big endian value in little endian."""
    size = _WORD_BYTES.get(vr, 1)
    if tag == PIXEL_DATA and vr == b"OW" and scope.bits_allocated in (32, 64):
        size = scope.bits_allocated // 8
    if size == 1:
        return value
    if len(value) % size:
        raise CannotRecode(f"element {_shown(tag)} ends within a number")
    swapped = bytearray(len(value))
    for n in range(size):
        swapped[n::size] = value[size - 1 - n :: size]
    return bytes(swapped)


def _shown(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
