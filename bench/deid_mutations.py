"""Objects with names and numbers of nobody planted in them, and broken in many ways: what the fuzzing of de-identification sends."""

from __future__ import annotations

import random
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BytesIO

from pydicom import dcmread
from pydicom.datadict import dictionary_VR, keyword_dict
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

#: The patient's own: a second look is to find what the engine leaves of them.
FAMILY, GIVEN, NUMBER, PHONE = "Quaggler", "Zwirbelda", "QX47110815", "5558672309"
IDEOGRAPHIC = "槍原"
#: Of others, of whom the object says nothing else: put where text is removed or cleaned.
OTHER, OTHER_PHONE = "Wolpertin", "5559417263"
OWN = (FAMILY, GIVEN, NUMBER, PHONE)
PLANTED = (*OWN, OTHER, OTHER_PHONE)
_SENTENCE = f"Seen by Dr. {OTHER}, phone {OTHER_PHONE} "
_TEXT = ("LO", "LT", "SH", "ST", "UC", "UT", "PN", "AE", "DS", "IS", "DA", "TM", "DT", "UI", "CS", "AS", "UR", "UN", "OB", "OW")
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SEQUENCES = sorted(tag for tag in keyword_dict.values() if dictionary_VR(tag) == "SQ" and 8 <= tag >> 16 < 0x7FE0)
#: Without these an object is none; what says how pixels are read is changed by bytes alone, so that most objects are still some.
_HELD_TOGETHER = frozenset({0x00080016, 0x00080018, 0x00080005})
_TAGS = sorted(
    tag
    for tag in keyword_dict.values()
    if 8 <= tag >> 16 < 0x7FE0 and tag >> 16 != 0x0028 and dictionary_VR(tag) in _TEXT and tag not in _HELD_TOGETHER
)
_NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
_CHARACTER_SETS = {
    "ISO_IR 100": "latin-1",
    "ISO_IR 192": "utf-8",
    "\\ISO 2022 IR 87": "iso2022_jp",
    "ISO_IR 13": "shift_jis",
    "GB18030": "gb18030",
    "": "ascii",
}


def forms() -> tuple[bytes, ...]:
    """All that must not be in what leaves, as bytes, letters in lower case."""
    encodings = ("utf-8", "utf-16-le", "utf-16-be")
    found = {each.lower().encode(encoding) for each in PLANTED for encoding in encodings}
    found |= {IDEOGRAPHIC.encode(encoding) for encoding in (*encodings, "shift_jis", "gb18030", "euc_jp")}
    found.add(IDEOGRAPHIC.encode("iso2022_jp")[3:-3])
    return tuple(sorted(found))


