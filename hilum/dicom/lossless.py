"""Frames compressed without loss, in the family of the transfer syntax that they came in; what was compressed is read back and compared."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from hilum.dicom.recode import CannotRecode

_JPEG = "1.2.840.10008.1.2.4."
RLE, JPEG_LOSSLESS, JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.5", f"{_JPEG}70", f"{_JPEG}80", f"{_JPEG}90"
#: What is written instead of each. High-throughput JPEG 2000 is of the JPEG 2000 family, which OpenJPEG writes without it.
LOSSLESS = {
    RLE: RLE,
    **{f"{_JPEG}{number}": JPEG_LOSSLESS for number in (50, 51, 57, 70)},
    **{f"{_JPEG}{number}": JPEG_LS for number in (80, 81)},
    **{f"{_JPEG}{number}": JPEG_2000 for number in (90, 91, 201, 202, 203)},
}
#: Which library writes and reads each. GDCM does so with RLE, too, and ends the process over sizes that it does not expect.
_PLUGINS = {RLE: "pylibjpeg", JPEG_LS: "pyjpegls", JPEG_2000: "pylibjpeg"}


class Samples(Struct, frozen=True):
    """How the samples of a frame lie, pixel by pixel (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str


def compressed(frame: bytes, lie: Samples, syntax: str) -> bytes:
    """One frame in `syntax`, one of the values of `LOSSLESS`: by codecs, so call it through `hilum.dicom.decoding`.

    Raises `CannotRecode` if it cannot be, or does not come back the same.
    """
    from pydicom.encaps import encapsulate  # which no process needs that has it done elsewhere
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.encoders.base import get_encoder
    from pydicom.uid import UID

    how: dict[str, Any] = {
        "rows": lie.rows,
        "columns": lie.columns,
        "samples_per_pixel": lie.samples,
        "bits_allocated": lie.bits_allocated,
        "bits_stored": lie.bits_stored,
        "pixel_representation": int(lie.signed),
        "photometric_interpretation": lie.photometric,
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
        **({"planar_configuration": 0} if lie.samples > 1 else {}),
    }
    try:
        if syntax == JPEG_LOSSLESS:
            made = _jpeg_lossless(frame, lie)
        else:
            made = get_encoder(UID(syntax)).encode(frame, encoding_plugin=_PLUGINS[syntax], **how)
        plugin = "" if syntax == JPEG_LOSSLESS else _PLUGINS[syntax]
        back, _ = get_decoder(UID(syntax)).as_array(encapsulate([made]), index=0, raw=True, decoding_plugin=plugin, **how)
        same = back.astype(back.dtype.newbyteorder("<"), copy=False).tobytes() == frame
    except Exception as error:  # whatever the codecs make of it
        raise CannotRecode(f"a frame cannot be compressed again without loss ({type(error).__name__})") from None
    if not same:
        raise CannotRecode("a frame does not come back as it was when it is compressed again without loss")
    return bytes(made)


def _jpeg_lossless(frame: bytes, lie: Samples) -> bytes:
    """Process 14, first-order prediction (PS3.5 A.4.2), by GDCM: the one encoder of it that may be used."""
    import gdcm

    if len(frame) % 2:
        raise ValueError("GDCM takes no frame of an odd number of bytes")
    if lie.bits_allocated == 8 and lie.bits_stored < 8:  # which ends the process
        raise ValueError("GDCM takes no samples of less than 8 bits")
    writer = gdcm.ImageWriter()  # it must live as long as its image
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((lie.columns, lie.rows, 1))
    stored = lie.bits_stored
    image.SetPixelFormat(gdcm.PixelFormat(lie.samples, lie.bits_allocated, stored, stored - 1, int(lie.signed)))
    kind = gdcm.PhotometricInterpretation.GetPIType(lie.photometric)
    if kind == gdcm.PhotometricInterpretation.PI_END:
        raise ValueError("no photometric interpretation that GDCM knows")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    if lie.samples > 1:
        image.SetPlanarConfiguration(0)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(frame)
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(image)
    if not change.Change():
        raise ValueError("GDCM does not compress it")
    output = change.GetOutput()  # it must live as long as its fragments
    fragments = output.GetDataElement().GetSequenceOfFragments()
    if fragments is None or fragments.GetNumberOfFragments() != 1:
        raise ValueError("GDCM made another number of fragments than one")
    made: bytes = fragments.GetFragment(0).GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")  # GDCM gives bytes as text
    return made
