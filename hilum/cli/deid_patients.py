"""`hilum deid patients`: who opted out of what leaves de-identified, and who consented."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilum.cli import deid_withdrawal
from hilum.cli.context import ConfigOption, DataOption, JsonOption, connected, err, moment, out, show_json, show_table
from hilum.errors import Misconfigured, NotFound
from hilum.identity import Authorities, is_nobodys

if TYPE_CHECKING:
    from hilum.database.choices import Kind
    from hilum.settings import Settings

PatientsArgument = Annotated[list[str] | None, typer.Argument(help="PatientIDs.", metavar="PATIENT_ID...")]
IssuerOption = Annotated[
    str,
    typer.Option("--issuer", help="Who assigned them (IssuerOfPatientID); empty: whoever it was, which holds, and takes back in doubt."),
]
FileOption = Annotated[Path | None, typer.Option("--file", "-f", help="A CSV file of PatientID and issuer, separated by a comma.")]
ProjectOption = Annotated[str, typer.Option("--project", help="The `domain` of policies, by default a policy's name; empty: all.")]
ConsentOption = Annotated[bool, typer.Option("--consent", help="The list of those who consented, instead of those who opted out.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only count.")]


def add_to(deid: typer.Typer) -> None:
    """Add the commands of this module to the group `deid`."""
    patients = typer.Typer(help="Patients who opted out, and who consented.", no_args_is_help=True)
    patients.command("list", epilog="Example: hilum deid patients list --project research")(list_all)
    patients.command(epilog="Example: hilum deid patients add P1234 --issuer NORTH --project research --why 'letter of 3 May'")(add)
    patients.command(epilog="Example: hilum deid patients end P1234 --issuer NORTH --project research")(end)
    patients.command(epilog="Example: hilum deid patients withdraw cohort")(withdraw)
    deid.add_typer(patients, name="patients")


def list_all(
    consent: Annotated[bool, typer.Option("--consent", help="Only those who consented.")] = False,
    project: ProjectOption = "",
    ended: Annotated[bool, typer.Option("--ended", help="Also what was ended.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List patients, by their identifiers. It names them: for who keeps the list."""
    from hilum.database.choices import listed
    from hilum.database.projects import undecided

    dsn = connected(config, data).postgres.dsn
    found = listed(dsn, "consent" if consent else None, project, ended=ended)
    waits = [] if consent else [each for each in undecided(dsn) if each.present]
    if project and not consent:  # whoever is held by an opt-out of a former project is in its list
        for former in sorted({each.former for each in waits if each.project == project}):
            found += [each for each in listed(dsn, "opt-out", former, ended=ended) if each.project == former]
    if json:
        show_json({"patients": found, "undecided": waits})
        return
    said = {"opt-out": "opted out", "consent": "consented"}
    cells = [
        (said[each.kind], each.value, each.issuer, each.project or "all", moment(each.since), moment(each.ended_at), each.said_by)
        for each in found
    ]
    show_table("Patients", ("Said", "PatientID", "Issuer", "Project", "Since", "Ended", "By"), cells, nothing="Nobody.")
    for wait in waits:
        out.print(
            f"Opt-outs of {wait.former} count for {wait.project}, too: the policy {wait.policy} had that project, too. Decide: "
            f"hilum deid projects carry {wait.former} {wait.project}, or release",
            markup=False,
        )


