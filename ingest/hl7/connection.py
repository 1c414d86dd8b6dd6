"""One connection: blocks come in, acknowledgements go out in the order of what they answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol, cast

from hilum.hl7 import batch
from hilum.hl7.acknowledgement import Answer, answers
from hilum.hl7_sections import Hl7
from hilum.mllp import Block, Reader, framed

from .intake import Examined

#: A message that holds more is in memory in a few connections at once only.
LARGE_BYTES = 2**20
#: Bytes of messages of one connection that may wait for the disk before more is read.
MOST_WAITING_BYTES = 8 * 2**20
#: What is larger is read in a thread, so that others need not wait.
ASIDE_BYTES = 2**18
#: A block that ends with FS alone has ended if nothing follows for so long.
SHORT_END_S = 0.5


class Exchange:
    """What is answered to one block: the acknowledgements of its messages, together if it was a batch."""

    def __init__(self, connection: Connection, messages: int, of: batch.Batch | None = None) -> None:
        self._connection = connection
        self._batch = of
        self._left = messages
        self._said: list[list[tuple[str, str]]] = [[] for _ in range(messages)]
        self.size_bytes = 0

    @property
    def is_ready(self) -> bool:
        """Whether all is known that is to be said."""
        return self._left == 0

    def answered(self, number: int, examined: Examined, answer: Answer | None) -> None:
        """What is said of the message `number`."""
        if answer is not None:
            settings = self._connection.settings
            texts = answers(
                examined.envelope,
                answer,
                examined.problems,
                both=examined.sender.application_acknowledgement,
                application=settings.application,
                facility=settings.facility,
            )
            self._said[number] = [(text, examined.decoded.used) for text in texts]
        self._left -= 1
        if not self._left:
            self._connection.flush()

    def written(self) -> bytes:
        """The blocks that answer, if any."""
        said = [each for of_message in self._said for each in of_message]
        if self._batch is not None and self._batch.header and said:
            settings = self._connection.settings
            whole = batch.acknowledged(self._batch, [text for text, _ in said], settings.application, settings.facility)
            return framed(_encoded(whole, said[0][1]))
        return b"".join(framed(_encoded(text, codec)) for text, codec in said)


class Owner(Protocol):
    """What a connection needs of its listener."""

    settings: Hl7

    def opened(self, connection: Connection) -> bool:
        """Whether it may stay."""
        ...

    def closed(self, connection: Connection) -> None:
        """It is gone."""
        ...

    def may_hold(self, connection: Connection) -> bool:
        """Whether it may have a large message in memory."""
        ...

    def examined(self, content: bytes, peer: str, odd: tuple[str, ...]) -> Examined:
        """Read a message."""
        ...

    def beginning(self, block: Block, peer: str) -> Examined | None:
        """What is no whole message; None if it is not to be told."""
        ...

    def is_quick(self, examined: Examined) -> bool:
        """Whether nothing needs to be asked before it is taken."""
        ...

    async def judge(self, examined: Examined) -> Examined:
        """Hold it against the grammar."""
        ...

    def take(self, examined: Examined, exchange: Exchange, number: int) -> None:
        """Make it durable, then have it answered."""
        ...

    def failed(self, error: BaseException) -> None:
        """A fault of ours, which must not be taken for the sender's."""
        ...

    @property
    def is_busy(self) -> bool:
        """Whether so much waits for the disk that nothing more is to be read."""
        ...


