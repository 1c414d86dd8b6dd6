"""JPEG Extended with 12 bits a sample, by GDCM: pydicom has no decoder for it but one that is not to be had under a free enough licence.

pydicom keeps GDCM from these; tests hold what comes out against dcmtk's.
"""

from __future__ import annotations

from typing import Any

import gdcm
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGExtended12Bit

DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("gdcm>=3.0.10",)}
_LABEL = "hilum"


def is_available(uid: str) -> bool:
    """Whether this decodes the transfer syntax, as pydicom asks."""
    return uid == JPEGExtended12Bit


def decode_frame(src: bytes, runner: Any) -> bytes:
    """Decode one frame, as pydicom asks. Raises `ValueError` if GDCM cannot."""
    if runner.samples_per_pixel != 1 or not 8 < runner.bits_stored <= 12 or runner.bits_allocated != 16:
        raise ValueError("not of 12 bits and one sample a pixel")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(src)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    stored = runner.bits_stored
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, stored, stored - 1, runner.pixel_representation))
    frame: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM gives bytes as text
    if len(frame) != runner.rows * runner.columns * 2:
        raise ValueError("GDCM decoded another number of pixels")
    return frame


def install() -> None:
    """Give pydicom this decoder. May be repeated."""
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()  # else it writes to this process's output
    decoder = get_decoder(JPEGExtended12Bit)
    if _LABEL not in decoder.available_plugins:
        decoder.add_plugin(_LABEL, (__name__, decode_frame.__name__))
