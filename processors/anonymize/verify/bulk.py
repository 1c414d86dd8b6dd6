"""Text of documents within an element, as far as their bytes show it: PDF (streams compressed with Flate), XML, UTF-16.

No document is rendered. A PDF that spells its words by the glyphs of a font of its own shows nothing here; nor does what is encrypted.
"""

from __future__ import annotations

import html
import re
import zlib
from collections.abc import Iterator

#: At most so much is read of one document, compressed or not.
MAX_BYTES = 64 * 2**20
_STREAM = re.compile(rb"stream\r?\n")
#: A string, in parentheses or hexadecimal, and the brackets of an array of them with kerning between (ISO 32000-1 7.3.4, 9.4.3).
_TOKEN = re.compile(rb"\((?:[^()\\]|\\.)*\)|<[0-9A-Fa-f\s]+>|[\[\]]", re.DOTALL)
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b" ", b"f": b" ", b"\n": b""}
_MARKED_UP = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,100}<[?!A-Za-z]")
_MARKUP = re.compile(r"<[^<>]{0,2000}>")


def has_text_of_its_own(value: bytes) -> bool:
    """Whether it is a kind of document of which `readings` says more than its bytes do."""
    return b"%PDF" in value[:1024] or _is_utf_16(value) or _MARKED_UP.match(value) is not None


def readings(value: bytes) -> Iterator[str]:
    """What a document says, besides its bytes as they are."""
    if b"%PDF" in value[:1024]:
        yield from _pdf(value[:MAX_BYTES])
    elif _is_utf_16(value):
        yield value.decode("utf-16", "replace")
    elif _MARKED_UP.match(value):
        text = value[:MAX_BYTES].decode("utf-8", "replace")
        yield html.unescape(text)
        yield html.unescape(_MARKUP.sub(" ", text))
        yield html.unescape(_MARKUP.sub("", text))


def _is_utf_16(value: bytes) -> bool:
    return value[:2] in (b"\xff\xfe", b"\xfe\xff")


def _pdf(value: bytes) -> Iterator[str]:
    left = MAX_BYTES
    yield _strings(value)
    for found in _STREAM.finditer(value):
        stream = zlib.decompressobj()
        try:
            content = stream.decompress(value[found.end() :], left)
        except zlib.error:
            continue
        left -= len(content)
        yield content.decode("latin-1")
        yield _strings(content)
        if left <= 0:
            return


def _strings(content: bytes) -> str:
    """The strings that are shown: one by one, and those of an array joined as they are read."""
    shown: list[bytes] = []
    array: list[bytes] | None = None
    for token in _TOKEN.findall(content):
        if token == b"[":
            array = []
        elif token == b"]":
            shown.append(b"".join(array or ()))
            array = None
        else:
            shown.append(_unescaped(token))
            if array is not None:
                array.append(shown[-1])
    apart = "\n".join(_text(each) for each in shown)
    return f"{apart}\n{' '.join(_text(each) for each in shown)}"


def _text(raw: bytes) -> str:
    if raw[:2] == b"\xfe\xff" or (len(raw) > 3 and raw[::2].count(0) == len(raw[::2])):
        return raw.decode("utf-16-be", "replace").lstrip("\ufeff")
    return raw.decode("latin-1")


def _unescaped(string: bytes) -> bytes:
    if string[:1] == b"<":
        digits = bytes(each for each in string if each in b"0123456789abcdefABCDEF")
        return bytes.fromhex((digits + b"0" * (len(digits) % 2)).decode("ascii"))
    return _ESCAPE.sub(
        lambda found: _ESCAPES.get(found[1]) or (bytes([int(found[1], 8) & 255]) if found[1].isdigit() else found[1]), string[1:-1]
    )
