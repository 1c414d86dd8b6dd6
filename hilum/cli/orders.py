"""`hilum order`, `hilum patient`, `hilum study match`: what was ordered, who is who, and whether images fit."""

from __future__ import annotations

import getpass
import sys
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

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
from hilum.errors import Misconfigured

if TYPE_CHECKING:
    from hilum.database.order_queries import KnownPatient, MatchOfStudy, OrderDetail, OrderSummary

LimitOption = Annotated[int, typer.Option("--limit", "-n", help="Show at most so many.", min=1)]
YesOption = Annotated[bool, typer.Option("--yes", help="Do it; without, it is only shown what would be done.")]
WhyOption = Annotated[str, typer.Option("--why", help="Why; kept with it. Not for names of patients.")]
WaitOption = Annotated[float, typer.Option("--wait", help="Seconds to wait for the answer.")]
Status = Literal["", "scheduled", "arrived", "in-progress", "completed", "on-hold", "discontinued", "cancelled"]
Images = Literal["", "awaited", "imaged", "no-images", "order-cancelled"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    order = typer.Typer(cls=Group, help="See orders and what became of their images.", no_args_is_help=True)
    order.command("list")(list_all)
    order.command("show")(show)
    app.add_typer(order, name="order")
    patient = typer.Typer(cls=Group, help="See who patients are by their messages, and take merges back.", no_args_is_help=True)
    patient.command("list")(list_patients)
    patient.command("show")(show_patient)
    patient.command("unmerge")(unmerge)
    app.add_typer(patient, name="patient")
    study = next(each.typer_instance for each in app.registered_groups if each.name == "study")
    assert study is not None
    study.command("match")(match)


def list_all(
    search: Annotated[str, typer.Argument(help="Accession, placer or filler number, patient id, or part of a patient's name.")] = "",
    status: Annotated[Status, typer.Option("--status", help="Only orders with this status.")] = "",
    images: Annotated[Images, typer.Option("--images", help="Only orders of whose images that is so.")] = "",
    noted: Annotated[bool, typer.Option("--noted", help="Only orders of which something was noticed.")] = False,
    limit: LimitOption = 50,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List the orders that changed last."""
    from hilum.database.order_queries import list_orders

    found = list_orders(connected(config, data).postgres.dsn, like=search, status=status, images=images, noted=noted, limit=limit)
    if json:
        show_json(found)
        return
    columns = ("Start", "Accession", "Patient", "Name", "Modality", "Description", "Status", "Images", "Noted", "Order")
    rows = [
        (
            moment(o.start_at),
            ", ".join(filter(None, (o.accession_number, *o.further_accession_numbers))),
            o.patient_id,
            o.patient_name,
            o.modality,
            o.description,
            o.status,
            o.images,
            ", ".join(o.noted),
            o.order_id,
        )
        for o in found
    ]
    show_table("", columns, rows, nothing="No such order is known." if search or status or images or noted else "No order is known.")


def show(
    order: Annotated[str, typer.Argument(help="Id, or accession, placer or filler number.", metavar="ID_OR_NUMBER")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show one order: patient, procedures and steps, what was noticed, and the studies that are its."""
    from hilum.database.order_queries import show_order

    found = show_order(connected(config, data).postgres.dsn, order)
    if json:
        show_json(found)
        return
    for each in found:
        _show_order(each)


def _show_order(order: OrderDetail) -> None:
    summary, detail = order.summary, order.detail
    show_facts(
        {
            "Order": summary.order_id,
            "AccessionNumber": _accessions(summary),
            "Placer number": _with_issuer(detail.get("placer")),
            "Filler number": _with_issuer(detail.get("filler")),
            "Patient": f"{_of(summary.patient_id, summary.patient_issuer)}  {summary.patient_name or ''}".strip(),
            "Formerly": ", ".join(_with_issuer(each) for each in detail["patient"].get("former_ids", ())),
            "Linked with": ", ".join(_with_issuer(each) for each in detail["patient"].get("linked_ids", ())),
            "Status": summary.status,
            "At the modality": detail.get("performed", ""),
            "Images": summary.images,
            "Studies": ", ".join(order.studies),
            "Cannot be offered": ", ".join(f"{keyword} ({value})" for keyword, value in detail.get("unusable", {}).items()),
            "Now part of": order.superseded_by,
            "From": summary.sender,
            "Last message": order.message_id,
            "Changed": moment(summary.changed_at),
        }
    )
    out.print()
    several = any("accession" in procedure for procedure in detail.get("procedures", ()))
    rows = [
        (
            procedure["study_instance_uid"],
            _with_issuer(procedure.get("accession") if several else detail.get("accession")),
            procedure.get("description"),
            step["step_id"],
            step.get("modality"),
            ", ".join(step.get("station_ae_titles", ())) or step.get("station_name"),
            _start(step),
            step.get("status", "scheduled"),
        )
        for procedure in detail.get("procedures", ())
        for step in procedure.get("steps", ())
    ]
    columns = ("StudyInstanceUID", "Accession", "Procedure", "Step", "Modality", "Station", "Start", "Status")
    show_table("Steps", columns, rows, nothing="It has no steps.")
    if order.performed:
        out.print()
        performed = [
            (
                p.step_id,
                f"{p.state}, wrong entry chosen" if p.wrong_entry else p.state,
                p.station_aet,
                p.modality,
                f"{p.start_date or ''} {p.start_time or ''}".strip(),
                f"{p.end_date or ''} {p.end_time or ''}".strip(),
                p.objects,
                p.sop_instance_uid,
            )
            for p in order.performed
        ]
        show_table("Performed", ("Step", "State", "Station", "Modality", "Start", "End", "Objects", "Performed step"), performed)
    if order.documents:
        out.print()
        documents = [(moment(d.received_at), f"MDM^{d.trigger}", d.kind, d.number, d.status, d.message_id) for d in order.documents]
        show_table("Documents", ("Received", "Message", "Type", "Document", "Status", "Message id"), documents)
    if order.notes:
        out.print()
        show_table("Noticed", ("Code", ""), [(note["code"], note["sentence"]) for note in order.notes])
    out.print()


def _start(step: dict[str, Any]) -> str:
    """When a step starts, as lists have it; a date without time zone only where no moment follows from it."""
    if step.get("start_at"):
        return moment(datetime.fromisoformat(step["start_at"]))
    return f"{step.get('start_date', '')} {step.get('start_time', '')}".strip()


def _accessions(order: OrderSummary) -> str:
    first = _of(order.accession_number, order.accession_issuer)
    return ", ".join(filter(None, (first, *order.further_accession_numbers)))


def _with_issuer(identifier: dict[str, Any] | None) -> str:
    if not identifier:
        return ""
    return _of(str(identifier["value"]), identifier.get("issuer") or identifier.get("universal_id"))


def _of(value: str | None, issuer: str | None) -> str:
    return f"{value} of {issuer}" if value and issuer else value or ""


def show_patient(
    patient: Annotated[str, typer.Argument(help="An identifier of the patient.")],
    issuer: Annotated[str, typer.Option("--issuer", help="Who assigned it, if several did.")] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show a patient as messages describe it, who was merged into whom, and who is linked."""
    from hilum.database.order_queries import find_patients

    _show_patients(find_patients(connected(config, data).postgres.dsn, patient, issuer), json=json)


def list_patients(
    noted: Annotated[bool, typer.Option("--noted", help="Only patients of whom something was noticed that is about no order.")] = False,
    limit: LimitOption = 50,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List the patients of whom messages told last."""
    from hilum.database.order_queries import recent_patients

    _show_patients(recent_patients(connected(config, data).postgres.dsn, noted=noted, limit=limit), json=json)


def _show_patients(found: list[KnownPatient], *, json: bool) -> None:
    if json:
        show_json(found)
        return
    columns = ("Patient", "Issuer", "Name", "Born", "Sex", "Merged into", "Formerly", "Linked with", "Orders", "Noted")
    rows = [
        (
            p.patient_id,
            p.issuer,
            p.name,
            p.birth_date,
            p.sex,
            p.survivor_id,
            ", ".join(p.former),
            ", ".join(p.linked),
            p.orders,
            ", ".join(p.noted),
        )
        for p in found
    ]
    show_table("", columns, rows, nothing="No such patient is known.")


def unmerge(
    patient: Annotated[str, typer.Argument(help="The identifier that was merged into another one.")],
    issuer: Annotated[str, typer.Option("--issuer", help="Who assigned it, if several did.")] = "",
    yes: YesOption = False,
    why: WhyOption = "",
    wait: WaitOption = 30.0,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Take a merge back: the patient stands for itself again, with the orders that were its. Objects that went out stay as they went."""
    from hilum.commands import ask
    from hilum.database.order_queries import find_patients
    from hilum.events import PatientCommand

    settings = connected(config, data)
    found = [each for each in find_patients(settings.postgres.dsn, patient, issuer) if each.merged_into is not None]
    if not found:
        raise Misconfigured("patient-not-merged", "That patient is not merged into another one.", fix="See `hilum patient show`.")
    if len(found) > 1:
        raise Misconfigured("patient-ambiguous", f"{len(found)} patients have that identifier.", fix="Name its issuer with --issuer.")
    if not yes:
        if json:
            show_json({"would_unmerge": found[0], "done": False})
        else:
            out.print(f"It is part of {found[0].survivor_id} now; with --yes it would stand for itself again.", markup=False)
        return
    command = PatientCommand(
        id=str(uuid.uuid4()),
        action="unmerge",
        patient_key=found[0].patient_key,
        actor=getpass.getuser(),
        why=why,
        asked_at=datetime.now(UTC),
    )
    with err.status("Waiting for the answer"):
        outcome = ask(settings, command, wait_s=wait)
    if json:
        show_json({"command": command.id, "outcome": outcome, "done": outcome is not None and outcome.done})
    elif outcome is not None:
        out.print(outcome.sentence, markup=False)
    else:
        err.print(
            f"No answer within {wait:g} s; the command {command.id} is kept. Does the role orders run? See `hilum status`.", markup=False
        )
    if outcome is None:
        sys.exit(Exit.UNREACHABLE)
    if not outcome.done:
        sys.exit(Exit.REFUSED)


def match(
    study: Annotated[str, typer.Argument(help="StudyInstanceUID or AccessionNumber.", metavar="UID_OR_ACCESSION")],
    accept: Annotated[
        bool, typer.Option("--accept", help="Say that the study may be delivered as it is, where destinations wait for its order.")
    ] = False,
    yes: YesOption = False,
    why: WhyOption = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show whether a study fits its order: what differs, with both values, and orders that might be its."""
    from hilum.database.order_queries import accept_match, match_of
    from hilum.database.queries import show_study
    from hilum.database.queues import without_order

    dsn = connected(config, data).postgres.dsn
    found = [(each.summary.study_instance_uid, match_of(dsn, each.summary.study_instance_uid)) for each in show_study(dsn, study)]
    if not accept:
        if json:
            show_json([{"study_instance_uid": uid, "match": each} for uid, each in found])
            return
        for uid, each in found:
            _show_match(dsn, uid, each)
        return
    if len(found) > 1:
        uids = ", ".join(uid for uid, _ in found)
        raise Misconfigured("study-ambiguous", f"{len(found)} studies have that accession number: {uids}.", fix="Name one by its UID.")
    ((uid, now),) = found
    if now is None or (now.outcome == "matched" and not without_order(dsn, [uid])):  # its order may never have come into the index
        raise Misconfigured("match-nothing-to-accept", f"Study {uid} has nothing to accept.", fix="See it without --accept.")
    done = yes and accept_match(dsn, uid, now.version, by=getpass.getuser(), why=why)
    if json:
        show_json({"study_instance_uid": uid, "match": now, "accepted": done})
    elif done:
        out.print("It is delivered as it is, until its match changes.")
    elif not yes:
        _show_match(dsn, uid, now)
        out.print("With --yes it would be delivered so.")
    if yes and not done:
        err.print("Its match changed meanwhile: look at it again.")
        sys.exit(Exit.REFUSED)


def _show_match(dsn: str, uid: str, match: MatchOfStudy | None) -> None:
    from hilum.database.order_queries import orders_by_id

    if match is None:
        show_facts({"StudyInstanceUID": uid, "Outcome": "not held against any order yet"})
        return
    accepted = f"by {match.accepted_by}{f': {match.accepted_why}' if match.accepted_why else ''}" if match.accepted else ""
    show_facts(
        {
            "StudyInstanceUID": uid,
            "Outcome": match.outcome,
            "Found by": match.by,
            "Orders": ", ".join(match.order_ids),
            "Might be its": ", ".join(match.candidates),
            "Changed": f"{moment(match.changed_at)} by {match.cause}",
            "At destinations": "what differs is set right on the way out" if match.coercible else "",
            "Accepted": accepted,
        }
    )
    columns = ("Accession", "Placer", "Filler", "Patient", "Start", "Modality", "Description", "Status", "Order")
    for title, order_ids in (("Its orders", match.order_ids), ("Orders that might be its", match.candidates)):
        orders = orders_by_id(dsn, order_ids) if order_ids else []
        if orders:
            out.print()
            lines = [
                (
                    _accessions(o),
                    o.placer_number,
                    o.filler_number,
                    _of(o.patient_id, o.patient_issuer),
                    moment(o.start_at),
                    o.modality,
                    o.description,
                    o.status,
                    o.order_id,
                )
                for o in orders
            ]
            show_table(title, columns, lines)
    if match.differences:
        out.print()
        rows = [(each["attribute"], each["ordered"], each["found"]) for each in match.differences]
        show_table("Differs", ("Attribute", "As ordered", "In the images"), rows)
    if match.notes:
        out.print()
        show_table("Noticed", ("Code", ""), [(note["code"], note["sentence"]) for note in match.notes])
    out.print()
