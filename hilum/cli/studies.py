"""`hilum study`, `hilum quarantine`, `hilum reconcile`: where is my study, what waits for me, is everything accounted for?"""

from __future__ import annotations

import difflib
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from msgspec.structs import replace

from hilum.cli import waits
from hilum.cli.completing import complete
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
    show_facts,
    show_json,
    show_table,
)
from hilum.cli.ordered import order_in_words, show_ordered
from hilum.errors import Misconfigured, NotFound, Reason
from hilum.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hilum.database.deidentified import Origin
    from hilum.database.queries import QuarantinedEvent, Study, StudySummary
    from hilum.database.troubles import FailedRule
    from hilum.waiting import Circumstances

Fits = Literal["", "matched", "mismatched", "unmatched", "no-order", "order-cancelled", "withdrawn"]
LimitOption = Annotated[int, typer.Option("--limit", "-n", help="Show at most so many.", min=1)]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    study = typer.Typer(cls=Group, help="See studies: where each one is, and why.", no_args_is_help=True)
    study.command("list")(list_all)
    study.command("show")(show)
    study.command("complete")(complete)
    app.add_typer(study, name="study")
    quarantine = typer.Typer(cls=Group, help="See what waits for a person.", no_args_is_help=True)
    quarantine.command("list")(list_quarantine)
    quarantine.command("show")(show_quarantine)
    app.add_typer(quarantine, name="quarantine")
    app.command()(reconcile)


