"""Failed logins at the door of research feeds: seen in what passes through it, counted by address, and what follows of many.

Behind the door everybody comes from this machine, so neither server can tell its callers apart. The door can, and it sees what they are
answered, since TLS ends there: of Kafka the frames until somebody is logged in, of S3 the status of each response, and the
code of one that refuses.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Protocol

#: So many failures within this time are too many.
WITHIN_S = 60.0
#: Addresses that are remembered; for one more the one that failed longest ago is forgotten, of those that are refused only if all are.
MOST_ADDRESSES = 4096


class FailedLogins:
    """By address. For one thread."""

    def __init__(self, most: int, refused_s: float, now: Callable[[], float] = time.monotonic) -> None:
        """`most` within a minute, and an address is refused for `refused_s`; 0: none ever is."""
        self._most, self._refused_s, self._now = most, refused_s, now
        #: How many failures there were, the first of them, and until when nobody from there is answered.
        self._known: OrderedDict[str, tuple[int, float, float]] = OrderedDict()

    def refuses(self, address: str) -> bool:
        """Whether nobody from there is answered now."""
        return self._now() < self._known.get(caller_of(address), (0, 0.0, 0.0))[2]

    def failed(self, address: str, times: int = 1) -> bool:
        """Count failures. Whether nobody from there is answered from now on, and was before."""
        if not self._most:
            return False
        now, key = self._now(), caller_of(address)
        count, since, until = self._known.get(key, (0, now, 0.0))
        if now < until:  # over connections that were open already
            return False
        count, since = (count + times, since) if now - since < WITHIN_S else (times, now)
        too_many = count >= self._most
        self._known[key] = (0, now, now + self._refused_s) if too_many else (count, since, 0.0)
        self._known.move_to_end(key)
        if len(self._known) > MOST_ADDRESSES:
            del self._known[next((each for each, (_, _, ends) in self._known.items() if ends <= now), next(iter(self._known)))]
        return too_many


def caller_of(address: str) -> str:
    """Who an address stands for: of IPv6 its network of 64 bits, of which one machine may have every address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return str(ipaddress.ip_network((found, 64), strict=False))
        found = found.ipv4_mapped
    return str(found)


class Watch(Protocol):
    """What is seen of one connection. Pieces are as they pass, cut anywhere."""

    @property
    def known(self) -> bool:
        """Whether the server behind has taken the caller for one who may ask, or ends the connection itself if not."""

    def asked(self, piece: bytes) -> None:
        """Something of the caller passed."""

    def answered(self, piece: bytes) -> int:
        """Something for the caller passes; how many failed logins it tells."""

    def ended(self) -> int:
        """The server behind ended the connection; how many failed logins that tells."""


#: It answers in the version of HTTP in which it is asked; 2 it does not speak here.
_STATUS = re.compile(rb"HTTP/1\.[01] ([2-5]\d\d) ")
_REQUEST = re.compile(rb"(?:\A|\r\n\r\n)[A-Z]{3,7} /")
_CODE = re.compile(rb"<Code>(\w+)</Code>")
#: What is said to who does not have the key; `AccessDenied` and `RequestTimeTooSkewed` are said to who has it, or shows none.
_WRONG_KEY = (b"SignatureDoesNotMatch", b"InvalidAccessKeyId")
#: As much of a refusal is looked at for its code.
_REFUSAL_BYTES = 4096


