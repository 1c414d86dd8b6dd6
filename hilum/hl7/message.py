"""A message as segments, fields, repetitions, components and subcomponents (HL7 v2.5.1 2.5), read as tolerantly as hospitals need.

Reading changes nothing: what the sender wrote stays there as `text`, with one carriage return between segments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from msgspec import Struct

from .delimiters import DEFAULT, Delimiters

#: A field as repetitions of components of subcomponents, all as values without escape sequences.
Field = list[list[list[str]]]

HEADERS = ("MSH", "FHS", "BHS")
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}\Z")
_PATH = re.compile(
    r"(?P<segment>[A-Z][A-Z0-9]{2})(\[(?P<nth>[1-9]\d{0,4})\])?-(?P<field>[1-9]\d{0,2})(\[(?P<repetition>[1-9]\d{0,4})\])?"
    r"(\.(?P<component>[1-9]\d{0,2}))?(\.(?P<subcomponent>[1-9]\d{0,2}))?\Z"
)


class NotHl7(ValueError):
    """The text is no HL7 message; says in words why, without a value of it. `code` is of table 0357, `segment` and `field` say where."""

    def __init__(self, sentence: str, *, code: str = "100", segment: str = "MSH", field: int = 0) -> None:
        super().__init__(sentence)
        self.code = code
        self.segment = segment
        self.field = field


class Segment(Struct, frozen=True):
    """One segment; `field(3)` is its third field by HL7's own counting."""

    text: str
    delimiters: Delimiters = DEFAULT

    @property
    def name(self) -> str:
        """Three characters, such as `PID`."""
        return self.text[:3]

    def raws(self) -> list[str]:
        """All fields as they are written; the first is the name, and in MSH, FHS and BHS the second is the field separator."""
        found = self.text.split(self.delimiters.field)
        if found[0] in HEADERS:
            found.insert(1, self.delimiters.field)
        return found

    def raw(self, number: int) -> str:
        """Field `number` as it is written, with its repetitions; empty if it is not there."""
        return nth(self.raws(), number)

    def field(self, number: int) -> Field:
        """Field `number`: its repetitions, each a list of components, each a list of subcomponents; `[]` if it is empty or absent.

        A field that is to be deleted holds `""`, two quotation marks (2.5.3).
        """
        raw = self.raw(number)
        if not raw:
            return []
        if number <= 2 and self.name in HEADERS:
            return [[[raw]]]
        return [
            [[self.delimiters.unescape(part) for part in _split(component, self.delimiters.subcomponent)] for component in components]
            for components in (_split(repetition, self.delimiters.component) for repetition in _split(raw, self.delimiters.repetition))
        ]

    def get(self, number: int, component: int = 1, subcomponent: int = 1, repetition: int = 1) -> str:
        """One value, all counted from 1; empty if it is not there."""
        raw = self.raw(number)
        if not raw or (number <= 2 and self.name in HEADERS):
            return raw
        for separator, position in (
            (self.delimiters.repetition, repetition),
            (self.delimiters.component, component),
            (self.delimiters.subcomponent, subcomponent),
        ):
            raw = nth(_split(raw, separator), position - 1)
        return self.delimiters.unescape(raw)


class Message(Struct, frozen=True):
    """A message: its segments in their order. `odd` has codes of what had to be overlooked to read it."""

    delimiters: Delimiters
    all: tuple[Segment, ...]
    odd: tuple[str, ...] = ()

    def segments(self, name: str) -> list[Segment]:
        """All segments of that name, in their order."""
        return [segment for segment in self.all if segment.name == name]

    def first(self, name: str) -> Segment | None:
        """The first segment of that name."""
        return next((segment for segment in self.all if segment.name == name), None)

    def get(self, path: str, default: str = "") -> str:
        """One value by its path, such as `PID-3.4`, `PID-3[2].1`, `OBX[2]-5` or `PID-3.4.2`; all counted from 1.

        Where the path says less, the first is meant: `PID-5` is the first component. `default` if there is no value.
        Raises `ValueError` for what is no path.
        """
        segment, nth_segment, field, repetition, component, subcomponent = parsed_path(path)
        found = self.segments(segment)
        if nth_segment > len(found):
            return default
        return found[nth_segment - 1].get(field, component, subcomponent, repetition) or default

    @property
    def text(self) -> str:
        """The message, each segment ended by a carriage return (2.5.2)."""
        return "".join(f"{segment.text}\r" for segment in self.all)

    @property
    def code(self) -> str:
        """MSH-9.1, such as `ADT`."""
        return self.get("MSH-9.1")

    @property
    def trigger(self) -> str:
        """MSH-9.2, such as `A08`; in a message without it, what EVN-1 says."""
        return self.get("MSH-9.2") or self.get("EVN-1")


