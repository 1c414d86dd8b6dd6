"""`hilum deid policies`: those in force, this machine's files, those that come with Hilum, and by which of them objects may leave."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct, structs

from hilum.cli import deid_accept
from hilum.cli.context import ConfigOption, DataOption, Exit, JsonOption, connected, err, loaded, out, show_json, show_table
from hilum.errors import HilumError, Misconfigured, NotFound

if TYPE_CHECKING:
    from hilum.policies import Published
    from hilum.settings import Settings

UnpublishedOption = Annotated[
    bool, typer.Option("--unpublished", help="The policy as this machine's files have it, whatever is in force: before `hilum apply`.")
]


class PolicyLine(Struct, frozen=True, kw_only=True):
    """A policy in a line."""

    name: str
    version: str
    options: list[str]
    summary: str
    #: `published in configuration VERSION`, `shipped`, or the file that it is in.
    where: str
    #: What is wrong with it; empty if nothing.
    wrong: str = ""
    #: What it does of which its author may not think.
    notes: list[str] = []
    #: Its project, and former ones of which opt-outs count until somebody decides: `hilum deid projects list`.
    project: str = ""
    undecided: list[str] = []


def add_to(deid: typer.Typer) -> None:
    """Add the commands of this module to the group `deid`."""
    policies = typer.Typer(help="Policies in force, of this machine's files, and those that come with Hilum.", no_args_is_help=True)
    policies.command("list", epilog="Example: hilum deid policies list")(list_policies)
    policies.command(epilog="Example: hilum deid policies show research")(show)
    policies.command(epilog="Example: hilum deid policies lint")(lint)
    deid_accept.add_to(policies)
    deid.add_typer(policies, name="policies")


def chosen(policy: str, settings: Settings, unpublished: bool) -> dict[str, Any]:
    """The policy as it is in force, else of this machine's files, as it is published; which of both is said on stderr."""
    from hilum.policies import Published, choose, published

    found = choose(policy, settings.deid.folder, Published() if unpublished else published(settings))
    err.print(found.says(), markup=False, soft_wrap=True)
    return found.table


def _in_force(in_force: Published) -> list[PolicyLine]:
    from hilum.anonymizing import package

    lines = []
    for name, table in sorted(in_force.tables.items()):
        try:
            found = package().policy_in(table)
            options, summary, wrong = list(found.options), found.summary, ""
        except Misconfigured as error:
            options, summary, wrong = [], "", str(error)
        of = table["policy"].get("domain") or name
        where = in_force.where()
        lines.append(
            PolicyLine(name=name, version=table["version"], options=options, summary=summary, project=of, where=where, wrong=wrong)
        )
    return lines


def _of_files(folder: Path) -> list[PolicyLine]:
    from hilum.anonymizing import package
    from hilum.policies import files

    lines = []
    for name, where in sorted(files(folder).items()):
        try:
            found = package("processors.anonymize.policy").policy(name, folder)
            package().check_machine(found)
            line = PolicyLine(
                name=name,
                version=found.version,
                options=list(found.options),
                summary=found.summary,
                project=found.domain,
                where=where,
                notes=list(package("processors.anonymize.risky").notes_on(found.options, found.kinds)),
            )
        except Misconfigured as error:
            line = PolicyLine(name=name, version="", options=[], summary="", where=where, wrong=str(error))
        lines.append(line)
    return lines


def list_policies(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """List policies with their versions: those in force first, then what this machine's files have that is not in force."""
    from hilum.policies import published

    settings = loaded(config, data).settings
    found = published(settings)
    lines = _in_force(found)
    said = {(each.name, each.version) for each in lines}
    lines += [each for each in _of_files(settings.deid.folder) if (each.name, each.version) not in said]
    if not found.unread:  # Hilum runs, and its database is there to be asked
        waits = _undecided(settings)
        lines = [structs.replace(each, undecided=waits.get((each.name, each.project), [])) for each in lines]
    if json:
        show_json({"policies": lines, "in_force": found.version or None, "unread": found.unread})
        return
    if found.unread:
        err.print(f"Which are in force could not be asked: {found.unread} These are of this machine.", markup=False, soft_wrap=True)
    cells = [(each.name, each.version or "wrong", each.project, each.where, each.wrong or each.summary) for each in lines]
    show_table("Policies", ("Policy", "Version", "Project", "Where", "Says"), cells)
    for each in lines:
        if each.undecided:
            former = ", ".join(each.undecided)
            says = f"{each.name} had another project: opt-outs of {former} hold what leaves for {each.project} until somebody decides."
            err.print(f"{says} See: hilum deid projects list", markup=False, soft_wrap=True)


def _undecided(settings: Settings) -> dict[tuple[str, str], list[str]]:
    """By policy and project, former projects of which opt-outs count. None while the database does not tell."""
    from hilum.database.projects import undecided
    from hilum.services.endpoints import with_endpoints

    found: dict[tuple[str, str], list[str]] = {}
    with suppress(HilumError):
        for each in undecided(with_endpoints(settings).postgres.dsn):
            found.setdefault((each.policy, each.project), []).append(each.former)
    return found


def show(
    name: Annotated[str, typer.Argument(help="The policy's name.")],
    version: Annotated[str, typer.Option("--version", help="A version by which something left, as the ledger keeps it.")] = "",
    unpublished: UnpublishedOption = False,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Show a policy as `hilum apply` publishes it, as JSON."""
    from hilum.database.past import kept_policy

    if version:
        kept = kept_policy(connected(config, data).postgres.dsn, version)
        if kept is None or kept["policy"]["name"] != name:
            raise NotFound(f"Nothing left by a version {version} of {name}.", fix=f"See: hilum deid outputs --policy {name}")
        show_json(kept)
        return
    show_json(chosen(name, loaded(config, data).settings, unpublished))


def lint(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Check all policies of this machine, and name all that is wrong, and what may be overlooked. Exit code 1: something is wrong."""
    lines = _of_files(loaded(config, data).settings.deid.folder)
    wrong = [each for each in lines if each.wrong]
    if json:
        show_json({"wrong": wrong, "notes": {each.name: each.notes for each in lines if each.notes}, "checked": len(lines)})
    else:
        for each in wrong:
            out.print(each.wrong, markup=False)
        for each in lines:
            for note in each.notes:
                out.print(f"{each.name}: {note}", markup=False)
        out.print(f"{len(lines) - len(wrong)} of {len(lines)} policies are right.", markup=False)
    sys.exit(Exit.FAILED if wrong else Exit.DONE)
