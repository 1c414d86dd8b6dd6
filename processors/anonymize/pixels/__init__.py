"""Pixels painted over by a policy's masks: decoded, painted, and kept without loss in the family of transfer syntaxes they came in.

One frame at a time; the object that results is in memory if it is small, else in a file that has no name any more, so that nothing stays
behind whatever happens. It still has the original's header, but for what painting changes: it is for the engine, and for nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from mmap import mmap
from pathlib import Path

from msgspec import Struct, structs

from hilum.dicom.decoding import frame_compressed
from hilum.dicom.encoding import EXPLICIT_BIG, Encoding
from hilum.dicom.file_meta import part10_head
from hilum.dicom.lossless import JPEG_2000, LOSSLESS
from hilum.dicom.recode import DELIMITER, Change, pieces, recoded
from hilum.dicom.transcode import DEFLATED
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from processors.anonymize.about import ICON, IMAGE_TYPE, LOSSY, PHOTOMETRIC, PIXEL_DATA, About, about
from processors.anonymize.held import Held, HeldReason
from processors.anonymize.pixels.fitting import Fitting
from processors.anonymize.pixels.frames import check_number, decoded_frames, decoding, first_changes, in_rgb, item
from processors.anonymize.pixels.layout import Brush, Layout, layout_of, unpaintable
from processors.anonymize.pixels.room import kept
from processors.anonymize.source import read_source

#: Transfer syntaxes in which pixels are not compressed.
NATIVE = frozenset({EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, DEFLATED, EXPLICIT_BIG})
_PIECE_BYTES = 2**20
_DERIVATION, _SMALLEST, _LARGEST = 0x00082111, 0x00280106, 0x00280107
#: In YBR_FULL their planes would have to be apart (PS3.3 C.8.5.6.1.16), which they are in no codestream (PS3.5 8.2.1).
_ULTRASOUND = frozenset(f"1.2.840.10008.5.1.4.1.1.{each}" for each in ("3", "3.1", "6", "6.1"))
#: What is not of these pixels any more (PS3.3 C.7.6.3.1, C.7.6.3).
_NO_LONGER = (_SMALLEST, _LARGEST, 0x7FE00001, 0x7FE00002, 0x7FE00003)
#: Where overlays are that were in bits of the pixels (PS3.3 C.9.2 of old editions), once those are cleared.
_IN_PIXELS: dict[int, Change | None] = dict.fromkeys(0x60000102 + (number << 17) for number in range(16))


class Painted(Struct, frozen=True, kw_only=True):
    """An object whose pixels were painted over in every frame."""

    #: A Part 10 file, for the engine.
    part10: bytes | mmap
    transfer_syntax_uid: str
    #: What changed, in words without values of the object.
    stated: str


def painted(seen: About, fit: Fitting, folder: Path | None = None, *, clear: bool = False) -> Painted:
    """Paint over what `fit` says; with `clear`, bits that are no part of samples are cleared. A file, if one is needed, is in `folder`.

    Raises `Held` if pixels cannot be decoded, are not as many as the header says, or do not come back from compression as they were, and
    `TryAgain` if there is no room.
    """
    return decoding(lambda: _painted(seen, fit, folder, clear))


def _painted(seen: About, fit: Fitting, folder: Path | None, clear: bool) -> Painted:
    source = seen.source
    if source.transfer_syntax_uid in LOSSLESS:
        return _compressed(seen, fit, folder, clear)
    if source.transfer_syntax_uid not in NATIVE:
        raise unpaintable("Its transfer syntax is none that is decoded here: video, or one that is private or new.")
    if source.deflated or source.big_endian:
        seen = _plainer(seen, folder)
    return _native(seen, fit, folder, clear)


def _native(seen: About, fit: Fitting, folder: Path | None, clear: bool) -> Painted:
    layout = layout_of(seen)
    brush = _brush(layout, fit, clear)
    start, stop, vr = seen.places[PIXEL_DATA]
    size = layout.frame_bytes * layout.frames
    if stop - start != size + size % 2 or vr == b"SQ":
        raise unpaintable("Its pixel data are not as many bytes as its header says.")
    data = memoryview(seen.source.data)

    def frames() -> Iterator[bytes]:
        for at in range(start, start + size, layout.frame_bytes):
            yield brush.painted(data[at : at + layout.frame_bytes])

    coming = Change(vr or (b"OW" if layout.bits_allocated > 8 else b"OB"), from_elsewhere_bytes=size)
    own = seen.source.transfer_syntax_uid
    what, without = _what(fit, clear), _IN_PIXELS if clear else {}
    return Painted(
        part10=_written(seen, own, {**without, PIXEL_DATA: coming}, frames, what, "", folder),
        transfer_syntax_uid=own,
        stated=f"{what} in every frame; {'all other' if fit.paints else 'all'} samples are as they were.",
    )


def _what(fit: Fitting, clear: bool) -> str:
    """What is done to pixels, in words."""
    done = [*(["painted over"] if fit.paints else []), *(["cleared of bits that are no part of samples"] if clear else [])]
    return " and ".join(done).capitalize()


def _compressed(seen: About, fit: Fitting, folder: Path | None, clear: bool) -> Painted:
    own, source_class = seen.source.transfer_syntax_uid, seen.source.sop_class_uid
    target = LOSSLESS[own]
    declared = layout_of(seen)
    check_number(seen, declared)
    before_bytes = seen.places[PIXEL_DATA][1] - seen.places[PIXEL_DATA][0]
    # The icon, which decoding has an opinion of, is the engine's.
    changes = {tag: change for tag, change in first_changes(seen).items() if tag != ICON}
    photometric = changes[PHOTOMETRIC]
    assert photometric is not None
    layout = structs.replace(declared, planar=False, photometric=photometric.value.decode("ascii").strip())
    brush = _brush(layout, fit, clear)
    written = layout
    if target == JPEG_2000 and layout.photometric == "RGB":  # as the reversible colour transform of the codec (PS3.5 8.2.4)
        written = structs.replace(layout, photometric="YBR_RCT")
        changes[PHOTOMETRIC] = Change(b"CS", b"YBR_RCT ")
    to_rgb = layout.photometric == "YBR_FULL" and seen.text(PHOTOMETRIC) == "YBR_FULL_422" and source_class in _ULTRASOUND
    if to_rgb:
        written = structs.replace(layout, photometric="RGB")
        changes[PHOTOMETRIC] = Change(b"CS", b"RGB ")

    def frames() -> Iterator[bytes]:
        yield item(b"")
        count = 0
        for frame in decoded_frames(seen):
            count += 1
            whole = brush.painted(frame)
            yield item(frame_compressed(in_rgb(whole, layout) if to_rgb else whole, target, written))
        if count != layout.frames:
            raise unpaintable("It has not as many frames as its header says.")
        yield DELIMITER

    changes[PIXEL_DATA] = Change(b"OB", from_elsewhere_bytes=1, encapsulated=True)
    what, without = _what(fit, clear), _IN_PIXELS if clear else {}
    stated = _stated(seen, written, own, target, changes)
    part10 = _written(seen, target, changes | without, frames, what, stated, folder)
    size = f" The file is {100 * len(part10) // max(1, len(seen.source.data))} % of its size before, {before_bytes} bytes of pixel data."
    return Painted(part10=part10, transfer_syntax_uid=target, stated=f"{what} in every frame, {stated}{size}")


def _brush(layout: Layout, fit: Fitting, clear: bool) -> Brush:
    """Raises `Held` if nothing would be painted over: then nobody may say that anything was."""
    brush = Brush(layout, fit.boxes, fit.regions, clear=clear)
    if fit.paints and not brush.where.any():
        raise Held(HeldReason.MASK, "Its ultrasound regions are the whole image, so that nothing lies outside.", fix="Write boxes for it.")
    return brush


def _stated(seen: About, layout: Layout, own: str, target: str, changes: dict[int, Change | None]) -> str:
    said = ["compressed again without loss."]
    lossy = changes.get(LOSSY)
    if seen.text(LOSSY) == "01" or lossy is not None:
        said.append("It had lost something before, and says so (0028,2110).")
    if own != target:
        said.append(f"Transfer syntax {own} became {target}.")
    if seen.text(PHOTOMETRIC) != layout.photometric:
        said.append(f"Photometric interpretation {seen.text(PHOTOMETRIC)} became {layout.photometric}.")
        if layout.photometric == "RGB" and seen.text(PHOTOMETRIC).startswith("YBR_FULL"):
            said.append("For that each sample was rounded.")
    return " ".join(said)


def _written(
    seen: About,
    syntax: str,
    changes: dict[int, Change | None],
    frames: Callable[[], Iterator[bytes]],
    what: str,
    stated: str,
    folder: Path | None,
) -> bytes | mmap:
    """The object with other pixels, and a header that says so."""
    source = seen.source
    said = f" {what} in every frame, {stated}" if stated else ""
    changes = {**as_derived(seen, f"Pixels {what.lower()} for de-identification.{said}"), **changes}
    data = memoryview(source.data)[source.start :]
    parts = recoded(data, Encoding("<", source.explicit), explicit=source.explicit, changes=changes)
    head = part10_head(source.sop_class_uid, "", syntax)
    return kept(pieces([head, *parts], _PIECE_BYTES, frames()), folder)


def as_derived(seen: About, words: str) -> dict[int, Change | None]:
    """What changes in a header when pixels do, said in `words` of ASCII (PS3.3 C.7.6.1.1.2, C.12.1.1.2)."""
    start, stop, _ = seen.places.get(IMAGE_TYPE, (0, 0, b""))
    types = bytes(seen.source.data[start:stop]).rstrip(b" \0").split(b"\\")  # as they stand: what is no coded string is for the engine
    image_type = b"\\".join((b"DERIVED", *(types[1:] or [b"PRIMARY"])))
    said = words.encode("ascii")
    return {
        **dict.fromkeys(_NO_LONGER),
        IMAGE_TYPE: Change(b"CS", image_type + b" " * (len(image_type) % 2)),
        _DERIVATION: Change(b"ST", said + b" " * (len(said) % 2)),
    }


def _plainer(seen: About, folder: Path | None) -> About:
    """A deflated or big endian object in Explicit VR Little Endian."""
    source = seen.source
    data = memoryview(source.data)[source.start :]
    parts = recoded(data, Encoding(">" if source.big_endian else "<", source.explicit), explicit=True)
    head = part10_head(source.sop_class_uid, "", EXPLICIT_VR_LITTLE_ENDIAN)
    return about(read_source(kept(pieces([head, *parts], _PIECE_BYTES), folder)))
