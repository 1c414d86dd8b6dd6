"""Types of settings with their bounds, and what each takes in words: for reference pages, and for errors that name a value."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from msgspec import Meta, Struct

from hilum.errors import Misconfigured

#: A TCP port; 0 where Hilum may choose.
Port = Annotated[int, Meta(ge=0, le=65535)]
#: A time that something may take: sockets take no longer one than some days.
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
#: 0 means no limit; the length has 32 bits (PS3.8 D.1). Nobody is tested with less than 4,096 bytes, the least that dcmtk lets one set;
#: with 12 bytes or less it cannot send.
PduBytes = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Host = Annotated[str, Meta(pattern=r"^\S+\Z", description="a name or an address")]
_AE_TITLE = r"^[ -\[\]-~]*[!-\[\]-~] *\Z"
AeTitle = Annotated[
    str,
    Meta(max_length=16, pattern=_AE_TITLE, description="an AE title, 1 to 16 characters without backslash (PS3.5 6.2)"),
]
#: Where it is compared with a peer's, around which spaces mean nothing.
BareAeTitle = Annotated[
    str,
    Meta(
        max_length=16,
        pattern=r"^[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?\Z",
        description="an AE title, 1 to 16 characters without backslash, and without spaces around it (PS3.5 6.2)",
    ),
]
Uid = Annotated[str, Meta(max_length=64, pattern=r"^[0-9]+(\.[0-9]+)+\Z", description="a UID, such as 1.2.840.10008.1.2.4.90 (PS3.5 9.1)")]
OptionalAeTitle = Annotated[str, Meta(max_length=16, pattern=r"^([ -\[\]-~]*[!-\[\]-~] *)?\Z", description="an AE title, or empty")]
Bucket = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z",
        description="a bucket's name, 3 to 63 lower case letters, digits, hyphens and dots",
    ),
]
OptionalBucket = Annotated[
    str,
    Meta(
        pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?\Z",
        description="a bucket's name, 3 to 63 lower case letters, digits, hyphens and dots, or empty",
    ),
]
TimeZone = Annotated[
    str, Meta(pattern=r"^([A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*)?\Z", description="a time zone, such as `Europe/Vienna`, or empty")
]
Endpoint = Annotated[str, Meta(pattern=r"^(https?://[^\s/]+/?)?\Z", description="`http://host:port` or `https://host:port`, or empty")]

_NAMES: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}


def kind_in_words(hint: Any, quoted: Callable[[str], str] = json.dumps) -> str:
    """`hint` as a person says it, its bounds included: `whole number from 0 to 65535`. `quoted` writes each of a few fixed words."""
    arguments = [each for each in get_args(hint) if each is not Ellipsis]
    if get_origin(hint) is dict or (isinstance(hint, type) and issubclass(hint, Struct)):
        return "table"
    if not arguments:
        return _NAMES[hint] if hint in _NAMES else str(getattr(hint, "__name__", hint))
    if hasattr(hint, "__metadata__"):
        return kind_in_words(arguments[0], quoted) + "".join(_bounds(each) for each in hint.__metadata__ if isinstance(each, Meta))
    if all(isinstance(each, str) for each in arguments):
        return " or ".join(quoted(each) for each in arguments)
    if get_origin(hint) in (tuple, list):
        return f"list of {kind_in_words(arguments[0], quoted)}"
    return " or ".join(kind_in_words(each, quoted) for each in arguments if each is not type(None))


def _bounds(meta: Meta) -> str:
    """A description says it all; otherwise what the numbers say."""
    if meta.description:
        return f": {meta.description}"
    if meta.ge is not None and meta.le is not None:
        return f" from {meta.ge:,} to {meta.le:,}"
    said = [
        f" {word} {bound:,}"
        for word, bound in (("above", meta.gt), ("at least", meta.ge), ("below", meta.lt), ("at most", meta.le))
        if bound is not None
    ]
    if meta.min_length is not None:
        said.append(" not empty" if meta.min_length == 1 else f" at least {meta.min_length} long")
    if meta.max_length is not None:
        said.append(f" at most {meta.max_length} long")
    return ",".join(said)


def refuse_tiny_pdus(max_pdu_bytes: int) -> None:
    """Raise `ValueError` if `max_pdu_bytes` is a limit with which nothing could be sent."""
    if 0 < max_pdu_bytes < 4096:
        raise ValueError("`max_pdu_bytes` must be 0 or at least 4096")


def is_ae_title(text: str) -> bool:
    """Whether `text` is an AE title: 1 to 16 characters of ASCII, not only spaces, without control characters and backslash (PS3.5 6.2)."""
    return len(text) <= 16 and re.match(_AE_TITLE, text) is not None


def check_ae_title(text: str, where: str) -> None:
    """Raise `Misconfigured` if `text`, which was given as `where`, is no AE title."""
    if not is_ae_title(text):
        fix = "An AE title has 1 to 16 ASCII characters, no control character and no backslash (PS3.5 6.2)."
        raise Misconfigured("aet-invalid", f"{where}: {text!r} is no AE title.", fix=fix)


#: A character set without code extensions, as the only value of (0008,0005) (PS3.3 C.12.1.1.2).
CharacterSet = Literal[
    "ISO_IR 100",
    "ISO_IR 101",
    "ISO_IR 109",
    "ISO_IR 110",
    "ISO_IR 126",
    "ISO_IR 127",
    "ISO_IR 138",
    "ISO_IR 144",
    "ISO_IR 148",
    "ISO_IR 166",
    "ISO_IR 13",
    "ISO_IR 192",
    "GB18030",
    "GBK",
]
