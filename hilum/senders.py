"""Exceptions for single senders that hold at once: who was allowed or blocked by hand.

One small file beside the spool, `senders.json`, which every receiver of that spool looks at when a peer asks for an association
or sends a request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec
from msgspec import Struct

from hilum.errors import Misconfigured
from hilum.services.files import write_atomically
from hilum.settings import Settings


class SenderException(Struct, frozen=True, kw_only=True):
    """What was said of one sender."""

    blocked: bool
    #: Networks from which it may call, beside those in the settings; empty: no more than these say.
    addresses: tuple[str, ...] = ()
    since: datetime


class Exceptions:
    """The exceptions in `file`, read again whenever it has changed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._seen = -1
        self._known: dict[str, SenderException] = {}

    @classmethod
    def of(cls, settings: Settings) -> Exceptions:
        """Those beside the spool that `settings` name."""
        return cls(settings.spool_dir / "senders.json")

    def of_sender(self, calling_aet: str) -> SenderException | None:
        """What was said of a sender, if anything was."""
        return self.all().get(calling_aet)

    def all(self) -> dict[str, SenderException]:
        """All of them by calling AE title. A file that cannot be read leaves what was known before."""
        with self._lock:
            try:
                change = self._file.stat().st_mtime_ns
                if change != self._seen:
                    self._known = _read(self._file)
                    self._seen = change
            except FileNotFoundError:
                self._known, self._seen = {}, -1
            except (OSError, msgspec.MsgspecError):
                pass
            return self._known

    def put(self, calling_aet: str, *, blocked: bool, addresses: tuple[str, ...] = ()) -> None:
        """Allow or block a sender from now on. Raises `Misconfigured` if the file cannot be written."""
        self._change({calling_aet: SenderException(blocked=blocked, addresses=addresses, since=datetime.now(UTC))})

    def forget(self, calling_aet: str) -> bool:
        """Let the settings alone say what holds for a sender. Returns whether there was an exception."""
        return self._change({calling_aet: None})

    def _change(self, changes: dict[str, SenderException | None]) -> bool:
        try:
            known = _read(self._file) if self._file.exists() else {}
            before = dict(known)
            for calling_aet, exception in changes.items():
                known.pop(calling_aet, None)
                if exception is not None:
                    known[calling_aet] = exception
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self._file, msgspec.json.encode(known).decode())
        except (OSError, msgspec.MsgspecError) as error:
            raise Misconfigured(
                "senders-unwritable", f"{self._file} cannot be changed ({type(error).__name__}).", fix="Check its rights, or remove it."
            ) from None
        return known != before


def is_among(peer: str, networks: Iterable[str]) -> bool:
    """Whether the address `peer` lies in one of `networks`, which are addresses or networks; also if it is written in IPv6."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    plain = getattr(address, "ipv4_mapped", None) or address
    return any(plain in ip_network(network, strict=False) for network in networks)


def _read(file: Path) -> dict[str, SenderException]:
    return msgspec.json.decode(file.read_bytes(), type=dict[str, SenderException])
