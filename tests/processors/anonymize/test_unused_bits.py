"""Bits of pixels that belong to no sample, where old systems drew overlays: the image is held, or they are cleared, as the policy says."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from hilum.dicom.decoding import frame_compressed
from hilum.errors import Misconfigured
from processors.anonymize.about import about
from processors.anonymize.extent import check_extent
from processors.anonymize.held import Held
from processors.anonymize.outgoing import outgoing
from processors.anonymize.pixels.layout import layout_of
from processors.anonymize.policy import Policy, policy
from processors.anonymize.source import read_source
from processors.anonymize.unused import is_drawn_on
from tests.processors.anonymize.objects import a_context, a_policy, part10, read, samples
from tests.processors.anonymize.test_pixels import an_image, big_endian, compressed

CLEAN = a_policy(more='kinds.unused-bits = "clean"')
NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
#: A letter in the corner of an image.
LETTER = np.zeros((64, 64), dtype=bool)
LETTER[1:6, 2] = LETTER[1, 2:6] = LETTER[3, 2:5] = True


def image(pixels: Any, **more: Any) -> Any:
    """A CT with these samples of 16 bits, 12 of them stored."""
    return an_image(64, 64, bits=16, stored=12, PixelData=pixels.astype("<u2").tobytes(), **more)


def grey() -> Any:
    return np.random.default_rng(1).integers(0, 4096, LETTER.shape)


def drawn(bit: int = 12) -> Any:
    return grey() | (LETTER.astype(int) << bit)


def signed(low: int = -2048) -> Any:
    return np.random.default_rng(1).integers(low, 2048, LETTER.shape)


def left(original: bytes, by: Policy) -> Any:
    return read(b"".join(outgoing(original, a_context(by)).parts))


def why(original: bytes, by: Policy) -> Held:
    with pytest.raises(Held) as stop:
        outgoing(original, a_context(by))
    return stop.value


def found_in(original: bytes) -> bool:
    """Whether bits are set in an object that are no part of samples."""
    seen = about(read_source(original))
    return is_drawn_on(seen, check_extent(seen))


def as_precise(ds: Any, syntax: UID) -> bytes:
    """The object compressed with all of its 16 bits, of which the header says afterwards that 12 are stored."""
    ds.BitsStored, ds.HighBit = 16, 15
    if syntax == JPEGLosslessSV1:  # pydicom writes none
        layout = layout_of(about(read_source(part10(ds))))
        ds.PixelData = encapsulate([frame_compressed(ds.PixelData, syntax, layout)])
        ds["PixelData"].is_undefined_length = True
    file = ds if syntax == JPEGLosslessSV1 else read(compressed(ds, syntax))
    file.BitsStored, file.HighBit = 12, 11
    return part10(file, syntax)


@pytest.mark.parametrize("name", ["basic", "research"])
@pytest.mark.parametrize("bit", [12, 15])
def test_the_shipped_policies_hold_what_is_drawn_there(name: str, bit: int) -> None:
    stop = why(part10(image(drawn(bit))), policy(name))

    assert stop.reason == "risky-kind"
    assert "unused-bits" in stop.fix


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless],
)
def test_they_are_cleared_if_the_policy_says_so(syntax: UID) -> None:
    original = part10(image(drawn()), syntax) if syntax in NATIVE else as_precise(image(drawn()), syntax)

    made = left(original, CLEAN)

    assert np.array_equal(made.pixel_array, grey())
    assert found_in(original)
    assert not found_in(part10(made, made.file_meta.TransferSyntaxUID))
    assert "cleared of bits that are no part of samples" in made.DerivationDescription
    assert made.ImageType[0] == "DERIVED"


def test_in_big_endian_too() -> None:
    ds = image(drawn())
    ds.PixelData = drawn().astype(">u2").tobytes()

    assert why(big_endian(ds), policy("basic")).reason == "risky-kind"
    assert np.array_equal(left(big_endian(ds), CLEAN).pixel_array, grey())


def test_a_cleared_image_does_not_say_that_its_pixels_were_cleaned() -> None:
    made = left(part10(image(drawn())), CLEAN)

    assert "113101" not in [each.CodeValue for each in made.DeidentificationMethodCodeSequence]
    assert "BurnedInAnnotation" not in made


def test_the_header_of_the_overlay_goes_with_it() -> None:
    ds = image(drawn())
    ds.add_new(0x60000010, "US", 64)
    ds.add_new(0x60000011, "US", 64)
    ds.add_new(0x60000100, "US", 16)
    ds.add_new(0x60000102, "US", 12)

    made = left(part10(ds), CLEAN)

    assert not [tag for tag in made.keys() if tag.group == 0x6000]  # noqa: SIM118 - of a data set


def test_a_mask_paints_and_clears() -> None:
    by = a_policy(more='kinds.unused-bits = "clean"\nmasks = [{ boxes = [[0, 0, 64, 1]] }]')
    expected = grey()
    expected[0] = 0

    made = left(part10(image(drawn())), by)

    assert np.array_equal(np.frombuffer(made.PixelData, "<u2").reshape(LETTER.shape), expected)
    assert "painted over and cleared" in made.DerivationDescription


@pytest.mark.parametrize(
    ("pixels", "more"),
    [
        (grey(), {}),
        (signed(), {"PixelRepresentation": 1}),  # the sign goes on in the upper bits
        (signed() & 0xFFF, {"PixelRepresentation": 1}),  # it does not
        (grey() << 4, {"HighBit": 15}),
        (drawn(), {"BitsStored": 16, "HighBit": 15}),
    ],
    ids=["unsigned", "sign extended", "sign not extended", "upper bits stored", "all stored"],
)
def test_samples_alone_are_nothing_drawn(pixels: Any, more: dict[str, Any]) -> None:
    ds = image(pixels, **more)

    assert left(part10(ds), policy("basic")).PixelData == ds.PixelData


@pytest.mark.parametrize(
    ("pixels", "more"),
    [
        (signed() ^ (LETTER.astype(int) << 13), {"PixelRepresentation": 1}),
        (np.where(LETTER, signed(), signed() & 0xFFF), {"PixelRepresentation": 1}),
        (grey() << 4 | LETTER, {"HighBit": 15}),
    ],
    ids=["against the sign", "signs that go on where something is drawn", "below the lowest bit"],
)
def test_what_is_no_sign_is_drawn(pixels: Any, more: dict[str, Any]) -> None:
    assert why(part10(image(pixels, **more)), policy("basic")).reason == "risky-kind"


def test_signs_go_on_after_clearing() -> None:
    ds = image(signed() ^ (LETTER.astype(int) << 13), PixelRepresentation=1)

    assert np.array_equal(np.frombuffer(left(part10(ds), CLEAN).PixelData, "<i2").reshape(LETTER.shape), signed())


def test_the_last_of_many_frames_is_looked_at() -> None:
    pixels = np.stack([grey()] * 9 + [drawn()])

    assert why(part10(image(pixels, NumberOfFrames=10)), policy("basic")).reason == "risky-kind"


def test_a_policy_may_let_them_pass() -> None:
    ds = image(drawn())

    made = left(part10(ds), a_policy(more='kinds.unused-bits = "pass: our devices pad with 63536"'))

    assert made.PixelData == ds.PixelData


def test_stored_bits_that_are_not_allocated_hold_it() -> None:
    assert why(part10(image(grey(), BitsStored=12, HighBit=7)), policy("basic")).reason == "pixels-unreadable"


def test_clearing_and_retained_uids_contradict_each_other() -> None:
    with pytest.raises(Misconfigured, match="unused bits are cleared"):
        a_policy("retain-uids", more='kinds.unused-bits = "clean"')


def test_frames_of_no_more_bits_than_are_stored_are_not_decoded() -> None:
    ds = read(samples()["JPEG-lossy.dcm"])  # 12 bits, which no decoder at hand need have
    at = samples()["JPEG-lossy.dcm"].rfind(b"\xff\xda") + 16
    original = BytesIO(samples()["JPEG-lossy.dcm"])
    original.seek(at)
    original.write(bytes(64))  # nor can it be

    assert (ds.BitsAllocated, ds.BitsStored) == (16, 12)
    assert not found_in(original.getvalue())


def test_a_frame_of_which_that_is_not_known_is_not_taken_for_one_of_no_more() -> None:
    ds = read(samples()["JPEG-lossy.dcm"])
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    ds.NumberOfFrames = 2
    ds.PixelData = encapsulate([frame, frame[:2] + frame[frame.rfind(b"\xff\xda") :]])
    ds.save_as(original := BytesIO())

    with pytest.raises(Held, match="cannot be followed to its end"):
        found_in(original.getvalue())


def test_a_frame_of_more_bits_that_cannot_be_decoded_is_held() -> None:
    ds = read(as_precise(image(grey()), JPEGLSLossless))
    frame = bytearray(get_frame(ds.PixelData, 0, number_of_frames=1))
    scan = frame.find(b"\xff\xda") + 10
    frame[scan : frame.rfind(b"\xff\xd9")] = b"\x55\x2a" * ((frame.rfind(b"\xff\xd9") - scan) // 2)  # its markers are as they were
    ds.PixelData = encapsulate([bytes(frame)])
    seen = about(read_source(part10(ds, JPEGLSLossless)))
    bits = check_extent(seen)

    assert bits == 16
    with pytest.raises(Held, match="cannot be decoded"):
        is_drawn_on(seen, bits)
    assert why(part10(ds, JPEGLSLossless), CLEAN).reason == "pixels-unreadable"
