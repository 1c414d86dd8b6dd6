"""`hilum hl7`: messages that came, and messages to send."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilum.cli.context import (
    ConfigOption,
    DataOption,
    Exit,
    Group,
    JsonOption,
    connected,
    err,
    loaded,
    moment,
    out,
    show_facts,
    show_json,
    show_table,
)
from hilum.errors import Misconfigured, TryAgain
from hilum.words import counted

if TYPE_CHECKING:
    from hilum.database.hl7_messages import Line
    from hilum.settings import Settings


def add_to(app: typer.Typer) -> None:
    """Add the commands to the group `hl7`, which is made if nobody has."""
    group = next((each.typer_instance for each in app.registered_groups if each.name == "hl7"), None)
    if group is None:
        group = typer.Typer(cls=Group, help="See and send HL7 messages.", no_args_is_help=True)
        app.add_typer(group, name="hl7")
    for command in (send, validate, show, replay):
        group.command(command.__name__)(command)
    group.command("list")(list_messages)


def list_messages(
    kind: Annotated[str, typer.Option("--type", help="Only these, such as `ADT` or `ADT^A08`.")] = "",
    sender: Annotated[str, typer.Option("--sender", help="Only of this sender: its name, MSH-3 or address.")] = "",
    control_id: Annotated[str, typer.Option("--control-id", help="Only with this MSH-10.")] = "",
    since: Annotated[str, typer.Option("--since", help="Only since then: `2026-01-31T18:00`, or how long ago, such as `2h`.")] = "",
    refused: Annotated[bool, typer.Option("--refused", help="Only what was not taken.")] = False,
    findings: Annotated[bool, typer.Option("--findings", help="Only those with something odd.")] = False,
    patient: Annotated[str, typer.Option("--patient", help="Only those that name this patient, former identifiers included.")] = "",
    order: Annotated[str, typer.Option("--order", help="Only those that name this placer, filler or accession number.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="So many at most, newest first.")] = 50,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List messages that came, newest first."""
    from hilum.cli.moments import moment_of
    from hilum.database import hl7_messages

    settings = connected(config, data)
    found = hl7_messages.list_messages(
        settings.postgres.dsn,
        limit=limit,
        kind=kind,
        sender=sender,
        control_id=control_id,
        since=moment_of(since, "--since"),
        refused=True if refused else None,
        findings=findings,
        patient=patient,
        order=order,
    )
    if json:
        show_json(found)
        return
    columns = ("Received", "From", "Message", "Control id", "Version", "Bytes", "Outcome", "Id")
    show_table("", columns, map(_line, found), nothing="No message fits.")


