"""One JSON Schema (2020-12) for each event type, from its class."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_type_hints

import msgspec
from msgspec import Struct

from hilum.comments import comments_of
from hilum.contract.examples import example_of
from hilum.events import EVENTS, Event, decode, encode

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def schema_of(kind: type[Event]) -> Schema:
    """The schema of the message value of `kind`, complete in itself.

    Objects stay open: members that a schema does not name may be there and are to be ignored. `x-phi` is the topic's PHI
    class; `x-key` and `x-subject` name the members that the Kafka key and CloudEvents' `subject` repeat (the first that is not empty).
    """
    (_,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    structs = {part.__name__: part for part in _structs_in(kind)}
    for name, part in parts.items():
        if name in structs:
            _describe(part, structs[name])
        elif "enum" in part:
            parts[name] = _open_vocabulary(part, name)
    top = parts.pop(kind.__name__)
    top.pop("title")
    schema = {
        "$schema": DIALECT,
        "$id": f"urn:hilum:{kind.topic.name}",
        "title": kind.topic.name,
        "x-phi": kind.topic.phi,
        "x-key": _members_with(kind, "key"),
        "x-subject": _members_with(kind, "subject"),
        **top,
        **({"$defs": dict(sorted(parts.items()))} if parts else {}),
    }
    plain: Schema = msgspec.json.decode(msgspec.json.encode(schema))  # as a reader of the file has it: lists, no tuples
    return plain


def _describe(part: Schema, struct: type[Struct]) -> None:
    """Add what the source says of each member; moments are RFC 3339 texts."""
    comments = comments_of(struct)
    hints = get_type_hints(struct)
    for field in msgspec.structs.fields(struct):
        member = part["properties"][field.encode_name]
        if hints[field.name] is datetime.datetime:
            member["format"] = "date-time"
        if said := comments.get(field.name):
            member["description"] = said


def _open_vocabulary(part: Schema, name: str) -> Schema:
    """An enumeration class is a vocabulary that grows: its schema lists what is known and lets other words pass."""
    enums = {cls.__name__: cls for cls in _enums()}
    known = {word.value: str(getattr(word, "meaning", "")) for word in enums[name]}
    said = f"{part['description']} An open vocabulary: take a word that you do not know for one that is newer than your code."
    return {"title": name, "description": said, "type": "string", "x-known-values": known}


def _enums() -> set[type[Enum]]:
    hints = [hint for kind in EVENTS.values() for struct in _structs_in(kind) for hint in get_type_hints(struct).values()]
    return {hint for hint in hints if isinstance(hint, type) and issubclass(hint, Enum)}


def _structs_in(kind: type[Struct]) -> list[type[Struct]]:
    """`kind` and every struct that its members hold."""
    found: list[type[Struct]] = []

    def walk(node: Any) -> None:
        if isinstance(node, msgspec.inspect.StructType) and node.cls not in found:
            found.append(node.cls)
            for field in node.fields:
                walk(field.type)
        elif not isinstance(node, msgspec.inspect.StructType):
            for name in ("item_type", "item_types", "value_type", "types", "type"):
                inner = getattr(node, name, None)
                for each in inner if isinstance(inner, tuple) else (inner,):
                    if isinstance(each, msgspec.inspect.Type):
                        walk(each)

    walk(msgspec.inspect.type_info(kind))
    return found


def _members_with(kind: type[Event], what: str) -> list[str]:
    """Which members the event's `key` or `subject` repeats, as dotted paths: the first that is not empty.

    Found by asking: in the example each value is another, and a member that was found is emptied before the next question.
    """
    event, found = example_of(kind), []
    while wanted := getattr(event, what):
        data = msgspec.json.decode(encode(event))
        path = next(_paths_to(wanted, data, ()))
        found.append(".".join(path))
        holder = data
        for name in path[:-1]:
            holder = holder[name]
        holder[path[-1]] = ""
        event = decode(kind, msgspec.json.encode(data))
    return found


def _paths_to(wanted: str, value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _paths_to(wanted, item, (*path, name))
    elif value == wanted:
        yield path
