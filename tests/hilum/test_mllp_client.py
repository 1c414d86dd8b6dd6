"""The MLLP client, with a receiver that misbehaves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from hilum.client_tls import ClientTls
from hilum.errors import TryAgain
from hilum.mllp import Reader, framed
from hilum.mllp_client import MllpClient
from hilum.testing import eventually


@contextmanager
def receiver(*behaviours: Callable[[socket.socket], None]) -> Iterator[int]:
    """A receiver that does with its connections, one after the other, what each of `behaviours` says: its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for behave in behaviours:
                connection, _ = listening.accept()
                with connection:
                    behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(60)


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
        assert client.send(b"one") == b"ACK one"


def test_a_second_acknowledgement_of_a_message_is_not_taken_for_the_next_ones() -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(framed(b"ACK " + read(connection)) + framed(b"again"))
        connection.sendall(framed(b"ACK " + read(connection)))

    with receiver(behave) as port, MllpClient("127.0.0.1", port) as client:
        assert client.send(b"one") == b"ACK one"
        assert client.send(b"two") == b"ACK two"


def test_a_second_acknowledgement_that_had_only_begun_is_not_taken_for_the_next_ones() -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(framed(b"ACK " + read(connection)) + framed(b"again")[:3])
        second = read(connection)
        connection.sendall(framed(b"again")[3:] + framed(b"ACK " + second))

    with receiver(behave) as port, MllpClient("127.0.0.1", port) as client:
        assert client.send(b"one") == b"ACK one"
        assert client.send(b"two") == b"ACK two"


def test_an_acknowledgement_that_comes_late_is_not_taken_for_the_next_ones() -> None:
    may_answer = threading.Event()

    def behave(connection: socket.socket) -> None:
        first = read(connection)
        may_answer.wait(60)
        with suppress(OSError):
            connection.sendall(framed(b"ACK " + first))

    def then(connection: socket.socket) -> None:
        connection.sendall(framed(b"ACK " + read(connection)))

    with receiver(behave, then) as port, MllpClient("127.0.0.1", port, timeout_s=1.0) as client:
        with pytest.raises(TryAgain, match=r"gave no acknowledgement within 1 s"):
            client.send(b"one")
        may_answer.set()
        client._timeout_s = 60.0  # what follows is not meant to come late

        assert client.send(b"two") == b"ACK two"


def test_a_connection_that_the_peer_closed_meanwhile_is_made_anew() -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(framed(b"ACK " + read(connection)))

    with receiver(behave, behave) as port, MllpClient("127.0.0.1", port) as client:
        assert client.send(b"one") == b"ACK one"
        eventually(client._was_closed)
        assert client.send(b"two") == b"ACK two"


def test_blocks_that_are_no_answer_are_passed_over() -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(framed(b"another's") + framed(b"ACK " + read(connection)))

    with receiver(behave) as port, MllpClient("127.0.0.1", port) as client:
        assert client.send(b"one", lambda block: block.startswith(b"ACK")) == b"ACK one"


def test_a_connection_that_ends_says_that_nobody_knows() -> None:
    with (
        receiver(lambda connection: connection.close()) as port,
        MllpClient("127.0.0.1", port) as client,
        pytest.raises(TryAgain, match="ended the connection"),
    ):
        client.send(b"one")


def test_who_speaks_no_tls_is_told_from_who_does_not_listen(free_port: int) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"no TLS here")

    with receiver(behave) as port, pytest.raises(TryAgain, match="speaks no TLS"):
        MllpClient("127.0.0.1", port, tls=ClientTls()).connect()
    with pytest.raises(TryAgain, match="cannot be reached"):
        MllpClient("127.0.0.1", free_port).connect()