def add(
    patients: PatientsArgument = None,
    issuer: IssuerOption = "",
    file: FileOption = None,
    project: ProjectOption = "",
    all_projects: Annotated[
        bool, typer.Option("--all-projects", help="Of all projects, those to come included: a consent without --project needs it.")
    ] = False,
    consent: ConsentOption = False,
    why: Annotated[str, typer.Option("--why", help="Why, for whoever looks at it later. Name no patient.")] = "",
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Add patients, all or none. From then on nothing of who opted out leaves; what has left is listed by `hilum deid outputs`."""
    from hilum.database.choices import add as put
    from hilum.database.persons import unknown
    from hilum.desired import account_name
    from hilum.order_events import Identifier

    if consent and not project and not all_projects:
        raise Misconfigured(
            "project-missing",
            "Nobody says to which project they consented.",
            fix="Name it with --project, or say --all-projects if they consented to whatever comes, too.",
        )
    if project and all_projects:
        raise Misconfigured("project-unclear", "Both --project and --all-projects are given.", fix="Give one of both.")
    named = _named(patients, issuer, file)
    settings = connected(config, data)
    _check_project(settings, project)
    dsn = settings.postgres.dsn
    count = len(named) if dry_run else put(dsn, _kind(consent), named, project, account_name(), why)
    nobody = unknown(dsn, [Identifier(value=value, issuer=by) for value, by in named], _authorities(settings))
    if nobody and not json:
        err.print(
            f"Of {nobody:,} of {len(named):,} identifiers Hilum has seen nothing so far: check how they and their issuers are written.",
            markup=False,
        )
    nobodys = sum(is_nobodys(Identifier(value=value)) for value, _ in named)
    if nobodys and not json:
        does = "Such a consent lets nothing out." if consent else "Whatever names one is held, and nothing taken back by itself."
        err.print(f"{nobodys:,} of {len(named):,} identifiers stand for nobody, as UNKNOWN and 0 do. {does}", markup=False)
    _say(count, "would be added, if they are not there" if dry_run else "added", json, dry_run, unknown=nobody, stand_for_nobody=nobodys)


def end(
    patients: PatientsArgument = None,
    issuer: IssuerOption = "",
    file: FileOption = None,
    project: ProjectOption = "",
    consent: ConsentOption = False,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """End what patients said, from now on, as it was added: with the same issuer and project. It stays in the list with `--ended`."""
    from hilum.database.choices import end as put_an_end
    from hilum.desired import account_name

    named = _named(patients, issuer, file)
    settings = connected(config, data)
    _check_project(settings, project, former=True)
    count = len(named) if dry_run else put_an_end(settings.postgres.dsn, _kind(consent), named, project, account_name())
    if not count:
        raise NotFound("Nobody is in the list so.", fix="Name issuer and project as `hilum deid patients list` has them.")
    _say(count, "would be looked for" if dry_run else "ended", json, dry_run)


def withdraw(
    destination: Annotated[str, typer.Argument(help="A destination of type research.")],
    also: Annotated[
        list[str] | None,
        typer.Option("--also", help="Also what is listed as perhaps a patient's: by its pseudonym, or its new StudyInstanceUID."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it; without, it is only listed.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Take back from a research bucket what is there of patients who opted out: each object is deleted, and an empty message says so.

    Without --yes each object is listed, by its new UIDs and pseudonym, with the line of the list by which it goes. What is perhaps of who
    opted out (other or no issuer, an identifier written otherwise) is listed apart and stays, unless --also names it. It names
    patients: for who keeps the list. From a destination with `patients = "consent"` also what is there of patients of whom no consent
    stands any more. May be stopped and repeated. Repeat it once the destination's queue has ended: what was on its way when its
    patient opted out may come after.
    """
    from hilum import desired
    from hilum.anonymizing import package, policy_for
    from hilum.database.withdrawing import to_take_back, withdrawn
    from hilum.misfits import nearest
    from hilum.sink import sink_of

    settings = desired.destinations(connected(config, data))
    table = settings.destinations.get(destination)
    if table is None:
        near = nearest(destination, settings.destinations)
        fix = f"Did you mean {near}?" if near else "See `hilum dest list`."
        raise NotFound(f"There is no destination {destination!r}.", fix=fix)
    sink = sink_of(destination, table)
    project = package().policy_in(policy_for(destination, sink.policy, settings)).domain
    takes_back = sink.taking_back(settings)
    found = to_take_back(settings.postgres.dsn, destination, project, _authorities(settings), consent=sink.patients == "consent")
    going, staying = deid_withdrawal.parted(found, also or ())
    for each in going if yes else ():
        takes_back(each.output.sent_study, each.output.sent_series, each.output.sent_as)
        withdrawn(settings.postgres.dsn, each.output)
    deid_withdrawal.show(going, staying, done=yes, json=json)


def _authorities(settings: Settings) -> Authorities:
    return Authorities(default=settings.deid.default_issuer, same=settings.deid.same_issuers)


def _kind(consent: bool) -> Kind:
    return "consent" if consent else "opt-out"


def _check_project(settings: Settings, project: str, *, former: bool = False) -> None:
    """Raise `NotFound` for a project of which no policy is: nobody's opt-out would come to anything. A `former` one has some, perhaps."""
    from hilum import bundle
    from hilum.anonymizing import package
    from hilum.database.projects import chosen, note
    from hilum.database.projects import known as had
    from hilum.misfits import nearest

    if not project:
        return
    policies = package("processors.anonymize.policy").domains(settings.deid.folder)
    known = set(policies.values())
    if former:
        known |= {its for its, _ in chosen(settings.postgres.dsn)}
    if project not in known:  # of a policy that is gone, under which something may wait, or has left
        known |= had(settings.postgres.dsn)
    if project not in known:
        in_force = bundle.in_force(settings, bundle.current(settings))
        published = in_force.policies.values() if isinstance(in_force, bundle.InForce) else ()
        known |= {each["policy"]["domain"] for each in published}
    if project not in known:
        near = nearest(project, known)
        fix = f"Did you mean {near}?" if near else f"Projects are: {', '.join(sorted(known))}."
        raise NotFound(f"No policy is of a project {project!r}.", fix=fix)
    # So that it is known whose former project this is, should its policy get another one before anything left by it.
    note(settings.postgres.dsn, [(name, its) for name, its in policies.items() if its == project])


def _named(patients: list[str] | None, issuer: str, file: Path | None) -> list[tuple[str, str]]:
    named = [(each.strip(), issuer.strip()) for each in patients or ()]
    if file is not None:
        try:
            with file.open(encoding="utf-8-sig", newline="") as lines:
                named += _lines(csv.reader(lines), issuer.strip(), file)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise Misconfigured("list-unreadable", f"{file} cannot be read ({type(error).__name__}).", fix="Write it as UTF-8.") from None
    if not named or not all(value for value, _ in named):
        raise Misconfigured("patient-missing", "No PatientID is given, or an empty one.", fix="Name PatientIDs, or a --file with them.")
    return list(dict.fromkeys(named))


def _lines(lines: Iterable[list[str]], issuer: str, file: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, 1):
        if number == 1 and line and line[0].strip().replace(" ", "").casefold() == "patientid":
            continue
        if len(line) > 2 or any(mark in cell for cell in line for mark in ";\t"):
            fix = "Separate PatientID and issuer by a comma, one patient on each line."
            raise Misconfigured("list-malformed", f"{file}, line {number} is not PatientID and issuer.", fix=fix)
        if line:
            yield line[0].strip(), line[1].strip() if len(line) == 2 else issuer


def _say(count: int, what: str, json: bool, dry_run: bool, **more: int) -> None:
    if json:
        show_json({"count": count, **more, "dry_run": dry_run})
    else:
        out.print(f"{count:,} {what}.", markup=False)
