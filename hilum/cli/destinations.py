"""`hilum dest list|add|pause|resume|limit|remove`: which destinations there are, and what people want of them.

What is wanted is desired state on Kafka: it holds on every machine within a second, and outlives restarts.
"""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import structs
from msgspec.structs import replace

from hilum.cli.context import ConfigOption, DataOption, JsonOption, connected, err, moment, out, show_json, show_table
from hilum.cli.deliver import check_destination, configured
from hilum.cli.holds import WhyOption
from hilum.errors import Misconfigured

if TYPE_CHECKING:
    from hilum.database.queries import DestinationCount
    from hilum.events import Limits
    from hilum.settings import Settings

NameArgument = Annotated[str, typer.Argument(help="The destination's name.")]
_RETIRES_WITHIN_S = 10.0
#: Names are written into logs, metrics and keys.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def add_to(group: typer.Typer) -> None:
    """Add the commands of this module to the group `dest`."""
    for name, command in (
        ("list", list_destinations),
        ("add", add),
        ("pause", pause),
        ("resume", resume),
        ("limit", limit),
        ("remove", remove),
    ):
        group.command(name)(command)


def list_destinations(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Show each destination, how much waits for it, since when, and why."""
    from hilum.database.queries import destination_counts
    from hilum.waiting import circumstances

    settings = connected(config, data)
    now = circumstances(settings)
    if now.unknown:
        err.print(now.unknown, markup=False)
    counts = {count.destination: count for count in destination_counts(settings.postgres.dsn)}
    known = now.settings.destinations
    tables = {**known, **{name: {"type": "(removed)"} for name, each in counts.items() if name not in known and left(each)}}
    rows = [
        {
            "name": name,
            "type": table.get("type", ""),
            "added_by_hand": now.wanted.added.get(name) == table,
            "wanted": now.wanted.destinations.get(name),
            "counts": counts.get(name),
            "limits": now.limits(name),
            "waits_because": now.queue(name) if name in now.queues else "; ".join(now.of_destination(name) if name in known else ()),
        }
        for name, table in tables.items()
    ]
    if json:
        show_json(rows)
        return
    columns = (
        *("Destination", "Type", "Waiting", "Parked", "Oldest", "Delivered", "Already there", "Rejected"),
        *("Limited to", "Waits because"),
    )
    shown = []
    for row in rows:
        count = counts.get(row["name"])
        figures = (
            (0, 0, "", 0, 0, 0)
            if count is None
            else (count.pending, count.parked, moment(count.oldest_pending), count.delivered, count.already_there, count.rejected)
        )
        shown.append((row["name"], row["type"], *figures, row["limits"], row["waits_because"]))
    show_table("", columns, shown, nothing="There is no destination in the settings.")


def left(count: DestinationCount) -> int:
    """How much of what a destination got or should have got is still to be seen once it is removed: all that the account counts."""
    return count.pending + count.parked + count.rejected + count.delivered + count.already_there + count.returned


def add(
    name: NameArgument,
    setting: Annotated[list[str], typer.Option("--set", help="One of its settings, such as type=dicom, host=192.0.2.40, port=104.")],
    why: WhyOption = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Add a destination while Hilum runs, or change one that was added so. Rules that are applied may name it, too."""
    from hilum import desired
    from hilum.notices import message_destinations
    from hilum.settings import is_secret

    settings = connected(config, data)
    if not _NAME.fullmatch(name):
        fix = "Take letters, digits, hyphens and underscores, 63 at most."
        raise Misconfigured("destination-name", f"A destination cannot be called {name!r}.", fix=fix)
    if name in configured(settings):
        fix = "Change it there; `hilum apply` publishes a configuration."
        raise Misconfigured("destination-exists", f"{name} is in the settings, or in the configuration that was applied.", fix=fix)
    table: dict[str, Any] = {}
    for each in setting:
        key, equals, value = each.partition("=")
        if not equals:
            raise Misconfigured("setting-invalid", f"--set {key} has no value.", fix="Write it as --set key=value.")
        if is_secret(f"destinations.{name}.{key}"):
            fix = "Add the destination to the settings, where a secret can be read from a file."
            raise Misconfigured("secret-on-kafka", f"{key} is a secret, and would be written to Kafka.", fix=fix)
        table[key] = _value(key, value)
    if message_destinations({name: table}):
        fix = "Put it into the settings or the files of `hilum apply`: what happens from then on is told."
        raise Misconfigured("destination-takes-messages", f"A destination of type {table['type']} is not added by hand.", fix=fix)
    _refuse_misfits(name, table, settings)
    wanted = desired.change(settings, desired.destination(name), table=table, why=why)
    if json:
        show_json(wanted)
    else:
        out.print(f"{name} is a destination now. Try it with `hilum dest test {name}`.", markup=False)


def _value(key: str, text: str) -> Any:
    """A setting's value: a list or table as TOML has it, the members of a group also as `a,b`, and else the text."""
    if text.startswith(("[", "{")):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            fix = """Write a list as --set 'key=["a", "b"]', a table as --set 'key={ "a" = "b" }'."""
            raise Misconfigured("setting-invalid", f"--set {key}: {text!r} is no value of TOML.", fix=fix) from None
    return text.split(",") if key == "members" else text


def _refuse_misfits(name: str, table: dict[str, Any], settings: Settings) -> None:
    """Raise `Misconfigured` if the destination cannot work beside the others, or a group of which it is a member cannot work with it."""
    from hilum import desired
    from hilum.sink import sink_of

    tables = {**desired.read(settings).added, **configured(settings), name: table}
    beside = replace(settings, destinations=tables)
    sink_of(name, table).fits(name, beside)
    for group in groups_of(name, tables):
        sink_of(group, tables[group]).fits(group, beside)


def groups_of(name: str, tables: Mapping[str, dict[str, Any]]) -> list[str]:
    """The groups of which a destination is a member."""
    return [group for group, table in tables.items() if table.get("type") == "group" and name in table.get("members", ())]


def pause(name: NameArgument, why: WhyOption = "", config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Deliver nothing to a destination until it is resumed, for weeks if need be. Its queue waits; the object under way is finished."""
    _change(name, config, data, json, f"{name} is paused.", paused=True, why=why)


def resume(name: NameArgument, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Let a paused destination go on."""
    _change(name, config, data, json, f"{name} goes on.", paused=False, why="")


def limit(
    name: NameArgument,
    objects_per_s: Annotated[float | None, typer.Option("--objects-per-s", help="Objects a second; 0: no limit.", min=0)] = None,
    megabytes_per_s: Annotated[float | None, typer.Option("--megabytes-per-s", help="Megabytes a second; 0: no limit.", min=0)] = None,
    associations: Annotated[int | None, typer.Option("--associations", help="Associations at once; 0: no limit.", min=0, max=1024)] = None,
    hours: Annotated[str | None, typer.Option("--hours", help="When it is delivered to: `Mo-Fr 18:00-07:00`; empty: always.")] = None,
    none: Annotated[bool, typer.Option("--none", help="What the settings say holds again.")] = False,
    why: WhyOption = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Limit what a destination gets, in place of what its settings say, over all processes together. Other limits stay; --none ends all."""
    from hilum import desired
    from hilum.events import Limits
    from hilum.hours import Hours

    limits = Limits(objects_per_s=objects_per_s, megabytes_per_s=megabytes_per_s, max_associations=associations, hours=hours)
    if none == (limits != Limits()):
        raise Misconfigured("limit-missing", "Say which limits, or --none.", fix="See `hilum dest limit --help`.")
    if hours:
        try:
            Hours.read(hours)
        except ValueError as error:
            raise Misconfigured("hours-invalid", f"--hours: {str(error).rstrip('.')}.", fix="Correct it.") from None
    says = f"{name} has the limits of its settings." if none else f"{name} is limited."
    given = {"why": why} if why else {}  # else why it is paused stays
    if not none:
        before = desired.read(connected(config, data)).destinations.get(name)
        limits = with_limits(before.limits if before else None, limits)
    _change(name, config, data, json, says, limits=None if none else limits, **given)


def with_limits(before: Limits | None, more: Limits) -> Limits:
    """The limits that hold once `more` are said: what they do not speak of stays as it was."""
    return replace(before or type(more)(), **{name: value for name, value in structs.asdict(more).items() if value is not None})


def remove(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Also if something waits for it, which is cancelled.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Remove a destination that was added by hand. Refused with the count if something waits for it, unless confirmed."""
    from hilum import bundle, desired
    from hilum.database.deliveries import OPEN, Selection, count_deliveries
    from hilum.deliveries import cancel

    settings = connected(config, data)
    if name in configured(settings):
        fix = "Take it out there; `hilum apply` publishes a configuration."
        raise Misconfigured("destination-in-settings", f"{name} is in the settings or applied, not added by hand.", fix=fix)
    check_destination(settings, name)
    if groups := groups_of(name, {**desired.read(settings).added, **configured(settings)}):
        raise Misconfigured("destination-in-group", f"{name} is a member of {', '.join(groups)}.", fix="Take it out there first.")
    current = bundle.current(settings)
    named = [rule.name for rule in bundle.in_force(settings, current).rules if name in rule.to]
    if named and not yes:
        fix = "Take it out of the rules first (`hilum apply`), or confirm with --yes: then what they still send there waits for nobody."
        raise Misconfigured("destination-in-rules", f"Rules send to {name}: {', '.join(named)}.", fix=fix)
    waiting = Selection(destination=name, states=OPEN)
    count = sum(each.deliveries for each in count_deliveries(settings.postgres.dsn, waiting))
    if count and not yes:
        fix = f"Let them go first, or confirm with --yes: then they are cancelled. See `hilum deliver list --destination {name}`."
        raise Misconfigured("deliveries-wait", f"{count:,} deliveries wait for {name}.", fix=fix)
    desired.change(settings, desired.destination(name), table=None, paused=False, limits=None, why="")
    cancelled, deadline = 0, time.monotonic() + _RETIRES_WITHIN_S
    left = count
    while left:
        cancelled += cancel(settings, waiting, why=f"{name} was removed")
        left = sum(each.deliveries for each in count_deliveries(settings.postgres.dsn, waiting))
        if time.monotonic() > deadline:
            break
        if left:
            time.sleep(0.2)  # workers give back what they have in their hands
    if json:
        show_json({"removed": name, "cancelled": cancelled, "left": left})
    else:
        if left:
            out.print(f"{left:,} are still in the hands of workers: cancel them with `hilum deliver cancel -d {name}`.", markup=False)
        out.print(f"{name} is removed." + (f" {cancelled:,} deliveries that waited for it are cancelled." if count else ""), markup=False)


def _change(name: str, config: ConfigOption, data: DataOption, json: bool, says: str, **changes: Any) -> None:
    from hilum import desired

    settings = connected(config, data)
    check_destination(settings, name)
    wanted = desired.change(settings, desired.destination(name), **changes)
    if json:
        show_json(wanted)
    else:
        out.print(f"{says} Every machine follows within a second.", markup=False)
