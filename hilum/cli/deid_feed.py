"""`hilum deid feed`: where a research feed is, and the keys of who reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from hilum.cli.context import ConfigOption, DataOption, JsonOption, connected, show_json, show_table
from hilum.errors import Misconfigured, NotFound

if TYPE_CHECKING:
    from hilum.settings import Settings


class FeedLine(Struct, frozen=True, kw_only=True):
    """Where a feed is, and where its reader's keys are: never the keys themselves."""

    destination: str
    bucket: str
    endpoint: str
    bootstrap: str
    topics: tuple[str, ...]
    #: The name of the reader in Kafka, and of its consumer group; empty if none has keys, or Kafka is the site's own.
    user: str = ""
    #: The file with the keys; empty if there are none.
    keys: str = ""
    #: Which of `store` and `kafka` are the site's own, where keys are given out there.
    elsewhere: tuple[str, ...] = ()


def add_to(deid: typer.Typer) -> None:
    """Add the commands of this module to the group `deid`."""
    deid.command(epilog="Example: hilum deid feed cohort --make")(feed)


def feed(
    destination: Annotated[str, typer.Argument(help="A destination of type research.")],
    make: Annotated[bool, typer.Option("--make", help="Make the reader's keys, if it has none.")] = False,
    end: Annotated[bool, typer.Option("--end", help="End the reader's keys, at once.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="End them; without, it is only told.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show where a research feed is, and in which file its reader's keys are: they may read its bucket and the research topics alone.

    In servers that run here, that is: for a site's own it says where they are. Keys are shown nowhere; copy the file to who reads the feed.
    Exit code 3: there is no such destination, or nobody's keys to end.
    """
    from hilum.services import readers

    if make and end:
        raise Misconfigured("feed-options", "--make and --end are given.", fix="Give one of both.")
    settings = connected(config, data)
    if end:
        known = readers.read_reader(settings.data_dir, destination)
        if known is None:
            raise NotFound(f"Nobody has keys for the feed {destination}.", fix="Make them with --make.")
        if yes:
            readers.end(settings, destination)
        said = f"The keys of {known.name} {'open nothing any more' if yes else 'would end; do it with --yes'}."
        if json:
            show_json({"destination": destination, "ended": yes, "dry_run": not yes})
        else:
            typer.echo(said)
        return
    line = _line(settings, destination, make=make)
    if json:
        show_json(line)
        return
    rows = [
        ("Bucket", f"{line.bucket} at {line.endpoint}"),
        ("Topics", f"{', '.join(line.topics)} at {line.bootstrap}"),
        ("Keys", line.keys or ("given out where these servers are managed" if len(line.elsewhere) == 2 else "none; make them with --make")),
        ("User and group", line.user),
        ("The site's own", ", ".join(line.elsewhere)),
    ]
    show_table(f"The feed {destination}", (), [row for row in rows if row[1]])


def _line(settings: Settings, destination: str, *, make: bool) -> FeedLine:
    from hilum import bus, desired
    from hilum.misfits import nearest
    from hilum.services import readers
    from hilum.sink import sink_of
    from hilum.store import open_store
    from hilum.study_events import InstanceDeidentified, PatientLinked

    tables = desired.destinations(settings).destinations
    table = tables.get(destination)
    if table is None or table.get("type") != "research":
        near = nearest(destination, [name for name, each in tables.items() if each.get("type") == "research"])
        fix = f"Did you mean {near}?" if near else "See `hilum dest list`."
        raise NotFound(f"There is no destination {destination!r} of type research.", fix=fix)
    sink_of(destination, table)  # so that what is wrong with it is said as elsewhere
    bucket, endpoint = str(table["bucket"]), str(table.get("endpoint", ""))
    topics = tuple(bus.topic_of(settings, kind) for kind in (InstanceDeidentified, PatientLinked))
    in_store, in_kafka = readers.embedded_here(settings)
    in_store = in_store and endpoint in ("", settings.s3.endpoint)
    found = readers.read_reader(settings.data_dir, destination)
    reader = found if found is not None and found.bucket == bucket else None
    if make:
        if in_store:
            open_store(settings).ensure_bucket(bucket)
        reader = readers.admit(settings, destination, bucket, topics, own_store=in_store)
    at = readers.reached_at(settings)
    return FeedLine(
        destination=destination,
        bucket=bucket,
        endpoint=at.endpoint if in_store else endpoint or settings.s3.endpoint,
        bootstrap=at.bootstrap if in_kafka else settings.kafka.bootstrap,
        topics=topics,
        user=reader.name if reader is not None and reader.password else "",
        keys=str(readers.reader_file(settings.data_dir, destination)) if reader is not None else "",
        elsewhere=tuple(name for name, here in (("store", in_store), ("kafka", in_kafka)) if not here),
    )
