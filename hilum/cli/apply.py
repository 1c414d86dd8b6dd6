"""`hilum apply`, `hilum config history|diff|rollback|workers`: which configuration is in force, and which was."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from json import dumps as to_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilum.cli.context import ConfigOption, DataOption, Exit, JsonOption, connected, err, loaded, moment, out, show_json, show_table
from hilum.errors import HilumError, Misconfigured, NotFound

if TYPE_CHECKING:
    from hilum.applying import Waited
    from hilum.bundle import Bundle, Worker
    from hilum.candidate import Candidate, Change
    from hilum.settings import Settings

WhyOption = Annotated[str, typer.Option("--why", "-m", help="Why, for the history.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check everything and show what would change; publish nothing.")]
ConfirmOption = Annotated[
    bool, typer.Option("--confirm", help="Go on although deliveries wait for a destination that goes; they wait until it is back.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Go on although a policy is taken off a destination, or lets out more than it did.")]
TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds to wait for workers.", min=0.0)]


def add_to(app: typer.Typer, group: typer.Typer) -> None:
    """Add `apply` to `app`, and the other commands of this module to `group`."""
    app.command()(apply)
    group.command()(history)
    group.command()(diff)
    group.command()(rollback)
    group.command("workers")(list_workers)


def apply(
    path: Annotated[Path, typer.Option("--file", "-f", help="The directory with the configuration's files *.toml, or one file.")],
    dry_run: DryRunOption = False,
    confirm: ConfirmOption = False,
    yes: YesOption = False,
    why: WhyOption = "",
    timeout: TimeoutOption = 60.0,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Check rules, their tests and destinations, put them in force as one, and return when every worker runs them.

    Exit code 4: refused, since deliveries wait for a destination that goes, or more would leave than by the policies in force. Exit code 6:
    it is in force, and the workers that are named do not run it yet.
    """
    from hilum.candidate import read

    candidate = read(path)
    wrong = None
    try:
        candidate.settings(loaded(config, data).settings)
    except Misconfigured as error:  # unless it is about a destination that was added by hand: only Kafka knows these
        wrong = error
    try:
        settings = _with_added(connected(config, data))
    except HilumError as error:
        if wrong is not None:
            raise wrong from None
        if not dry_run or not isinstance(error, NotFound):
            raise
        _say_checked(candidate, json)
        return
    _put_in_force(settings, candidate, dry_run=dry_run, confirm=confirm, yes=yes, why=why, timeout_s=timeout, json=json)


