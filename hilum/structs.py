"""Have msgspec know all structs before there are threads.

What msgspec finds out about a struct's fields, when it is first decoded to or validated against, it puts in place before it is whole
(`StructInfo_Convert` in msgspec 0.22). A second thread that comes to the same struct meanwhile takes the half of it, and the process
ends by SIGSEGV.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from weakref import WeakSet

import msgspec

_known: WeakSet[type[msgspec.Struct]] = WeakSet()


def prepare_structs() -> None:
    """Have all structs of the imported modules prepared that are not yet. Call it before threads use what was imported."""
    for struct in set(_all(msgspec.Struct)) - set(_known):
        with suppress(TypeError, NameError):  # of one whose types msgspec cannot have, or type checkers alone: nothing is decoded to it
            msgspec.json.Decoder(struct)
        _known.add(struct)


def _all(base: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for struct in base.__subclasses__():
        yield struct
        yield from _all(struct)
