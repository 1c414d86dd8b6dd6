"""What an example of a sender's mistake says; `examples` has them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct, field


class Example(Struct, frozen=True, kw_only=True):
    """One way to be wrong. `sent` gives what goes over the wire, in pieces."""

    title: str
    sent: Callable[[], Iterator[bytes]]
    #: Settings of `[hl7]` with which it is sent.
    settings: dict[str, Any] = field(default_factory=dict)
    #: Whether the sender keeps its connection open, so that it is for the listener to end it.
    stays: bool = False
    #: MSA-1 of each acknowledgement.
    answers: tuple[str, ...]
    #: Condition code (table 0357) of the last acknowledgement, and where it says that it is; empty without.
    condition: str = ""
    place: str = ""
    #: What is kept: of each message `received`, or why it is `refused`.
    kept: tuple[str, ...]
    #: Findings of the last of them.
    findings: tuple[str, ...] = ()
    #: What becomes of it, for people.
    outcome: str
