"""Passages that stood so, byte for byte, in a file that was read before: their elements are known, and so is what was made of those.

It is the second look's own, as its reader is: the engine's memory (`known_runs.py`) is another one, and neither knows what the other holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

#: A passage is looked up by the head of its first element, and at most so much of its value: of no other, lest that be one that varies.
KEY_BYTES = 16
#: A value longer than this is in no passage.
LONGEST = 2048
#: An element that differed so often is one that varies; for so many differences in all it is not tried again.
_OFTEN, _MOST_DIFFERED = 3, 4000
_MOST_BYTES, _MOST_IN_ALL, _MOST_PASSAGES, _MOST_REMEMBERED = 4096, 4 * 2**20, 8192, 64


#: Passages of one object come together again in the next of its series: what was made of all of them is known by so many of these.
MOST_TOGETHER = 64
Made = TypeVar("Made")


class Passage:
    """Elements of a file's top level, and all that is in them."""

    __slots__ = ("_remembered", "charset", "charset_after", "ends", "lanes", "syntax", "whole")

    def __init__(self, whole: bytes = b"", ends: tuple[int, ...] = (), charset: bytes = b"", lanes: list[list[Any]] | None = None) -> None:
        self.whole = whole
        #: Where each element of the top level ends.
        self.ends = ends
        #: The SpecificCharacterSet before it.
        self.charset = charset
        #: What a reader finds in it; None until it is met again.
        self.lanes = lanes
        #: And then: the SpecificCharacterSet behind it, and the transfer syntax if it names one.
        self.charset_after, self.syntax = charset, b""
        self._remembered: dict[int, tuple[object, Any]] = {}

    def made(self, of: object, make: Callable[[list[list[Any]]], Made]) -> Made:
        """What `make` made of its elements for this very object (a scope, a pattern), which is made once."""
        found = self._remembered.get(id(of))
        if found is not None and found[0] is of:
            known: Made = found[1]
            return known
        assert self.lanes is not None
        what = make(self.lanes)
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered = {}
        self._remembered[id(of)] = (of, what)  # holds `of`, so that its id is nobody else's
        return what

    def part(self, first: int, last: int) -> Passage:
        """Its elements from one to before another."""
        begin = self.ends[first - 1] if first else 0
        ends = tuple(end - begin for end in self.ends[first:last])
        return Passage(self.whole[begin : begin + ends[-1]], ends, self.charset)


class Passages:
    """The passages of files in one encoding. Bounded: when there are too many, all are forgotten."""

    def __init__(self, low: int) -> None:
        """`low` is where the low byte of an element's length is, after its beginning."""
        self.by_beginning: dict[bytes, Passage] = {}
        self._low = low
        self._size_bytes = 0
        #: First bytes (group and element) of those that differ from file to file: they are in no passage.
        self.varying: set[bytes] = set()
        self._differed: Counter[bytes] = Counter()
        self._differences = 0

    def _differs(self, element: bytes) -> None:
        self._differed[element] += 1
        if self._differed[element] >= _OFTEN:
            self.varying.add(element)
        self._differences += 1
        if self._differences > _MOST_DIFFERED:
            self.try_again()

    def try_again(self) -> None:
        """What varied in a series that is over may not in the next."""
        self._differences = 0
        self._differed.clear()
        self.varying.clear()

    def parted(self, passage: Passage, data: bytes, pos: int, charset: bytes) -> Passage | None:
        """As much of a passage as stands at `pos`, which is not all of it; None if its first element is another one, or text is encoded
        otherwise.
        """
        if passage.charset != charset:
            return None
        same, begin = 0, 0
        for end in passage.ends:
            if not data.startswith(passage.whole[begin:end], pos + begin):
                break
            same, begin = same + 1, end
        self._differs(passage.whole[begin : begin + 4])
        if not same:
            if passage.whole[:4] in self.varying:
                old = self.by_beginning.pop(self._key(passage), None)
                self._size_bytes -= len(old.whole) if old is not None else 0
            return None
        if same + 1 < len(passage.ends) and not _may_name_charset(passage.whole[: passage.ends[same]]):
            self._add(passage.part(same + 1, len(passage.ends)))
        before = passage.part(0, same)
        self._add(before)
        return before

    def learn(self, data: bytes, begins: list[int], stop: int, charset: bytes) -> None:
        """Keep the elements that begin at `begins`, the last of which ends at `stop`; one by itself is sooner read."""
        if len(begins) < 2:
            return
        if stop - begins[0] > _MOST_BYTES:
            half = len(begins) // 2
            self.learn(data, begins[:half], begins[half], charset)
            if not _may_name_charset(data[begins[0] : begins[half]]):
                self.learn(data, begins[half:], stop, charset)
            return
        self._differs(data[begins[0] : begins[0] + 4])
        ends = tuple(each - begins[0] for each in (*begins[1:], stop))
        self._add(Passage(data[begins[0] : stop], ends, charset))

    def _add(self, passage: Passage) -> None:
        if self._size_bytes > _MOST_IN_ALL or len(self.by_beginning) >= _MOST_PASSAGES:
            self.by_beginning.clear()
            self._size_bytes = 0
        key = self._key(passage)
        before = self.by_beginning.get(key)
        self._size_bytes += len(passage.whole) - (len(before.whole) if before is not None else 0)
        self.by_beginning[key] = passage

    def _key(self, passage: Passage) -> bytes:
        return passage.whole[: 8 + min(passage.whole[self._low], KEY_BYTES)]


def _may_name_charset(some: bytes) -> bool:
    return b"\x08\x00\x05\x00" in some or b"\x00\x08\x00\x05" in some