class Connection(asyncio.Protocol):
    """Reads blocks, hands their messages to its owner one after the other, writes answers. Used by the loop's thread only."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = owner.settings
        self.peer = ""
        self._owner = owner
        self._loop = loop
        self._reader = Reader(owner.settings.max_message_bytes)
        self._transport: asyncio.Transport | None = None
        self._blocks: deque[Block] = deque()
        self._exchanges: deque[Exchange] = deque()
        self._task: asyncio.Task[None] | None = None
        self._reading = True
        self._writable = True
        self._ended = False
        self._lost = False
        self._last_at = self._began_at = self.opened_at = loop.time()
        #: Whether a whole message ever came.
        self.has_spoken = False

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if address else ""
        if not self._owner.opened(self):
            self._lost = True
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._lost:
            return
        self._last_at = self._loop.time()
        was_inside = self._reader.inside
        found = list(self._reader.feed(data))
        if self._reader.inside and (found or not was_inside):
            self._began_at = self._last_at
        self._blocks.extend(found)
        self._advance()
        self.pace()

    def eof_received(self) -> bool:
        """The peer sends no more, and may still wait for answers."""
        self._end()
        return not self._lost and self._transport is not None and self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's name
        """See `asyncio.Protocol`."""
        self._end()
        self._lost = True
        self._owner.closed(self)

    def pause_writing(self) -> None:
        """The peer does not read its acknowledgements."""
        self._writable = False
        self.pace()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable = True
        self._last_at = self._loop.time()
        self.pace()

    # What the owner calls

    @property
    def holds_large(self) -> bool:
        """Whether it has a large message, or part of one, in memory."""
        return self._reader.held_bytes > LARGE_BYTES

    @property
    def waits_for_answers(self) -> bool:
        """Whether something that came is not answered yet."""
        return bool(self._exchanges or self._blocks or self._task)

    def look(self, now: float) -> None:
        """What time has made of it; called several times a second."""
        if self._reader.perhaps_ended and now - self._last_at >= SHORT_END_S:
            self._blocks.extend(self._reader.end_here())
            self._advance()
        idle = now - self._last_at > self.settings.idle_timeout_s
        if (self._reader.inside and self._reading and (idle or now - self._began_at > self.settings.message_timeout_s)) or (
            idle and not self._writable
        ):
            self.close(abort=True)
        self.pace()

    def pace(self) -> None:
        """Read, or do not read for now."""
        if self._transport is None or self._lost or self._ended:
            return
        waiting = len(self._exchanges) + len(self._blocks)
        free = (
            self._writable
            and waiting < self.settings.max_pipelined
            and sum(exchange.size_bytes for exchange in self._exchanges) < MOST_WAITING_BYTES
            and not self._owner.is_busy
            and (not self.holds_large or self._owner.may_hold(self))
        )
        if free == self._reading:
            return
        self._reading = free
        if free:
            self._last_at = self._loop.time()
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def flush(self) -> None:
        """Write what is ready and not behind what is not."""
        ready: list[bytes] = []
        while self._exchanges and self._exchanges[0].is_ready:
            ready.append(self._exchanges.popleft().written())
        if ready and not self._lost and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(ready))
        if not self._reading:
            self.pace()
        self._close_if_done()

    def close(self, *, abort: bool = False) -> None:
        """Close it; what is ready to be written still is, unless `abort`."""
        self._end()
        if self._transport is not None:
            (self._transport.abort if abort else self._transport.close)()

    # Inside

    def _end(self) -> None:
        if not self._ended and not self._lost:
            self._ended = True
            self._blocks.extend(self._reader.close())
            self._advance()
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._ended and not self.waits_for_answers and self._transport is not None:
            self._transport.close()

    def _advance(self) -> None:
        """Take blocks in their order, until one needs time."""
        while self._blocks and self._task is None:
            block = self._blocks.popleft()
            if block.problem:
                found = self._owner.beginning(block, self.peer)
                if found is not None:
                    self._owner.take(found, self._exchange([found]), 0)
                continue
            self.has_spoken = True
            odd = ("end-short",) if block.short_end else ()
            parts = batch.split(block.content)
            if parts is None and len(block.content) < ASIDE_BYTES:
                examined = self._owner.examined(block.content, self.peer, odd)
                if self._owner.is_quick(examined):
                    self._owner.take(examined, self._exchange([examined]), 0)
                    continue
                self._later(self._judged([examined], None))
            else:
                self._later(self._read(block.content, parts, odd))

    def _exchange(self, examined: Sequence[Examined], of: batch.Batch | None = None) -> Exchange:
        exchange = Exchange(self, len(examined), of)
        exchange.size_bytes = sum(each.size_bytes for each in examined if not each.reason)
        self._exchanges.append(exchange)
        return exchange

    def _later(self, work: object) -> None:
        self._task = self._loop.create_task(work)  # type: ignore[arg-type]  # a coroutine of this class
        self._task.add_done_callback(self._went_on)

    def _went_on(self, task: asyncio.Task[None]) -> None:
        self._task = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._owner.failed(error)
            self.close(abort=True)  # without an acknowledgement, so that the sender sends it again
            return
        self._advance()
        self.flush()

    async def _read(self, content: bytes, parts: batch.Batch | None, odd: tuple[str, ...]) -> None:
        """A large message, or a batch, is read aside."""
        pieces = parts.messages if parts is not None else (content,)
        if parts is not None and not parts.is_complete:
            odd = (*odd, "batch-incomplete")

        def read() -> list[Examined]:
            return [self._owner.examined(piece, self.peer, odd) for piece in pieces]

        await self._judged(await self._loop.run_in_executor(None, read), parts)

    async def _judged(self, examined: list[Examined], of: batch.Batch | None) -> None:
        judged = [each if self._owner.is_quick(each) else await self._owner.judge(each) for each in examined]
        if not judged:
            return
        exchange = self._exchange(judged, of)
        for number, each in enumerate(judged):
            self._owner.take(each, exchange, number)


def _encoded(text: str, codec: str) -> bytes:
    return text.encode("ascii" if codec == "iso2022" else codec, "replace")
