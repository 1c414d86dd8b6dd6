"""Receivers of HL7 messages over MLLP: one whose answers a test decides, byte by byte, and python-hl7's own."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import hl7.mllp

from hilum.hl7.charset import decode
from hilum.hl7.message import Message, parse
from hilum.mllp import Reader, framed
from hilum.testing import eventually

#: What a receiver answers: bytes as they go out, None for nothing; it may raise `ConnectionResetError` to hang up.
Answer = Callable[[Message], bytes | None]


def acknowledgement(message: Message, code: str = "AA", *, of: str = "", error: str = "", says: str = "") -> bytes:
    """An acknowledgement in its frame."""
    lines = [f"MSH|^~\\&|RIS||HILUM||20260101||ACK|1|P|{message.get('MSH-12')}", f"MSA|{code}|{of or message.get('MSH-10')}|{says}"]
    if error:
        lines.append(f"ERR|||{error}|E")
    return framed("".join(f"{line}\r" for line in lines).encode())


class Receiver:
    """Takes connections on 127.0.0.1, one thread each."""

    def __init__(self, answer: Answer = acknowledgement, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.messages: list[Message] = []
        self.raw: list[bytes] = []
        self.connections = 0
        self._tls = tls
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def control_ids(self) -> list[str]:
        """MSH-10 of what came, in its order."""
        return [message.get("MSH-10") for message in self.messages]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._door.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.append(connection)
            reader = Reader(10**6)
            while data := connection.recv(65_536):
                for block in list(reader.feed(data)):
                    message = parse(decode(block.content).text)
                    self.messages.append(message)
                    self.raw.append(block.content)
                    answer = self.answer(message)
                    if answer is not None:
                        connection.sendall(answer)
        with suppress(OSError):
            connection.close()

    def hang_up(self) -> None:
        """End all connections."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        """Take no more."""
        self.hang_up()
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()


@contextmanager
def receiver(answer: Answer = acknowledgement, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """One for as long as the block lasts."""
    found = Receiver(answer, tls)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def python_hl7() -> Iterator[tuple[int, list[str]]]:
    """python-hl7's asyncio server; its port, and the messages that it has acknowledged."""
    taken: list[str] = []
    ready: list[int] = []
    loop = asyncio.new_event_loop()

    async def serve(reader: hl7.mllp.HL7StreamReader, writer: hl7.mllp.HL7StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                message = await reader.readmessage()
                taken.append(str(message))
                writer.writemessage(message.create_ack())
                await writer.drain()

    async def run() -> None:
        server = await hl7.mllp.start_hl7_server(serve, host="127.0.0.1", port=0, encoding="utf-8")
        ready.append(server.sockets[0].getsockname()[1])

    loop.run_until_complete(run())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield eventually(lambda: ready[0], what="python-hl7 listens"), taken
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
