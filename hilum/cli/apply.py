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
    why: WhyOption = "",
    timeout: TimeoutOption = 60.0,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Check rules, their tests and destinations, put them in force as one, and return when every worker runs them.

    Exit code 4: refused, since deliveries wait for a destination that goes. Exit code 6: it is in force, and the workers that are
    named do not run it yet.
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
    _put_in_force(settings, candidate, dry_run=dry_run, confirm=confirm, why=why, timeout_s=timeout, json=json)


def rollback(
    version: Annotated[str, typer.Argument(help="The version to go back to; without it, the one before the present one.")] = "",
    dry_run: DryRunOption = False,
    confirm: ConfirmOption = False,
    why: WhyOption = "",
    timeout: TimeoutOption = 60.0,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Put a former configuration in force again, as `hilum apply` would; the files in `config/` stay as they are."""
    from hilum.bundle import history as published
    from hilum.candidate import of_bundle

    settings = _with_added(connected(config, data))
    known = published(settings)
    bundle = _named(known, version) if version else _before(known)
    why = why or f"back to {bundle.version}"
    _put_in_force(settings, of_bundle(bundle), dry_run=dry_run, confirm=confirm, why=why, timeout_s=timeout, json=json)


def _with_added(settings: Settings) -> Settings:
    """`settings` with the destinations that were added by hand: rules may name these, too."""
    from hilum import desired

    return desired.with_added(settings, desired.read(settings).added)


def _put_in_force(
    settings: Settings, candidate: Candidate, *, dry_run: bool, confirm: bool, why: str, timeout_s: float, json: bool
) -> None:
    from hilum.applying import in_force_now, look_again, orphans, overtaken, publish, refuse_orphans, wait
    from hilum.bundle import in_force
    from hilum.candidate import changes

    after = candidate.settings(settings)
    bundle, before = in_force_now(settings)
    changed = changes(before, candidate)
    left = orphans(settings, in_force(settings, bundle), after)
    if not json:
        _show_changes(changed)
    if dry_run:
        if json:
            show_json({"version": candidate.version, "dry_run": True, "changes": changed, "orphans": left})
        else:
            for each in left:
                out.print(f"{each.pending} deliveries wait for {each.destination}, which goes: it would be refused without --confirm.")
            out.print(f"Version {candidate.version} is right; nothing was published.")
        return
    if not confirm:
        refuse_orphans(left)
    if bundle is None or bundle.version != candidate.version:
        bundle = publish(settings, candidate, why=why)
    with err.status(f"Waiting for workers to run {candidate.version}"):
        waited = wait(settings, candidate.version, timeout_s)
    look_again(settings)
    other = overtaken(settings, bundle)
    if json:
        show_json(
            {"version": candidate.version, "dry_run": False, "changes": changed, "orphans": left, "overtaken_by": other, **_told(waited)}
        )
    else:
        _show_waited(waited, other)
    sys.exit(Exit.PARTLY if waited.stragglers or other else Exit.DONE)


def _say_checked(candidate: Candidate, json: bool) -> None:
    if json:
        show_json({"version": candidate.version, "dry_run": True, "changes": None, "orphans": None})
    else:
        out.print(f"Version {candidate.version} is right; nothing was published. No Hilum runs here to compare it with.")


def _told(waited: Waited) -> dict[str, Any]:
    return {"running": [each.worker for each in waited.running], "stragglers": waited.stragglers}


def _show_waited(waited: Waited, other: str) -> None:
    if other:
        out.print(f"Somebody else has put {other} in force since; {waited.version} no longer is.")
    elif not waited.stragglers:
        count = len(waited.running)
        workers = "1 worker runs" if count == 1 else f"{count} workers run"
        out.print(f"{workers} version {waited.version}." if count else f"Version {waited.version} is in force; no worker is running.")
    else:
        out.print(f"Version {waited.version} is in force; these workers do not run it:")
        _show_workers(waited.stragglers)


def _show_workers(found: Sequence[Worker]) -> None:
    rows = [(each.role, each.worker, each.version or "none yet", each.refuses, each.says) for each in found]
    show_table("", ("Role", "Worker", "Runs", "Refuses", "Why"), rows, nothing="No worker is running.")


def list_workers(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Show each worker that uses rules or destinations, and the version that it runs."""
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

    found = published(connected(config, data))
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
    from hilum.candidate import changes, of_bundle

    known = published(connected(config, data))
    old = _named(known, before) if before else _before(known)
    new = _named(known, after) if after else known[-1]
    changed = changes(of_bundle(old), of_bundle(new))
    if json:
        show_json({"before": old.version, "after": new.version, "changes": changed})
    else:
        out.print(f"From {old.version} to {new.version}:")
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


def _named(known: Sequence[Bundle], version: str) -> Bundle:
    found = [each for each in known if each.version == version or (len(version) >= 4 and each.version.startswith(version))]
    if not found:
        raise NotFound(f"No configuration with the version {version!r} was ever in force.", fix="See `hilum config history`.")
    return found[-1]


def _before(known: Sequence[Bundle]) -> Bundle:
    """The latest that is another than the present one."""
    found = [each for each in known if each.version != known[-1].version]  # none, if there is none at all
    if not found:
        raise NotFound("There is no configuration before the present one.", fix="See `hilum config history`.")
    return found[-1]
