"""What a STOW-RS client may send over one connection, and what bad luck or malice makes of it. The same seed gives the same bytes.

`valid` builds a request as PS3.18 10.5 wants it, files or DICOM JSON, as a list of tokens; `request` changes one or more of them,
or sends something that is no request at all.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.conversations import PATIENT, Stream, pieces
from hilum.dicom.file_meta import part10_head
from hilum.testing import encoded
from hilum.upper_layer import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY = "2.25.1"
#: The one that the receiver must know.
KEY = "the-fuzzers-own-key"
#: Each instance in a request has one of these, however the request is changed: so many instances it may bring at most.
MARKS = (b"DICM", b"00080018")
_BOUNDARIES = ("b", "x" * 70, "----=_Part 7:=?/", "a'()+_,-./:=?b")
_HEADERS = (
    b"Content-Type: multipart/related\r\n",
    b'Content-Type: multipart/related; type="application/dicom"; boundary=\r\n',
    b'Content-Type: multipart/related; type="application/dicom"; boundary="' + b"b" * 300 + b'"\r\n',
    b'Content-Type: multipart/related; type="application/dicom+xml"; boundary=b\r\n',
    b"Content-Type: application/dicom\r\n",
    b"Content-Type: ;;;=\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    b"Accept: application/dicom+xml\r\n",
    b"Authorization: Basic %%%\r\n",
    b"Authorization: Bearer \xff\xfe\r\n",
    b"X: " + b"x" * 20_000 + b"\r\n",
    b"no field\r\n",
    b"\0: \0\r\n",
)
_PART_HEADERS = (
    b"Content-Type: image/jpeg\r\n",
    b"Content-Type: application/dicom+json\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Location: pixels-0\r\n",
    b"Content-Length: 3\r\n",
    b"X: " + b"x" * 20_000 + b"\r\n",
    b" folded\r\n",
    b"no field\r\n",
)
_PATHS = (
    b"/dicom-web/studies/2.25.1",
    b"/dicom-web/studies/9.9",
    b"/dicom-web/studies/%00%ff",
    b"/dicom-web/../../etc/passwd",
    b"/" + b"a" * 20_000,
    b"/dicom-web/studies?x=" + PATIENT,
    b"*",
)
_METHODS = (b"GET", b"PUT", b"DELETE", b"OPTIONS", b"HEAD", b"PATCH", b"BREW")
_OTHER_PROTOCOLS = (
    bytes.fromhex("16030100c8010000c40303") + bytes(range(200)),
    bytes.fromhex("0100000000cd00010000"),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"\0" * 64,
    b"",
)
_VALUES: tuple[Any, ...] = (
    None,
    [],
    {},
    "",
    7,
    {"vr": "??", "Value": [1]},
    {"vr": "US", "Value": ["x"]},
    {"vr": "US", "Value": [2**70]},
    {"vr": "US", "Value": [-1.5, None, [], {}]},
    {"vr": "SQ", "Value": [1]},
    {"vr": "SQ", "Value": [{"00080018": {"vr": "UI", "Value": ["2.25.9"]}}]},
    {"vr": "PN", "Value": [{"Alphabetic": 5}]},
    {"vr": "DS", "Value": ["x" * 5000]},
    {"vr": "OW", "InlineBinary": "%%%"},
    {"vr": "OW", "BulkDataURI": "nowhere"},
    {"vr": "OW", "BulkDataURI": 5, "Value": [1]},
    {"vr": "UI", "Value": ["not a uid"]},
)


@dataclass
class Tokens:
    """A request in pieces that can be changed one by one."""

    line: list[bytes]  #: method, path, version
    headers: list[bytes]
    body: list[bytes] = field(default_factory=list)
    data_sets: list[bytes] = field(default_factory=list)  #: of its files, as they must be in the spool

    def raw(self, rng: random.Random, *, chunked: bool, length: int | None = None) -> bytes:
        """All bytes; `length` is what Content-Length says, if it lies."""
        body = b"".join(self.body)
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % (len(body) if length is None else length)
        sent = _chunks(rng, body, lies=length is not None) if chunked else body
        return b" ".join(self.line) + b"\r\n" + b"".join(self.headers) + framing + b"\r\n" + sent


def request(seed: object) -> Stream:
    """The stream of a seed: one in twenty is a valid request, one in ten was never one."""
    rng = random.Random(str(seed))
    kind = rng.random()
    if kind < 0.05:
        tokens = valid(rng)
        raw = tokens.raw(rng, chunked=rng.random() < 0.3)
        return Stream(pieces(rng, raw), (), breaks_off=False, data_sets=tuple(tokens.data_sets))
    if kind < 0.15:
        return Stream(pieces(rng, _noise(rng)), ("noise",), breaks_off=rng.random() < 0.1, data_sets=())
    tokens = valid(rng)
    changes = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        name, change = rng.choice(_CHANGES)
        change(rng, tokens)
        changes.append(name)
    length = None
    if rng.random() < 0.15:
        truth = sum(map(len, tokens.body))
        length = rng.choice((0, 1, truth - 1, truth + 1, truth // 2, 2 * truth, 2**31, 2**63, 2**64))
        changes.append("lie length")
    raw = tokens.raw(rng, chunked=rng.random() < 0.3, length=length)
    if rng.random() < 0.15:
        raw = raw[: rng.randrange(len(raw) + 1)]
        changes.append("cut")
    return Stream(pieces(rng, raw), tuple(changes), breaks_off=rng.random() < 0.1, data_sets=tuple(tokens.data_sets))


def valid(rng: random.Random) -> Tokens:
    """A request without a fault: every instance in it is stored."""
    boundary = rng.choice(_BOUNDARIES)
    as_json = rng.random() < 0.4
    kind = "application/dicom+json" if as_json else "application/dicom"
    tokens = Tokens(
        [b"POST", rng.choice((b"/dicom-web/studies", f"/dicom-web/studies/{STUDY}".encode())), b"HTTP/1.1"],
        [
            b"Host: hilum\r\n",
            f'Content-Type: multipart/related; type="{kind}"; boundary="{boundary}"\r\n'.encode(),
            b"Connection: close\r\n",
            f"Authorization: Bearer {KEY}\r\n".encode(),
        ],
    )
    if rng.random() < 0.2:
        tokens.body.append(b"preamble\r\n")
    count = rng.choice((1, 1, 2, 3, 8))
    if as_json:
        _json_parts(rng, tokens, boundary, count)
    else:
        for _ in range(count):
            _part(tokens, boundary, b"Content-Type: application/dicom\r\n", _file(rng, tokens))
    tokens.body.append(f"--{boundary}--\r\n".encode())
    return tokens


def _part(tokens: Tokens, boundary: str, headers: bytes, content: bytes) -> None:
    tokens.body += [f"--{boundary}\r\n".encode(), headers, b"\r\n", content, b"\r\n"]


def _header(rng: random.Random) -> dict[str, str]:
    return {
        "SOPClassUID": CT,
        "SOPInstanceUID": f"2.25.{rng.getrandbits(120)}",
        "PatientName": PATIENT.decode(),
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": "2.25.2",
    }


def _file(rng: random.Random, tokens: Tokens) -> bytes:
    syntax = rng.choice((EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN))
    header = _header(rng) | {"PatientComments": "x" * rng.choice((0, 10, 500, 9000))}
    data_set = encoded(header, syntax)
    tokens.data_sets.append(data_set)
    return part10_head(CT, header["SOPInstanceUID"], syntax) + data_set


def _json_parts(rng: random.Random, tokens: Tokens, boundary: str, count: int) -> None:
    instances: list[dict[str, Any]] = []
    bulk = []
    for number in range(count):
        header = _header(rng)
        instance: dict[str, Any] = {
            "00080016": {"vr": "UI", "Value": [CT]},
            "00080018": {"vr": "UI", "Value": [header["SOPInstanceUID"]]},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": header["PatientName"]}]},
            "0020000D": {"vr": "UI", "Value": [STUDY]},
            "00280010": {"vr": "US", "Value": [2]},
        }
        if rng.random() < 0.7:
            instance["7FE00010"] = {"vr": "OW", "BulkDataURI": f"pixels-{number}"}
            bulk.append((number, rng.randbytes(rng.choice((2, 100, 60_000)))))
        instances.append(instance)
    _part(tokens, boundary, b"Content-Type: application/dicom+json\r\n", json.dumps(instances).encode())
    for number, pixels in bulk:
        _part(tokens, boundary, f"Content-Type: application/octet-stream\r\nContent-Location: pixels-{number}\r\n".encode(), pixels)


# Changes


def _flip(rng: random.Random, tokens: Tokens) -> None:
    """Some bytes are others."""
    which, n = _any(rng, tokens)
    token = bytearray(which[n])
    for _ in range(rng.choice((1, 1, 4, 16))):
        if token:
            token[rng.randrange(len(token))] = rng.randrange(256)
    which[n] = bytes(token)


def _drop(rng: random.Random, tokens: Tokens) -> None:
    which, n = _any(rng, tokens)
    del which[n]


def _duplicate(rng: random.Random, tokens: Tokens) -> None:
    which, n = _any(rng, tokens)
    which[n:n] = [which[n]] * rng.choice((1, 1, 2, 300))


def _swap(rng: random.Random, tokens: Tokens) -> None:
    which, n = _any(rng, tokens)
    other = rng.randrange(len(which))
    which[n], which[other] = which[other], which[n]


def _shorten(rng: random.Random, tokens: Tokens) -> None:
    which, n = _any(rng, tokens)
    which[n] = which[n][: rng.randrange(len(which[n]) + 1)]


def _insert(rng: random.Random, tokens: Tokens) -> None:
    which, n = _any(rng, tokens)
    which.insert(n, rng.randbytes(rng.choice((1, 2, 100, 5000))))


def _a_header(rng: random.Random, tokens: Tokens) -> None:
    """A header that is wrong, or in the way."""
    tokens.headers.insert(rng.randrange(len(tokens.headers) + 1), rng.choice(_HEADERS))


def _a_part_header(rng: random.Random, tokens: Tokens) -> None:
    """Likewise in a part."""
    tokens.body.insert(rng.randrange(len(tokens.body) + 1), rng.choice(_PART_HEADERS))


def _a_path(rng: random.Random, tokens: Tokens) -> None:
    """Another path or method."""
    if len(tokens.line) > 1:
        n = rng.randrange(2)
        tokens.line[n] = rng.choice((_METHODS, _PATHS)[n])


def _a_boundary(rng: random.Random, tokens: Tokens) -> None:
    """A boundary where there should be none, or one with something behind it."""
    found = [token for token in tokens.body if token.startswith(b"--")]
    if found:
        token = rng.choice(found)
        more = rng.choice((b"", b"--", b" " * 200 + b"\r\n", b"\r\r\n", b"x\r\n", b"\n"))
        tokens.body.insert(rng.randrange(len(tokens.body) + 1), token.rstrip(b"\r\n") + more)


def _in_json(rng: random.Random, tokens: Tokens) -> None:
    """An attribute that is none, or sequences without end."""
    for n, token in enumerate(tokens.body):
        if token.startswith(b"[{"):
            try:
                instances = json.loads(token)
                instance = rng.choice(instances)
                instance[rng.choice((*instance, "00100020", "zzz", "00020010", "FFFEE000"))] = rng.choice(_VALUES)
            except (ValueError, TypeError, IndexError, RecursionError):
                return  # it was changed before
            tokens.body[n] = json.dumps(instances).encode()
            if rng.random() < 0.1:
                deep = rng.choice((100, 5000))
                tokens.body[n] = b'[{"00081140":' + b'{"vr":"SQ","Value":[{"00081140":' * deep + b"0" + b"}]}" * deep + b"}]"
            return


def _in_file(rng: random.Random, tokens: Tokens) -> None:
    """File Meta or an element that says a wrong length."""
    found = [n for n, token in enumerate(tokens.body) if token[128:132] == b"DICM"]
    if found:
        n = rng.choice(found)
        token = bytearray(tokens.body[n])
        at = rng.choice((136, 138, 140, rng.randrange(132, max(133, len(token) - 4))))
        token[at : at + 4] = rng.choice((b"\0" * 4, b"\xff" * 4, b"\xfe\xff\xff\x7f", rng.randbytes(4)))
        tokens.body[n] = bytes(token)


_CHANGES: tuple[tuple[str, Callable[[random.Random, Tokens], None]], ...] = tuple(
    (change.__name__.strip("_").replace("_", " "), change)
    for change in (
        _flip,
        _drop,
        _duplicate,
        _swap,
        _shorten,
        _insert,
        _a_header,
        _a_part_header,
        _a_path,
        _a_boundary,
        _in_json,
        _in_file,
    )
)


def _any(rng: random.Random, tokens: Tokens) -> tuple[list[bytes], int]:
    """A list and a place in it, mostly in the body."""
    which = rng.choice((tokens.line, tokens.headers, tokens.body, tokens.body, tokens.body))
    if not which:
        which.append(b"")
    return which, rng.randrange(len(which))


def _noise(rng: random.Random) -> bytes:
    noise = rng.randbytes(rng.choice((1, 5, 74, 300, 5000, 70_000)))
    kind = rng.random()
    if kind < 0.3:
        return noise
    if kind < 0.5:
        return rng.choice(_OTHER_PROTOCOLS)
    tokens = valid(rng)
    tokens.body, tokens.data_sets = [noise], []
    return tokens.raw(rng, chunked=kind < 0.75)


def _chunks(rng: random.Random, body: bytes, *, lies: bool) -> bytes:
    """The body in chunks (RFC 9112 7.1)."""
    size = rng.choice((1, 100, 10_000)) if len(body) < 1000 else rng.choice((1000, 100_000))
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    sizes = [len(piece) for piece in pieces]
    if lies and sizes:
        sizes[rng.randrange(len(sizes))] += rng.choice((-1, 1, 10, 2**40))
    return b"".join(b"%x\r\n" % max(0, size) + piece + b"\r\n" for size, piece in zip(sizes, pieces, strict=True)) + b"0\r\n\r\n"
