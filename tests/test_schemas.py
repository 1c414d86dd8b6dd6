"""The schemas are what the events are, the examples fit them, and nobody who relies on them is broken."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker, ValidationError  # type: ignore[import-untyped]  # it ships no types

from hilum.bus import Writer
from hilum.contract import Incompatible, contract_files, differences, incompatibilities, write
from hilum.events import EVENTS, decode
from hilum.settings import Settings

SCHEMAS = Path(__file__).parent.parent / "schemas"

FORMATS = FormatChecker(formats=())

Schema = dict[str, Any]


@FORMATS.checks("date-time", raises=ValueError)  # type: ignore[untyped-decorator]  # as above
def is_moment(text: object) -> bool:
    return isinstance(text, str) and datetime.fromisoformat(text).tzinfo is not None


def schema(name: str) -> Schema:
    loaded: Schema = json.loads((SCHEMAS / f"{name}.json").read_text("utf-8"))
    return loaded


def example(name: str) -> Any:
    return json.loads((SCHEMAS / "examples" / f"{name}.json").read_text("utf-8"))


def test_the_committed_files_are_the_generated_ones() -> None:
    assert differences(SCHEMAS) == [], "run ./dev write"


@pytest.mark.parametrize("name", EVENTS)
def test_each_schema_is_valid_and_its_example_fits_it(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))

    Draft202012Validator(schema(name), format_checker=FORMATS).validate(example(name))


@pytest.mark.parametrize("name", EVENTS)
def test_each_example_is_an_event_that_hilum_reads(name: str) -> None:
    event = decode(EVENTS[name], (SCHEMAS / "examples" / f"{name}.json").read_bytes())

    assert event.key
    assert event.subject


@pytest.mark.parametrize("name", EVENTS)
def test_each_schema_refuses_an_event_without_a_required_member(name: str) -> None:
    incomplete = example(name)
    del incomplete[schema(name)["required"][0]]

    with pytest.raises(ValidationError, match="required"):
        Draft202012Validator(schema(name)).validate(incomplete)


@pytest.mark.parametrize("name", EVENTS)
def test_a_topic_without_patients_has_no_member_that_holds_a_header(name: str) -> None:
    if schema(name)["x-phi"] != "full":
        assert "Instance" not in schema(name).get("$defs", {})
        assert "InputEvent" not in schema(name).get("$defs", {})


def test_the_asyncapi_document_names_each_topic_with_key_class_retention_and_schema() -> None:
    document = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text("utf-8"))

    assert document["asyncapi"].startswith("3.")
    assert list(document["channels"]) == list(EVENTS)
    for name, channel in document["channels"].items():
        kind = EVENTS[name]
        message = document["components"]["messages"][kind.__name__]
        kafka = channel["bindings"]["kafka"]
        assert channel["x-phi"] == kind.topic.phi
        assert kafka["topic"] == channel["address"] == name
        assert kafka["topicConfiguration"] == {"cleanup.policy": [kind.topic.cleanup], "retention.ms": kind.topic.retention_ms}
        assert (SCHEMAS / message["payload"]["$ref"]).is_file()
        named = set(re.findall("`([a-z_.]+)`", message["bindings"]["kafka"]["key"]["description"]))
        assert named, name
        assert all(hasattr(kind, each.partition(".")[0]) for each in named)


@pytest.mark.parametrize("name", EVENTS)
def test_the_asyncapi_document_describes_every_header_that_hilum_writes(name: str) -> None:
    document = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text("utf-8"))
    headers = document["components"]["schemas"]["Headers"]
    event = decode(EVENTS[name], (SCHEMAS / "examples" / f"{name}.json").read_bytes())

    record = Writer(Settings(), "validate").record(event, "an-id", cause="another-id")

    written = {header: value.decode() for header, value in record.headers if isinstance(value, bytes)}
    assert written.keys() == headers["properties"].keys()
    Draft202012Validator(headers, format_checker=FORMATS).validate(written)


def test_every_reference_in_the_asyncapi_document_leads_somewhere() -> None:
    document = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text("utf-8"))

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            return [node["$ref"]] if "$ref" in node else [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    for reference in references(document):
        if reference.startswith("#/"):
            target: Any = document
            for part in reference.removeprefix("#/").split("/"):
                target = target[part]


RELEASED: Schema = {
    "title": "imaging.thing.seen.v1",
    "x-phi": "limited",
    "x-key": ["uid"],
    "type": "object",
    "properties": {
        "uid": {"type": "string"},
        "count": {"type": "integer", "default": 0},
        "state": {"enum": ["done", "undone"]},
        "reason": {"$ref": "#/$defs/Reason"},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["uid", "state", "parts"],
    "$defs": {
        "Part": {"type": "object", "properties": {"name": {"type": "string"}, "more": {"$ref": "#/$defs/Part"}}, "required": ["name"]},
        "Reason": {"type": "string", "x-known-values": {"lost": "It is lost."}},
    },
}

Change = Callable[[Schema], object]


def after(change: Change) -> list[str]:
    now = copy.deepcopy(RELEASED)
    change(now)
    return incompatibilities(RELEASED, now)


ALLOWED: dict[str, Change] = {
    "nothing": lambda now: now,
    "another description": lambda now: now["properties"]["uid"].update(description="Now explained."),
    "an optional member": lambda now: now["properties"].update(where={"type": "string", "default": ""}),
    "an optional member of a part": lambda now: now["$defs"]["Part"]["properties"].update(size={"type": "integer"}),
    "a word in an open vocabulary": lambda now: now["$defs"]["Reason"]["x-known-values"].update(late="It is late."),
    "a part that moved into the schema": lambda now: now["properties"].update(reason=now["$defs"]["Reason"]),
}


@pytest.mark.parametrize("change", ALLOWED)
def test_a_schema_may_grow_by(change: str) -> None:
    assert after(ALLOWED[change]) == []


REFUSED: dict[str, tuple[Change, str]] = {
    "a member gone": (lambda now: now["properties"].pop("count"), "count: it would be gone"),
    "a member renamed": (
        lambda now: now["properties"].update(counts=now["properties"].pop("count")),
        "count: it would be gone",
    ),
    "a new required member": (
        lambda now: (now["properties"].update(where={"type": "string"}), now["required"].append("where")),
        "where: it is new and required",
    ),
    "a member that becomes required": (lambda now: now["required"].append("count"), "count: it would be required"),
    "a member that becomes optional": (lambda now: now["required"].remove("state"), "state: it would be optional"),
    "another type": (lambda now: now["properties"]["count"].update(type="string"), "count: type was 'integer'"),
    "a wider type": (lambda now: now["properties"]["count"].update(type="number"), "count: type was 'integer'"),
    "another default": (lambda now: now["properties"]["count"].update(default=1), "count: default was 0"),
    "a new bound": (lambda now: now["properties"]["count"].update(minimum=1), "count: minimum was absent"),
    "a value of a closed vocabulary gone": (lambda now: now["properties"]["state"]["enum"].pop(), "state: enum was"),
    "a value in a closed vocabulary": (lambda now: now["properties"]["state"]["enum"].append("half"), "state: enum was"),
    "a word of an open vocabulary gone": (lambda now: now["$defs"]["Reason"]["x-known-values"].clear(), "reason: the word 'lost'"),
    "an open vocabulary closed": (lambda now: now["$defs"].update(Reason={"enum": ["lost"]}), "reason: "),
    "another item": (lambda now: now["properties"]["parts"].update(items={"type": "string"}), "parts[]: "),
    "items of any kind": (lambda now: now["properties"]["parts"].pop("items"), "parts: whether its items have a schema"),
    "a part's member gone": (lambda now: now["$defs"]["Part"]["properties"].pop("name"), "parts[].name: it would be gone"),
    "no null any more": (lambda now: now["properties"]["note"]["anyOf"].pop(), "note: it had 2 alternatives"),
    "members that must be known": (lambda now: now.update(additionalProperties=False), "the event: additionalProperties was absent"),
    "another PHI class": (lambda now: now.update({"x-phi": "full"}), "the event: x-phi was 'limited'"),
    "another key": (lambda now: now.update({"x-key": ["receipt"]}), "the event: x-key was ['uid']"),
}


@pytest.mark.parametrize("change", REFUSED)
def test_a_schema_may_not_change_by(change: str) -> None:
    how, said = REFUSED[change]

    assert any(sentence.startswith(said) for sentence in after(how)), after(how)


def test_writing_refuses_to_replace_a_schema_by_one_that_breaks_it_and_leaves_the_files_alone(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "imaging.instance.routed.v1.json"
    released = json.loads(path.read_text("utf-8"))
    released["properties"]["gone_by_now"] = {"type": "string"}
    path.write_text(json.dumps(released), encoding="utf-8")

    with pytest.raises(Incompatible, match="gone_by_now: it would be gone"):
        write(tmp_path)

    assert "gone_by_now" in path.read_text("utf-8")


def test_writing_refuses_a_topic_that_lost_its_name(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "imaging.instance.stored.v1.json").write_text("{}", encoding="utf-8")

    with pytest.raises(Incompatible, match=r"imaging\.instance\.stored\.v1: no event has this type"):
        write(tmp_path)


def test_writing_adds_what_is_absent_and_nothing_differs_afterwards(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "asyncapi.yaml").unlink()
    assert differences(tmp_path) == ["asyncapi.yaml"]

    write(tmp_path)

    assert differences(tmp_path) == []
    assert len(contract_files()) == 1 + 2 * len(EVENTS)
