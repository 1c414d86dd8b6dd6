"""Media types as STOW-RS uses them (RFC 9110 8.3, PS3.18 8.7)."""

from __future__ import annotations

from email.message import Message

from msgspec import Struct

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
MULTIPART = "multipart/related"

#: The transfer syntax of pixel data that comes as bulk data, where its media type does not say it itself (PS3.18 Table 8.7.3-2 and -5).
DEFAULT_TRANSFER_SYNTAX = {
    "image/jpeg": "1.2.840.10008.1.2.4.70",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    "image/jpx": "1.2.840.10008.1.2.4.92",
    "image/jphc": "1.2.840.10008.1.2.4.201",
    "video/mpeg": "1.2.840.10008.1.2.4.100",
    "video/mp4": "1.2.840.10008.1.2.4.102",
}


class MediaType(Struct, frozen=True, kw_only=True):
    """A media type: `type` in lower case, `""` if there is none or it cannot be read, and its parameters."""

    type: str = ""
    parameters: dict[str, str] = {}


def media_type(value: str) -> MediaType:
    """Read a Content-Type. Never raises."""
    if not value.isascii() or not value.isprintable():
        return MediaType()
    message = Message()
    message["content-type"] = value
    kind, *parameters = message.get_params(failobj=[])
    name = kind[0].strip().lower()
    if name.count("/") != 1:
        return MediaType()
    return MediaType(type=name, parameters={each.lower(): text for each, text in parameters if isinstance(text, str)})


def accepts_xml_only(accept: str) -> bool:
    """Whether an Accept header wants the answer as XML and takes nothing else that is given here."""
    kinds = [each.partition(";")[0].strip().lower() for each in accept.split(",")]
    return DICOM_XML in kinds and not {DICOM_JSON, "application/json", "*/*", "application/*"} & set(kinds)
