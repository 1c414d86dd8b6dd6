"""DICOM JSON (PS3.18 F) and its bulk data, written as a data set."""

from __future__ import annotations

from collections.abc import Mapping
from io import BufferedIOBase
from typing import Any, cast

import msgspec
from msgspec.structs import replace
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate_buffer
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.valuerep import VR

from hilum.spool import Incoming, SpoolFull
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN
from ingest.dicom.answers import Answer

from .answers import NO_BULK_DATA, TRANSFER_SYNTAX, WRONG_JSON
from .bulk import Bulk, BulkPart
from .media import DEFAULT_TRANSFER_SYNTAX

MAX_DEPTH = 64
#: Bulk data within a sequence is held in memory with it.
MAX_BULK_IN_SEQUENCE_BYTES = 16 * 2**20
_WRITE_BYTES = 2**18
#: VRs whose value is bytes; of others no bulk data is taken.
_BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_VRS = frozenset(str(each) for each in VR if len(str(each)) == 2)
_VALUES = ("Value", "BulkDataURI", "InlineBinary")
_PIXEL_DATA = "7FE00010"
#: Of a file, not of a data set.
_FILE_META = "0002"
_UTF_8 = "ISO_IR 192"
_BINARY = frozenset({"", "application/octet-stream"})


class UnfitError(Exception):
    """The instance cannot be written; `answer` says why. Its text holds no value."""

    def __init__(self, answer: Answer, says: str) -> None:
        super().__init__(says)
        self.answer = replace(answer, comment=f"{answer.comment}: {says}"[:64])


def read_instances(raw: bytes) -> list[dict[str, Any]]:
    """The instances of a part of DICOM JSON. Raises `ValueError` if it is no JSON, or no array of objects (PS3.18 F.2)."""
    try:
        return msgspec.json.decode(raw, type=list[dict[str, Any]])
    except (msgspec.DecodeError, RecursionError):  # their words may hold values
        raise ValueError("its JSON is no array of DICOM JSON objects") from None


def uid_of(instance: Mapping[str, Any], tag: str) -> str:
    """The UID of an attribute, `""` if there is none."""
    match instance.get(tag):
        case {"Value": [str(uid), *_]}:
            return uid.strip(" \0")
    return ""


def data_set_of(instance: dict[str, Any], bulk: Bulk) -> tuple[Dataset, str]:
    """The data set and its transfer syntax (PS3.18 8.7.3.3): that of the pixel data's part, else Explicit VR Little Endian.

    Values that come as bulk data stay on the disk. Raises `UnfitError`.
    """
    content = {tag: attribute for tag, attribute in instance.items() if not tag.startswith(_FILE_META)}
    _check(content, bulk, 0)
    transfer_syntax = EXPLICIT_VR_LITTLE_ENDIAN
    ds = Dataset()
    for tag, attribute in content.items():
        try:
            ds.update(Dataset.from_json({tag: attribute}, lambda uri: cast("bytes", bulk.open(bulk.parts[uri]))))
        except Exception:  # whatever pydicom stumbles over is the sender's value, and may be in the words
            raise UnfitError(WRONG_JSON, f"{tag} has a value that does not fit") from None
    pixel_data = content.get(_PIXEL_DATA, {})
    if "BulkDataURI" in pixel_data and (part := bulk.parts[_uri(pixel_data)]).kind.type not in _BINARY:
        transfer_syntax = _encapsulate(ds, part, bulk)
    # DICOM JSON is UTF-8 whatever (0008,0005) says, and items have no character set of their own (PS3.18 F.2.2).
    if not msgspec.json.encode(content).isascii() or "SpecificCharacterSet" in ds:
        ds.SpecificCharacterSet = _UTF_8
    return ds, transfer_syntax