def list_all(
    search: Annotated[str, typer.Argument(help="UID, accession number, patient id (also of a merged patient), or part of a name.")] = "",
    order: Annotated[Fits, typer.Option("--order", help="Only studies that fit their order so.")] = "",
    limit: LimitOption = 50,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List the studies received last."""
    from hilum.database.queries import list_studies

    found = list_studies(connected(config, data).postgres.dsn, like=search, order=order, limit=limit)
    if json:
        show_json(found)
        return
    about = ("Received", "Accession", "Patient", "Name", "Date", "Modality", "Description")
    columns = (*about, "Order", "Series", "Objects", "Complete", "Open", "Study")
    rows = [
        (
            moment(s.received_at),
            s.accession_number,
            _patient_id(s),
            s.current_patient_name or s.patient_name,
            s.study_date,
            "/".join(s.modalities),
            s.study_description,
            s.order_outcome,
            s.series,
            s.instances,
            completeness(s),
            open_matters(s),
            s.study_instance_uid,
        )
        for s in found
    ]
    show_table("", columns, rows, nothing="No such study is in the index." if search or order else "No study is in the index.")


def show(
    study: Annotated[
        str, typer.Argument(help="StudyInstanceUID or AccessionNumber; also a number of its order.", metavar="UID_OR_ACCESSION")
    ],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show one study: what was ordered and performed, what came, from whom, where it went, what waits and why."""
    from hilum.database.deidentified import origin_of
    from hilum.database.ordered import ordered, studies_of
    from hilum.database.queries import show_study
    from hilum.waiting import circumstances

    settings = connected(config, data)
    dsn = settings.postgres.dsn
    now = circumstances(settings)
    try:
        found = show_study(dsn, study)
    except NotFound:
        found = [each for uid in studies_of(dsn, study) for each in show_study(dsn, uid)]
        if not found:
            if not _shown_as_awaited(dsn, study, now, json):
                if left_by := origin_of(dsn, study).left_by:
                    raise NotFound(
                        f"Under that StudyInstanceUID objects left de-identified, by {' and '.join(left_by)}; nothing else of it is here.",
                        fix=f"See what left: hilum deid outputs --policy {left_by[0]} --json",
                    ) from None
                raise
            return
    uids = [each.summary.study_instance_uid for each in found]
    found = [
        replace(each, deliveries=waits.of_study(now, uid, each.deliveries, dsn), ordered=ordered(dsn, uid), origin=origin_of(dsn, uid))
        for uid, each in zip(uids, found, strict=True)
    ]
    if json:
        show_json(found)
        return
    for each in found:
        _show_study(each, now.held(each.summary.study_instance_uid))


def _shown_as_awaited(dsn: str, study: str, now: Circumstances, json: bool) -> bool:
    """Show what is known of a study of which nothing came: its orders, and whether it is held. False if nothing is."""
    from hilum.database.ordered import planned

    held, found = now.wanted.held.get(study), planned(dsn, study)
    if held is None and found is None:
        return False
    if json:
        show_json([{**({"held": held} if held is not None else {}), **({"ordered": found} if found is not None else {})}])
        return True
    is_held = f" It is {now.held(study)}." if held is not None else ""
    is_ordered = " It is ordered." if found is not None else ""
    out.print(f"Nothing of the study {study} has come yet.{is_held}{is_ordered}", markup=False)
    if found is not None:
        show_ordered(found)
    return True


def _origin_in_words(origin: Origin) -> str:
    """That it is no original; empty if nothing says so."""
    if origin.left_by:
        return f"no original: a study left under this UID by {' and '.join(origin.left_by)}, of which its objects were made"
    return f"no originals: {origin.stamped:,} of its objects say that Hilum de-identified them" if origin.stamped else ""


def _show_study(study: Study, held: str) -> None:
    summary = study.summary
    show_facts(
        {
            "StudyInstanceUID": summary.study_instance_uid,
            "AccessionNumber": summary.accession_number,
            "Patient": f"{summary.current_patient_id or summary.patient_id or ''}"
            f"  {summary.current_patient_name or summary.patient_name or ''}".strip(),
            "In its images": f"{summary.patient_id}  {summary.patient_name or ''}".strip() if summary.current_patient_id else "",
            "Study": f"{summary.study_date or ''} {'/'.join(summary.modalities)} {summary.study_description or ''}".strip(),
            "Objects": f"{summary.instances} in {summary.series} series",
            "De-identified": _origin_in_words(study.origin) if study.origin is not None else "",
            "Complete": completeness(summary),
            "Waits because": summary.says or "",
            "Order": order_in_words(study.ordered) if study.ordered is not None else "",
            "State": "; ".join(filter(None, (open_matters(summary), held))) or "all settled",
        }
    )
    if study.ordered is not None:
        show_ordered(study.ordered)
    out.print()
    rows = [(s.series_number, s.modality, s.series_description, s.instances, f"{s.size_bytes / 1e6:.1f} MB") for s in study.series]
    show_table("Series", ("No.", "Modality", "Description", "Objects", "Size"), rows, nothing="No object of it was accepted.")
    out.print()
    arrivals = [(a.calling_aet, a.peer, a.adapter, a.outcome, a.receipts, moment(a.first_received_at)) for a in study.arrivals]
    show_table("Received", ("From", "Address", "By", "Outcome", "Objects", "First at"), arrivals)
    out.print()
    deliveries = [
        (
            d.destination,
            f"{d.state}, {d.withdrawn:,} taken back since" if d.withdrawn else d.state,
            d.deliveries,
            d.attempts,
            f"{d.peer_status or ''} {d.comment or ''}".strip(),
            d.waits_because,
            f"next attempt {moment(d.next_attempt_at)}" if d.next_attempt_at else moment(d.last_settled_at),
        )
        for d in study.deliveries
    ]
    columns = ("To", "State", "Objects", "Attempts", "Answer", "Waits because", "When")
    show_table("Deliveries", columns, deliveries, nothing="No rule sent it anywhere.")
    if study.expired:
        out.print()
        expired = [(e.objects, f"{e.size_bytes / 1e6:.1f} MB", moment(e.first_at), e.policy, e.decided_by) for e in study.expired]
        show_table("Originals expired", ("Objects", "Size", "On", "By", "Decided by"), expired)
    if study.failed:
        out.print()
        show_failed_rules(study.failed)
    if study.quarantined:
        out.print()
        _show_waiting(study.quarantined)


def show_failed_rules(failed: Sequence[FailedRule]) -> None:
    """What is to be decided again, once `hilum apply` has brought other rules."""
    rows = [(each.says, each.objects, each.studies, moment(each.since)) for each in failed]
    show_table("Rules that could not be evaluated; the other rules have decided", ("Why", "Objects", "Studies", "Since"), rows)


def _patient_id(study: StudySummary) -> str:
    """The patient's identifier after merges, with the one that the images have."""
    return f"{study.current_patient_id} (was {study.patient_id})" if study.current_patient_id else study.patient_id or ""


def completeness(study: StudySummary) -> str:
    """Whether a study is complete, in a few words; empty if nothing is known."""
    missing = f", {study.missing} missing" if study.missing else ""
    withdrawn = f", {study.withdrawn} withdrawn" if study.withdrawn else ""
    if study.state == "complete":
        return f"revision {study.revision} ({study.reason}){missing}{withdrawn}"
    stuck = ", stuck" if study.says else ""
    return f"awaited{f', revision {study.revision} before' if study.revision else ''}{missing}{withdrawn}{stuck}" if study.state else ""


def open_matters(study: StudySummary) -> str:
    """What is not as one expects of a study that is done; empty if all is."""
    parts = (
        (study.pending, "to deliver"),
        (study.parked, "waiting for a person"),
        (study.rejected, "rejected"),
        (study.unrouted, "sent nowhere by any rule"),
        (study.quarantined, "in quarantine"),
    )
    return ", ".join(f"{count} {what}" for count, what in parts if count)


def list_quarantine(
    reason: Annotated[str, typer.Option("--reason", help="Only what waits for this reason.")] = "",
    limit: LimitOption = 100,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List what waits for a person, oldest first. No value of an object is shown; `show` has them."""
    from hilum.database.queries import count_quarantined, list_quarantined

    if reason and reason not in list(Reason):
        near = difflib.get_close_matches(reason, list(Reason), n=1)
        fix = f"Did you mean {near[0]}?" if near else f"Reasons are: {', '.join(Reason)}."
        raise Misconfigured("reason-unknown", f"There is no reason {reason!r}.", fix=fix)
    dsn = connected(config, data).postgres.dsn
    found = list_quarantined(dsn, reason=reason, limit=limit)
    if json:
        fields = ("event_id", "receipt", "quarantined_at", "stage", "reason", "sentence", "fix", "calling_aet", "sop_instance_uid")
        show_json([{name: getattr(each, name) for name in fields} for each in found])
    elif reason and not found:
        out.print(f"Nothing waits for that reason; for others: {counted(count_quarantined(dsn), 'object')}.")
    else:
        _show_waiting(found)


def _show_waiting(events: list[QuarantinedEvent]) -> None:
    rows = [(e.receipt or e.event_id, moment(e.quarantined_at), e.reason, e.calling_aet, e.study_instance_uid, e.sentence) for e in events]
    show_table("In quarantine", ("Receipt", "Since", "Reason", "From", "Study", "What"), rows, nothing="Nothing waits in quarantine.")


def show_quarantine(
    which: Annotated[str, typer.Argument(help="Receipt, event id or SOPInstanceUID.", metavar="ID")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show why something waits: found and expected value, where its bytes are, what would fix it."""
    from hilum.database.queries import show_quarantined

    found = show_quarantined(connected(config, data).postgres.dsn, which)
    if json:
        show_json(found)
        return
    for event in found:
        show_facts(
            {
                "Reason": event.reason,
                "What": event.sentence,
                "Found": event.found,
                "Expected": event.expected,
                "Fix": event.fix,
                "Stage": event.stage,
                "Since": moment(event.quarantined_at),
                "State": event.state,
                "From": f"{event.calling_aet or ''} {event.peer or ''}".strip(),
                "Object": f"{event.bucket}/{event.object_key}" if event.object_key else "",
                "Receipt": event.receipt,
                "Event": event.event_id,
                "StudyInstanceUID": event.study_instance_uid,
                "SOPInstanceUID": event.sop_instance_uid,
            }
        )


def reconcile(
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read every object whole and compare its digest; with --destination, ask it what it has."),
    ] = False,
    destination: Annotated[str, typer.Option("--destination", help="With --verify: compare the ledger with what this one has.")] = "",
    since: Annotated[str, typer.Option("--since", help="With --destination: what was delivered since then: 2h, 3d ago.")] = "",
    study: Annotated[str, typer.Option("--study", help="With --destination: this study only.")] = "",
    resend: Annotated[bool, typer.Option("--resend", help="With --destination: deliver again what is missing there.")] = False,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for index and ledger to catch up.")] = 60.0,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Account for every object: log, store, index and ledger side by side. Exit code 0 only if nothing is unaccounted or undecided.

    A sample of 500 objects is read back from the store, a piece of each; `--verify` reads all. With `--destination D --verify`, D
    itself is asked which of the objects that it got it has now, by C-FIND or QIDO-RS; those that are missing are listed.
    """
    if destination or since or study or resend:
        from hilum.cli.verify import verify_destination

        if not (destination and verify):
            raise Misconfigured("verify-missing", "To ask a destination, give --destination and --verify.", fix="Give both.")
        verify_destination(connected(config, data), destination, since, study, resend, json)
    from hilum.reconcile import SAMPLE
    from hilum.reconcile import reconcile as account_for

    settings = connected(config, data)
    with err.status("Reconciling") as spinner:
        account = account_for(settings, wait_s=wait, verify=verify, progress=spinner.update)
    if json:
        show_json(account)
    else:
        account_rows = [(name.replace("_", " "), value) for name, value in account.counts().items()]
        show_table("", ("What", "Objects"), account_rows)
        out.print(account.balance, markup=False)
        for line in account.details:
            out.print(line, markup=False)
        out.print(account.verdict, markup=False)
        if account.read < account.stored:
            early = verify or account.read < SAMPLE
            why = "reading ended when too many could not be read" if early else "`--verify` reads all, whole"
            out.print(f"{account.read:,} of {account.stored:,} stored objects were read back; {why}.", markup=False)
    sys.exit(Exit.DONE if account.ok else Exit.FAILED)
