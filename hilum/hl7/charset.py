"""Character sets of HL7 messages: MSH-18 and its table 0211, with ISO 2022 code extension (HL7 v2.5.1 2.15.9.18).

What a sender declares and what it writes are often two things. Nothing that can be read is refused: what does not fit is read as well
as can be, and said to be odd.
"""

from __future__ import annotations

import codecs
import re

from msgspec import Struct

#: Table 0211 of HL7 v2.8.2, and names that senders use instead, in capitals and without spaces, hyphens, slashes and underscores.
#: CNS 11643 is not here: Python has no codec for it.
CODECS: dict[str, str] = {
    "ASCII": "ascii",
    "USASCII": "ascii",
    "ISOIR6": "ascii",
    "ISO646": "ascii",
    **{f"{name}8859{part}": f"iso8859-{part}" for name in ("", "ISO") for part in (*range(1, 12), 13, 14, 15, 16)},
    "ISOIR100": "iso8859-1",
    "ISOIR101": "iso8859-2",
    "ISOIR109": "iso8859-3",
    "ISOIR110": "iso8859-4",
    "ISOIR144": "iso8859-5",
    "ISOIR127": "iso8859-6",
    "ISOIR126": "iso8859-7",
    "ISOIR138": "iso8859-8",
    "ISOIR148": "iso8859-9",
    "ISOIR203": "iso8859-15",
    "ISOIR166": "tis-620",
    "LATIN1": "iso8859-1",
    **{f"{name}125{part}": f"cp125{part}" for name in ("CP", "WINDOWS", "WIN") for part in range(9)},
    "ISOIR14": "iso2022",
    "ISOIR13": "iso2022",
    "ISOIR87": "iso2022",
    "ISOIR159": "iso2022",
    "ISO20221994": "iso2022",
    "JAS2020": "iso2022",
    "SHIFTJIS": "cp932",
    "SJIS": "cp932",
    "EUCJP": "euc_jp",
    "GB18030": "gb18030",
    "GB180302000": "gb18030",
    "GB2312": "gb18030",
    "GBK": "gb18030",
    "ISOIR58": "gb18030",
    "KSX1001": "cp949",
    "KSC5601": "cp949",
    "ISOIR149": "cp949",
    "EUCKR": "cp949",
    "BIG5": "big5hkscs",
    "UNICODE": "utf-8",
    "UNICODEUTF8": "utf-8",
    "UTF8": "utf-8",
    "ISOIR192": "utf-8",
    "UNICODEUTF16": "utf-16",
    "UTF16": "utf-16",
    "UNICODEUTF32": "utf-32",
    "UTF32": "utf-32",
}

#: What ISO 2022 escape sequences announce (ISO-IR register): the half of the codes that it is for, a codec, and how a run of it is
#: given to the codec: what is put before it, and whether its bytes need their eighth bit.
_SINGLE: dict[bytes, str] = {
    b"(B": "ascii",
    b"(J": "ascii",
    b"-A": "iso8859-1",
    b"-B": "iso8859-2",
    b"-C": "iso8859-3",
    b"-D": "iso8859-4",
    b"-L": "iso8859-5",
    b"-G": "iso8859-6",
    b"-F": "iso8859-7",
    b"-H": "iso8859-8",
    b"-M": "iso8859-9",
    b"-b": "iso8859-15",
    b"-T": "tis-620",
    b")I": "cp932",
    b"$)C": "cp949",
    b"$)A": "gb18030",
}
_DOUBLE: dict[bytes, tuple[str, bytes]] = {
    b"$@": ("iso2022_jp", b"\x1b$@"),
    b"$B": ("iso2022_jp", b"\x1b$B"),
    b"$(B": ("iso2022_jp", b"\x1b$B"),
    b"$(D": ("iso2022_jp_2", b"\x1b$(D"),
}
_ESCAPE = re.compile(rb"\x1b(\$\([BD]|\$\)[AC]|\$[@B]|\([BJI]|\)I|-[ABCDLGFHMbT])")
#: HL7's own way to write the same (2.7.3): `\C2842\` and `\M2442\`.
_WRITTEN = re.compile(rb"\\(?:C([0-9A-Fa-f]{4})|M([0-9A-Fa-f]{4}|[0-9A-Fa-f]{6}))\\")


class Decoded(Struct, frozen=True):
    """A message's text. `declared` is MSH-18 as sent, `used` a codec; `odd` has codes of what did not fit."""

    text: str
    declared: str = ""
    used: str = "ascii"
    odd: tuple[str, ...] = ()
    #: Whether `text` no longer tells every byte that was sent.
    lossy: bool = False


def codec(name: str) -> str:
    """The codec for one name of table 0211; empty if there is none."""
    return CODECS.get(re.sub(r"[ _/.-]", "", name.upper()), "")