def show(
    which: Annotated[str, typer.Argument(help="The message's id, or its control id if only one has it.", metavar="MESSAGE")],
    raw: Annotated[bool, typer.Option("--raw", help="Write the message's bytes as they came, and nothing else.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show a message: what is known of it, and every field that has something."""
    from hilum.database.hl7_messages import find_message
    from hilum.hl7.message import NotHl7, each_path, parse

    settings = connected(config, data)
    found = find_message(settings.postgres.dsn, which)
    if raw:
        sys.stdout.buffer.write(_bytes_of(settings, found))
        return
    if json:
        show_json(found)
        return
    show_facts(
        {
            "Id": found["message_id"],
            "Received": moment(found["received_at"]),
            "From": _from(found["sender"], found["sending_application"], found["peer"]),
            "Refused": found["refused"],
            "Because": found["sentence"],
            "Answered": found["acknowledgement"],
            "Bytes": found["size_bytes"],
            "Character set": found["character_set"],
            "Stored as": found["object_key"],
            "Says again": found["replays"],
        }
    )
    noted = [*(found["findings"] or []), *(found["grammar"] or [])]
    if noted:
        out.print()
        show_table("Findings", ("Finding", "Where", "Says"), [(each["code"], each["path"], each["sentence"]) for each in noted])
    out.print()
    try:
        show_table("Fields", ("Field", "Value"), each_path(parse(found["text"])))
    except NotHl7:
        out.print(found["text"], markup=False)


def send(
    files: Annotated[list[Path], typer.Argument(help="Files with one message or one batch each; `-` reads standard input.")],
    to: Annotated[str, typer.Option("--to", help="HOST:PORT of the receiver; without it this Hilum's own listener.")] = "",
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS.")] = False,
    ca: Annotated[str, typer.Option("--ca", help="PEM file of the authorities to trust; without it the system's.")] = "",
    certificate: Annotated[str, typer.Option("--certificate", help="PEM file of the certificate to show, if the receiver wants one.")] = "",
    key: Annotated[str, typer.Option("--key", help="PEM file of its private key; without it, it is in the certificate's.")] = "",
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for an acknowledgement.")] = 30.0,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Send messages, one after the other, and show what each is answered. Exit code 6 if some were not accepted, 1 if none was."""
    from hilum.client_tls import ClientTls
    from hilum.hl7.charset import decode
    from hilum.hl7.message import NotHl7, parse
    from hilum.mllp_client import MllpClient

    contents = [(str(file), _content(file)) for file in files]
    tls = tls or bool(ca or certificate)
    host, port = _address(to, loaded(config, data).settings, tls=tls)
    said: list[dict[str, Any]] = []
    with MllpClient(host, port, tls=ClientTls(ca=ca, certificate=certificate, key=key) if tls else None, timeout_s=timeout) as client:
        for name, content in contents:
            text = decode(client.send(content.strip(b"\x0b\x1c\r\n") + b"\r")).text
            try:
                message = parse(text[max(text.find("MSH"), 0) :])
            except NotHl7:
                said.append({"file": name, "code": "", "control_id": "", "says": "The answer is no HL7 message."})
                continue
            for segment in message.segments("MSA"):
                sentences = (segment.get(3), *(each.get(8) for each in message.segments("ERR")))
                says = " ".join(dict.fromkeys(filter(None, sentences)))
                said.append({"file": name, "code": segment.get(1), "control_id": segment.get(2), "says": says})
    accepted = sum(each["code"] in ("AA", "CA") for each in said)
    if json:
        show_json(said)
    else:
        show_table("", ("File", "Answer", "Control id", "Says"), [tuple(each.values()) for each in said])
    if accepted < len(said):
        sys.exit(Exit.PARTLY if accepted else Exit.FAILED)


def validate(
    file: Annotated[Path, typer.Argument(help="A file with one message; `-` reads standard input.")],
    json: JsonOption = False,
) -> None:
    """Hold a message against the grammar of its version. Nothing is stored or sent. Exit code 1 if a strict sender would be refused."""
    from hilum.hl7.charset import decode
    from hilum.hl7.validation import validated

    faults = validated(decode(_content(file).strip(b"\x0b\x1c\r\n")).text)
    if json:
        rows = [{"code": each.code, "path": each.path, "sentence": each.sentence, "grave": each.grave} for each in faults]
        show_json(rows)
    else:
        shown = [(each.code, each.path, each.condition, each.sentence) for each in faults]
        show_table("", ("Finding", "Where", "Condition", "Says"), shown, nothing="Nothing is wrong with it.")
    if any(each.grave for each in faults):
        sys.exit(Exit.FAILED)


def replay(
    which: Annotated[list[str], typer.Argument(help="Ids of messages, or control ids that only one has.", metavar="MESSAGE...")],
    pass_on: Annotated[bool, typer.Option("--pass-on", help="Pass them on to other systems again, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be said again, and to whom.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Say messages again on `hl7.message.received.v1`, such as after their sender's profile was corrected. Each gets a new id.

    Destinations that messages are passed on to do not get them again without `--pass-on`.
    """
    from hilum import desired
    from hilum.database.hl7_messages import find_message
    from hilum.hl7_replay import passed_on_to, replayed

    settings = connected(config, data)
    found = [find_message(settings.postgres.dsn, each) for each in which]
    for each in found:
        if each["refused"]:
            raise Misconfigured("message-refused", f"{each['message_id']} was not taken: it is no message.", fix="Have it sent again.")
    others = passed_on_to(desired.destinations(settings), found)
    to = others if pass_on else []
    if not json:
        for each in found:
            out.print(f"{each['message_id']}  {each['code']}^{each['trigger']}  {moment(each['received_at'])}", markup=False)
        if others:
            says = "They are passed on again" if pass_on else "They are not passed on again (--pass-on does that)"
            out.print(f"{says}: {', '.join(others)}.", markup=False)
    if dry_run:
        if json:
            show_json([{"message_id": each["message_id"], "said_again_as": "", "passed_on_to": to} for each in found])
        return
    if not yes and not typer.confirm(f"Say {counted(len(found), 'message')} again?", err=True):
        sys.exit(Exit.REFUSED)
    pairs = replayed(settings, found, pass_on=pass_on)
    if json:
        show_json([{"message_id": old, "said_again_as": new, "passed_on_to": to} for old, new in pairs])
    else:
        for old, new in pairs:
            out.print(f"{old} is said again as {new}.", markup=False)


def _line(line: Line) -> tuple[Any, ...]:
    outcome = line.refused and f"refused: {line.refused} ({line.acknowledgement or 'no answer'})"
    if not outcome:
        outcome = f"{line.findings} finding{'s' * (line.findings != 1)}" if line.findings else "taken"
        outcome += " (said again)" if line.replays else ""
    kind = f"{line.code or ''}^{line.trigger}" if line.trigger else line.code
    sender = _from(line.sender, line.sending_application, line.peer)
    return moment(line.received_at), sender, kind, line.control_id, line.version, line.size_bytes, outcome, line.message_id


def _from(sender: str | None, application: str | None, peer: str | None) -> str:
    return f"{sender or application or 'unknown'} ({peer})" if peer else sender or application or ""


def _content(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise Misconfigured("file-unreadable", f"{file} cannot be read: {error.strerror}.", fix="Check its path and rights.") from None


def _bytes_of(settings: Settings, found: dict[str, Any]) -> bytes:
    """The message's bytes: those that came if they are stored, else its text in the character set that it came in."""
    from hilum.hl7.charset import encode
    from hilum.store import open_store

    if found["object_key"]:
        return open_store(settings).get(found["bucket"], found["object_key"])
    if found["raw"]:
        return bytes(found["raw"])
    try:
        if found["read_as"]:
            return str(found["text"]).encode(found["read_as"])
        return encode(found["text"], (found["character_set"] or "").split("~")[0] or "UTF-8")
    except (ValueError, LookupError):
        err.print("hilum: this is UTF-8; the message came in another character set.", markup=False)
        return str(found["text"]).encode()


def _address(to: str, settings: Settings, *, tls: bool) -> tuple[str, int]:
    if not to:
        from hilum.up import hl7_of

        address = hl7_of(settings, tls=tls)
        if address is None and hl7_of(settings, tls=not tls) is not None:
            says = f"This Hilum takes HL7 messages {'without' if tls else 'over'} TLS only."
            raise Misconfigured("tls-only", says, fix=f"Send {'without' if tls else 'with'} --tls.")
        if address is None:
            raise TryAgain("No HL7 listener of this Hilum runs.", fix="Name one with --to HOST:PORT, or add `hl7` to roles.processes.")
        return address
    host, _, port = to.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise Misconfigured("address-invalid", f"--to: {to!r} is no HOST:PORT.", fix="Write it as ris.example:2575.")
    return host.strip("[]"), int(port)
