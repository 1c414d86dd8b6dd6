"""`hilum deid settings`: what decides pseudonyms and dates beside policy and key, by which of it objects left, and which holds."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hilum.cli.context import ConfigOption, DataOption, Exit, JsonOption, connected, moment, out, show_json, show_table
from hilum.errors import Misconfigured


def add_to(deid: typer.Typer) -> None:
    """Add the commands of this module to the group `deid`."""
    settings = typer.Typer(
        help="deid.earliest_days, latest_days, default_issuer and same_issuers: the same on every machine, as the first one had them.",
        no_args_is_help=True,
    )
    settings.command("list", epilog="Example: hilum deid settings list")(list_settings)
    settings.command(epilog="Example: hilum deid settings accept --why 'NORTH assigns identifiers from May on'")(accept)
    deid.add_typer(settings, name="settings")


def list_settings(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """List by which settings objects left under each key, oldest first: the last ones of a key hold, and must be this machine's."""
    from hilum.database.deid_settings import listed

    settings = connected(config, data)
    found = listed(settings.postgres.dsn)
    if json:
        show_json({"settings": found, "here": {"settings_id": settings.deid.settings_id, "said": settings.deid.deciding}})
        return
    cells = [
        (
            each.key_id,
            each.settings_id + (" (as here)" if each.settings_id == settings.deid.settings_id else ""),
            moment(each.accepted_at),
            each.accepted_by,
            each.why,
            *(str(each.said.get(name)) for name in settings.deid.deciding),
        )
        for each in found
    ]
    columns = ("Key", "Settings", "Since", "By", "Why", "Earliest days", "Latest days", "Default issuer", "Same issuers")
    show_table("Settings", columns, cells, nothing="Nothing left yet.")


def accept(
    why: Annotated[str, typer.Option("--why", help="Why, for whoever looks at it later. Name no patient.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it; without, it is only said what would be different.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Have this machine's settings hold for all that leaves from now on under the key in force.

    Patients whose identifiers name no issuer get other pseudonyms, dates move by another number of days, and nothing of it fits what left
    before. Machines with the former settings let nothing out any more.
    """
    from hilum.anonymizing import package
    from hilum.database import deid_settings
    from hilum.desired import account_name

    settings = connected(config, data)
    file = settings.deid.key_file
    if file is None:
        raise Misconfigured("key-not-named", "`deid.key_path` names no file.", fix="Call it on a machine that delivers.")
    key_id: str = package("processors.anonymize.keys").read_key(file, settings.deid.key_id).id
    held = deid_settings.listed(settings.postgres.dsn, key_id)
    told = deid_settings.differences(held[-1].said, settings.deid) if held else "no settings hold under this key yet"
    if yes and told:
        if not why:
            raise Misconfigured("why-missing", "It is kept why other settings hold.", fix="Say it with --why.")
        deid_settings.accept(settings.postgres.dsn, key_id, settings.deid, by=account_name(), why=why)
    if json:
        show_json({"key_id": key_id, "settings_id": settings.deid.settings_id, "differences": told, "accepted": bool(yes and told)})
    elif not told:
        out.print(f"These settings hold under the key {key_id} already.", markup=False)
    else:
        out.print(f"Under the key {key_id}: {told}. {'They hold now.' if yes else '--yes has them hold.'}", markup=False)
    sys.exit(Exit.DONE)
