"""`hilum deid lookup` and `lookups`: back from a pseudonym, and who went that way."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace

from hilum.cli.context import ConfigOption, DataOption, JsonOption, connected, moment, show_json, show_table


def add_to(deid: typer.Typer) -> None:
    """Add the commands of this module to the group `deid`."""
    deid.command(epilog="Example: hilum deid lookup 7H2N5P8S1W4Y0B3D --project research --why 'letter of 3 May'")(lookup)
    deid.command(epilog="Example: hilum deid lookups --since 30d")(lookups)


def lookup(
    pseudonym: Annotated[str, typer.Argument(help="A PatientID, AccessionNumber or UID as it left.")],
    project: Annotated[str, typer.Option("--project", help="The `domain` of the policy, by default its name.")],
    why: Annotated[str, typer.Option("--why", help="Why, for the privacy officer. Name no patient.")],
    key: Annotated[Path | None, typer.Option("--key", help="The table's key; wins over `deid.reverse_key_path` in the settings.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a pseudonym stands for, if its policy has `reverse = true`. It names the patient.

    Who asked and why is written down first, found or not: `hilum deid lookups`. Exit code 3: the table does not have it.
    """
    from hilum.anonymizing import package
    from hilum.database.reverse import audit, rows_of

    settings = connected(config, data)
    deid = replace(settings.deid, reverse_key_path=str(key)) if key is not None else settings.deid
    reverse, dsn, asked = package("processors.anonymize.reverse"), settings.postgres.dsn, pseudonym.strip()
    found = reverse.look_up(
        lambda: rows_of(dsn, project, asked),
        lambda key_id: reverse.table_key(deid, key_id),
        project,
        asked,
        who=_account(),
        why=why,
        audit=lambda each: audit(dsn, each.who, each.why, each.project, each.pseudonym),
    )
    if json:
        show_json({"project": project, "pseudonym": asked, "found": found})
        return
    show_table(f"{asked} of {project}", ("Kind", "Original", "Issuer"), [(each.kind, each.value, each.issuer) for each in found])


def lookups(
    project: Annotated[str, typer.Option("--project", help="One project.")] = "",
    since: Annotated[str, typer.Option("--since", help="What was asked since then: 2026-01-31T18:00, or 2h, 3d ago.")] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List who looked which pseudonym up, when and why. What was found is not in it."""
    from hilum.cli.moments import moment_of
    from hilum.database.reverse import looked

    found = looked(connected(config, data).postgres.dsn, project, moment_of(since, "--since"))
    if json:
        show_json({"lookups": found})
        return
    cells = [(moment(each.at), each.who, each.database_user, each.project, each.pseudonym, each.why) for each in found]
    show_table("Look-ups", ("At", "Who", "Database user", "Project", "Pseudonym", "Why"), cells, nothing="Nobody looked anything up.")


def _account() -> str:
    """The account of this process as the machine knows it: an environment variable cannot say otherwise."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an account without a name, as containers have them
        return f"uid {os.getuid()}"
