"""`hilum deid policies accept|accepted`: how much leaves for each destination, and that more may, which no file says by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from hilum.cli.context import ConfigOption, DataOption, JsonOption, connected, moment, out, show_json, show_table
from hilum.errors import Misconfigured, NotFound

if TYPE_CHECKING:
    from hilum.database.let_out import Members
    from hilum.loosened import LetsOut
    from hilum.settings import Settings

NamesArgument = Annotated[list[str] | None, typer.Argument(help="Names of destinations; without any, all.")]


class Differs(Struct, frozen=True, kw_only=True):
    """A destination that has another policy here, or one that says something else, than what was accepted last."""

    destination: str
    policy: str
    #: What leaves besides, a sentence each; none if it lets out something else and no more.
    more: list[str]


def add_to(policies: typer.Typer) -> None:
    """Add the commands of this module to the group `deid policies`."""
    policies.command(epilog="Example: hilum deid policies accept study-server --why 'full dates, letter of 3 May'")(accept)
    policies.command(epilog="Example: hilum deid policies accepted")(accepted)


def accept(
    names: NamesArgument = None,
    why: Annotated[str, typer.Option("--why", help="Why, for whoever looks at it later. Name no patient.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it; without, it is only said what would leave.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Have destinations of this machine's settings, and those added by hand, let out what their policies say here from now on.

    Needed where that is more than was accepted, or what held before: until then nothing leaves. Machines on which they have it otherwise
    let nothing out for them any more. What `hilum apply` publishes is asked about there.
    """
    from hilum.database import let_out
    from hilum.desired import account_name

    settings = connected(config, data)
    now, members = _here(settings, names or ())
    found = let_out.differing(settings.postgres.dsn, now, members)
    policies = {name: own.policy for name, own in now}
    differs = [Differs(destination=name, policy=policies[name], more=[each.says() for each in more]) for name, more in found]
    chosen = {each.destination for each in differs}
    done: list[str] = []
    if yes and differs:
        if not why:
            raise Misconfigured("why-missing", "It is kept why it is accepted.", fix="Say it with --why.")
        meant = [each for each in now if each[0] in chosen]
        done = let_out.accept(settings.postgres.dsn, meant, members=members, by=account_name(), why=why)
    if json:
        show_json({"differs": differs, "accepted": done})
        return
    for each in differs:
        for says in each.more or ["It lets out something else than what was accepted last, and no more."]:
            out.print(f"{each.destination}: {says}", markup=False, soft_wrap=True)
    if not differs:
        out.print("All lets out what was accepted.", markup=False)
    else:
        out.print("That holds now." if yes else "--yes has that hold.", markup=False)


def _here(settings: Settings, names: Sequence[str]) -> tuple[list[tuple[str, LetsOut]], Members]:
    """What destinations let out on this machine, but for published ones, and whom groups stand for.

    Raises `Misconfigured` if a policy cannot be read.
    """
    from hilum import desired
    from hilum.anonymizing import policies_of, policy_for
    from hilum.loosened import applied, lets_out, members_of

    now = desired.destinations(settings)
    known = [name for name in now.destinations if name not in applied(now)]
    if unknown := sorted({*names} - {*known}):
        published = unknown[0] in applied(now)
        says = "is of a published configuration: `hilum apply` asks about it." if published else "is no destination."
        raise NotFound(f"{unknown[0]} {says}", fix="See `hilum dest list`.")
    chosen = [name for name in known if not names or name in names]
    for name, policy in policies_of({name: now.destinations[name] for name in chosen}).items():
        policy_for(name, policy, now)
    return [(name, lets_out(name, now)) for name in chosen], {name: members_of(name, now) for name in chosen}


def accepted(names: NamesArgument = None, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """List by which policies destinations let objects out, oldest first, since when and who decided so: the last one of each holds."""
    from hilum.database.let_out import listed

    found = listed(connected(config, data).postgres.dsn, names or ())
    if json:
        show_json(found)
        return
    cells = [
        (
            f"{each.destination}, for {each.member}" if each.member else each.destination,
            each.said.policy or "none: as they are",
            each.said_id,
            "consent" if each.said.consent else "",
            "again" if each.said.again else "",
            moment(each.accepted_at),
            each.accepted_by,
            each.why,
        )
        for each in found
    ]
    columns = ("Destination", "Policy", "Says", "Patients", "De-identified before", "Since", "By", "Why")
    show_table("What leaves", columns, cells, nothing="No destination ever had a policy.")
