"""`hilum dest test|rejected`, `hilum echo`, `hilum send`: the DICOM network by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct
from msgspec.structs import replace
from rich.progress import track

from hilum.cli import destinations
from hilum.cli.context import ConfigOption, DataOption, Exit, Group, JsonOption, connected, err, loaded, moment, out, show_json, show_table
from hilum.cli.deliver import send_studies
from hilum.cli.profiles import list_profiles
from hilum.errors import HilumError, Misconfigured, NotFound, TryAgain
from hilum.settings import Settings
from hilum.words import counted

HostOption = Annotated[str | None, typer.Option("--host", help="The peer's address; without it, this Hilum's own listener.")]
PortOption = Annotated[int | None, typer.Option("--port", help="The peer's DICOM port.")]
AetOption = Annotated[str | None, typer.Option("--aet", help="The peer's AE title (called).")]
CallingOption = Annotated[str, typer.Option("--calling-aet", help="The AE title to call with.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    group = typer.Typer(cls=Group, help="See, test and change destinations.", no_args_is_help=True)
    destinations.add_to(group)
    group.command("test")(try_destination)
    group.command("rejected")(list_rejected)
    group.command("profiles")(list_profiles)
    app.add_typer(group, name="dest")
    app.command()(echo)
    app.command()(send)


def try_destination(
    name: Annotated[str, typer.Argument(help="The destination's name in the settings.")],
    with_object: Annotated[bool, typer.Option("--with-object", help="Store a marked test object there, of patient HILUM-TEST.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Do nearly what a delivery does, step by step; exit code 5 if a step fails. Nothing is stored there without `--with-object`."""
    import difflib

    from hilum.runtime.delivery.cleans import try_policy
    from hilum.sink import sinks_of

    settings, runs = _settings_of_now(config, data)
    if name not in settings.destinations:
        near = difflib.get_close_matches(name, settings.destinations, n=1)
        raise NotFound(f"There is no destination {name!r}.", fix=f"Did you mean {near[0]}?" if near else "See `hilum dest list`.")
    if not runs and settings.destinations[name].get("type") == "archive":
        connected(config, data)  # says so: a peer can be tested before Hilum runs, its own store cannot
    with err.status(f"Testing {name}"):
        sink = sinks_of(settings)[name]
        steps = list(try_policy(name, sink, settings))
        if all(step.ok for step in steps):
            steps += sink.check(settings, with_object=with_object)
    if json:
        show_json(steps)
    else:
        words = [("WARNING" if step.warning else "ok") if step.ok else "FAILED" for step in steps]
        rows = [
            (word, step.name, f"{1000 * step.seconds:.0f} ms", f"{step.says} {step.fix}") for word, step in zip(words, steps, strict=True)
        ]
        show_table("", ("", "Step", "Took", ""), rows)
    sys.exit(Exit.DONE if all(step.ok for step in steps) else Exit.UNREACHABLE)


def _settings_of_now(config: Path | None, data: Path | None) -> tuple[Settings, bool]:
    """If Hilum runs, with the destinations and policies as they were applied, or added by hand; and whether it runs."""
    from hilum import desired

    try:
        own = connected(config, data)
    except NotFound:
        return loaded(config, data).settings, False
    try:
        return desired.destinations(own), True
    except (TryAgain, Misconfigured):
        return own, True


