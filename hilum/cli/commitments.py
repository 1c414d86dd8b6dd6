"""`hilum commitment`: what was asked by storage commitment, what it waits for, and what was answered."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from hilum.cli.context import ConfigOption, DataOption, Exit, JsonOption, loaded, moment, out, show_facts, show_json, show_table

if TYPE_CHECKING:
    from hilum.commitments import Commitment, Commitments


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    group = typer.Typer(help="See requests for storage commitment; try reports again.", no_args_is_help=True)
    group.command("list")(list_requests)
    group.command("show")(show)
    group.command("retry")(retry)
    app.add_typer(group, name="commitment")


def list_requests(
    all_: Annotated[bool, typer.Option("--all", help="Also those that have ended, as long as they are remembered.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List the requests that wait for objects or for their SCU, oldest first. Run it where the spool is."""
    requests = _commitments(config, data)
    found = [*(requests.done() if all_ else []), *requests.open()]
    if json:
        show_json(found)
        return
    rows = [
        (
            moment(each.asked_at),
            each.calling_aet,
            each.objects,
            each.failed if each.decided_at else "",
            each.state,
            each.attempts or "",
            moment(each.not_before),
            each.says,
            each.transaction_uid,
        )
        for each in found
    ]
    columns = ("Asked", "By", "Objects", "Failed", "State", "Attempts", "Next attempt", "Says", "Transaction")
    show_table("", columns, rows, nothing="No request is open.")


def show(
    which: Annotated[str, typer.Argument(help="The transaction UID, or the request's id.", metavar="TRANSACTION")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show a request: who asked, for which objects, and what was answered for each. Run it where the spool is."""
    found = _commitments(config, data).find(which)
    if json:
        show_json([_as_json(each) for each in found])
        return
    for each in found:
        _show(each)


def retry(
    which: Annotated[
        str, typer.Argument(help="The transaction UID, or the request's id; without it, all that wait.", metavar="TRANSACTION")
    ] = "",
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Try reports again now, such as to an SCU that could not be reached. Run it where the spool is.

    Without TRANSACTION these are all reports that wait for their SCU. With it, one that was given up is tried once more, too.
    """
    requests = _commitments(config, data)
    found = requests.find(which) if which else [each for each in requests.open() if each.state == "decided"]
    tried = [each for each in found if requests.retry(each.id)]
    for each in tried:
        out.print(f"{each.transaction_uid}: its report to {each.calling_aet} is tried again.", markup=False)
    if tried:
        out.print("What became of it: `hilum commitment list --all`.")
    elif which:
        says = {"asked": "is not decided yet", "reported": "was reported"}.get(found[0].state, "cannot be tried now")
        out.print(f"Nothing to try: {found[0].transaction_uid} {says}. {found[0].says}".rstrip(), markup=False)
        sys.exit(Exit.REFUSED)
    else:
        out.print("No report waits for its SCU.")


def _commitments(config: Path | None, data: Path | None) -> Commitments:
    from hilum.commitments import Commitments
    from hilum.errors import NotFound

    settings = loaded(config, data).settings
    if not settings.spool_dir.is_dir():
        raise NotFound(
            f"There is no spool in {settings.spool_dir}.", fix="Run this where the spool is, or name its data directory with --data."
        )
    return Commitments.of(settings)


def _results(commitment: Commitment) -> list[tuple[str, str, str]]:
    """SOP class, SOP instance and result of each reference; before the decision there is no result."""
    from hilum.dicom.commitment import reason_text

    reasons = {failure.reference: reason_text(failure.reason) for failure in commitment.failures}
    decided = commitment.decided_at is not None
    return [
        (each.sop_class_uid, each.sop_instance_uid, reasons.get(each, "committed" if decided else "")) for each in commitment.references
    ]


def _as_json(commitment: Commitment) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(commitment)
    del shown["failures"]
    shown["references"] = [
        {"sop_class_uid": sop_class, "sop_instance_uid": instance, "result": result} for sop_class, instance, result in _results(commitment)
    ]
    return shown


def _show(commitment: Commitment) -> None:
    show_facts(
        {
            "Transaction UID": commitment.transaction_uid,
            "Asked by": f"{commitment.calling_aet} ({commitment.peer}), calling {commitment.called_aet}",
            "Asked": moment(commitment.asked_at),
            "State": commitment.state,
            "Says": commitment.says,
            "Decided": moment(commitment.decided_at),
            "Reports tried": commitment.attempts,
            "Next attempt": moment(commitment.not_before) if commitment.ended_at is None else "",
            "Ended": moment(commitment.ended_at),
        }
    )
    out.print()
    show_table("Objects", ("SOP class", "SOP instance", "Result"), _results(commitment))
    out.print()
