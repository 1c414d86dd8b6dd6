"""`hilum reconcile --destination D --verify`: does the destination have what the ledger says it has?"""

from __future__ import annotations

import sys
from typing import NoReturn

from hilum.cli.context import Exit, err, moment, out, show_json, show_table
from hilum.cli.moments import moment_of
from hilum.errors import NotFound
from hilum.settings import Settings


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
        run, _ = Run(destination=name, again=True, ids=ids, why="missing there").enter(settings)
    if json:
        show_json({"verified": found, "run": run or None})
    else:
        rows = [(each.destination, each.study_instance_uid, each.sop_instance_uid, moment(each.settled_at)) for each in found.missing]
        show_table("Missing there", ("At", "Study", "Instance", "Delivered at"), rows, nothing="Nothing is missing there.")
        out.print(f"{name} has {found.there:,} of {found.objects:,} objects, in {found.studies:,} studies, that were delivered to it.")
        if run:
            out.print(f"{len(found.missing):,} are on their way again, as run {run}.", markup=False)
        elif found.missing:
            out.print("Have them delivered again with --resend.", markup=False)
    sys.exit(Exit.FAILED if found.missing else Exit.DONE)
