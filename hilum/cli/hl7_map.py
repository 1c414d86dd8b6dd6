"""`hilum hl7 map`: what a message becomes, by a profile, before anybody relies on it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilum.cli.context import ConfigOption, DataOption, JsonOption, err, loaded, out, show_json, show_table
from hilum.errors import Misconfigured

if TYPE_CHECKING:
    from hilum.hl7.facts import Mapped, OrderFacts


def map_message(
    file: Annotated[Path, typer.Argument(help="A file with one HL7 message; `-` reads standard input.")],
    sender: Annotated[str, typer.Option("--sender", help="Map as for this sender of `hl7.senders`.")] = "",
    profile: Annotated[str, typer.Option("--profile", help="Map by this profile, whatever the sender's is.")] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a message becomes: its patient, its orders and what was noticed. Nothing is stored or sent."""
    from hilum.hl7 import charset, mapping
    from hilum.hl7.fieldmaps import fieldmap
    from hilum.hl7.message import NotHl7, parse
    from hilum.hl7.named import named
    from hilum.hl7.senders import defaults_of

    settings = loaded(config, data).settings
    if sender and sender not in settings.hl7.senders:
        raise Misconfigured(
            "hl7-sender-unknown",
            f"hl7.senders has no {sender!r}.",
            fix=f"There are {', '.join(settings.hl7.senders) or 'none'}.",
        )
    known = settings.hl7.senders.get(sender)
    chosen = fieldmap(profile or (known.profile if known else "hl7"))
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise Misconfigured("file-unreadable", f"{file} cannot be read: {error.strerror}.", fix="Check its path and rights.") from None
    text = charset.decode(raw.strip(b"\x0b\x1c\r\n"), (known.character_set if known else "") or settings.hl7.character_set).text
    try:
        message = parse(text)
    except NotHl7 as why:
        raise Misconfigured("hl7-unreadable", f"{file}: {why}", fix="Give a file that begins with MSH.") from None
    mapped = mapping.map_message(message, chosen, defaults_of(settings, sender))
    if json:
        show_json({"profile": profile or (known.profile if known else "hl7"), "basis": chosen.basis, "mapped": mapped})
        return
    out.print(f"{mapped.message}: {mapped.kind}, by the profile {chosen.title} ({chosen.basis})", markup=False)
    if mapped.kind == "other":
        out.print("Nothing of orders or patients follows from it; it is kept, indexed and passed on.")
    names = named(message)
    rows = [("names patients", ", ".join(names.patient_ids)), ("names orders", ", ".join(names.order_numbers))]
    show_table("", ("", "Value"), [*_rows(mapped), *(row for row in rows if row[1] and mapped.kind == "other")])
    for note in mapped.notes:
        err.print(f"{note.code}: {note.sentence}", markup=False)


def _rows(mapped: Mapped) -> Iterator[tuple[str, str]]:
    yield "said at", mapped.said_at.isoformat() if mapped.said_at else "when it comes"
    for number, patient in enumerate(mapped.patients, 1):
        name = "patient" if len(mapped.patients) == 1 else f"patient {number}"
        yield f"{name}.ids", ", ".join(map(_text, patient.ids))
        yield from ((f"{name}.{key}", _text(value)) for key, value in patient.facts.items())
    for merge in mapped.merges:
        yield mapped.kind, f"{_text(merge.prior)} becomes {_text(merge.surviving)}"
    for admission in mapped.admissions:
        yield "admission", _text(admission)
    for number, order in enumerate(mapped.orders, 1):
        yield from _order_rows("order" if len(mapped.orders) == 1 else f"order {number}", order)


def _order_rows(name: str, order: OrderFacts) -> Iterator[tuple[str, str]]:
    yield name, " ".join(each for each in (order.control, order.change, order.status) if each)
    for kind in ("placer", "filler"):
        if (number := getattr(order, kind)) is not None:
            yield f"{name}.{kind}", _text(number)
    yield from ((f"{name}.{key}", _text(value)) for key, value in order.facts.items())
    for procedure in order.procedures:
        where = f"{name}.procedure {procedure.key}".rstrip()
        yield from ((f"{where}.{key}", _text(value)) for key, value in procedure.facts.items())
        for step in procedure.steps:
            yield from ((f"{where}.step {step.key}".rstrip() + f".{key}", _text(value)) for key, value in step.facts.items())


def _text(value: Any) -> str:
    """A value as a person reads it."""
    from hilum.order_events import Code, Identifier

    if value is None:
        return "(deleted)"
    if isinstance(value, Identifier):
        issuer = value.issuer or value.universal_id
        return f"{value.value} of {issuer}" if issuer else value.value
    if isinstance(value, Code):
        return " ".join(each for each in (value.value, value.meaning and f"({value.meaning})", value.scheme) if each)
    if isinstance(value, list):  # a time: DA, TM, and the moment
        return " ".join(str(each) for each in value[:2] if each)
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    return str(value)


def add_to(app: typer.Typer) -> None:
    """Add the command to the group `hl7`, which is made if nobody has."""
    from hilum.cli.context import Group

    group = next((each.typer_instance for each in app.registered_groups if each.name == "hl7"), None)
    if group is None:
        group = typer.Typer(cls=Group, help="See and send HL7 messages.", no_args_is_help=True)
        app.add_typer(group, name="hl7")
    group.command("map")(map_message)
