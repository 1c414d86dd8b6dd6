"""What pydicom makes of a data set, as DICOM JSON in the form that `hilum.dicom.dataset` gives: slow, and plain to see."""

from __future__ import annotations

import warnings
import zlib
from io import BytesIO
from typing import Any

from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence

from hilum.dicom.encoding import DEFLATED, EXPLICIT_BIG, IMPLICIT_LITTLE
from hilum.dicom.walk import MAX_VALUE_BYTES

PIXELS = {0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00008, 0x7FE00009, 0x7FE00010}
BULK = {"IS", "DS", "AT", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "OB", "OD", "OF", "OL", "OV", "OW", "UN"}


def header_by_pydicom(data_set: bytes, transfer_syntax_uid: str) -> dict[str, Any]:
    """The header of `data_set` without pixel data and bulk values."""
    if transfer_syntax_uid in DEFLATED:
        data_set = zlib.decompress(data_set, -zlib.MAX_WBITS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        little = transfer_syntax_uid != EXPLICIT_BIG
        return _header(read_dataset(BytesIO(data_set), transfer_syntax_uid in IMPLICIT_LITTLE, little), ["iso8859"])


def _header(ds: Dataset, encodings: list[str]) -> dict[str, Any]:
    raws = {tag: ds.get_item(tag) for tag in sorted(ds.keys())}
    encodings = convert_encodings(ds.get("SpecificCharacterSet", [])) if "SpecificCharacterSet" in ds else encodings
    found = {}
    for tag, raw in raws.items():
        if tag in PIXELS or tag.element == 0 or tag == 0xFFFCFFFC:
            continue
        json = _element(ds, raw, encodings)
        if json is not None:
            found[f"{int(tag):08X}"] = json
    return found


def _element(ds: Dataset, raw: RawDataElement | DataElement | None, encodings: list[str]) -> dict[str, Any] | None:
    assert raw is not None
    if isinstance(raw.value, Sequence) or raw.VR == "SQ":
        element = raw if isinstance(raw, DataElement) else convert_raw_data_element(raw, encoding=encodings, ds=ds)
        items = [_header(item, encodings) for item in element.value]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if isinstance(raw, DataElement):  # pydicom has read this one already
        return _in_our_form(raw.VR, raw.to_json_dict(None, 0))
    value = raw.value or b""
    vr = raw.VR if raw.VR not in (None, "UN") else _looked_up(raw, ds)
    if vr == "SQ":
        element = convert_raw_data_element(raw._replace(VR="SQ"), encoding=encodings, ds=ds)
        items = [_header(item, encodings) for item in element.value]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if len(value) > MAX_VALUE_BYTES and vr in BULK:
        return None
    big_words = not raw.is_little_endian and vr in ("OW", "OF", "OL", "OD", "OV")
    if big_words:
        return None
    if vr in ("DS", "IS"):  # pydicom refuses what is no number; here it stays as it came
        values = [_number(vr, part.strip(" \0")) for part in value.decode("latin-1").split("\\")] if value.strip(b" \0") else []
        return {"vr": vr, "Value": values} if values else {"vr": vr}
    try:
        element = convert_raw_data_element(raw._replace(VR=vr), encoding=encodings, ds=ds)
        if vr == "PN":  # pydicom's own JSON of several names fails if one is empty
            groups = ("Alphabetic", "Ideographic", "Phonetic")
            names = list(element.value) if element.VM > 1 else [element.value]
            json = {"Value": [dict(zip(groups, str(name or "").split("="), strict=False)) for name in names]}
            return _in_our_form(vr, json if any(map(str, names)) else {})
        json = element.to_json_dict(None, 0)
    except (ValueError, TypeError):
        text = value.decode("latin-1").strip(" \0")
        return {"vr": vr, "Value": text.split("\\")}
    return _in_our_form(vr, json)


def _looked_up(raw: RawDataElement, ds: Dataset) -> str:
    if raw.tag.is_private:
        return "LO" if 0x10 <= raw.tag.element <= 0xFF else "UN"
    try:
        vr = dictionary_VR(raw.tag)
    except KeyError:
        return "UN"
    if vr == "US or SS":
        return "SS" if ds.get("PixelRepresentation", 0) == 1 else "US"
    return "OW" if " or " in vr else vr


def _in_our_form(vr: str, json: dict[str, Any]) -> dict[str, Any]:
    """pydicom keeps spaces in front, and empty parts as empty text."""
    if "InlineBinary" in json:
        return {"vr": vr, **({"InlineBinary": json["InlineBinary"]} if json["InlineBinary"] else {})}
    values = [_value(vr, value) for value in json.get("Value", [])]
    return {"vr": vr, "Value": values} if any(value is not None for value in values) or len(values) > 1 else {"vr": vr}


def _number(vr: str, text: str) -> Any:
    try:
        return (int if vr == "IS" else float)(text) if text else None
    except ValueError:
        return text


def _value(vr: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {group: text.strip(" \0") for group, text in value.items() if text.strip(" \0")} or None
    if isinstance(value, str):
        text = str(value).rstrip(" \0") if vr in ("LT", "ST", "UT", "UR") else str(value).strip(" \0")
        return text.replace("\0", "\ufffd") or None
    if isinstance(value, float):
        return float(value)
    return value