def decode(raw: bytes, default: str = "") -> Decoded:
    """The text of a message, by its byte order mark, MSH-18, `default` (a name of table 0211), or what it looks like, in this order."""
    wide = _wide(raw)
    if wide:
        return _decoded(raw, wide, _declared(raw.replace(b"\0", b"")), ())
    declared = _declared(raw)
    names = [name for name in declared.split("~") if name.strip()]
    unknown = [name for name in names if not codec(name)]
    odd: tuple[str, ...] = ("character-set-unknown",) if unknown else ()
    known = [codec(name) for name in names if codec(name)] or ([codec(default)] if codec(default) else [])
    if raw.startswith(codecs.BOM_UTF8):
        known = ["utf-8"]
    if b"\x1b" in raw or "iso2022" in known or _WRITTEN.search(raw):
        first = next((each for each in known if each != "iso2022"), "ascii")
        return _decoded_2022(raw, declared, first, odd)
    if not known or known[0] in ("utf-16", "utf-32"):  # these would have been seen by their zeros
        return _guessed(raw, declared, (*odd, "character-set-missing") if not names else odd)
    return _decoded(raw, known[0], declared, odd)


def _declared(raw: bytes) -> str:
    """MSH-18 as it is written; the header is ASCII up to there in all that can be read at all."""
    head = raw.lstrip(b"\xef\xbb\xbf\xff\xfe\r\n\t \0")
    if head[:3] != b"MSH" or len(head) < 4:
        return ""
    fields = re.split(rb"[\r\n]", head[:8192], maxsplit=1)[0].split(head[3:4])
    repetition = head[5:6]
    return fields[17].replace(repetition, b"~").decode("ascii", "replace") if len(fields) > 17 and repetition else ""


def _wide(raw: bytes) -> str:
    """The codec of a message in UTF-16 or UTF-32."""
    for mark, name in (
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
        (b"M\0\0\0", "utf-32-le"),
        (b"\0\0\0M", "utf-32-be"),
        (b"M\0S\0", "utf-16-le"),
        (b"\0M\0S", "utf-16-be"),
    ):
        if raw.startswith(mark):
            return name
    return ""


def _decoded(raw: bytes, name: str, declared: str, odd: tuple[str, ...]) -> Decoded:
    try:
        return Decoded(raw.decode(name), declared, name, odd)
    except UnicodeDecodeError:
        return Decoded(raw.decode(name, "replace"), declared, name, (*odd, "character-invalid"), lossy=True)


def _guessed(raw: bytes, declared: str, odd: tuple[str, ...]) -> Decoded:
    """What declares nothing that is known: ASCII, else UTF-8, which hardly anything else looks like, else Windows' Latin 1."""
    for name in ("ascii", "utf-8", "cp1252"):
        try:
            text = raw.decode(name)
        except UnicodeDecodeError:
            continue
        return Decoded(text, declared, name, () if name == "ascii" and odd == ("character-set-missing",) else odd)
    return Decoded(raw.decode("latin-1"), declared, "latin-1", odd)


def _decoded_2022(raw: bytes, declared: str, first: str, odd: tuple[str, ...]) -> Decoded:
    """With ISO 2022 escape sequences, which end with the segment (2.15.9.18). `first` is what is in force before any."""
    raw = _WRITTEN.sub(lambda found: b"\x1b" + bytes.fromhex((found[1] or found[2]).decode()), raw)
    text: list[str] = []
    broken = False
    for line in re.split(rb"(\r\n|\r|\n)", raw):
        low, high = ("", b""), first
        pieces = _ESCAPE.split(line)
        for position, piece in enumerate(pieces):
            if position % 2:
                if piece in _DOUBLE:
                    low = _DOUBLE[piece]
                elif piece == b"(I":
                    low = ("iso2022_jp_ext", b"\x1b(I")
                elif piece[:1] == b"(":
                    low = ("", b"")
                else:
                    high = _SINGLE[piece]
                continue
            name, before = low
            after = b"\x1b(B" if before else b""
            try:
                text.append((before + piece + after).decode(name or high))
            except UnicodeDecodeError:
                broken = True
                text.append((before + piece + after).decode(name or high, "replace"))
    whole = "".join(text)
    if "\x1b" in whole:
        broken = True
        odd = (*odd, "character-set-escape-unknown")
    return Decoded(whole, declared, "iso2022", (*odd, "character-invalid") if broken else odd, lossy=broken)


def fits(text: str, name: str) -> bool:
    """Whether `encode` can write `text`."""
    try:
        encode(text, name)
    except ValueError:
        return False
    return True


def encode(text: str, name: str) -> bytes:
    """`text` in the character set with that name of table 0211; raises `ValueError` if it has no codec or no such characters."""
    found = codec(name) if name else "ascii"
    if not found or found == "iso2022":
        raise ValueError(f"messages cannot be written in the character set {name}")
    return text.encode(found)
