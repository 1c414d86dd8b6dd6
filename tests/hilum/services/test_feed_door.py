"""Who comes to the door of research feeds too often, or says nothing, keeps nobody else out."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from hilum.services.feed_door import MOST_OF_ONE, Door
from hilum.services.feed_logins import FailedLogins
from hilum.tls import ServerTls

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
#: A test that fails waits so long.
WAIT_S = 60


class Site:
    """A door, a store behind it that answers everything, and who trusts its authority."""

    def __init__(self, directory: Path, unknown_s: float) -> None:
        authority = trustme.CA()
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
        self.trusts = ssl.create_default_context()
        authority.configure_trust(self.trusts)
        self.directory, self.unknown_s, self.port = directory, unknown_s, 0
        self.logins = FailedLogins(1, 3600)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(2**16):
                writer.write(ANSWER)
            writer.close()

        behind = await asyncio.start_server(answer, "127.0.0.1", 0)
        tls = ServerTls("feed", str(self.directory / "server.pem"))
        door = Door(tls, self.directory, str(behind.sockets[0].getsockname()[1]), self.logins, self.unknown_s)
        server = await door.serve("127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        yield
        server.close()
        behind.close()

    async def comes(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Without TLS as yet."""
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0))

    async def reads(self, address: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Through TLS; what it asks is answered. Raises `OSError`, and `EOFError` if it is closed before."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(address, 0), ssl=self.trusts, server_hostname="localhost"
        )
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await reader.readexactly(len(ANSWER)) == ANSWER
        return reader, writer

    async def is_known(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As `reads`; who is refused, or closed because nobody knew it in time, comes again."""
        while True:
            try:
                return await self.reads()
            except (OSError, EOFError):
                await asyncio.sleep(0.02)


def run(directory: Path, what: Callable[[Site], Awaitable[None]], unknown_s: float = WAIT_S) -> None:
    async def within() -> None:
        site = Site(directory, unknown_s)
        async with site.open():
            await asyncio.wait_for(what(site), WAIT_S)

    asyncio.run(within())


async def is_closed(reader: asyncio.StreamReader, within_s: float) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), within_s) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_a_refused_address_is_closed_before_it_has_said_anything(tmp_path: Path) -> None:
    async def refused(site: Site) -> None:
        site.logins.failed("127.0.0.1")

        # The handshake of TLS has 10 s.
        assert await is_closed((await site.comes())[0], 5)
        with pytest.raises(OSError):
            await site.reads()
        await site.reads("127.0.0.2")

    run(tmp_path, refused)


def test_one_address_does_not_keep_the_others_out(tmp_path: Path) -> None:
    async def many(site: Site) -> None:
        silent = [await site.comes() for _ in range(MOST_OF_ONE)]

        assert await is_closed((await site.comes())[0], 5)
        await site.reads("127.0.0.2")
        silent.pop()[1].close()
        await site.is_known()  # once the door has seen that it left

    run(tmp_path, many)


def test_who_is_not_known_after_a_while_is_closed_and_who_is_stays(tmp_path: Path) -> None:
    async def silent(site: Site) -> None:
        known, asks = await site.is_known()
        reader, _ = await asyncio.open_connection("127.0.0.1", site.port, ssl=site.trusts, server_hostname="localhost")

        assert await is_closed(reader, 30)
        asks.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await known.readexactly(len(ANSWER)) == ANSWER

    run(tmp_path, silent, unknown_s=0.5)
