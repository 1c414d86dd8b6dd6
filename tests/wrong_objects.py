"""Objects, keys and policies that are wrong, and why nothing leaves.

`tests/processors/anonymize/test_deid_bad_input.py` tries each, as files and as deliveries; `docs/reference/deid.md` shows what is said.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from msgspec import Struct

from hilum.deid_sections import Deid
from hilum.errors import HilumError
from processors.anonymize.delivering import Outgoing, table_of
from tests.processors.anonymize.codestreams import jpeg, segment
from tests.processors.anonymize.objects import CT, Raw, a_file, encoded

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NATIVE, _JPEG, _OF_RLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5"
#: What no sentence may show.
SECRET = "Quaggler"
_NAME = SECRET.encode()
_DATES, _FULL = 'options = ["retain-modified-dates"]', 'options = ["retain-full-dates"]'
_PRIVATE, _CLEAN = 'options = ["retain-safe-private"]', 'options = ["clean-descriptors"]'
_MASK = "masks = [{ boxes = [[0, 0, 2, 1]] }]"


class WrongObject(Struct, frozen=True, kw_only=True):
    """An object that is held."""

    title: str
    original: Callable[[], bytes]
    #: The policy, as its file.
    policy: str = ""
    reason: str


class WrongSetup(Struct, frozen=True, kw_only=True):
    """A key or a policy with which nothing begins."""

    title: str
    policy: str = ""
    key: Literal["right", "missing", "open", "short", "not named"] = "right"
    reason: str


def _of(*elements: Raw, sop_class: str = CT, syntax: str = "1.2.840.10008.1.2.1") -> Callable[[], bytes]:
    return lambda: a_file([(0x00080005, "CS", b"ISO_IR 100"), (0x00100020, "LO", b"P1"), *elements], sop_class=sop_class, syntax=syntax)


def _image(pixels: bytes, frames: int = 1, *, syntax: str = _NATIVE, stored: int = 8) -> Callable[[], bytes]:
    """An image of 2 by 2, with these pixels as they stand."""
    numbers = [
        (0x00280010, 2),
        (0x00280011, 2),
        (0x00280100, 8),
        (0x00280101, stored),
        (0x00280102, stored - 1),
        (0x00280103, 0),
        (0x00280002, 1),
    ]
    elements: list[Raw] = [(tag, "US", struct.pack("<H", value)) for tag, value in numbers]
    elements += [(0x00280004, "CS", b"MONOCHROME2"), (0x00280008, "IS", str(frames).encode())]
    length = b"\xff\xff\xff\xff" if syntax != _NATIVE else struct.pack("<I", len(pixels))
    made = _of(*elements, syntax=syntax)
    return lambda: made() + b"\xe0\x7f\x10\0OB\0\0" + length + pixels


def _fragments(*fragments: bytes) -> bytes:
    items = (b"\xfe\xff\0\xe0" + struct.pack("<I", len(each)) + each for each in (b"", *fragments))
    return b"".join(items) + b"\xfe\xff\xdd\xe0\0\0\0\0"


def _nested() -> bytes:
    inside: list[Raw] = []
    for _ in range(40):
        inside = [(0x00081115, "SQ", [inside])]
    return _of(*inside)()


_SIEMENS: Raw = (0x00190010, "LO", b"SIEMENS MR HEADER")
#: A frame of RLE of 2 rows and 2 columns, and one channel of one sample of 8 bits.
_RLE = struct.pack("<II", 1, 64) + bytes(56) + b"\3\1\2\3\4"
_WAVEFORM: list[Raw] = [
    (0x003A0005, "US", b"\1\0"),
    (0x003A0010, "UL", b"\1\0\0\0"),
    (0x54001004, "US", b"\x08\0"),
    (0x54001010, "OB", b"\0\0" + _NAME),
]
_FRAME = jpeg(b"", b"no samples")

WRONG_OBJECTS = (
    WrongObject(
        title="Pixels that cannot be decoded, under a mask",
        original=_image(_fragments(_FRAME), syntax=_JPEG),
        policy=_MASK,
        reason="pixels-unreadable",
    ),
    WrongObject(title="Fewer frames than it says", original=_image(b"\0" * 8, 3), reason="pixels-unreadable"),
    WrongObject(title="Fewer frames than it says, under a mask", original=_image(b"\0" * 8, 3), policy=_MASK, reason="pixels-unreadable"),
    WrongObject(
        title="Fewer compressed frames than it says", original=_image(_fragments(_FRAME), 2, syntax=_JPEG), reason="pixels-unreadable"
    ),
    WrongObject(
        title="More compressed frames than it says", original=_image(_fragments(_FRAME, _FRAME), syntax=_JPEG), reason="pixels-unreadable"
    ),
    WrongObject(
        title="A second picture behind a compressed frame",
        original=_image(_fragments(_FRAME * 2), syntax=_JPEG),
        reason="pixels-unreadable",
    ),
    WrongObject(
        title="Something behind the end of a compressed frame, and an end behind that",
        original=_image(_fragments(_FRAME + _NAME + b"\xff\xd9"), syntax=_JPEG),
        reason="pixels-unreadable",
    ),
    WrongObject(
        title="A compressed frame without an end", original=_image(_fragments(_FRAME[:-2]), syntax=_JPEG), reason="pixels-unreadable"
    ),
    WrongObject(
        title="A compressed picture of another size than it says",
        original=_image(_fragments(jpeg(sof=segment(0xC0, b"\x08\1\xe0\2\x80\1\1\x11\0"))), syntax=_JPEG),
        reason="pixels-unreadable",
    ),
    WrongObject(
        title="A compressed picture in colour that says that it is grey",
        original=_image(_fragments(jpeg(sof=segment(0xC0, b"\x08\0\2\0\2\3\1\x11\0\2\x11\0\3\x11\0"))), syntax=_JPEG),
        reason="pixels-unreadable",
    ),
    WrongObject(title="A table of offsets, and no compressed frames", original=_of((0x7FE00001, "OV", _NAME)), reason="pixels-unreadable"),
    WrongObject(title="Something behind the last frame", original=_image(b"\0" * 4 + _NAME), reason="pixels-unreadable"),
    WrongObject(
        title="A number of frames that is none", original=_of((0x00280008, "IS", _NAME), (0x7FE00010, "OW", b"\0\0")), reason="unreadable"
    ),
    WrongObject(title="Sequences nested more than 32 deep", original=_nested, reason="nesting"),
    WrongObject(
        title="A private creator that lies: a value that is none of its VR",
        original=_of(_SIEMENS, (0x0019100C, "IS", _NAME)),
        policy=_PRIVATE,
        reason="private-creator",
    ),
    WrongObject(
        title="A private creator that lies: another VR",
        original=_of(_SIEMENS, (0x0019100C, "LO", b"1000")),
        policy=_PRIVATE,
        reason="private-creator",
    ),
    WrongObject(
        title="UTF-8 that is declared as Latin-1",
        original=_of((0x00081030, "LO", "Quäggler".encode())),
        policy=_CLEAN,
        reason="character-set",
    ),
    WrongObject(
        title="UTF-8 that is declared as Latin-1, in a name", original=_of((0x00100010, "PN", "Quäggler".encode())), reason="character-set"
    ),
    WrongObject(
        title="Text outside ASCII and no character set",
        original=lambda: a_file([(0x00081090, "LO", b"M\xfcller"), (0x00100020, "LO", b"P1")]),
        reason="character-set",
    ),
    WrongObject(
        title="A character set that there is not", original=lambda: a_file([(0x00080005, "CS", b"QUAGGLER")]), reason="character-set"
    ),
    WrongObject(title="A UID that is none", original=_of((0x00081155, "UI", b"1.2." + _NAME)), reason="uid-invalid"),
    WrongObject(
        title="A UID that is none, UIDs retained",
        original=_of((0x00081155, "UI", b"1.2." + _NAME)),
        policy='options = ["retain-uids"]',
        reason="uid-invalid",
    ),
    WrongObject(title="A study whose UID is 0", original=_of((0x0020000D, "UI", b"0\0")), reason="uid-invalid"),
    WrongObject(title="A UID of more than 64 characters", original=_of((0x00081155, "UI", b"1." * 40 + b"1")), reason="uid-invalid"),
    WrongObject(
        title="A date with points, dates moved", original=_of((0x00080020, "DA", b"29.02.2024")), policy=_DATES, reason="date-invalid"
    ),
    WrongObject(
        title="A day that there is not, dates kept", original=_of((0x00080020, "DA", b"20240230")), policy=_FULL, reason="date-invalid"
    ),
    WrongObject(title="A name for a time", original=_of((0x00080030, "TM", _NAME)), policy=_DATES, reason="date-invalid"),
    WrongObject(
        title="A date and time as ISO 8601", original=_of((0x0008002A, "DT", b"2024-02-29T10")), policy=_DATES, reason="date-invalid"
    ),
    WrongObject(
        title="A number with a comma, where the class requires one", original=_of((0x00281052, "DS", b"-1024,0 ")), reason="value-malformed"
    ),
    WrongObject(title="A name for a code that the class requires", original=_of((0x00080060, "CS", _NAME)), reason="value-malformed"),
    WrongObject(title="A file that ends too early", original=lambda: _of((0x00104000, "LT", b"abcdefgh"))()[:-6], reason="truncated"),
    WrongObject(title="The same element twice", original=_of((0x00102154, "SH", b"1"), (0x00102154, "SH", b"2")), reason="unreadable"),
    WrongObject(
        title="The same element twice, and others between",
        original=lambda: _of()() + encoded([(0x00102154, "SH", b"1"), (0x00080050, "SH", b"1"), (0x00102154, "SH", b"2")]),
        reason="unreadable",
    ),
    WrongObject(title="A VR that there is not", original=_of((0x00104000, "??", _NAME)), reason="unreadable"),
    WrongObject(title="Text for a number", original=_of((0x00280010, "LT", _NAME)), reason="vr-unexpected"),
    WrongObject(title="A transfer syntax that there is not", original=_of(syntax="1.2.826.0.1.5"), reason="unreadable"),
    WrongObject(title="Something behind the data set", original=lambda: _of()() + _NAME, reason="truncated"),
    WrongObject(title="No DICOM file", original=lambda: b"%PDF-1.7" * 100, reason="unreadable"),
    WrongObject(
        title="Neither PatientID nor StudyInstanceUID",
        original=lambda: a_file([(0x00100020, "LO", b""), (0x0020000D, "UI", b"")]),
        reason="unreadable",
    ),
    WrongObject(
        title="Two SOP classes", original=lambda: a_file([(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.4\0")]), reason="unreadable"
    ),
    WrongObject(title="A private SOP class", original=_of(sop_class="1.2.840.113619.4.30"), reason="private-sop-class"),
    WrongObject(
        title="An encapsulated PDF", original=_of((0x00420011, "OB", b"%PDF-1.7 "), sop_class=_STORAGE + "104.1"), reason="risky-kind"
    ),
    WrongObject(
        title="A header of an overlay in the unused bits of the pixels",
        original=_of((0x60000102, "US", b"\x0f\0")),
        reason="overlay-in-pixels",
    ),
    WrongObject(
        title="Bits set in pixels that are no part of samples",
        original=_image(b"\x01\x02\x81\x04", stored=7),
        reason="risky-kind",
    ),
    WrongObject(
        title="Something behind a segment of RLE", original=_image(_fragments(_RLE + _NAME), syntax=_OF_RLE), reason="pixels-unreadable"
    ),
    WrongObject(
        title="Something behind the samples of a waveform",
        original=_of((0x54000100, "SQ", [_WAVEFORM]), sop_class=_STORAGE + "9.1.1"),
        reason="pixels-unreadable",
    ),
    WrongObject(
        title="A kind of which the policy says nothing",
        original=_of((0x00280301, "CS", b"YES"), (0x00280010, "US", b"\2\0")),
        reason="risky-kind",
    ),
    WrongObject(
        title="An image that no mask is for, pixels to be cleaned",
        original=_image(b"\0" * 4),
        policy='options = ["clean-pixel-data"]\nmasks = [{ manufacturer = "ACME", boxes = [[0, 0, 2, 1]] }]',
        reason="no-mask",
    ),
    WrongObject(
        title="A code that the policy removes and the class requires",
        original=_of((0x00102210, "CS", b"QUADRUPED ")),
        policy='[attributes]\nAnatomicalOrientationType = "remove"',
        reason="policy",
    ),
    WrongObject(title="A SOP class that the policy refuses", original=_of(), policy=f'refuse = ["{CT}"]', reason="policy"),
    WrongObject(
        title="Something of the original in what was made",
        original=_of((0x00100010, "PN", _NAME + b"^Jane"), (0x00181020, "LO", _NAME)),
        reason="second-look",
    ),
)

WRONG_SETUPS = (
    WrongSetup(title="No key is named", key="not named", reason="key-not-named"),
    WrongSetup(title="The key's file is missing", key="missing", reason="key-missing"),
    WrongSetup(title="Others may read the key's file", key="open", reason="key-open"),
    WrongSetup(title="The key's file holds no key", key="short", reason="key-malformed"),
    WrongSetup(title="A keyword that there is not", policy='[attributes]\nPatientNam = "remove"', reason="policy-invalid"),
    WrongSetup(title="A setting that there is not", policy='option = ["retain-uids"]', reason="setting-unknown"),
    WrongSetup(title="Dates kept and moved", policy='options = ["retain-full-dates", "retain-modified-dates"]', reason="policy-invalid"),
    WrongSetup(title="A name kept", policy='[attributes]\nPatientName = "keep"', reason="policy-invalid"),
    WrongSetup(
        title="The same attribute twice", policy='[attributes]\nPatientID = "remove"\n"(0010,0020)" = "empty"', reason="policy-invalid"
    ),
    WrongSetup(title="A SOP class that there is not is refused", policy='refuse = ["CT"]', reason="policy-invalid"),
    WrongSetup(
        title="An attribute is removed without which there are no objects",
        policy='[attributes]\nModality = "remove"',
        reason="policy-invalid",
    ),
    WrongSetup(
        title="Faces are taken out, and heads pass",
        policy='options = ["clean-recognizable-visual-features"]\nkinds.head-volume = "pass: brains alone"',
        reason="policy-invalid",
    ),
    WrongSetup(title="A mask that says two things", policy="masks = [{ clean = true, boxes = [[0, 0, 2, 1]] }]", reason="policy-invalid"),
    WrongSetup(
        title="An image painted over under the UID of the original", policy=f'options = ["retain-uids"]\n{_MASK}', reason="policy-invalid"
    ),
    WrongSetup(title="A kind that passes, and nothing says why", policy='kinds.ultrasound = "pass"', reason="policy-invalid"),
    WrongSetup(
        title="A private element without its option",
        policy='private = [{ creator = "ACME", element = "0019,xx01", vr = "IS" }]',
        reason="policy-invalid",
    ),
)


class Said(Struct, frozen=True, kw_only=True):
    """Why nothing leaves, as people read it."""

    reason: str
    sentence: str
    fix: str


#: Where a site might have its key.
FOLDER = "/etc/hilum"


def set_up(folder: Path, policy: str = "", key: str = "right") -> Deid:
    """A machine with this policy, `site`, and this key."""
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "site.toml").write_text(policy, encoding="utf-8")
    file = folder / "key"
    if key != "missing":
        file.write_text("00" * 5 if key == "short" else "".join(f"{n:02x}" for n in range(1, 33)), encoding="utf-8")
        file.chmod(0o644 if key == "open" else 0o600)
    return Deid(key_path="" if key == "not named" else str(file), policies=str(folder / "policies"))


def said_of(wrong: WrongObject | WrongSetup) -> Said:
    """Why nothing leaves, as a delivery is told; of files as if they were in `FOLDER`. Raises `AssertionError` if it would."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        deid = set_up(folder, wrong.policy, wrong.key if isinstance(wrong, WrongSetup) else "right")
        try:
            outgoing = Outgoing.of(table_of("site", folder / "policies"), deid)
            if isinstance(wrong, WrongObject):
                outgoing.made(wrong.original(), survivor_of=lambda _ids: None)
        except HilumError as error:
            return Said(
                reason=str(vars(error)["reason"]), sentence=error.sentence.replace(name, FOLDER), fix=error.fix.replace(name, FOLDER)
            )
    raise AssertionError(f"{wrong.title}: it leaves")
