"""Many parts go out as one stream, however the kernel takes them."""

from __future__ import annotations

import socket
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.association import _COPY_BELOW_BYTES, _MAX_PARTS, _send_parts


def sent(parts: list[bytes], reads: int = 4096) -> bytes:
    """What comes out at the other end of a connection with small buffers."""
    here, there = socket.socketpair()
    for each in (here, there):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found: list[bytes] = []

    def read() -> None:
        while data := there.recv(reads):
            found.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    here.settimeout(60)
    _send_parts(here, parts)
    here.close()
    reader.join(60)
    there.close()
    return b"".join(found)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([b"", b"x", b"header 12 by", bytes(range(256)) * 100, b"\xff" * 70_000]), max_size=20))
def test_what_arrives_is_what_was_given(parts: list[bytes]) -> None:
    assert sent(parts) == b"".join(parts)


def test_more_parts_than_the_kernel_takes_at_once() -> None:
    parts = [bytes([n % 256]) * 100 for n in range(3 * _MAX_PARTS)]
    assert sum(map(len, parts)) > _COPY_BELOW_BYTES

    assert sent(parts) == b"".join(parts)