def mutated(originals: Mapping[str, bytes], seed: object) -> tuple[bytes, list[str]]:
    """One of the originals, planted and broken, the same for a seed; and what was done to it."""
    draw = random.Random(f"deid/{seed}")
    name = draw.choice(sorted(originals))
    done = [name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = dcmread(BytesIO(originals[name]))
        _plant(ds, draw)
        for _ in range(draw.randrange(4)):
            change = draw.choice(_STRUCTURED)
            done.append(change.__name__.strip("_"))
            change(ds, draw)
        _compressed(ds, draw, done)
        file = _written(ds, draw, done)
    for _ in range(draw.choice((0, 0, 1, 1, 2, 3))):
        harm = draw.choice(_HARMS)
        done.append(harm.__name__.strip("_"))
        file = harm(file, draw)
    return file, done


def patient() -> bytes:
    """A file that says whose all of them are, whatever is broken in them: as a delivery knows it from elsewhere."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, "1.2.3"
    _plant(ds, random.Random(0))
    ds.SpecificCharacterSet, ds.PatientName = "ISO_IR 192", f"{FAMILY}^{GIVEN}={IDEOGRAPHIC}^{IDEOGRAPHIC}"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, UID("1.2.3")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out = BytesIO()
    FileDataset("", ds, b"\0" * 128, meta).save_as(out, enforce_file_format=True)
    return out.getvalue()


def _plant(ds: Dataset, draw: random.Random) -> None:
    """The patient, in a character set, and what people wrote of others."""
    term = draw.choice(list(_CHARACTER_SETS))
    codec = _CHARACTER_SETS[term]
    if term:
        ds.SpecificCharacterSet = term.split("\\")
    else:
        ds.pop("SpecificCharacterSet", None)
    name = f"{FAMILY}^{GIVEN}"
    if codec not in ("ascii", "latin-1"):
        name += f"={IDEOGRAPHIC}^{IDEOGRAPHIC}"
    ds.PatientName, ds.PatientID, ds.PatientTelephoneNumbers = name, NUMBER, PHONE
    ds.ReferringPhysicianName, ds.PatientComments, ds.StudyDescription = f"{OTHER}^A", _SENTENCE, f"chest, {_SENTENCE}"[:64]
    ds.OtherPatientIDs = f"{NUMBER}-2"


def _value(vr: str, draw: random.Random) -> bytes:
    token = draw.choice((*OWN, f"{FAMILY}^{GIVEN}", f"of {FAMILY}, {GIVEN}", f"{GIVEN} {FAMILY}".upper(), f"1.2.{PHONE}"))
    raw = token.encode(draw.choice(("ascii", "utf-16-le", "utf-16-be")) if vr in ("OB", "OW", "UN") else "ascii")
    return raw + b" " * (len(raw) % 2)


def _add(ds: Dataset, tag: int, vr: str, value: bytes) -> None:
    """An element of these bytes, whatever its VR says."""
    ds[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True, True)


def _any_element(ds: Dataset, draw: random.Random) -> None:
    tag = draw.choice(_TAGS)
    vr = dictionary_VR(tag).partition(" ")[0]
    _add(ds, tag, vr, _value(vr, draw))


def _another_vr(ds: Dataset, draw: random.Random) -> None:
    vr = draw.choice(("UN", "OB", "LO", "UT", "LT", "PN", "CS"))
    _add(ds, draw.choice(_TAGS), vr, _value(vr, draw))


def _private(ds: Dataset, draw: random.Random) -> None:
    group = draw.choice((0x0009, 0x0019, 0x0029, 0x2001, 0x7FE1))
    creator = draw.choice(("SIEMENS MR HEADER ", "GEMS_IDEN_01", "Philips Imaging DD 001", FAMILY))
    _add(ds, group << 16 | 0x10, "LO", creator.encode())
    for _ in range(draw.randrange(1, 4)):
        vr = draw.choice(("LO", "UN", "OB", "CS", "ST", "PN", "LT"))
        raw = _value(vr, draw)
        value = _SENTENCE if vr in ("LO", "ST", "LT") else raw if vr in ("UN", "OB") else raw.decode()
        ds.add_new(group << 16 | 0x1000 | draw.randrange(256), vr, value)


def _nested(ds: Dataset, draw: random.Random) -> None:
    inside = Dataset()
    for _ in range(draw.randrange(1, 4)):
        draw.choice((_any_element, _another_vr, _private))(inside, draw)
    inside.PatientName, inside.ContentCreatorName = f"{FAMILY}^{GIVEN}", f"{OTHER}^B"
    for _ in range(draw.randrange(1, 6)):
        around = Dataset()
        around.add_new(draw.choice(_SEQUENCES), "SQ", Sequence([inside]))
        inside = around
    ds.update(inside)


def _drawn(ds: Dataset, draw: random.Random) -> None:
    group = draw.choice((0x6000, 0x6002, 0x50_00, 0x50_02))
    _add(ds, group << 16 | draw.choice((0x0022, 0x1500, 0x4000)), "LO", _SENTENCE.encode())
    _add(ds, group << 16 | 0x3000, "OW", _value("OW", draw))
    ds.add_new(0x00100000, "UL", draw.randrange(2**32))


def _removed(ds: Dataset, draw: random.Random) -> None:
    tags = [tag for tag in ds.keys() if tag not in _HELD_TOGETHER and tag.group != 0x7FE0]  # noqa: SIM118  # of a data set
    for tag in draw.sample(tags, min(len(tags), draw.randrange(1, 4))):
        del ds[tag]


def _report(ds: Dataset, draw: random.Random) -> None:
    text, name, place = Dataset(), Dataset(), Dataset()
    text.RelationshipType, text.ValueType, text.TextValue = "CONTAINS", "TEXT", _SENTENCE
    name.RelationshipType, name.ValueType, name.PersonName = "CONTAINS", "PNAME", f"{OTHER}^C"
    place.RelationshipType, place.ValueType, place.ContentSequence = "CONTAINS", "CONTAINER", [text, name]
    ds.ContentSequence = [place, *(ds.get("ContentSequence") or [])] if draw.random() < 0.5 else [text, name]


_STRUCTURED: tuple[Callable[[Dataset, random.Random], None], ...] = (
    _any_element,
    _another_vr,
    _private,
    _nested,
    _drawn,
    _removed,
    _report,
)


_COMPRESSED = ((RLELossless, "pylibjpeg"), (JPEGLSLossless, "pyjpegls"), (JPEG2000Lossless, "pylibjpeg"))


def _compressed(ds: FileDataset, draw: random.Random, done: list[str]) -> None:
    """Pixels that are native are compressed, in some objects."""
    syntax, plugin = draw.choice(_COMPRESSED)
    if "PixelData" not in ds or ds.file_meta.get("TransferSyntaxUID", "") not in _NATIVE[:3] or draw.random() < 0.7:
        return
    with suppress(Exception):  # what cannot be compressed stays as it is
        ds.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
        done.append(f"as {syntax.name}")


def _written(ds: FileDataset, draw: random.Random, done: list[str]) -> bytes:
    syntax = ds.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    if not syntax.is_encapsulated and draw.random() < 0.5:
        words = syntax == ExplicitVRBigEndian or ("PixelData" in ds and ds.get("BitsAllocated", 8) > 8)
        syntax = draw.choice(_NATIVE[:3] if words else _NATIVE) if syntax != ExplicitVRBigEndian else syntax
        done.append(f"in {UID(syntax).name}")
    out = BytesIO()
    try:
        if syntax == ExplicitVRBigEndian == ds.file_meta.get("TransferSyntaxUID"):
            ds.save_as(out)
        else:
            plain = Dataset()
            plain.update(ds)
            ds.file_meta.TransferSyntaxUID = syntax
            made = FileDataset("", plain, b"\0" * 128, ds.file_meta)
            made.save_as(out, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
        return out.getvalue()
    except Exception:  # what pydicom does not write is another object's turn
        done.append("not written")
        return b""


def _places(file: bytes) -> list[tuple[int, int, int]]:
    """Elements of the top level in explicit VR, little endian: where they begin, where their values do, and where they end."""
    at, found = file.find(b"DICM") + 4, []
    while at + 8 <= len(file) and at > 4:
        vr = file[at + 4 : at + 6]
        long = vr in _LONG
        start = at + (12 if long else 8)
        length = struct.unpack_from("<I", file, at + 8)[0] if long and at + 12 <= len(file) else struct.unpack_from("<H", file, at + 6)[0]
        if length == 0xFFFFFFFF:
            length = max(0, file.find(b"\xfe\xff\xdd\xe0\0\0\0\0", start) + 8 - start)
        if not vr.isalpha() or start + length > len(file):
            break
        found.append((at, start, start + length))
        at = start + length
    return [each for each in found if file[each[0] : each[0] + 4] != b"\xe0\x7f\x10\0"]


def _one(file: bytes, draw: random.Random) -> tuple[int, int, int]:
    return draw.choice(_places(file) or [(0, 0, 0)])


def _bytes_changed(file: bytes, draw: random.Random) -> bytes:
    changed = bytearray(file)
    stop = next((at for at in (file.find(b"\xe0\x7f\x10\0"),) if at > 0), len(file))
    for _ in range(draw.randrange(1, 5)):
        if stop > 132:
            changed[draw.randrange(132, stop)] = draw.randrange(256)
    return bytes(changed)


def _length_changed(file: bytes, draw: random.Random) -> bytes:
    at, start, end = _one(file, draw)
    new = draw.choice((0, end - start + 1, end - start + 2, max(0, end - start - 2), 0xFFFFFFFF, draw.randrange(200)))
    if start - at == 12:
        return file[: at + 8] + struct.pack("<I", new) + file[at + 12 :]
    return file[: at + 6] + struct.pack("<H", new & 0xFFFF) + file[at + 8 :] if end else file


def _vr_changed(file: bytes, draw: random.Random) -> bytes:
    at, _, end = _one(file, draw)
    vr = draw.choice((b"LO", b"UN", b"OB", b"SQ", b"US", b"PN", b"UT", b"ZZ", b"DS", b"UI"))
    return file[: at + 4] + vr + file[at + 6 :] if end else file


def _twice(file: bytes, draw: random.Random) -> bytes:
    at, _, end = _one(file, draw)
    return file[:end] + file[at:end] + file[end:]


def _moved(file: bytes, draw: random.Random) -> bytes:
    (at, _, end), (to, _, _) = _one(file, draw), _one(file, draw)
    element, rest = file[at:end], file[:at] + file[end:]
    to = to if to <= at else to - len(element)
    return rest[:to] + element + rest[to:]


def _cut(file: bytes, draw: random.Random) -> bytes:
    return file[: len(file) - draw.randrange(1, 40)]


def _more(file: bytes, draw: random.Random) -> bytes:
    return file + draw.choice(
        (FAMILY.encode() + b"^" + GIVEN.encode() + b" ", b"\0" * 8 + NUMBER.encode(), b"\xfc\xff\xfc\xffOB\0\0\x08\0\0\0Quaggler")
    )


def _put_in(file: bytes, draw: random.Random) -> bytes:
    """An element in front of another, with a tag and a VR that may be anything."""
    at, _, _ = _one(file, draw)
    value = _value("LO", draw)
    value += b" " * (len(value) % 2)
    tag = file[at : at + 2] + struct.pack("<H", draw.randrange(65536))
    vr = draw.choice((b"LO", b"UN", b"OB", b"PN", b"UT", b"CS", b"ST", b"SH"))
    length = b"\0\0" + struct.pack("<I", len(value)) if vr in _LONG else struct.pack("<H", len(value))
    return file[:at] + tag + vr + length + value + file[at:]


def _in_preamble(file: bytes, draw: random.Random) -> bytes:
    words = f"{FAMILY} {GIVEN} {NUMBER}".encode(draw.choice(("ascii", "utf-16-le")))
    return words[:128].ljust(128, b"\0") + file[128:]


def _among_fragments(file: bytes, draw: random.Random) -> bytes:
    """A comment behind the beginning of a codestream, or a fragment more."""
    begin = file.find(b"\xff\xd8\xff", max(0, file.find(b"\xe0\x7f\x10\0")))
    if begin < 8 or file[begin - 8 : begin - 4] != b"\xfe\xff\0\xe0":
        return file
    words = f"{OTHER} {FAMILY} {NUMBER}!"[:30].encode()
    words += b"." * (len(words) % 2)
    more = struct.pack(">BBH", 0xFF, draw.choice((0xFE, 0xE1, 0xEF, 0xF0, 0xC8)), len(words) + 2) + words
    (size,) = struct.unpack_from("<I", file, begin - 4)
    at = draw.choice((begin + 2, begin + size - 4))
    return file[: begin - 4] + struct.pack("<I", size + len(more)) + file[begin:at] + more + file[at:]


def _fragments(file: bytes) -> list[tuple[int, int]]:
    """Where the fragments of pixel data begin and end, without their heads."""
    at = file.find(b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff") + 12
    found = []
    while at > 11 and file[at : at + 4] == b"\xfe\xff\0\xe0":
        start = at + 8
        at = start + int.from_bytes(file[at + 4 : start], "little")
        found.append((start, at))
    return found[1:]


def _behind_a_frame(file: bytes, draw: random.Random) -> bytes:
    """Text behind the end of a codestream, or of a segment of RLE: what is among samples nobody looks for."""
    places = [each for each in _fragments(file) if b"\xff\xd9" in file[each[1] - 3 : each[1]] or file[each[0]] < 16]
    if not places:
        return file
    start, stop = draw.choice(places)
    number, second = struct.unpack_from("<I4xI", file, start) if stop - start > 12 else (0, 0)
    words = draw.choice((f"{FAMILY} {NUMBER} {OTHER}", FAMILY.upper(), f"\0{NUMBER}")).encode()
    words += b"." * (len(words) % 2)
    between = 1 < number < 16 and start + second < stop and draw.random() < 0.5
    at = start + second if between else stop
    frame = bytearray(file[start:at] + words + file[at:stop])
    if between:  # the other segments begin later
        for place in range(start + 8, start + 4 + 4 * number, 4):
            (begins,) = struct.unpack_from("<I", file, place)
            struct.pack_into("<I", frame, place - start, begins + len(words))
    return file[: start - 4] + struct.pack("<I", len(frame)) + bytes(frame) + file[stop:]


def _split(file: bytes, draw: random.Random) -> bytes:
    """A fragment in two."""
    places = [each for each in _fragments(file) if each[1] - each[0] > 8]
    if not places:
        return file
    start, stop = draw.choice(places)
    at = start + 2 * draw.randrange(1, (stop - start) // 2)
    head = b"\xfe\xff\0\xe0"
    return file[: start - 4] + struct.pack("<I", at - start) + file[start:at] + head + struct.pack("<I", stop - at) + file[at:]


def _in_deflated(file: bytes, draw: random.Random) -> bytes:
    """What deflate leaves room for: something behind its end, or an empty block."""
    at = file.find(b"1.2.840.10008.1.2.1.99")
    return file + zlib.compress(FAMILY.encode())[: draw.randrange(20)] + FAMILY.encode() if at > 0 else file


_HARMS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _bytes_changed,
    _bytes_changed,
    _length_changed,
    _vr_changed,
    _twice,
    _moved,
    _cut,
    _more,
    _put_in,
    _put_in,
    _in_preamble,
    _among_fragments,
    _behind_a_frame,
    _split,
    _in_deflated,
)
