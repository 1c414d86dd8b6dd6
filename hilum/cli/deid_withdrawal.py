"""What `hilum deid patients withdraw` takes back, and what only a person can tell: parted, and shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hilum.cli.context import out, show_json, show_table
from hilum.errors import NotFound

if TYPE_CHECKING:
    from hilum.database.withdrawing import TakeBack

#: Lines that are shown of each table; --json has all.
LINES = 1000


def parted(found: Sequence[TakeBack], also: Sequence[str]) -> tuple[list[TakeBack], list[TakeBack]]:
    """What goes, and what stays until a person says that it is the patient's: `also` names pseudonyms and new StudyInstanceUIDs.

    Raises `NotFound` if `also` names what is not among those in doubt.
    """
    going: list[TakeBack] = []
    staying: list[TakeBack] = []
    unknown = dict.fromkeys(also)
    for each in found:
        named = {each.output.sent_patient, each.output.sent_study}.intersection(also)
        for name in named:
            unknown.pop(name or "", None)
        (going if each.sure or named else staying).append(each)
    if unknown:
        raise NotFound(
            f"Nothing that is perhaps to be taken back is of {', '.join(unknown)}.",
            fix="Name a patient or a study as they are listed without --yes.",
        )
    return going, staying


def show(going: Sequence[TakeBack], staying: Sequence[TakeBack], *, done: bool, json: bool) -> None:
    """Say what was taken back, or would be, and what stays in doubt. Names patients, by the lines of the list."""
    there = sum(each.output.sent_at is not None for each in going)
    if json:
        counts = {"count": there, "perhaps": len(going) - there, "doubtful": len(staying)}
        show_json({**counts, "dry_run": not done, "objects": [_line(each) for each in going], "also": [_line(each) for each in staying]})
        return
    if not done and going:
        _table("Would be taken back", going)
    if staying:
        _table("Perhaps also, which stays: take it with --also PATIENT or --also STUDY", staying)
    unsure = f", with {len(going) - there:,} of which nobody knows whether they were there" if there < len(going) else ""
    out.print(f"{there:,} {'taken back' if done else 'would be taken back'}{unsure}{'' if done else '; do it with --yes'}.", markup=False)


def _table(title: str, objects: Sequence[TakeBack]) -> None:
    cells = [
        (each.output.sent_patient, each.output.sent_study, each.output.sent_as, each.output.destination, each.output.state, _by(each))
        for each in objects[:LINES]
    ]
    show_table(title, ("Patient", "Study", "Instance", "Destination", "State", "By"), cells)
    if len(objects) > LINES:
        out.print(f"There are {len(objects) - LINES:,} more: see all with --json.", markup=False)


def _by(each: TakeBack) -> str:
    lines = (f"{line.value} of {line.issuer or 'any issuer'}, {line.project or 'all projects'}" for line in each.by)
    return "; ".join(lines) or "no consent"


def _line(each: TakeBack) -> dict[str, Any]:
    output = each.output
    return {
        "destination": output.destination,
        "patient": output.sent_patient,
        "study_instance_uid": output.sent_study,
        "series_instance_uid": output.sent_series,
        "sop_instance_uid": output.sent_as,
        "project": output.project,
        "state": output.state,
        "why": each.why,
        "by": each.by,
    }
