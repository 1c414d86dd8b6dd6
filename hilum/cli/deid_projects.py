"""`hilum deid projects`: projects of policies, who chose about them, and what is decided where a policy gets another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from hilum.cli.context import ConfigOption, DataOption, JsonOption, connected, out, show_json, show_table
from hilum.errors import NotFound

if TYPE_CHECKING:
    from hilum.settings import Settings

FormerArgument = Annotated[str, typer.Argument(help="The former project.")]
ProjectArgument = Annotated[str, typer.Argument(help="The project that the policy has now.")]
WhyOption = Annotated[str, typer.Option("--why", help="Why, for whoever looks at it later. Name no patient.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be.")]


class ProjectLine(Struct, frozen=True, kw_only=True):
    """A project in a line."""

    project: str
    #: The policies that have it, of those in force and of this machine's files; none if no policy has it any more.
    policies: list[str]
    #: Patients who opted out of it, and who consented to it.
    opted_out: int
    consented: int
    #: Former projects of its policies, whose opt-outs count for it until somebody decides.
    undecided: list[str]


def add_to(deid: typer.Typer) -> None:
    """Add the commands of this module to the group `deid`."""
    projects = typer.Typer(help="Projects (`domain`) of policies, and opt-outs of former ones.", no_args_is_help=True)
    projects.command("list", epilog="Example: hilum deid projects list")(list_projects)
    projects.command(epilog="Example: hilum deid projects carry heart heart-2026 --why 'another name' --dry-run")(carry)
    projects.command(epilog="Example: hilum deid projects release heart heart-2026 --why 'another study' --dry-run")(release)
    deid.add_typer(projects, name="projects")


def list_projects(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """List projects with their policies, how many chose about each, and former projects about which somebody has to decide."""
    lines = _lines(connected(config, data))
    if json:
        show_json({"projects": lines})
        return
    cells = [
        (
            each.project,
            ", ".join(each.policies) or "no policy",
            f"{each.opted_out:,}",
            f"{each.consented:,}",
            f"opt-outs of {', '.join(each.undecided)} count, until somebody decides" if each.undecided else "",
        )
        for each in lines
    ]
    show_table("Projects", ("Project", "Policies", "Opted out", "Consented", "Undecided"), cells)


def _lines(settings: Settings) -> list[ProjectLine]:
    from hilum.anonymizing import package
    from hilum.database.projects import chosen, undecided
    from hilum.policies import published

    policies = dict(package("processors.anonymize.policy").domains(settings.deid.folder))
    policies |= {name: table["policy"]["domain"] for name, table in published(settings).tables.items()}
    counts = chosen(settings.postgres.dsn)
    waits = undecided(settings.postgres.dsn)
    return [
        ProjectLine(
            project=project,
            policies=sorted(name for name, its in policies.items() if its == project),
            opted_out=counts.get((project, "opt-out"), 0),
            consented=counts.get((project, "consent"), 0),
            undecided=sorted({each.former for each in waits if each.project == project and project in policies.values()}),
        )
        for project in sorted({*policies.values(), *(project for project, _ in counts), *(each.project for each in waits)} - {""})
    ]


def carry(
    former: FormerArgument,
    project: ProjectArgument,
    consent: Annotated[bool, typer.Option("--consent", help="Also those who consented: it is the same project by another name.")] = False,
    why: WhyOption = "",
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Add who opted out of a former project to the list of another one. They stay in that of the former, too."""
    settings = connected(config, data)
    opted_out, consented = _counted(settings, former, project)
    count = opted_out + (consented if consent else 0)
    if not dry_run and not yes:
        typer.confirm(f"Add {count:,} patients to the list of {project}?", abort=True, err=True)
    new = 0 if dry_run else _decide(settings, former, project, ("opt-out", "consent") if consent else ("opt-out",), why)
    if json:
        show_json({"former": former, "project": project, "choices": count, "new": new, "dry_run": dry_run})
    else:
        out.print(f"{count:,} would be carried over." if dry_run else f"{count:,} carried over, of which {new:,} are new.", markup=False)


def release(
    former: FormerArgument,
    project: ProjectArgument,
    why: Annotated[str, typer.Option("--why", help="Why, for the privacy officer. Name no patient.")],
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Decide that who opted out of a former project did not opt out of the present one. What was held for that waits to be retried."""
    settings = connected(config, data)
    opted_out, _ = _counted(settings, former, project)
    if not dry_run and not yes:
        question = f"Objects of {opted_out:,} patients who opted out of {former} may leave for {project} then. Go on?"
        typer.confirm(question, abort=True, err=True)
    if not dry_run:
        _decide(settings, former, project, (), why)
    if json:
        show_json({"former": former, "project": project, "opted_out": opted_out, "dry_run": dry_run})
    else:
        would = "would hold" if dry_run else "hold"
        out.print(f"Opt-outs of {former} ({opted_out:,}) {would} nothing of {project}.", markup=False)


def _counted(settings: Settings, former: str, project: str) -> tuple[int, int]:
    """How many chose about the former project. Raises `NotFound` unless there are both projects."""
    from hilum.anonymizing import package
    from hilum.database.projects import choices, known
    from hilum.misfits import nearest
    from hilum.policies import published

    names = known(settings.postgres.dsn) | set(package("processors.anonymize.policy").domains(settings.deid.folder).values())
    if not {former, project} <= names:
        names |= {table["policy"]["domain"] for table in published(settings).tables.values()}
    for each in (former, project):
        if each not in names:
            near = nearest(each, names)
            raise NotFound(f"There is no project {each!r}.", fix=f"Did you mean {near}?" if near else "See: hilum deid projects list")
    if former == project:
        raise NotFound(f"{project} is one project.", fix="Name a former project and the one that its policy has now.")
    return choices(settings.postgres.dsn, former)


def _decide(settings: Settings, former: str, project: str, kinds: tuple[str, ...], why: str) -> int:
    from hilum.database.projects import decide
    from hilum.desired import account_name

    new, policies = decide(settings.postgres.dsn, former, project, carry=kinds, by=account_name(), why=why)
    if not policies and not kinds:
        fix = "Apply the policy with its new project first, then decide: hilum apply"
        raise NotFound(f"No policy has had both {former} and {project} yet: there is nothing to decide about.", fix=fix)
    return new
