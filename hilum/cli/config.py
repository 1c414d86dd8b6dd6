"""`hilum config check|show`: are the settings right, and where does each value come from? See `hilum/cli/apply.py` for the rest."""

from __future__ import annotations

from functools import partial
from json import dumps as to_json
from typing import Annotated

import typer

from hilum.cli import apply
from hilum.cli.context import ConfigOption, DataOption, Group, JsonOption, loaded, out, show_json, show_table
from hilum.misfits import together, tried
from hilum.settings import doubts, entries, is_secret
from hilum.words import counted


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    group = typer.Typer(cls=Group, help="Check the settings and see where each value comes from.", no_args_is_help=True)
    group.command()(check)
    group.command()(show)
    apply.add_to(app, group)
    app.add_typer(group, name="config")


def check(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Refuse unknown keys, values that do not fit, rules that cannot work and destinations that are incomplete.

    What is allowed and hardly meant is said too, and does not change the exit code.
    """
    from hilum.candidate import problems_of
    from hilum.roles import check_roles, find_stage, role_doubts

    settings = loaded(config, data).settings
    validate = find_stage("processors.validate").Validate
    problems = problems_of(settings)
    problems += tried(
        *(partial(validate, {aet: sender}) for aet, sender in settings.senders.items()),
        partial(check_roles, settings),
        partial(find_stage("ingest.folder").check, settings),
        partial(find_stage("ingest.commitment").check, settings),
        partial(find_stage("ingest.query").check, settings),
        partial(find_stage("ingest.dicom").check, settings),
        partial(find_stage("ingest.stow").check, settings),
    )
    if problems:
        raise together(problems)
    doubted = [*doubts(settings), *role_doubts(settings)]
    found = {
        "ok": True,
        "destinations": sorted(settings.destinations),
        "rules": [rule.name for rule in settings.rules],
        "config_version": settings.config_version,
        "doubts": doubted,
    }
    if json:
        show_json(found)
    else:
        what = f"{counted(len(settings.destinations), 'destination')}, {counted(len(settings.rules), 'rule')}"
        out.print(f"The settings are right: {what}, version {settings.config_version}.")
        for sentence in doubted:
            out.print(f"But: {sentence}")


def show(
    config: ConfigOption = None,
    data: DataOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="Show where each value comes from.")] = False,
    json: JsonOption = False,
) -> None:
    """Print every setting in force; secrets are hidden."""
    found = loaded(config, data)
    rows = [
        (name, "********" if is_secret(name) and value else value, found.origins.get(name, "default"))
        for name, value in entries(found.settings)
    ]
    if json:
        show_json([{"name": name, "value": value, "origin": where} for name, value, where in rows])
    else:
        shown = [(name, value if isinstance(value, str) else to_json(value), where) for name, value, where in rows]
        show_table("", ("Setting", "Value", "Origin") if origin else ("Setting", "Value"), [row if origin else row[:2] for row in shown])