class S3Watch:
    """HTTP/1: what is answered 401 or 403 with the code of a wrong key. Rather too few are counted than one too many.

    Of a HEAD nothing is counted: it has no body that says so.
    """

    def __init__(self) -> None:
        #: Requests without an answer.
        self._open = 0
        #: What came of a refusal that has not told its code yet.
        self._refusal: bytearray | None = None
        self._known = False

    @property
    def known(self) -> bool:
        """See `Watch`."""
        return self._known

    def asked(self, piece: bytes) -> None:
        """See `Watch`."""
        self._open = min(_MOST_OPEN, max(1, self._open + len(_REQUEST.findall(piece))))

    def answered(self, piece: bytes) -> int:
        """See `Watch`. A response whose status line is cut in two is not seen."""
        if not self._open and self._refusal is None:  # what nearly always passes: pieces of images
            return 0
        heads = self._heads(piece)
        begins = [*(head.start() for head in heads), len(piece)]
        failed = self._read(piece[: begins[0]])
        for head, end in zip(heads, begins[1:], strict=True):
            self._refusal = bytearray() if head[1] in (b"401", b"403") else None
            self._known = self._known or self._refusal is None
            failed += self._read(piece[head.end() : end])
        return failed

    def ended(self) -> int:
        """See `Watch`."""
        return 0

    def _heads(self, piece: bytes) -> list[re.Match[bytes]]:
        """The status lines of what was asked. Who has asked for one thing is answered at the begin of a piece, or behind `100 Continue`."""
        found: list[re.Match[bytes]] = []
        if self._open == 1 and not piece.startswith(b"HTTP/1."):
            return found
        while self._open and (head := _STATUS.search(piece, found[-1].end() if found else 0)):
            found.append(head)
            self._open -= 1
        return found

    def _read(self, text: bytes) -> int:
        if self._refusal is None:
            return 0
        self._refusal += text[: _REFUSAL_BYTES - len(self._refusal)]
        code = _CODE.search(self._refusal)
        if code or len(self._refusal) >= _REFUSAL_BYTES:
            self._refusal = None
        return int(code is not None and code[1] in _WRONG_KEY)


_HANDSHAKE, _VERSIONS, _AUTHENTICATE = 17, 18, 36
#: The first version of SaslAuthenticate whose responses have tagged fields in their header.
_TAGGED = 2
#: So many requests without an answer are nobody who logs in.
_MOST_OPEN = 64


class KafkaWatch:
    """Kafka's protocol until somebody is logged in: SaslAuthenticate that is answered with an error, or a connection that the broker ends.

    Requests of an older login (SaslHandshake 0) have no such answer, so that the end alone tells.
    """

    def __init__(self) -> None:
        self._requests, self._answers = _Frames(), _Frames()
        #: Keys and versions of requests that have no answer yet; the broker answers in their order.
        self._open: deque[tuple[int, int]] = deque()
        self._trusted = self._over = False

    @property
    def known(self) -> bool:
        """See `Watch`."""
        return self._trusted or self._over

    def asked(self, piece: bytes) -> None:
        """See `Watch`."""
        if self._over:
            return
        for head in self._requests.of(piece):
            key, version = int.from_bytes(head[:2]), int.from_bytes(head[2:4])
            if key not in (_HANDSHAKE, _VERSIONS, _AUTHENTICATE) or len(self._open) >= _MOST_OPEN:
                self._over = True  # it is logged in, or the broker ends it
                return
            self._open.append((key, version))

    def answered(self, piece: bytes) -> int:
        """See `Watch`."""
        failed = 0
        if self._over and not self._open:
            return 0
        for head in self._answers.of(piece):
            key, version = self._open.popleft() if self._open else (0, 0)
            if key == _AUTHENTICATE:
                at = 5 if version >= _TAGGED else 4
                wrong = head[at : at + 2] != b"\0\0"
                failed += wrong
                self._trusted = not wrong
        return failed

    def ended(self) -> int:
        """See `Watch`."""
        return int(not self._trusted and (self._over or bool(self._open)))


class _Frames:
    """The beginnings of frames, each behind its length in four bytes."""

    #: As much of a frame as is looked at.
    HEAD = 8

    def __init__(self) -> None:
        self._begun = bytearray()
        self._skip = 0

    def of(self, piece: bytes) -> Iterator[bytes]:
        """Those that have come, with what came before; nothing of the rest is kept."""
        at = 0
        while at < len(piece):
            if self._skip:
                step = min(self._skip, len(piece) - at)
                self._skip, at = self._skip - step, at + step
                continue
            wanted = 4 if len(self._begun) < 4 else 4 + min(self._size(), self.HEAD)
            step = min(wanted - len(self._begun), len(piece) - at)
            self._begun += piece[at : at + step]
            at += step
            if len(self._begun) < 4 or len(self._begun) < 4 + min(self._size(), self.HEAD):
                continue
            head, self._skip = bytes(self._begun[4:]), max(0, self._size() - self.HEAD)
            self._begun.clear()
            yield head

    def _size(self) -> int:
        return max(0, int.from_bytes(self._begun[:4], signed=True))
