"""`hilum deliver`: the ledger by hand. What waits, what became of what; try again, cancel, hurry, hold, send once more."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import structs

from hilum.cli import holds, waits
from hilum.cli.context import (
    ConfigOption,
    DataOption,
    Exit,
    Group,
    JsonOption,
    connected,
    err,
    moment,
    out,
    show_json,
    show_table,
)
from hilum.cli.delivery_shown import show, what
from hilum.cli.holds import WhyOption
from hilum.cli.moments import moment_of
from hilum.errors import Misconfigured, NotFound, TryAgain

if TYPE_CHECKING:
    from hilum.database.deliveries import Counted, Selection
    from hilum.deliveries import Run
    from hilum.settings import Settings

IdsArgument = Annotated[list[str] | None, typer.Argument(help="Delivery ids or SOPInstanceUIDs; none: all that the options choose.")]
DestinationOption = Annotated[str, typer.Option("--destination", "-d", help="Only deliveries to this destination.")]
StateOption = Annotated[
    list[str] | None, typer.Option("--state", "-s", help="Only those in this state: pending, parked, delivered, …; may be repeated.")
]
StudyOption = Annotated[str, typer.Option("--study", help="Only those of this study: StudyInstanceUID or AccessionNumber.")]
SinceOption = Annotated[str, typer.Option("--since", help="Only what changed since then: 2026-01-31T18:00, or 2h, 3d ago.")]
UntilOption = Annotated[str, typer.Option("--until", help="Only what changed before then.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do it; without, it is only counted.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    group = typer.Typer(cls=Group, help="See and change deliveries.", no_args_is_help=True)
    for name, command in (
        ("list", list_all),
        ("show", show),
        ("retry", retry),
        ("cancel", cancel),
        ("resend", resend),
    ):
        group.command(name)(command)
    holds.add_to(group)
    app.add_typer(group, name="deliver")


def list_all(
    destination: DestinationOption = "",
    state: StateOption = None,
    study: StudyOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    limit: Annotated[int, typer.Option("--limit", "-n", help="Show at most so many.", min=1)] = 100,
    count: Annotated[bool, typer.Option("--count", help="Only count them, by destination and state.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List deliveries, last changed first. The peers' own words may name patients."""
    from hilum.database.deliveries import count_deliveries, list_deliveries

    settings = connected(config, data)
    selection = _selection(settings, destination, state, study, since, until)
    if count:
        counted = count_deliveries(settings.postgres.dsn, selection)
        if json:
            show_json(counted)
        else:
            _show_counts(counted)
        return
    found = list_deliveries(settings.postgres.dsn, selection, limit=limit + 1)
    more, found = len(found) > limit, found[:limit]
    if more:
        err.print(f"These are the {limit:,} last changed; there are more. --limit shows more, --count counts all.", markup=False)
    found = waits.explained(settings, found)
    if json:
        show_json(found)
        return
    rows = [
        (
            d.destination + (f" ({d.member})" if d.member else ""),
            "in hand" if d.in_hand else d.state,
            moment(d.settled_at or d.parked_at or d.entered_at),
            what(d),
            d.message.study_instance_uid if d.message else d.study_instance_uid,
            d.priority or "",
            d.attempts,
            d.peer_status,
            d.comment,
            d.waits_because,
            moment(d.next_attempt_at),
        )
        for d in found
    ]
    columns = (
        "To",
        "State",
        "Since",
        "Instance or message",
        "Study",
        "Priority",
        "Attempts",
        "Status",
        "Answer",
        "Waits because",
        "Next try at",
    )
    show_table("", columns, rows, nothing="There is no such delivery.")


