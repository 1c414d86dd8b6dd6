"""A receiver that is fuzzed: what it must be like after whatever it was sent."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.conversations import PATIENT, Stream
from hilum.spool import Spool, read_arrival

#: How long one stream may take, and how long afterwards the receiver may need to be at rest.
STREAM_S, REST_S = 15.0, 10.0
_LOG_MUST_NOT_HOLD = (b"association_failed", b"request_failed", b"role_failed", b"Traceback", PATIENT, PATIENT[:6])


@dataclass
class Told:
    """What a peer was told over one connection."""

    outcomes: list[str] = field(default_factory=list)
    kept: int = 0  #: objects of which the answers say that they are kept
    complete: bool = False  #: whether the connection was read to its proper end
    complaint: str = ""


@dataclass(frozen=True)
class Vitals:
    """What a receiver holds."""

    handles: int
    threads: int
    memory_mb: float


class Patient(ABC):
    """A receiver under test: one process, which listens on `port` and has its data in `folder`."""

    def __init__(self, process: psutil.Process, port: int, folder: Path) -> None:
        self.port = port
        self.spool = Spool(folder / "data" / "spool")
        self._records = folder / "data" / "spool" / "associations"
        self._log = folder / "hilum.log"
        self._log_read = 0
        self._process = process
        self.warm()
        self.spool.remove(self.spool.waiting())
        self.rest = _until_still(self.vitals)

    @abstractmethod
    def converse(self, what: Stream) -> Told:
        """Send a stream and hear what comes back."""

    @abstractmethod
    def warm(self) -> None:
        """Have it do for the first time what it does with a stream without a fault."""

    @abstractmethod
    def unknown(self, what: Stream) -> int:
        """How many objects may have been kept of a stream of which it was not heard, at most."""

    @abstractmethod
    def is_served(self) -> bool:
        """Whether it answers a question to which it has one answer."""

    def failures(self, streams: Sequence[Stream], told: Sequence[Told]) -> Iterator[str]:
        """What else is wrong with the answers."""
        del streams, told
        yield from ()

    def vitals(self) -> Vitals:
        """As they are now. Raises `psutil.NoSuchProcess`."""
        memory = self._process.memory_info().rss / 2**20
        return Vitals(self._process.num_fds(), self._process.num_threads(), memory)

    def complaints(self, streams: Sequence[Stream], told: Sequence[Told]) -> Iterator[str]:
        """What is wrong with the receiver after these streams; then its spool is emptied, as a publisher does."""
        yield from (each.complaint for each in told if each.complaint)
        if not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE:
            yield "The process has ended."
            return
        if not self.is_served():
            yield "It does not answer any more."
        yield from self.failures(streams, told)
        rest = self.rest
        if not _eventually(lambda: self.vitals().handles <= rest.handles and self.vitals().threads <= rest.threads):
            yield f"At rest it had {rest}; now it has {self.vitals()}."
        yield from self._spooled(streams, told)
        log = self._log.read_bytes()[self._log_read :]
        self._log_read += len(log)
        yield from (f"Its log holds {word.decode()}." for word in _LOG_MUST_NOT_HOLD if word in log)

    def _spooled(self, streams: Sequence[Stream], told: Sequence[Told]) -> Iterator[str]:
        receipts = self.spool.waiting()
        known = sum(each.kept for each in told)
        # Who broke off does not know what was kept of what it had sent.
        unknown = sum(self.unknown(what) for what, each in zip(streams, told, strict=True) if not each.complete)
        if not known <= len(receipts) <= known + unknown:
            yield f"The spool has {len(receipts)} objects; {known} were acknowledged, and of {unknown} at most it is not known."
        files = [self.spool.read(receipt) for receipt in receipts]
        data_sets = {file[read_arrival(file)[1] :] for file in files}
        missing = [what for what in streams if not what.changes and not set(what.data_sets) <= data_sets]
        if missing:
            yield f"Of {len(missing)} streams without a fault an object is not in the spool, byte for byte."
        self.spool.remove(receipts)
        for record in self._records.glob("*.json"):
            record.unlink(missing_ok=True)
        leftovers = self.spool.unfinished()
        if leftovers:
            yield f"{len(leftovers)} unfinished files are left in the spool."


def _eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + REST_S
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _until_still(look: Callable[[], Vitals]) -> Vitals:
    """The vitals once nothing ends any more: the fewest handles and threads within a second."""
    seen = []
    end = time.monotonic() + 1
    while time.monotonic() < end:
        seen.append(look())
        time.sleep(0.05)
    return min(seen, key=lambda each: (each.handles, each.threads))
