"""`hilum deliver show`: one delivery with all that the ledger knows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hilum.cli import waits
from hilum.cli.context import ConfigOption, DataOption, JsonOption, connected, moment, out, show_facts, show_json

if TYPE_CHECKING:
    from hilum.database.deliveries import ListedDelivery, ShownDelivery


def show(
    which: Annotated[str, typer.Argument(help="Delivery id or SOPInstanceUID.", metavar="ID")],
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show all that the ledger knows of a delivery: attempts, the peer's answer, when it is tried next and why it waits."""
    from hilum.database.deliveries import show_deliveries

    settings = connected(config, data)
    found = waits.explained(settings, show_deliveries(settings.postgres.dsn, which), place=True)
    if json:
        show_json(found)
        return
    for d in found:
        show_facts(
            {
                "Delivery": d.delivery_id,
                "To": d.destination + (f", at {d.member}" if d.member else ""),
                "State": f"{d.state}, in the hands of {d.claimed_by}" if d.in_hand else d.state,
                "Answer": f"{d.peer_status or ''} {d.comment or ''}".strip(),
                "Attempts": d.attempts,
                "Next try at": moment(d.next_attempt_at),
                "Waits because": d.waits_because,
                "Entered at": moment(d.entered_at),
                "Put aside at": moment(d.parked_at),
                "Settled at": moment(d.settled_at),
                "Priority": d.priority or "",
                "To leave by policy": _under_policy(d),
                "Asked for by": f"run {d.run}" if d.run else ", ".join(d.rules or ()),
                "Tried again": f"{d.round} times after it had ended" if d.round else "",
                "Message": what(d) if d.message else "",
                "Tells": d.message.kind if d.message else "",
                "Passed on": d.message.message_id if d.message else "",
                "SOPInstanceUID": d.sop_instance_uid + (f", sent as {d.sent_as}" if d.sent_as else ""),
                "StudyInstanceUID": d.message.study_instance_uid if d.message else d.study_instance_uid,
                "SOP class": d.sop_class_uid,
                "Transfer syntax": d.transfer_syntax_uid,
                "Object": f"{d.bucket}/{d.object_key}" if d.object_key else "",
                "SHA-256": d.sha256,
                "Receipt": d.receipt,
                "Trace": d.traceparent,
            }
        )
        out.print()


def _under_policy(d: ShownDelivery) -> str:
    """The policy by which it is to leave, and who decided that it leaves as it is where the destination has none."""
    if not d.under_policy or not d.identified:
        return d.under_policy or ""
    return f"{d.under_policy}; as it is without one, {d.decided_by} said at {moment(d.decided_at)}: {d.decided_why}"


def what(d: ListedDelivery) -> str:
    """The object of a delivery, or its message."""
    return f"{d.message.type} {d.message.control_id}".strip() if d.message else d.sop_instance_uid
