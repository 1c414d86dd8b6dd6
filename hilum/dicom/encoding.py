"""How the bytes of a data set are to be read (PS3.5 7, A, 10), found from its transfer syntax and its first element."""

from __future__ import annotations

import mmap
import zlib
from functools import lru_cache
from typing import Literal

from msgspec import Struct

from hilum.dicom.values import LITTLE

#: Implicit VR Little Endian, and two old ones that differ from it in pixel data or not at all (GE's private one, Papyrus 3).
IMPLICIT_LITTLE = frozenset({"1.2.840.10008.1.2", "1.2.840.113619.5.2", "1.2.840.10008.1.20"})
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
#: Transfer syntaxes whose data set is a raw deflate stream (PS3.5 A.5, A.7).
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
#: Of a deflated data set no more than this is looked at.
MAX_INFLATED_BYTES = 64 * 2**20
#: A length that is not known beforehand: a delimiter ends the value.
UNDEFINED = 0xFFFFFFFF


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
    implicit = length <= most or length == UNDEFINED
    if implicit and (not declared.explicit or (declared.order == "<" and group <= 8 and group % 2 == 0)):
        return Encoding("<", False)
    vr = LITTLE.get(code.decode("latin-1"))
    if not declared.explicit and vr is not None and (vr.long or int.from_bytes(head[6:8], "little") <= most):
        return Encoding("<", True)
    raise DataSetError("The data set does not begin as one in its transfer syntax does.")


@lru_cache(maxsize=256)
def declared_encoding(transfer_syntax_uid: str) -> Encoding:
    """The encoding that a transfer syntax means (PS3.5 A); a private one is Explicit VR Little Endian, as PS3.5 10.2 has it."""
    return Encoding(">" if transfer_syntax_uid == EXPLICIT_BIG else "<", transfer_syntax_uid not in IMPLICIT_LITTLE)


def inflated(data: bytes | mmap.mmap, start: int) -> tuple[bytes, bool]:
    """The data set that begins deflated at `start`, and whether all of it is there to be looked at.

    Raises `DataSetError` if it is no deflate stream, `TruncatedError` if it has no end.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        with memoryview(data) as view, view[start:] as rest:
            found = stream.decompress(rest, MAX_INFLATED_BYTES)
    except zlib.error:
        raise DataSetError("The data set is no deflate stream (PS3.5 A.5).") from None
    if not stream.eof and not stream.unconsumed_tail:
        raise TruncatedError("The data set ends within its deflate stream.")
    return found, stream.eof
