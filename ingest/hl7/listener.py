"""The listener: connections, the journal, and between them who waits for what. One loop in one thread."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections import deque
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from hilum import telemetry
from hilum.hl7.acknowledgement import Answer
from hilum.hl7.validation import validated
from hilum.journal import Journal, JournalFull
from hilum.mllp import Block
from hilum.settings import Settings
from hilum.spool.receipts import Receipts, received_at
from hilum.tls import ServerTls
from ingest.dicom.strangers import Strangers

from .connection import Connection, Exchange
from .doors import Doors
from .intake import Examined, Kept, examine, examine_beginning, judged, kept, refused
from .refusals import LIMITED, REFUSALS
from .repeats import Known, Repeats
from .senders import Senders

log = telemetry.logger("hl7")

#: How often connections are looked at for what time has made of them.
LOOK_S = 0.1
#: Bytes of all connections that may wait for the disk before nothing more is read.
MOST_WAITING_BYTES = 64 * 2**20
#: Connections that may have a large message in memory at once.
MOST_LARGE = 4
#: At its end the listener waits so long for what is on its way to the disk.
ENDING_S = 5.0
_ENCODER = msgspec.msgpack.Encoder()


class Listener:
    """Listens in the loop that `serve` is run in. `journal` is open."""

    def __init__(
        self, settings: Settings, journal: Journal, repeats: Repeats, tls: ServerTls | None, validators: Executor | None = None
    ) -> None:
        """`validators` hold messages of strict senders against the grammar; if None, processes are started for that when one comes."""
        self.settings = settings.hl7
        #: The ports it listens on, without TLS and with it; 0: none.
        self.port = 0
        self.tls_port = 0
        self._bucket = settings.s3.bucket
        self._journal = journal
        self._repeats = repeats
        self._tls = tls
        self._senders = Senders(settings.hl7)
        self._strangers = Strangers(time.monotonic)
        self._receipts = Receipts()
        self._connections: set[Connection] = set()
        self._large: set[Connection] = set()
        self._settled: deque[tuple[_Pending, JournalFull | None]] = deque()
        self._wakes = False
        #: Repeats of messages that are on their way to the disk, by their key and digest.
        self._waiting: dict[tuple[str, bytes], list[_Pending]] = {}
        self._under_way = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._validators = validators
        #: Why the last message was refused for want of disk; empty if the last one was taken.
        self.trouble = ""

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    async def serve(self, stop: threading.Event) -> None:
        """Listen until `stop`. Raises `Misconfigured` if a port cannot be had."""
        self._loop = loop = asyncio.get_running_loop()
        doors = Doors(self.settings.host, lambda: Connection(self, loop), Strangers(time.monotonic).is_remembered)
        try:
            if self._tls is not None:
                self.tls_port = await doors.open(self.settings.tls_port, "hl7.tls_port", self._tls)
            if self.settings.without_tls:
                self.port = await doors.open(self.settings.port, "hl7.port")
            while not stop.is_set():
                await asyncio.sleep(LOOK_S)
                if self._tls is not None:
                    _ = self._tls.context  # it reads a renewed certificate
                now = loop.time()
                for connection in list(self._connections):
                    connection.look(now)
        finally:
            self.port = self.tls_port = 0
            doors.close()
            await self._end(loop)

    async def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        until = loop.time() + ENDING_S
        while self._under_way and loop.time() < until:
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.close()
        while self._connections and loop.time() < until:
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.close(abort=True)
        if self._validators is not None:
            self._validators.shutdown(wait=False, cancel_futures=True)

    # What connections ask

    def opened(self, connection: Connection) -> bool:
        """See `connection.Owner`."""
        reason = ""
        if len(self._connections) >= self.settings.max_connections and not self._made_room():
            reason = "connections"
        elif not self._senders.may_connect(connection.peer):
            reason = "sender-unknown"
        if reason:
            telemetry.HL7_CONNECTIONS_REFUSED.labels(reason=reason).inc()
            if self._strangers.is_remembered(connection.peer):
                log.warning("connection_refused", peer=connection.peer, reason=reason)
            return False
        transport = connection._transport  # of the same part
        if transport is not None and (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._connections.add(connection)
        telemetry.HL7_CONNECTIONS.set(len(self._connections))
        return True

    def _made_room(self) -> bool:
        """Close the oldest connection over which no message ever came: who only holds connections open must not lock others out."""
        silent = [each for each in self._connections if not each.has_spoken]
        if not silent:
            return False
        oldest = min(silent, key=lambda each: each.opened_at)
        telemetry.HL7_CONNECTIONS_REFUSED.labels(reason="silent").inc()
        oldest.close(abort=True)
        self._connections.discard(oldest)
        return True

    def closed(self, connection: Connection) -> None:
        """See `connection.Owner`."""
        self._connections.discard(connection)
        self._large.discard(connection)
        telemetry.HL7_CONNECTIONS.set(len(self._connections))

    def may_hold(self, connection: Connection) -> bool:
        """See `connection.Owner`."""
        self._large = {each for each in self._large if each.holds_large}
        if connection not in self._large and len(self._large) < MOST_LARGE:
            self._large.add(connection)
        return connection in self._large

    @property
    def is_busy(self) -> bool:
        """See `connection.Owner`."""
        return self._journal.waiting_bytes > MOST_WAITING_BYTES

    def failed(self, error: BaseException) -> None:
        """See `connection.Owner`."""
        log.error("message_failed", error=telemetry.described(error))

    def examined(self, content: bytes, peer: str, odd: tuple[str, ...]) -> Examined:
        """See `connection.Owner`. Called from other threads, too."""
        return examine(content, peer, self._senders, odd)

    def beginning(self, block: Block, peer: str) -> Examined | None:
        """See `connection.Owner`."""
        reason = "message-too-long" if block.problem == "too-long" else block.problem
        return examine_beginning(block.content, peer, self._senders, reason, block.size_bytes)

    def is_quick(self, examined: Examined) -> bool:
        """See `connection.Owner`."""
        if examined.reason or examined.validation != "strict":
            return True
        return self._repeats.known(examined.key, examined.digest) in (Known.REPEAT, Known.UNDER_WAY)

    async def judge(self, examined: Examined) -> Examined:
        """See `connection.Owner`."""
        assert self._loop is not None
        if self._validators is None:
            context = multiprocessing.get_context("spawn")
            self._validators = ProcessPoolExecutor(self.settings.validators, mp_context=context, initializer=_calmly)
        try:
            return judged(examined, await self._loop.run_in_executor(self._validators, validated, examined.text))
        except BrokenProcessPool:
            self._validators = None
            log.error("validator_died", size_bytes=examined.size_bytes)
            return refused(examined, "validation-failed")

    def take(self, examined: Examined, exchange: Exchange, number: int) -> None:
        """See `connection.Owner`."""
        pending = _Pending(examined, exchange, number, time.monotonic())
        if examined.reason:
            remembered = self._strangers.is_remembered(examined.peer)
            if remembered:
                log.warning("message_refused", peer=examined.peer, reason=examined.reason, says=REFUSALS[examined.reason].sentence)
            if examined.reason in LIMITED and not remembered:
                self._answer(pending, examined.answer)  # counted, and not kept one by one
            else:
                self._append(pending, changed=False)
            return
        known = self._repeats.known(examined.key, examined.digest)
        if known is Known.REPEAT:
            telemetry.HL7_REPEATS.inc()
            self._answer(pending, Answer.ACCEPT)
        elif known is Known.UNDER_WAY:
            telemetry.HL7_REPEATS.inc()
            self._waiting.setdefault((examined.key, examined.digest), []).append(pending)
        else:
            self._repeats.began(examined.key, examined.digest)
            self._append(pending, changed=known is Known.CHANGED)

    # To the disk and back

    def _append(self, pending: _Pending, *, changed: bool) -> None:
        receipt = self._receipts.make(datetime.now(UTC))
        entry: Kept = kept(pending.examined, receipt, received_at(str(receipt)), self._bucket, changed=changed)
        self._under_way += 1
        self._journal.append(receipt, _ENCODER.encode(entry), lambda failure: self._written(pending, failure))

    def _written(self, pending: _Pending, failure: JournalFull | None) -> None:
        """Called from the journal's thread."""
        self._settled.append((pending, failure))
        if not self._wakes and self._loop is not None:
            self._wakes = True
            with suppress(RuntimeError):  # the loop has ended: nobody waits for an answer any more
                self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._wakes = False
        while self._settled:
            pending, failure = self._settled.popleft()
            self._under_way -= 1
            examined = pending.examined
            if examined.reason:
                self._answer(pending, examined.answer)
                continue
            if failure is not None and not self.trouble:
                log.error("messages_refused", reason="spool-full", says=str(failure))
            self.trouble = str(failure) if failure else ""
            self._repeats.ended(examined.key, examined.digest, durable=failure is None)
            same = self._waiting.pop((examined.key, examined.digest), [])
            for each in (pending, *same):
                self._answer(each, Answer.ACCEPT if failure is None else refused(each.examined, "spool-full").answer)

    def _answer(self, pending: _Pending, answer: Answer | None) -> None:
        reason = pending.examined.reason
        if reason:
            telemetry.HL7_REFUSED.labels(reason=reason).inc()
        telemetry.HL7_ACKNOWLEDGED.labels(status=answer.value if answer else "none").inc()
        telemetry.HL7_SECONDS.observe(time.monotonic() - pending.began_at)
        pending.exchange.answered(pending.number, pending.examined, answer)


class _Pending:
    """A message that is not answered yet."""

    __slots__ = ("began_at", "examined", "exchange", "number")

    def __init__(self, examined: Examined, exchange: Exchange, number: int, began_at: float) -> None:
        self.examined = examined
        self.exchange = exchange
        self.number = number
        self.began_at = began_at


def _calmly() -> None:
    """A validating process ends with its parent, also if that is killed, and not with the terminal's interrupt."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_it() -> None:
        if parent is not None:
            parent.join()
            os._exit(0)

    threading.Thread(target=end_with_it, daemon=True).start()
