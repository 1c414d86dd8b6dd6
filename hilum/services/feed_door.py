"""The door of research feeds: TLS, on an address that others reach, in front of the embedded store and broker, which stay on the loopback.

One process passes bytes on; who may read what is decided behind it, by readers' keys (`readers.py`). It sees who fails to log in, and
answers an address from which that was too often no more for a while (`feed_logins.py`), nor one that has
many connections open: both before TLS costs anything. The supervisor runs it as
`python -m hilum.services.feed_door HOST PORT=BEHIND,… DATA CERTIFICATE KEY FAILED_LOGINS REFUSED_S PROBE_PORT`, where BEHIND is a port,
or its name in `ports.json`.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import start_http_server

from hilum import telemetry
from hilum.deid_sections import Feed
from hilum.errors import HilumError
from hilum.services.feed_logins import FailedLogins, KafkaWatch, S3Watch, Watch, caller_of
from hilum.services.ports import Ports
from hilum.services.process import Child
from hilum.tls import ServerTls

#: The ports behind, as `ports.json` has them, or as the settings do where they name one.
KAFKA_READERS, S3 = "kafka readers port", "s3.port"
_BEHIND = "127.0.0.1"
#: Connections open at once at a port, and of them from one address; one more is closed at once.
MOST_CONNECTIONS, MOST_OF_ONE = 500, 100
_HANDSHAKE_S = 10.0
#: Who is not known to the server behind after so long is nobody who waits for it.
_UNKNOWN_S = 60.0
_PIECE_BYTES = 2**16

log = telemetry.logger("feed")


class FeedDoor:
    """TLS for readers of feeds on other machines, where `feed.host` is set and a server that they read runs here."""

    name = "feed"

    def __init__(self, data: Path, feed: Feed, behind: Sequence[tuple[int, str]]) -> None:
        """`behind` are pairs of a port for others and the name, or the number, of the port behind it."""
        self._data, self._feed, self._behind = data, feed, tuple(behind)

    def endpoint(self) -> dict[str, str]:
        """Where readers find it is in their own files."""
        return {}

    def prepare(self) -> Child:
        """Raises `Misconfigured` without a certificate that can be used, or if a port is taken."""
        feed = self._feed
        feed.reached_as()
        ServerTls("feed", feed.tls_certificate, feed.tls_key)
        for port, behind in self._behind:
            Ports(self._data).take(f"feed.{'s3' if behind != KAFKA_READERS else 'kafka'}_port", feed.host, port)
        pairs = ",".join(f"{port}={behind}" for port, behind in self._behind)
        probe = Ports(self._data).take("probe feed", "127.0.0.1")
        limit = (str(feed.failed_logins), str(feed.refused_s), str(probe))
        arguments = (feed.host, pairs, str(self._data), feed.tls_certificate, feed.tls_key, *limit)
        return Child(
            name=self.name,
            argv=[sys.executable, "-m", "hilum.services.feed_door", *arguments],
            fork=("hilum.services.feed_door", *arguments),
            log=self._data / "logs" / "feed.log",
            ready=self._answers,
            stop_within_s=5.0,
            probe_port=probe,
        )

    def _answers(self) -> bool:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._feed.host, self._feed.host)  # noqa: S104  # where it listens, if so set
        for port, _ in self._behind:
            socket.create_connection((host, port), timeout=1).close()
        return True


class Door:
    """One port: whoever comes through TLS is passed on to the port behind, as it is then."""

    def __init__(self, tls: ServerTls, data: Path, behind: str, logins: FailedLogins, unknown_s: float = _UNKNOWN_S) -> None:
        """Who is not known to the server behind within `unknown_s` is closed."""
        self._tls, self._ports, self._behind, self._logins, self._unknown_s = tls, Ports(data), behind, logins, unknown_s
        self._server = "kafka" if behind == KAFKA_READERS else "s3"
        #: Connections by who has them.
        self._open: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Begin to listen. Raises `OSError`."""
        return await asyncio.start_server(self._met, host, port, limit=_PIECE_BYTES, backlog=128)

    def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """No coroutine, so that nothing is read before it is known who it is."""
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        caller = caller_of(peer)
        refused = "failed-logins" if self._logins.refuses(peer) else "connections" if self._full(caller) else ""
        if refused:
            telemetry.FEED_REFUSED.labels(refused).inc()
            writer.transport.abort()
            return
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # the first bytes are those of TLS, which goes on reading
        self._open[caller] += 1
        task = asyncio.create_task(self._pass_on(reader, writer, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._left(caller))

    def _full(self, caller: str) -> bool:
        return self._open[caller] >= MOST_OF_ONE or self._open.total() >= MOST_CONNECTIONS

    def _left(self, caller: str) -> None:
        self._open[caller] -= 1
        self._open += Counter()  # without those that have none

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> None:
        try:
            # A renewed certificate is for the next that comes.
            await writer.start_tls(self._tls.context, ssl_handshake_timeout=_HANDSHAKE_S)
        except OSError:  # it speaks no TLS, or nothing
            writer.transport.abort()
            return
        behind: asyncio.StreamWriter | None = None
        try:
            port = int(self._behind) if self._behind.isdigit() else self._ports.kept(self._behind)
            answers, behind = await asyncio.open_connection(_BEHIND, port, limit=_PIECE_BYTES)
            watch: Watch = KafkaWatch() if self._server == "kafka" else S3Watch()
            asked = asyncio.create_task(_pump(reader, behind, lambda piece: watch.asked(piece)))
            answered = asyncio.create_task(_pump(answers, writer, lambda piece: self._count(peer, watch.answered(piece))))
            pumps = (asked, answered)
            ended, _ = await asyncio.wait(pumps, timeout=self._unknown_s, return_when=asyncio.FIRST_COMPLETED)
            if not ended and watch.known:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                self._count(peer, watch.ended())
            for pump in pumps:
                pump.cancel()
        except OSError:  # the server behind is being started
            pass
        finally:
            for each in (behind, writer):
                if each is not None:
                    each.close()
                    with suppress(OSError, TimeoutError):
                        await asyncio.wait_for(each.wait_closed(), _HANDSHAKE_S)

    def _count(self, peer: str, failed: int) -> bool:
        """Count failed logins. Whether this connection ends for them, too."""
        if not failed:
            return False
        telemetry.FEED_LOGINS_FAILED.labels(self._server).inc(failed)
        if self._logins.failed(peer, failed):
            log.warning("feed_refuses", peer=peer, kind=self._server)
        return self._logins.refuses(peer)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, seen: Callable[[bytes], object]) -> None:
    """Pass on what comes, until its end, or until what was passed is `seen` to be the last."""
    with suppress(OSError):
        while piece := await source.read(_PIECE_BYTES):
            last = seen(piece)  # a request before it can be answered
            sink.write(piece)
            await sink.drain()
            if last:
                return


async def _run(host: str, pairs: Sequence[tuple[int, str]], data: Path, tls: ServerTls, logins: FailedLogins) -> None:
    servers = [await Door(tls, data, behind, logins).serve(host, port) for port, behind in pairs]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main(arguments: Sequence[str] = ()) -> None:
    """Do as the module's docstring says, until it is ended."""
    host, pairs, data, certificate, key, failed_logins, refused_s, probe = arguments or sys.argv[1:]
    behind = [(int(port), name) for port, name in (pair.split("=") for pair in pairs.split(","))]
    logins = FailedLogins(int(failed_logins), float(refused_s))
    try:
        start_http_server(int(probe), "127.0.0.1")
        asyncio.run(_run(host, behind, Path(data), ServerTls("feed", certificate, key), logins))
    except HilumError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{host} cannot be listened on ({error.strerror}): see the table feed of the settings.")


if __name__ == "__main__":
    main()