def write(ds: Dataset, incoming: Incoming) -> None:
    """Write the data set in Explicit VR Little Endian. Raises `SpoolFull`, and `UnfitError` if a value cannot be encoded."""
    sink = _Sink(incoming)
    out = DicomIO(sink)
    out.is_little_endian, out.is_implicit_VR = True, False
    try:
        write_dataset(out, ds)
        sink.flush()
    except SpoolFull:
        raise
    except Exception:  # as above
        raise UnfitError(WRONG_JSON, "a value does not fit its VR") from None


def _check(content: Mapping[str, Any], bulk: Bulk, depth: int) -> None:
    """Each attribute is a tag with a VR that may be its, and one kind of value."""
    if depth > MAX_DEPTH:
        raise UnfitError(WRONG_JSON, "sequences are too deep")
    for tag, attribute in content.items():
        if len(tag) != 8 or not set(tag) <= set("0123456789ABCDEFabcdef"):
            raise UnfitError(WRONG_JSON, "a name is no tag")
        if not isinstance(attribute, dict) or (vr := attribute.get("vr")) not in _VRS:
            raise UnfitError(WRONG_JSON, f"{tag} has no VR, or an unknown one")
        if not _may_have(tag, vr):
            raise UnfitError(WRONG_JSON, f"{tag} cannot have VR {vr}")
        kinds = [kind for kind in _VALUES if kind in attribute]
        if len(kinds) > 1 or not isinstance(attribute.get("Value", []), list) or ("InlineBinary" in kinds and vr not in _BYTES):
            raise UnfitError(WRONG_JSON, f"{tag} has a value that does not fit")
        if vr in _BYTES and attribute.get("Value"):
            raise UnfitError(WRONG_JSON, f"{tag} has a value that does not fit")
        if "BulkDataURI" in kinds:
            part = bulk.parts.get(_uri(attribute))
            if part is None or vr not in _BYTES or (depth and part.size_bytes > MAX_BULK_IN_SEQUENCE_BYTES):
                raise UnfitError(NO_BULK_DATA, tag)
            if part.kind.type not in _BINARY and (depth or tag != _PIXEL_DATA):
                raise UnfitError(NO_BULK_DATA, tag)
            part.is_used = True
        if vr == "SQ":
            for item in attribute.get("Value", []):
                if not isinstance(item, dict):
                    raise UnfitError(WRONG_JSON, f"{tag} has a value that does not fit")
                item.pop("00080005", None)
                _check(item, bulk, depth + 1)


def _may_have(tag: str, vr: str) -> bool:
    number = int(tag, 16)
    if number >> 16 & 1 or vr == "UN":
        return True
    try:
        known = dictionary_VR(number)
    except KeyError:
        return True
    return vr in known.split(" or ")


def _uri(attribute: Mapping[str, Any]) -> str:
    uri = attribute.get("BulkDataURI")
    return uri if isinstance(uri, str) else ""


def _encapsulate(ds: Dataset, part: BulkPart, bulk: Bulk) -> str:
    """Make the part the one frame of encapsulated pixel data (PS3.5 A.4); its transfer syntax."""
    syntax = part.kind.parameters.get("transfer-syntax") or DEFAULT_TRANSFER_SYNTAX.get(part.kind.type, "")
    if not syntax:
        raise UnfitError(NO_BULK_DATA, _PIXEL_DATA)
    if ds.get("NumberOfFrames") not in (None, 1):
        raise UnfitError(TRANSFER_SYNTAX, "frames of a multi-frame image")
    ds.add_new(_PIXEL_DATA, "OB", encapsulate_buffer([cast("BufferedIOBase", bulk.open(part))]))
    ds[_PIXEL_DATA].is_undefined_length = True
    return syntax


class _Sink:
    """What pydicom writes to, a few bytes at a time. It wants `seek`, and uses it for sequences only, which it writes to memory first."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._waiting = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self._waiting += data
        if len(self._waiting) >= _WRITE_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        self._incoming.write(bytes(self._waiting))
        self._waiting.clear()

    def tell(self) -> int:
        return self._incoming.size_bytes + len(self._waiting)

    def seek(self, offset: int, whence: int = 0) -> int:
        raise NotImplementedError