def list_rejected(
    name: Annotated[str, typer.Argument(help="Only what this destination did not take.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", help="Show at most so many.", min=1)] = 100,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List deliveries that were not taken in the end, and why, latest first. The peers' own words may name patients."""
    from hilum.database.queries import rejected_deliveries

    found = rejected_deliveries(connected(config, data).postgres.dsn, destination=name, limit=limit)
    if json:
        show_json(found)
        return
    rows = [
        (r.destination, moment(r.settled_at), r.sop_instance_uid, r.study_instance_uid, r.attempts, r.peer_status, r.comment) for r in found
    ]
    columns = ("To", "At", "Instance", "Study", "Attempts", "Status", "Why")
    show_table("", columns, rows, nothing="No delivery was rejected.")


def echo(
    host: HostOption = None,
    port: PortOption = None,
    aet: AetOption = None,
    calling_aet: CallingOption = "HILUM_ECHO",
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for a connection and for each answer.", min=0.1)] = 5.0,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Ask a peer, or this Hilum's own listener, for C-ECHO (PS3.7 9.1.5)."""
    import time

    from hilum.association import echo as c_echo

    asked = peer_named(host, port, aet, calling_aet, config, data)
    peer = replace(asked, connect_timeout_s=timeout, association_timeout_s=timeout, response_timeout_s=timeout)
    began = time.perf_counter()
    with err.status(f"Waiting for {peer.address}"):
        answer = c_echo(peer)
    took_ms = 1000 * (time.perf_counter() - began)
    if json:
        show_json(
            {"host": peer.host, "port": peer.port, "aet": peer.aet, "status": f"0x{answer.status:04X}", "milliseconds": round(took_ms, 1)}
        )
    else:
        out.print(f"{peer.aet} at {peer.address} answered 0x{answer.status:04X} after {took_ms:.0f} ms.")
    sys.exit(Exit.DONE if answer.status == 0 else Exit.FAILED)


class Outcome(Struct, frozen=True, kw_only=True):
    """What the peer answered for one file; its status is `not sent` or `no answer` if it did not."""

    file: str
    status: str
    comment: str = ""

    @property
    def stored(self) -> bool:
        """Success, or a warning with which the object is stored (PS3.4 B.2.3)."""
        return self.status == "0x0000" or self.status.startswith("0xB")


def send(
    what: Annotated[
        list[str],
        typer.Argument(help="Part 10 files, or folders that are searched for them; with --to, StudyInstanceUIDs or AccessionNumbers."),
    ],
    to: Annotated[str, typer.Option("--to", help="Deliver studies of the index to this destination of the settings.")] = "",
    urgent: Annotated[bool, typer.Option("--urgent", help="With --to: before all others.")] = False,
    host: HostOption = None,
    port: PortOption = None,
    aet: AetOption = None,
    calling_aet: CallingOption = "HILUM_SEND",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Send files by C-STORE to this Hilum, or to a peer, each byte for byte in its own transfer syntax.

    With `--to`, have studies that Hilum has delivered to a destination, whatever the rules say and whether or not it has them.
    """
    if to:
        if host or port or aet:
            raise Misconfigured("peer-and-destination", "--to names a destination, and --host, --port and --aet a peer.", fix="Give one.")
        send_studies(connected(config, data), what, to, dry_run, urgent, json)
        return
    from hilum.scu import Outgoing, outgoing, reason_of, send_all, status_of

    found: list[Outgoing] = []
    unreadable: list[Outcome] = []
    for path in _files(map(Path, what)):
        try:
            found.append(outgoing(path))
        except HilumError as error:
            unreadable.append(Outcome(file=str(path), status="not sent", comment=error.sentence.removeprefix(f"{path} is ")))
    if dry_run:
        rows = [(one.path, one.sop_class_uid, one.transfer_syntax_uid) for one in found]
        if json:
            show_json(
                [{"file": str(one.path), "sop_class": one.sop_class_uid, "transfer_syntax": one.transfer_syntax_uid} for one in found]
            )
        else:
            show_table("", ("File", "SOP class", "Transfer syntax"), rows)
            out.print(f"Would be sent: {counted(len(found), 'object')}; no DICOM objects: {counted(len(unreadable), 'file')}.")
        return
    peer = peer_named(host, port, aet, calling_aet, config, data)
    sent = track(send_all(peer, found), total=len(found), description="Sending", console=err, disable=json)
    outcomes = [
        *(Outcome(file=str(one.path), status=status_of(answer), comment=reason_of(answer)) for one, answer in sent),
        *unreadable,
    ]
    stored = sum(outcome.stored for outcome in outcomes)
    if json:
        show_json({"sent": len(found), "stored": stored, "outcomes": outcomes})
    else:
        failed = [(o.file, o.status, o.comment) for o in outcomes if not o.stored]
        if failed:
            show_table("Not stored", ("File", "Status", "Why"), failed)
        out.print(f"Stored at {peer.aet}: {stored} of {counted(len(outcomes), 'file')}.")
    sys.exit(Exit.DONE if stored == len(outcomes) else Exit.PARTLY if stored else Exit.FAILED)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.is_file())
        elif path.is_file():
            yield path
        else:
            raise NotFound(f"{path} does not exist.", fix="Name a file or a folder.")


def peer_named(host: str | None, port: int | None, aet: str | None, calling_aet: str, config: Path | None, data: Path | None) -> Any:
    """The peer that options name, or this Hilum's own listener. Raises `Misconfigured`."""
    from hilum.kinds import check_ae_title
    from hilum.peer import Peer
    from hilum.up import listener_of

    check_ae_title(calling_aet, "--calling-aet")
    if aet is not None:
        check_ae_title(aet, "--aet")
    listener = listener_of(loaded(config, data).settings)
    if host is not None and port is None:
        raise Misconfigured("port-missing", f"No port is given for {host}.", fix="Add --port.")
    own = "127.0.0.1" if listener.host == "0.0.0.0" else listener.host  # noqa: S104  # compared, not bound
    return Peer(host=host or own, port=port or listener.port, aet=aet or listener.aet, calling_aet=calling_aet)
