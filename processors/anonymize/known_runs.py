"""Runs of elements that stood so, byte for byte, in an object before: what is done with them is known, and is not found out again.

Objects of a series differ in a few elements. Whatever is the same is compared as one run of bytes and replaced by what it became last time,
under the same policy, key, patient and names. Nothing is guessed: a run with one other byte is parted there, and walked element by element.
"""

from __future__ import annotations

from collections import Counter
from mmap import mmap
from typing import Any

from processors.anonymize.charsets import Charset

#: A run is looked up by the head of its first element and so much of its value: not by the next element, which may vary.
KEY_BYTES = 16
#: A run is no longer than this; nor are those remembered of one policy and SOP class, together.
MOST_BYTES, _MOST_IN_ALL, _MOST_RUNS = 8192, 4 * 2**20, 8192
#: Patients, and policies' keys, for whom a run's outcome is remembered.
_MOST_OUTCOMES = 64
#: An element that differed so often is one that varies; for so many differences in all it is not tried again.
_OFTEN, _MOST_DIFFERED = 3, 4000

CHARACTER_SET = 0x00080005
#: Private blocks of which something stays, by group and block: their creators, and the places in them.
Blocks = dict[int, tuple[str, set[int]]]
NO_BLOCKS: Blocks = {}


class Run:
    """Elements of the top level, in order. What is found in it is told from its own beginning."""

    __slots__ = (
        "blocks",
        "blocks_after",
        "edits",
        "ends",
        "found",
        "names",
        "of_patient",
        "outcomes",
        "tags",
        "text",
        "text_after",
        "whole",
    )

    def __init__(self, whole: bytes, ends: list[int], tags: list[int], text: Charset, blocks: Blocks) -> None:
        self.whole = whole
        #: Where each element ends, and its tag.
        self.ends, self.tags = ends, tags
        #: What holds at its beginning: the character set, and if that is private, the blocks of its group of which something stays.
        self.text, self.blocks = text, blocks
        #: What a walk over it finds, once it is met again; see `Walk`.
        self.edits: list[Any] | None = None
        self.names: tuple[frozenset[str], ...] = ()
        self.found: dict[int, tuple[int, int]] = {}
        self.text_after, self.blocks_after = text, blocks
        #: Whether what becomes of it depends on the patient or on names in the object; else it is the same for all of a project.
        self.of_patient = True
        #: What it became, by the `Values` of policy, key, patient and names, or by the project's `Pseudonyms`.
        self.outcomes: dict[object, bytes] = {}

    def remember(self, whose: object, outcome: bytes) -> bytes:
        """Remember what it became; the outcome."""
        if len(self.outcomes) >= _MOST_OUTCOMES:
            self.outcomes = {}
        self.outcomes[whose] = outcome
        return outcome

    def part(self, first: int, last: int) -> Run:
        """The elements from one to before another."""
        begin = self.ends[first - 1] if first else 0
        ends = [end - begin for end in self.ends[first:last]]
        return Run(self.whole[begin : begin + ends[-1]], ends, self.tags[first:last], self.text, self.blocks if not first else {})

    def tells_from(self, first: int) -> bool:
        """Whether what holds at an element's place is the same as at the beginning, as far as the tags before tell."""
        group = self.tags[first] >> 16
        return CHARACTER_SET not in self.tags[:first] and not (group & 1 and self.tags[first - 1] >> 16 == group)


class Runs(dict[bytes, Run]):
    """The runs of one policy, SOP class and encoding, by their first bytes. Bounded: when there are too many, all are forgotten."""

    def __init__(self, length_at: int) -> None:
        """`length_at` is where the low byte of an element's length is."""
        super().__init__()
        self._length_at = length_at
        self._size_bytes = 0
        #: Tags that differ from object to object: those are in no run.
        self.varying: set[int] = set()
        self._differed: Counter[int] = Counter()
        self._differences = 0

    def _differs(self, tag: int) -> None:
        self._differed[tag] += 1
        if self._differed[tag] >= _OFTEN:
            self.varying.add(tag)
        self._differences += 1
        if self._differences > _MOST_DIFFERED:  # what varied in a series that is over may not in the next
            self._differences = 0
            self._differed.clear()
            self.varying.clear()

    def add(self, run: Run) -> None:
        """Remember a run that was not met before, in place of one that begins alike."""
        self._differs(run.tags[0])
        self._put(run)

    def _put(self, run: Run) -> None:
        size = len(run.whole)
        if size > MOST_BYTES:
            return
        if self._size_bytes + size > _MOST_IN_ALL or len(self) >= _MOST_RUNS:
            self.clear()
            self._size_bytes = 0
        self._forget(run)
        self._size_bytes += size
        self[self._key(run)] = run

    def _key(self, run: Run) -> bytes:
        return run.whole[: 8 + min(run.whole[self._length_at], KEY_BYTES)]

    def _forget(self, run: Run) -> None:
        old = self.pop(self._key(run), None)
        if old is not None:
            self._size_bytes -= len(old.whole)

    def parted(self, run: Run, data: bytes | mmap, at: int) -> Run | None:
        """The part of a run that stands at `at`; from here on, it and what is behind the element that differs are runs of their own.

        None if the first element differs.
        """
        begin = same = 0
        for end in run.ends:
            if data[at + begin : at + end] != run.whole[begin:end]:
                break
            begin, same = end, same + 1
        self._differs(run.tags[same])
        if not same:
            if run.tags[0] in self.varying:
                self._forget(run)
            return None
        self._forget(run)
        if same + 1 < len(run.ends) and run.tells_from(same + 1):
            self._put(run.part(same + 1, len(run.ends)))
        before = run.part(0, same)
        self._put(before)
        return before


def blocks_of(blocks: Blocks, tag: int) -> Blocks:
    """Those of a private element's group that began before it: by them it is told what stays of those that follow."""
    return {block: said for block, said in blocks.items() if block >> 8 == tag >> 16} if blocks and tag >> 16 & 1 else NO_BLOCKS
