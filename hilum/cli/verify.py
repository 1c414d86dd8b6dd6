"""`hilum reconcile --destination D --verify`: does the destination have what the ledger says it has?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from hilum.cli.context import Exit, err, moment, out, show_json, show_table
from hilum.cli.moments import moment_of
from hilum.errors import NotFound
from hilum.settings import Settings

if TYPE_CHECKING:
    from hilum.verify import Asked

COLUMNS = ("At", "Study there", "Instance there", "Delivered at", "Instance here")


def verify_destination(settings: Settings, name: str, since: str, study: str, resend: bool, json: bool) -> NoReturn:
    """Ask the destination `name`, list what is missing there, and end with 0 if nothing is. Raises `TryAgain`, `Misconfigured`."""
    from hilum import desired
    from hilum.database.deliveries import Selection, study_named
    from hilum.deliveries import Run
    from hilum.misfits import nearest
    from hilum.sink import sinks_of
    from hilum.verify import verify

    settings = desired.destinations(settings)
    if name not in settings.destinations:
        near = nearest(name, settings.destinations)
        raise NotFound(f"There is no destination {name!r}.", fix=f"Did you mean {near}?" if near else "See `hilum dest list`.")
    uid = study_named(settings.postgres.dsn, study) if study else ""
    selection = Selection(destination=name, study=uid, since=moment_of(since, "--since"))
    with err.status(f"Asking {name}") as spinner:
        found = verify(
            settings.postgres.dsn,
            selection,
            sinks_of(settings),
            lambda sink, of_study, expected: sink.holdings(settings, of_study, expected),
            lambda studies, objects: spinner.update(f"Asking {name}: {studies:,} studies, {objects:,} objects"),
        )
    run = ""
    if resend and found.missing:
        ids = tuple(each.delivery_id for each in found.missing)
        run, _ = Run(destination=name, again=True, ids=ids, why="missing there").enter(settings, settings.destinations[name].get("policy"))
    if json:
        show_json({"verified": found, "run": run or None})
    else:
        show_table("Missing there", COLUMNS, _rows(found.missing), nothing="Nothing is missing there.")
        out.print(f"{name} has {found.there:,} of {found.objects:,} objects, in {found.studies:,} studies, that were delivered to it.")
        if found.withdrawn:
            out.print(f"{found.withdrawn:,} more were taken back from it since: see `hilum deid outputs`.", markup=False)
        if found.unproven:
            show_table("Corrected: which form is there cannot be told", COLUMNS, _rows(found.unproven))
            out.print(f"{name} was sent these {len(found.unproven):,} in two forms. That one is there is known, not which: look there.")
        if run:
            out.print(f"{len(found.missing):,} are on their way again, as run {run}.", markup=False)
        elif found.missing:
            out.print("Have them delivered again with --resend.", markup=False)
    sys.exit(Exit.FAILED if found.missing else Exit.DONE)


def _rows(asked: Sequence[Asked]) -> list[tuple[str, ...]]:
    """By the UIDs that the destination's administrator can look for; the stored object's where it has another one."""
    return [
        (
            *(each.destination, each.sent_study, each.sent_as, moment(each.settled_at)),
            each.sop_instance_uid if each.sop_instance_uid != each.sent_as else "",
        )
        for each in asked
    ]
