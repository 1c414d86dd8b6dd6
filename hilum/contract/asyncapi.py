"""The AsyncAPI 3 document: which topics there are, who may read them, and what a message on them looks like."""

from __future__ import annotations

from typing import Any

from hilum import __version__
from hilum.contract.schemas import Schema, schema_of
from hilum.events import EVENTS, Event

HEADERS: Schema = {
    "type": "object",
    "description": "CloudEvents 1.0 attributes (Kafka binding, binary mode) and W3C trace context, as UTF-8 text.",
    "required": ["ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time", "ce_subject", "ce_phi", "content-type", "traceparent"],
    "properties": {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_type": {"type": "string", "description": "The event type; also the topic's name."},
        "ce_source": {"type": "string", "description": "Which Hilum and which stage of it said so: `/hilum/SITE/STAGE`."},
        "ce_id": {"type": "string", "description": "The same fact, said again, has the same id: drop what you have."},
        "ce_time": {"type": "string", "format": "date-time", "description": "When the fact came to be (UTC)."},
        "ce_subject": {"type": "string", "description": "What the fact is about, by UID or id."},
        "ce_phi": {"enum": ["full", "limited", "none"], "description": "The topic's PHI class."},
        "ce_configversion": {"type": "string", "description": "Version of the destinations, rules and senders in force."},
        "ce_causationid": {"type": "string", "description": "Id of the event that this one follows from; absent where it is the first."},
        "content-type": {"type": "string", "const": "application/json"},
        "traceparent": {"type": "string", "description": "W3C Trace Context: one trace for everything that follows from one receipt."},
    },
}


def asyncapi() -> dict[str, Any]:
    """The document as plain data. Message payloads refer to the JSON Schemas in the same folder."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Hilum",
            "version": __version__,
            "description": "Facts about images on their way through a hospital. Topics are read with `isolation.level=read_committed`; "
            "readers ignore members that they do not know. Schemas only grow within a major version.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {kind.topic.name: _channel(kind) for kind in EVENTS.values()},
        "operations": {f"send{kind.__name__}": _operation(kind) for kind in EVENTS.values()},
        "components": {
            "messages": {kind.__name__: _message(kind) for kind in EVENTS.values()},
            "schemas": {"Headers": HEADERS},
        },
    }


def _channel(kind: type[Event]) -> dict[str, Any]:
    topic = kind.topic
    kafka: dict[str, Any] = {
        "topic": topic.name,
        **({"partitions": topic.partitions} if topic.partitions else {}),
        "topicConfiguration": {"cleanup.policy": [topic.cleanup], "retention.ms": topic.retention_ms},
        "bindingVersion": "0.5.0",
    }
    return {
        "address": topic.name,
        "description": kind.__doc__,
        "messages": {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"}},
        "bindings": {"kafka": kafka},
        "x-phi": topic.phi,
        "x-partitions": topic.partitions or "kafka.partitions",
    }


def _operation(kind: type[Event]) -> dict[str, Any]:
    channel = kind.topic.name
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{kind.__name__}"}],
    }


def _message(kind: type[Event]) -> dict[str, Any]:
    schema = schema_of(kind)
    return {
        "name": kind.topic.name,
        "title": kind.__name__,
        "summary": kind.__doc__,
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/Headers"},
        "payload": {"$ref": f"./{kind.topic.name}.json"},
        "bindings": {
            "kafka": {"key": {"type": "string", "description": _first_of(schema["x-key"])}, "bindingVersion": "0.5.0"},
        },
    }


def _first_of(members: list[str]) -> str:
    named = [f"`{member}`" for member in members]
    return f"The value of {named[0]}" + "".join(f", or of {name} if that is empty" for name in named[1:]) + "."