def retry(
    ids: IdsArgument = None,
    destination: DestinationOption = "",
    state: StateOption = None,
    study: StudyOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    identified: Annotated[
        bool,
        typer.Option(
            "--identified",
            help="Only those that were to leave de-identified and whose destination has no policy any more: they leave as they are, with "
            "names, unless their patient opted out. Needs --why, which is kept.",
        ),
    ] = False,
    why: WhyOption = "",
    yes: YesOption = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Have deliveries tried again at once: those that wait for their next attempt, were put aside, or were rejected."""
    from hilum.deliveries import RETRIED, RETRYABLE
    from hilum.deliveries import retry as try_again

    settings = connected(config, data)
    selection = _selection(settings, destination, state or RETRIED, study, since, until, ids)
    if wrong := set(selection.states) - set(RETRYABLE):
        fix = "What arrived is sent once more with `hilum deliver resend`."
        raise Misconfigured("state-not-retried", f"What is {', '.join(sorted(wrong))} cannot be tried again.", fix=fix)
    would = "would be tried again"
    if identified:
        if not why or not (destination or study or ids):
            fix = "Choose with --destination, --study or ids, and say why with --why."
            raise Misconfigured("why-missing", "What leaves with names is chosen, and it is kept why.", fix=fix)
        selection, would = structs.replace(selection, under_policy=True), "would leave as they are, with names"
    elif why:
        raise Misconfigured("why-of-nothing", "--why is kept of --identified alone.", fix="Take it out.")

    def act() -> int:
        return try_again(settings, selection, identified=identified, why=why)

    _do(settings, selection, yes, json, "retried", would, act, some_stay=True)


def cancel(
    ids: IdsArgument = None,
    destination: DestinationOption = "",
    state: StateOption = None,
    study: StudyOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    why: WhyOption = "",
    yes: YesOption = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Give up deliveries that have not arrived. They are counted as cancelled; `hilum deliver retry --state cancelled` takes it back."""
    from hilum.database.deliveries import OPEN
    from hilum.deliveries import cancel as give_up

    settings = connected(config, data)
    selection = _selection(settings, destination, state or OPEN, study, since, until, ids)
    if wrong := set(selection.states) - set(OPEN):
        fix = "Only what is pending or parked can be cancelled."
        raise Misconfigured("state-not-cancelled", f"What is {', '.join(sorted(wrong))} has its final state.", fix=fix)
    if selection == _selection(settings, "", OPEN, "", "", ""):
        fix = "Choose with --destination, --study, --since or ids."
        raise Misconfigured("nothing-chosen", "That would cancel every delivery there is.", fix=fix)
    _do(settings, selection, yes, json, "cancelled", "would be cancelled", lambda: give_up(settings, selection, why=why))


def resend(
    to: Annotated[str, typer.Option("--to", help="The destination, to which it was delivered before.")],
    study: StudyOption = "",
    since: Annotated[str, typer.Option("--since", help="What was delivered since then: 2026-01-31T18:00, or 2h, 3d ago.")] = "",
    until: Annotated[str, typer.Option("--until", help="What was delivered before then.")] = "",
    urgent: Annotated[bool, typer.Option("--urgent", help="Before all others.")] = False,
    why: WhyOption = "",
    yes: YesOption = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Deliver again what a destination got, as after a restored backup there: each object once, as deliveries of a run of their own."""
    from hilum.database.deliveries import study_named
    from hilum.deliveries import Run
    from hilum.sink import URGENT

    settings = connected(config, data)
    if not (study or since or until):
        raise Misconfigured("nothing-chosen", "Nothing says what is to be sent again.", fix="Choose with --since, --until or --study.")
    check_destination(settings, to)
    run = Run(
        destination=to,
        study=study_named(settings.postgres.dsn, study) if study else "",
        since=moment_of(since, "--since"),
        until=moment_of(until, "--until"),
        again=True,
        priority=URGENT if urgent else 0,
        why=why,
    )
    enter(settings, run, yes, json)


def send_studies(settings: Settings, studies: list[str], to: str, dry_run: bool, urgent: bool, json: bool) -> None:
    """Deliver what the index has of studies to a destination, as `hilum send STUDY --to DEST`. Raises as the ledger does."""
    from hilum.database.deliveries import study_named
    from hilum.deliveries import Run
    from hilum.sink import URGENT

    check_destination(settings, to)
    for uid in [study_named(settings.postgres.dsn, study) for study in studies]:  # all must be there before any is sent
        enter(settings, Run(destination=to, study=uid, priority=URGENT if urgent else 0), not dry_run, json)


def enter(settings: Settings, run: Run, yes: bool, json: bool) -> None:
    """Enter a run into the ledger, or say what it would be."""
    from hilum import desired

    objects, studies, size_bytes = run.count(settings.postgres.dsn)
    expired = run.expired(settings.postgres.dsn)
    if yes:
        # Of what was applied or added by hand, too: without them it could not be said that this is to leave by a policy.
        table = desired.destinations(settings).destinations.get(run.destination, {})
        run_id, entered = run.enter(settings, table.get("policy"))
    if json:
        show_json(
            {"destination": run.destination, "objects": objects, "studies": studies, "size_bytes": size_bytes, "expired": expired}
            | ({"run": run_id, "entered": entered} if yes else {})
        )
    elif yes:
        out.print(f"{entered:,} objects wait for {run.destination} now, as run {run_id}.", markup=False)
    else:
        what = f"{objects:,} objects of {studies:,} studies ({size_bytes / 1e6:,.1f} MB)"
        out.print(f"{what} would be delivered to {run.destination}.", markup=False)
    if expired and not json:
        out.print(expired, markup=False)


def check_destination(settings: Settings, name: str) -> None:
    """Raise `NotFound` that names the nearest one, if no destination has that name: in the settings, as applied, or added by hand."""
    from hilum import desired
    from hilum.misfits import nearest

    if name not in settings.destinations and name not in (known := {**desired.read(settings).added, **configured(settings)}):
        near = nearest(name, known)
        raise NotFound(f"There is no destination {name!r}.", fix=f"Did you mean {near}?" if near else "See `hilum dest list`.")


def _refuse_unknown(settings: Settings, name: str) -> None:
    """Raise `NotFound` that names the nearest one, if there is no destination `name` and the ledger has nothing for it."""
    from hilum.database.deliveries import Selection, list_deliveries

    if name in settings.destinations or list_deliveries(settings.postgres.dsn, Selection(destination=name), limit=1):
        return
    try:
        check_destination(settings, name)
    except TryAgain:  # while Kafka is away, it may have been added by hand
        return


def configured(settings: Settings) -> dict[str, dict[str, Any]]:
    """The tables of the destinations in the settings file and of those that were applied. Raises `TryAgain`, `Misconfigured`."""
    from hilum.bundle import current

    bundle = current(settings)
    return {**settings.destinations, **(bundle.applied.destinations if bundle else {})}


def _selection(
    settings: Settings,
    destination: str,
    states: list[str] | tuple[str, ...] | None,
    study: str,
    since: str,
    until: str,
    ids: list[str] | None = None,
) -> Selection:
    from hilum.database.deliveries import STATES, Selection, study_named
    from hilum.misfits import nearest

    for state in states or ():
        if state not in STATES:
            near = nearest(state, STATES)
            fix = f"Did you mean {near}?" if near else f"States are: {', '.join(STATES)}."
            raise Misconfigured("state-unknown", f"There is no state {state!r}.", fix=fix)
    if destination:
        _refuse_unknown(settings, destination)
    return Selection(
        destination=destination,
        study=study_named(settings.postgres.dsn, study) if study else "",
        states=tuple(states or ()),
        since=moment_of(since, "--since"),
        until=moment_of(until, "--until"),
        ids=tuple(ids or ()),
    )


def _show_counts(counted: list[Counted]) -> None:
    rows = [(c.destination, c.state, c.deliveries, c.studies, f"{c.size_bytes / 1e6:,.1f} MB", c.in_hand or "") for c in counted]
    show_table("", ("To", "State", "Objects", "Studies", "Size", "In hand"), rows, nothing="There is no such delivery.")


def _do(
    settings: Settings,
    selection: Selection,
    yes: bool,
    json: bool,
    done: str,
    would: str,
    act: Callable[[], int],
    *,
    some_stay: bool = False,
) -> None:
    """Count what a selection holds, and change it if `yes`; with `some_stay`, but for what was taken back."""
    from hilum.database.deliveries import count_deliveries

    counted = count_deliveries(settings.postgres.dsn, selection)
    total, in_hand = sum(c.deliveries for c in counted), sum(c.in_hand for c in counted)
    withdrawn = sum(c.withdrawn for c in counted) if some_stay else 0
    corrected = sum(c.corrected for c in counted) if some_stay else 0
    count = act() if yes else 0
    if json:
        show_json({"chosen": counted, "in_hand": in_hand, done: count})
    else:
        _show_counts(counted)
        if total:
            out.print(
                f"{count:,} were {done}." if yes else f"{total - in_hand - withdrawn - corrected:,} {would}; --yes does it.", markup=False
            )
        if withdrawn:
            out.print(f"{withdrawn:,} stay as they are: a rejection note names their objects.", markup=False)
        if corrected:
            out.print(f"{corrected:,} stay as they are: corrections took the place of their objects.", markup=False)
        if in_hand:
            out.print(f"{in_hand:,} are in the hands of a worker at this moment and stay with it; look again.", markup=False)
    sys.exit(Exit.DONE if total else Exit.NOT_FOUND)
