"""Whether pixel data and waveforms are what the header says, and nothing else: what lies behind the last frame is no pixel, and may be
anything.

Nothing is decoded here, so what stands among a codestream's samples is not looked at; for comments in front of them see `comments`, and
for where it ends `codestreams`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice

from hilum.dicom.encoding import IMPLICIT_LITTLE
from hilum.dicom.lossless import RLE
from processors.anonymize.about import (
    BITS_ALLOCATED,
    BITS_STORED,
    COLUMNS,
    FLOAT_PIXELS,
    OFFSET_LENGTHS,
    OFFSETS,
    PHOTOMETRIC,
    PIXEL_DATA,
    ROWS,
    SAMPLES,
    About,
)
from processors.anonymize.codestreams import BEGINNINGS, SOF_LS, Codestream, codestream_of
from processors.anonymize.held import Held, HeldReason, shown
from processors.anonymize.pixels import NATIVE
from processors.anonymize.risky import VIDEO_SYNTAXES
from processors.anonymize.waveforms import check_waveforms

_UNDEFINED = b"\xff\xff\xff\xff"
_FLOAT_BITS = {0x7FE00008: 32, 0x7FE00009: 64}
_PIECE_BYTES = 2**20
#: Whose frames are JPEG, JPEG-LS, JPEG 2000. What part 2 of JPEG 2000 may hold is not known here.
_JPEG = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (*range(50, 67), 70))
_JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81))
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
_CODESTREAMS = _JPEG | _JPEG_LS | _JPEG_2000
#: Half samples of a pixel, where chrominance is shared (PS3.3 C.7.6.3.1.2).
_HALVES = {"YBR_FULL_422": 4, "YBR_PARTIAL_422": 4, "YBR_PARTIAL_420": 3}


def check_extent(seen: About) -> int:
    """Raise `Held` for pixel data that are encoded otherwise than the transfer syntax says, fewer than the header says, more, or of another
    image; of RLE, what is within its frames is for `processors.anonymize.rle`. Likewise for waveforms.

    Returns the most bits that a sample of its codestreams has, 0 if it has none.
    """
    check_waveforms(seen)
    bits = 0
    syntax = seen.source.transfer_syntax_uid
    native = syntax in NATIVE or syntax in IMPLICIT_LITTLE
    for tag in (PIXEL_DATA, *FLOAT_PIXELS):
        if tag not in seen.places:
            continue
        start = seen.places[tag][0]
        fragments = bytes(seen.source.data[start - 4 : start]) == _UNDEFINED
        if fragments == (native or tag in FLOAT_PIXELS):
            raise _wrong("It is not encoded as the transfer syntax says (PS3.5 A.4).", tag)
        if not fragments:
            _check_samples(seen, tag)
        elif not syntax.startswith(VIDEO_SYNTAXES):
            bits = _check_fragments(seen, syntax)
    if native or PIXEL_DATA not in seen.places:
        for tag in (OFFSETS, OFFSET_LENGTHS):
            if tag in seen.places:
                raise _wrong("It has no compressed frames that a table of offsets is for (PS3.3 C.7.6.3.1.8).", tag)
    return bits


def _wrong(sentence: str, tag: int = PIXEL_DATA) -> Held:
    fix = "Correct the object at its source, or leave such objects out of what goes to this destination."
    return Held(HeldReason.PIXELS, sentence, fix=fix, place=shown(tag))


def _check_samples(seen: About, tag: int) -> None:
    start, stop, _ = seen.places[tag]
    bits = _FLOAT_BITS.get(tag) or seen.number(BITS_ALLOCATED)
    halves = _HALVES.get(seen.text(PHOTOMETRIC), 2 * (seen.number(SAMPLES) or 1))
    expected = (seen.number(ROWS) * seen.number(COLUMNS) * halves * bits * seen.frames // 2 + 7) // 8
    if stop - start < expected:
        raise _wrong("It has fewer samples than rows, columns, samples, bits and frames say.", tag)
    behind = start + expected
    if stop - behind > 1 and any(
        seen.source.data[at : min(at + _PIECE_BYTES, stop)].strip(b"\0") for at in range(behind, stop, _PIECE_BYTES)
    ):
        raise _wrong("Behind its last frame there is something that is no pixel.", tag)


def _check_fragments(seen: About, syntax: str) -> int:
    items = list(_items(seen))
    if not items:
        raise _wrong("It has no table of offsets (PS3.5 A.4).")
    bits, sizes = 0, []
    if syntax == RLE:  # a fragment each (PS3.5 A.4.2)
        sizes = [stop - at for at, stop in items[1:]]
    elif syntax not in _CODESTREAMS:
        raise _wrong("What frames of its transfer syntax begin with is not known here, so that anything might be in them.")
    else:
        for fragments in _frames(seen, items[1:]):
            bits = max(bits, _check_frame(seen, syntax, fragments))
            sizes.append(sum(stop - at for at, stop in fragments))
    if len(sizes) != seen.frames:
        raise _wrong("It has not as many frames as the header says.")
    _check_offsets(seen, items[0], sizes)
    return bits


def _frames(seen: About, fragments: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """The fragments of each frame: it begins with one that looks so, and nothing that looks so may be within it."""
    frame: list[tuple[int, int]] = []
    for at, stop in fragments:
        if seen.source.data[at : min(at + 12, stop)].startswith(BEGINNINGS):
            if frame:
                yield frame
            frame = []
        elif not frame:
            raise _wrong("In front of its frames there is something that is none.")
        frame.append((at, stop))
    if frame:
        yield frame


def _check_frame(seen: About, syntax: str, fragments: list[tuple[int, int]]) -> int:
    """Returns how many bits its samples have."""
    data, (at, stop) = seen.source.data, fragments[0]
    if len(fragments) > 1:
        data = b"".join(data[begin:end] for begin, end in fragments)
        at, stop = 0, len(data)
    found = codestream_of(data, at, stop)
    if found is None:
        raise _wrong("A frame of it cannot be followed to its end: it is cut short, or broken.")
    last = fragments[-1][1] - fragments[-1][0]
    if stop - found.end >= max(last, 2) or (stop - found.end > 1 and data[found.end : stop].strip(b"\0")):
        raise _wrong("Behind the end of a frame there is something that is none.")
    _check_image(seen, syntax, found)
    return found.bits


def _check_image(seen: About, syntax: str, found: Codestream) -> None:
    family = _JPEG_2000 if not found.process else _JPEG_LS if found.process == SOF_LS else _JPEG
    if syntax not in family:
        raise _wrong("It is not compressed as the transfer syntax says (PS3.5 A.4).")
    if (found.rows, found.columns) != (seen.number(ROWS), seen.number(COLUMNS)):
        raise _wrong("A frame of it has other rows and columns than the header says.")
    if found.samples != (seen.number(SAMPLES) or 1):
        raise _wrong("A frame of it has other samples in a pixel than the header says: colour instead of grey, or grey instead of colour.")
    # More bits than are stored are looked at elsewhere; devices store fewer than they say in as many bytes.
    if found.bits > seen.number(BITS_ALLOCATED) or found.bits <= 8 < (seen.number(BITS_STORED) or seen.number(BITS_ALLOCATED)):
        raise _wrong("A frame of it has samples of other bits than the header says.")


def _check_offsets(seen: About, table: tuple[int, int], sizes: list[int]) -> None:
    """Tables of offsets go up, frame by frame. Devices may count what pads frames wrongly, or say where the last one ends as well."""
    data, (start, stop) = seen.source.data, table
    tables = [(PIXEL_DATA, start, stop, "<I"), *((tag, *seen.places.get(tag, (0, 0))[:2], "<Q") for tag in (OFFSETS, OFFSET_LENGTHS))]
    total = seen.places[PIXEL_DATA][1] - start
    for tag, begin, end, kind in tables:
        if (end - begin) % struct.calcsize(kind):
            raise _wrong("It is no table of offsets (PS3.5 A.4).", tag)
        found = [each for (each,) in struct.iter_unpack(kind, data[begin:end])]
        if tag == OFFSET_LENGTHS:
            right = not found or (len(found) == len(sizes) and all(size - said in (0, 1) for said, size in zip(found, sizes, strict=True)))
        else:
            right = not found or (len(found) <= len(sizes) + 1 and found[0] == 0 and found[-1] < total and found == sorted(found))
        if not right:
            raise _wrong("Its table of offsets is none of its frames (PS3.5 A.4).", tag)


def fragments_of(seen: About) -> Iterator[tuple[int, int]]:
    """Where each fragment begins and ends. Raises `Held` if they have no lengths."""
    return islice(_items(seen), 1, None)


def _items(seen: About) -> Iterator[tuple[int, int]]:
    """Where the table of offsets and each fragment begin and end."""
    start, stop, _ = seen.places[PIXEL_DATA]
    at = start
    while at < stop - 8:
        (size,) = struct.unpack_from("<I", seen.source.data, at + 4)
        if at + 8 + size > stop - 8:
            raise _wrong("A fragment of it has no length (PS3.5 A.4).")
        yield at + 8, at + 8 + size
        at += 8 + size
