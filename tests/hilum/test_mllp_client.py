"""The MLLP client, with a receiver that misbehaves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hilum.client_tls import ClientTls
from hilum.errors import TryAgain
from hilum.mllp import Reader, framed
from hilum.mllp_client import MllpClient
from hilum.testing import eventually


@contextmanager
def receiver(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A receiver of one connection that does with it what `behave` says: its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


def read(connection: socket.socket) -> bytes:
    """The next message."""
    reader = Reader(2**20)
    while data := connection.recv(65536):
        for block in reader.feed(data):
            return block.content
    return b""


def test_an_acknowledgement_may_come_in_pieces_and_after_garbage() -> None:
    def behave(connection: socket.socket) -> None:
        content = read(connection)
        for byte in b"noise" + framed(b"ACK " + content):
            connection.sendall(bytes([byte]))

    with receiver(behave) as port, MllpClient("127.0.0.1", port) as client:
        assert client.send(b"one") == [b"ACK one"]


def test_an_acknowledgement_that_comes_late_is_not_taken_for_the_next_ones() -> None:
    may_answer, has_answered = threading.Event(), threading.Event()

    def behave(connection: socket.socket) -> None:
        first = read(connection)
        may_answer.wait(10)
        connection.sendall(framed(b"ACK " + first))
        has_answered.set()
        connection.sendall(framed(b"ACK " + read(connection)))

    with receiver(behave) as port, MllpClient("127.0.0.1", port, timeout_s=0.2) as client:
        with pytest.raises(TryAgain, match="no acknowledgement in time"):
            client.send(b"one")
        may_answer.set()
        assert has_answered.wait(10)
        eventually(lambda: client._socket.recv(1, socket.MSG_PEEK))

        assert client.send(b"two") == [b"ACK two"]


def test_a_connection_that_ends_says_that_nobody_knows() -> None:
    with (
        receiver(lambda connection: connection.close()) as port,
        MllpClient("127.0.0.1", port) as client,
        pytest.raises(TryAgain, match=r"ended the connection|broke"),
    ):
        client.send(b"one")


def test_nothing_is_waited_for_where_no_answer_is_wanted() -> None:
    seen: list[bytes] = []
    with receiver(lambda connection: seen.append(read(connection))) as port, MllpClient("127.0.0.1", port) as client:
        assert client.send(b"one", answers=0) == []

    assert seen == [b"one"]


def test_who_speaks_no_tls_is_told_from_who_does_not_listen(free_port: int) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"no TLS here")

    with receiver(behave) as port, pytest.raises(TryAgain, match="speaks no TLS"):
        MllpClient("127.0.0.1", port, tls=ClientTls())
    with pytest.raises(TryAgain, match="cannot be reached"):
        MllpClient("127.0.0.1", free_port)
