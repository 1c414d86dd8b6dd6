"""An original as it is read: its File Meta, and its data set as bytes in one of three encodings. What cannot be read is held."""

from __future__ import annotations

import struct
import zlib
from mmap import mmap

from msgspec import Struct
from pydicom._uid_dict import UID_dictionary

from hilum.dicom.encoding import DEFLATED, IMPLICIT_LITTLE, DataSetError, TruncatedError, declared_encoding, encoding_of, inflated
from hilum.dicom.file_meta import LONG_VRS
from processors.anonymize.held import Held, HeldReason

_AGAIN = "Send the object again from its source."
_MOST_META = 2**20
_META_HEAD, _U32 = struct.Struct("<HH2sH").unpack_from, struct.Struct("<I").unpack_from
#: By which anything can be read, old private ones included.
_SYNTAXES = IMPLICIT_LITTLE | {uid for uid, said in UID_dictionary.items() if said[1] == "Transfer Syntax"}


class Source(Struct, frozen=True):
    """Where the data set is and how it is encoded."""

    data: bytes | mmap
    #: Where the data set begins in `data`.
    start: int
    explicit: bool
    big_endian: bool
    sop_class_uid: str
    transfer_syntax_uid: str
    deflated: bool

    def whole(self, parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
        """A data set in the encoding of the original; only deflated ones change."""
        if not self.deflated:
            return parts
        stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = b"".join((*(stream.compress(part) for part in parts), stream.flush()))
        return [packed + b"\0" * (len(packed) & 1)]


def unreadable(sentence: str, place: str = "") -> Held:
    """What is no DICOM."""
    return Held(HeldReason.UNREADABLE, sentence, fix=_AGAIN, place=place)


def truncated(place: str = "") -> Held:
    """What ends too early."""
    return Held(HeldReason.TRUNCATED, "The data set ends before an element that it announces is complete.", fix=_AGAIN, place=place)


def read_source(original: bytes | mmap) -> Source:
    """Find the data set of a Part 10 file (PS3.10 7.1). Raises `Held`."""
    sop_class, syntax, start = _meta(original)
    if not sop_class or not syntax:
        raise unreadable("Its File Meta does not name a SOP class and a transfer syntax (PS3.10 7.1).")
    if syntax not in _SYNTAXES:
        raise unreadable("Its transfer syntax is none of PS3.6 A-1, so it is not known how it is encoded.", "(0002,0010)")
    data: bytes | mmap = original
    deflated = syntax in DEFLATED
    try:
        if deflated:
            data, complete = inflated(original, start)
            start = 0
            if not complete:
                raise unreadable("Its data set is deflated, and too large to be looked at.")
        encoding = encoding_of(data[start : start + 8], len(data) - start, syntax)
    except TruncatedError:
        raise truncated() from None
    except DataSetError as error:
        raise unreadable(str(error)) from None
    if encoding != declared_encoding(syntax):
        raise unreadable("It is encoded otherwise than its transfer syntax says.")
    return Source(data, start, encoding.explicit, encoding.order == ">", sop_class, syntax, deflated)


def _meta(original: bytes | mmap) -> tuple[str, str, int]:
    """SOP class and transfer syntax, `""` if it does not name them, and where the data set begins."""
    if len(original) < 132 or original[128:132] != b"DICM":
        raise unreadable("It is no Part 10 file (PS3.10 7.1).")
    at, size, sop_class, syntax = 132, len(original), b"", b""
    while original[at : at + 2] == b"\x02\0":
        try:
            _, element, vr, length = _META_HEAD(original, at)
            at += 8
            if vr in LONG_VRS:
                (length,) = _U32(original, at)
                at += 4
        except struct.error:
            raise truncated("File Meta") from None
        if length > _MOST_META or at + length > size:
            raise truncated("File Meta")
        if element == 0x0002:
            sop_class = original[at : at + length]
        elif element == 0x0010:
            syntax = original[at : at + length]
        at += length
    return sop_class.decode("latin-1").strip("\0 "), syntax.decode("latin-1").strip("\0 "), at