def rollback(
    version: Annotated[
        str,
        typer.Argument(
            help="The version to go back to; without it, the one before the present one. `settings`: the rules of the settings file."
        ),
    ] = "",
    dry_run: DryRunOption = False,
    confirm: ConfirmOption = False,
    yes: YesOption = False,
    why: WhyOption = "",
    timeout: TimeoutOption = 60.0,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Put a former configuration in force again, as `hilum apply` would; the files in `config/` stay as they are."""
    from hilum.bundle import history as published

    own = connected(config, data)
    known = published(own)
    said, candidate = _former(own, known, version) if version else _before(own, known)
    why = why or f"back to {said}"
    _put_in_force(_with_added(own), candidate, dry_run=dry_run, confirm=confirm, yes=yes, why=why, timeout_s=timeout, json=json)


def _with_added(settings: Settings) -> Settings:
    """`settings` with the destinations that were added by hand: rules may name these, too."""
    from hilum import desired

    return desired.with_added(settings, desired.read(settings).added)


def _put_in_force(
    settings: Settings, candidate: Candidate, *, dry_run: bool, confirm: bool, yes: bool, why: str, timeout_s: float, json: bool
) -> None:
    from hilum.applying import account, in_force_now, look_again, orphans, overtaken, publish, refuse_orphans, wait
    from hilum.bundle import in_force
    from hilum.candidate import changes, effective
    from hilum.database import let_out
    from hilum.database.projects import note
    from hilum.loosened import applied, lets_out, looser, members_of, refuse_looser
    from hilum.moved import moved, projects_of

    after = candidate.settings(settings)
    bundle, before = in_force_now(settings)
    changed = changes(before, effective(settings, candidate))
    present = in_force(settings, bundle)
    left = orphans(settings, present, after)
    # What held before is as it was accepted, too: the files of a machine may have become looser meanwhile.
    about = [(name, lets_out(name, after)) for name in sorted(applied(present) | applied(after)) if name in after.destinations]
    members = {name: members_of(name, after) for name, _ in about}
    besides = [each for _, found in let_out.differing(settings.postgres.dsn, about, members) for each in found]
    more = list(dict.fromkeys([*looser(present, after), *besides]))
    moves = moved(present, after)
    if not json:
        _show_changes(changed)
        told = more if dry_run or yes else []  # a refusal says the same
        for says in [*(each.says() for each in moves), *(each.says() for each in told)]:
            err.print(says, markup=False, soft_wrap=True)
    if dry_run:
        if json:
            show_json({"version": candidate.version, "dry_run": True, "changes": changed, "orphans": left, "moved": moves, "looser": more})
        else:
            for each in left:
                out.print(f"{each.pending} deliveries wait for {each.destination}, which goes: it would be refused without --confirm.")
            if more:
                out.print("More would leave than by the configuration in force: it would be refused without --yes.")
            out.print(f"Version {candidate.version} is right; nothing was published.")
        return
    if not confirm:
        refuse_orphans(left)
    if not yes:
        refuse_looser(more)
    # Before anything can leave by it, so that opt-outs of a former project count.
    note(settings.postgres.dsn, projects_of(present).values())
    note(settings.postgres.dsn, projects_of(after).values(), present=True)
    if bundle is None or bundle.version != candidate.version:
        bundle = publish(settings, candidate, why=why)
    # Not before, lest what still holds be taken for old files.
    let_out.accept(settings.postgres.dsn, about, members=members, by=account(), why=why)
    with err.status(f"Waiting for workers to run {candidate.version}"):
        waited = wait(settings, candidate.version, timeout_s)
    look_again(settings, candidate.version)
    other = overtaken(settings, bundle)
    if json:
        show_json(
            {
                "version": candidate.version,
                "dry_run": False,
                "changes": changed,
                "orphans": left,
                "moved": moves,
                "looser": more,
                "overtaken_by": other,
                **_told(waited),
            }
        )
    else:
        _show_waited(waited, other)
    sys.exit(Exit.DONE if waited.done and not other else Exit.PARTLY)


def _say_checked(candidate: Candidate, json: bool) -> None:
    if json:
        show_json({"version": candidate.version, "dry_run": True, "changes": None, "orphans": None, "moved": None, "looser": None})
    else:
        out.print(f"Version {candidate.version} is right; nothing was published. No Hilum runs here to compare it with.")


def _told(waited: Waited) -> dict[str, Any]:
    return {"running": [each.worker for each in waited.running], "stragglers": waited.stragglers, "absent": waited.absent}


def _show_waited(waited: Waited, other: str) -> None:
    if other:
        out.print(f"Somebody else has put {other} in force since; {waited.version} no longer is.")
    elif waited.done:
        count = len(waited.running)
        workers = "1 worker runs" if count == 1 else f"{count} workers run"
        out.print(f"{workers} version {waited.version}." if count else f"Version {waited.version} is in force; no worker is needed here.")
    else:
        out.print(f"Version {waited.version} is in force, and not everybody runs it.")
        for role in waited.absent:
            out.print(f"No {role} worker was heard of: see `hilum status` whether it runs.")
        if waited.stragglers:
            out.print("These workers do not run it:")
            _show_workers(waited.stragglers)


def _show_workers(found: Sequence[Worker]) -> None:
    rows = [(each.role, each.worker, each.version or "none yet", moment(each.seen_at), each.refuses, _why(each)) for each in found]
    show_table("", ("Role", "Worker", "Runs", "Heard of", "Refuses", "Why"), rows, nothing="No worker was heard of.")


def _why(worker: Worker) -> str:
    return f"it does not answer: heard of last {worker.unheard_s:.0f} s ago" if worker.silent else worker.says


def list_workers(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Show each worker that uses rules or destinations, the version that it runs, and when it was heard of last."""
    from hilum.bundle import workers

    found = workers(connected(config, data).postgres.dsn)
    if json:
        show_json(found)
    else:
        _show_workers(found)


def history(
    limit: Annotated[int, typer.Option("--limit", "-n", help="Show at most so many.", min=1)] = 20,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List the configurations that were put in force, latest first."""
    from hilum.bundle import history as published

    settings = connected(config, data)
    found = published(settings)
    latest = list(reversed(found))[:limit]
    if json:
        show_json([{"offset": each.offset, **_summary(each)} for each in latest])
        return
    rows = [
        (
            each.version + (" (in force)" if each is found[-1] else ""),
            moment(each.applied.applied_at),
            each.applied.actor,
            len(each.applied.rules),
            len(each.applied.destinations),
            each.applied.why,
        )
        for each in latest
    ]
    if len(found) <= limit:
        own = f"{settings.config_version} ({OWN if found else f'{OWN}, in force'})"
        rows.append((own, "", "", len(settings.rules), len(settings.destinations), "before anything was applied"))
    nothing = "Nothing was ever applied: the rules and destinations of the settings file hold."
    show_table("", ("Version", "At", "By", "Rules", "Destinations", "Why"), rows, nothing=nothing)


def _summary(bundle: Bundle) -> dict[str, Any]:
    applied = bundle.applied
    return {
        "version": applied.version,
        "applied_at": applied.applied_at,
        "actor": applied.actor,
        "why": applied.why,
        "rules": [rule.get("name") for rule in applied.rules],
        "destinations": sorted(applied.destinations),
    }


def diff(
    before: Annotated[str, typer.Argument(help="A version; without it, the one before the present one.")] = "",
    after: Annotated[str, typer.Argument(help="Another version; without it, the present one.")] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show what is different between two versions."""
    from hilum.bundle import history as published
    from hilum.candidate import changes, effective

    settings = connected(config, data)
    known = published(settings)
    from_, old = _former(settings, known, before) if before else _before(settings, known)
    to, new = _former(settings, known, after or known[-1].version)
    changed = changes(effective(settings, old), effective(settings, new))
    if json:
        show_json({"before": from_, "after": to, "changes": changed})
    else:
        out.print(f"From {from_} to {to}:")
        _show_changes(changed)


def _show_changes(changed: Sequence[Change]) -> None:
    rows = []
    for each in changed:
        told = [(key, pair) for key, pair in each.keys.items() if each.change == "changed" or pair[1 if each.change == "added" else 0]]
        rows += [(each.change, f"{each.what} {each.name}".strip(), key, _shown(old), _shown(new)) for key, (old, new) in told] or [
            (each.change, f"{each.what} {each.name}".strip(), "", "", "")
        ]
    show_table("", ("", "What", "Key", "Before", "After"), rows, nothing="Nothing is different.")


def _shown(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else to_json(value, ensure_ascii=False)


#: What stands for the rules of the settings file where a version is asked for.
OWN = "settings"


def _former(settings: Settings, known: Sequence[Bundle], version: str) -> tuple[str, Candidate]:
    """The configuration with this version, or with one that begins so, and its name."""
    from hilum.candidate import of_bundle, of_settings

    found = [each for each in known if each.version == version or (len(version) >= 4 and each.version.startswith(version))]
    if found:
        return found[-1].version, of_bundle(found[-1])
    if version == OWN or (len(version) >= 4 and settings.config_version.startswith(version)):
        return "the rules of the settings file", of_settings(settings)
    raise NotFound(f"No configuration with the version {version!r} was ever in force.", fix="See `hilum config history`.")


def _before(settings: Settings, known: Sequence[Bundle]) -> tuple[str, Candidate]:
    """The latest that is another than the present one: what the settings say, if nothing else was published before it."""
    if not known:
        raise NotFound("There is no configuration before the present one: nothing was ever applied.", fix="See `hilum config history`.")
    found = [each for each in known if each.version != known[-1].version]
    return _former(settings, known, found[-1].version if found else OWN)
