"""`hilum demo`: everything once, for real: servers, a PACS, sample objects, an order and its study, and the account of it all."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import convert
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hilum.account import Account
from hilum.cli.context import Exit, JsonOption, err, out, show_json, show_table

if TYPE_CHECKING:
    from hilum.demo import Result


def add_to(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    app.command()(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running afterwards.")] = False,
    slices: Annotated[int, typer.Option(help="Slices of the synthetic CT study.", min=1)] = 200,
    json: JsonOption = False,
) -> None:
    """Start everything, send real objects through it, and show what became of each."""
    from hilum.demo import Demo

    for number in (signal.SIGTERM, signal.SIGHUP):  # what it has started must end with it
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="hilum-demo-"))
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with ExitStack() as cleanup, Progress(*columns, console=err) as progress:
        bar = progress.add_task("Starting", total=None)
        if not keep:
            cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        run = Demo(folder, slices, lambda text, done, total: progress.update(bar, description=text, completed=done or 0, total=total))
        if not keep:
            cleanup.callback(run.stop)
        result = run.run()
    if json:
        show_json(result)
    else:
        _show(result)
        if keep:
            out.print(f"Still running. Look: hilum status --data {run.data}   Stop: hilum down --data {run.data}")
    sys.exit(Exit.DONE if result.ok else Exit.FAILED)


def _show(result: Result) -> None:
    story = [(each.what, each.came_of_it, f"{each.seconds:.2f} s") for each in result.order]
    show_table("What became of an order", ("What", "Then", "After"), story)
    out.print()
    account = result.account
    rows = [("files", result.sent), ("not stored by the listener", len(result.not_stored)), ("received", account["received"])]
    rows += [("accepted by validation", account["accepted"])]
    rows += [(f"settled at {stage.stage.removeprefix('settled: ')}", stage.objects) for stage in result.stages if ": " in stage.stage]
    rows += [("stored at the PACS, by its own count", result.at_the_pacs), ("duplicates", account["duplicates"])]
    rows += [("quarantined", account["quarantined"]), ("unaccounted", account["unaccounted"])]
    show_table("What became of the objects", ("", "Objects"), rows)
    out.print(convert(account, Account).balance, markup=False)
    if result.not_stored:
        out.print()
        show_table("Not stored", ("File", "Status", "Why"), [(row.file, row.status, row.why) for row in result.not_stored])
    if result.quarantined:
        out.print()
        columns = ("Reason", "Objects", "Meaning")
        show_table("In quarantine", columns, [(row.reason, row.objects, row.sentence) for row in result.quarantined])
    out.print()
    stages = [(s.stage, s.objects, s.median_ms, s.p95_ms) for s in result.stages]
    out.print("All objects were sent in one burst: most of the time below is waiting in line.")
    show_table("Time since the object was received", ("Stage", "Objects", "Median ms", "p95 ms"), stages)
    out.print()
    out.print("Seconds: " + ", ".join(f"{name} {value}" for name, value in result.seconds.items()) + ".")
    out.print("Everything is accounted for." if result.ok else "Not everything is accounted for: see `hilum reconcile`.")