def parse(text: str) -> Message:
    """Read one message.

    Carriage returns, line feeds and both together end segments. A line that begins with no segment's name goes on with the
    line before, as when a report's line ends were not escaped. Raises `NotHl7` if there is no MSH with delimiters that can be told apart.
    """
    lines = _LINE_ENDS.split(text.lstrip("\ufeff\r\n\t \x00"))
    if lines[0][:3] != "MSH":
        raise NotHl7("The message does not begin with MSH.")
    delimiters, odd = read_delimiters(lines[0])
    segments: list[str] = []
    strange = set(odd)
    for line in lines:
        if _SEGMENT.match(line[:3]) and (len(line) == 3 or line[3] == delimiters.field):
            segments.append(line)
        elif line.strip("\x00 \t\x1a"):
            segments[-1] += "\n" + line
            strange.add("segment-broken")
    return Message(delimiters, tuple(Segment(segment, delimiters) for segment in segments), tuple(sorted(strange)))


def read_delimiters(header: str) -> tuple[Delimiters, tuple[str, ...]]:
    """What MSH, FHS or BHS says that separates, and codes of what is odd about it. Raises `NotHl7`."""
    if header[:3] not in HEADERS:
        raise NotHl7("The message does not begin with MSH.")
    name = header[:3]
    separator = header[3:4]
    if not separator or separator.isalnum() or separator.isspace() or ord(separator) < 0x20 or separator == '"':
        raise NotHl7(f"{name}-1 is no field separator.", code="102", segment=name, field=1)
    encoding = header[4:].split(separator, 1)[0]
    if len(encoding) > 5 or any(
        character.isalnum() or character.isspace() or ord(character) < 0x20 or character == '"' for character in encoding
    ):
        raise NotHl7(f"{name}-2 is no list of encoding characters.", code="102", segment=name, field=2)
    if len(set(encoding)) < len(encoding):
        raise NotHl7(f"{name}-2 has the same encoding character twice.", code="102", segment=name, field=2)
    if not encoding:
        raise NotHl7(f"{name}-2 is empty.", code="101", segment=name, field=2)
    odd = () if len(encoding) >= 4 else ("encoding-characters-missing",)
    component, repetition, escape, subcomponent, truncation = [*encoding, *("" for _ in range(5 - len(encoding)))]
    return Delimiters(separator, component, repetition, escape, subcomponent, truncation), odd


@lru_cache(maxsize=4096)
def parsed_path(path: str) -> tuple[str, int, int, int, int, int]:
    """Segment, which of them, field, repetition, component and subcomponent. Raises `ValueError`."""
    found = _PATH.match(path)
    if found is None:
        raise ValueError(f"{path!r} is no path into a message, such as PID-3.4 or OBX[2]-5")
    numbers = [int(found[name] or 1) for name in ("nth", "field", "repetition", "component", "subcomponent")]
    return (found["segment"], *numbers)  # type: ignore[return-value]  # five numbers, as the list above says


def build(segments: Sequence[tuple[str, Sequence[str | Field]]], delimiters: Delimiters = DEFAULT) -> str:
    """A message's text: each segment's name and fields from 1 on (MSH from MSH-3 on); a `str` is one value and is escaped."""
    return "".join(f"{_segment(name, fields, delimiters)}\r" for name, fields in segments)


def _segment(name: str, fields: Sequence[str | Field], delimiters: Delimiters) -> str:
    begin = [name, delimiters.encoding] if name in HEADERS else [name]
    return delimiters.field.join([*begin, *(write(field, delimiters) for field in fields)]).rstrip(delimiters.field)


def write(field: str | Field, delimiters: Delimiters = DEFAULT) -> str:
    """A field as it is written; a `str` is one value."""
    if isinstance(field, str):
        return delimiters.escaped(field)
    return delimiters.repetition.join(
        delimiters.component.join(delimiters.subcomponent.join(map(delimiters.escaped, component)) for component in repetition)
        for repetition in field
    )


def each_path(message: Message) -> Iterator[tuple[str, str]]:
    """Every field that has something, as (path, text as written), for a person to read."""
    counts: dict[str, int] = {}
    for segment in message.all:
        counts[segment.name] = counts.get(segment.name, 0) + 1
        which = f"[{counts[segment.name]}]" if counts[segment.name] > 1 else ""
        for number, raw in enumerate(segment.raws()):
            if number and raw:
                yield f"{segment.name}{which}-{number}", raw


def nth(parts: Sequence[str], position: int) -> str:
    """The part at `position`, from 0; empty if there are fewer."""
    return parts[position] if position < len(parts) else ""


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else [text]
