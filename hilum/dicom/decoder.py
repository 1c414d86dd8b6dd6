"""The process in which pixel data are decoded and compressed, so that what breaks a codec breaks nothing else.

It reads requests from its standard input and answers on its standard output, until that ends; see `hilum.dicom.decoding`.
"""

from __future__ import annotations

import os
import resource
import struct
import sys
from io import BytesIO
from typing import BinaryIO

import msgspec
from msgspec import Struct

from hilum.dicom.lossless import Samples
from hilum.dicom.lossy import Lossy
from hilum.dicom.recode import CannotRecode, Change

#: Memory that one object may take, compressed and one frame of it decoded: what wants more is refused, not the machine taken down.
MOST_MEMORY_BYTES = 6 * 2**30

#: Before each frame its length; these instead of one after the last, or if it cannot be decoded.
LENGTH = struct.Struct("<q")
END, BROKEN = -1, -2


class Wanted(Struct, frozen=True):
    """What is asked, on one line; the Part 10 file follows, or the frame."""

    transfer_syntax_uid: str
    size_bytes: int
    #: To compress it with loss, instead: then frames come first, and the answer after them.
    lossy: Lossy | None = None
    #: To compress one frame, with samples that lie so, without loss into this transfer syntax, instead: answered in the same way.
    samples: Samples | None = None


class Found(Struct, frozen=True):
    """What is answered, on one line; unless there is an error, the frames follow."""

    error: str = ""
    #: It is not to be compressed with loss.
    unsuited: bool = False
    changes: dict[int, Change | None] = {}


def main() -> None:
    """Serve until the other side is gone."""
    out = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # codecs write there what nobody wants to read
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, resource.RLIM_INFINITY))
    from hilum.dicom.decompress import decompressed

    requests = sys.stdin.buffer
    while line := requests.readline():
        wanted = msgspec.json.decode(line, type=Wanted)
        if wanted.lossy is not None:
            _compress(requests.read(wanted.size_bytes), wanted.transfer_syntax_uid, wanted.lossy, out)
            continue
        if wanted.samples is not None:
            _compress_frame(requests.read(wanted.size_bytes), wanted.transfer_syntax_uid, wanted.samples, out)
            continue
        try:
            part10 = requests.read(wanted.size_bytes)
            decoded = decompressed(BytesIO(part10), wanted.transfer_syntax_uid)
        except (CannotRecode, MemoryError) as error:
            _say(out, Found(error=_words(error)))
            continue
        _say(out, Found(changes=decoded.changes))
        try:
            for frame in decoded.frames:
                out.write(LENGTH.pack(len(frame)))
                out.write(frame)
            out.write(LENGTH.pack(END))
        except (CannotRecode, MemoryError) as error:
            out.write(LENGTH.pack(BROKEN))
            _say(out, Found(error=_words(error)))
        out.flush()


def _compress(part10: bytes, transfer_syntax_uid: str, lossy: Lossy, out: BinaryIO) -> None:
    """Answer with frames, and then with what the header says of them."""
    from hilum.dicom.compress import Unsuited, compressed

    try:
        made = compressed(part10, transfer_syntax_uid, lossy)
        for frame in made.frames:
            out.write(LENGTH.pack(len(frame)))
            out.write(frame)
            out.flush()
        found = Found(changes=made.header.changes())
    except Unsuited:
        found = Found(unsuited=True)
    except (CannotRecode, MemoryError) as error:
        found = Found(error=_words(error))
    out.write(LENGTH.pack(END))
    _say(out, found)


def _compress_frame(frame: bytes, transfer_syntax_uid: str, samples: Samples, out: BinaryIO) -> None:
    """Answer with the frame, if it comes back as it was, and then whether it does."""
    from hilum.dicom.lossless import compressed

    try:
        made, found = compressed(frame, samples, transfer_syntax_uid), Found()
        out.write(LENGTH.pack(len(made)))
        out.write(made)
    except (CannotRecode, MemoryError) as error:
        found = Found(error=_words(error))
    out.write(LENGTH.pack(END))
    _say(out, found)


def _say(out: BinaryIO, found: Found) -> None:
    out.write(msgspec.json.encode(found) + b"\n")
    out.flush()


def _words(error: CannotRecode | MemoryError) -> str:
    return str(error) if isinstance(error, CannotRecode) else "decoding it takes more memory than it may"


if __name__ == "__main__":
    main()
