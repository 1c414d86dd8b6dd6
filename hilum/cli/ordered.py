"""The part of `hilum study show` that is about orders, and about what modalities say that they performed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.cli.context import moment, out, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hilum.database.order_queries import MatchOfStudy
    from hilum.database.ordered import Ordered, OrderOfStudy, PerformedForStudy

_FOUND_BY = {"accession-number": "by its accession number", "study-instance-uid": "by its StudyInstanceUID"}


def order_in_words(ordered: Ordered) -> str:
    """How a study fits its orders, in a sentence; empty if it was held against none."""
    match = ordered.match
    if match is None:
        return ""
    names = " and ".join(each.accession_number or each.placer_number or each.order_id for each in ordered.orders)
    found = f" with {names}" if names else ""
    return f"{_outcome(match, found)}{'; accepted as it is' if match.accepted else ''}"


def _outcome(match: MatchOfStudy, found: str) -> str:
    if match.outcome == "matched":
        return f"matched{found}, {_FOUND_BY.get(match.by or '', '')}".rstrip(", ")
    if match.outcome == "mismatched":
        attributes = ", ".join(each["attribute"] for each in match.differences)
        right = "; set right on the way out" if match.coercible else ""
        return f"mismatched{found}: {attributes} differ{'' if len(match.differences) > 1 else 's'} (`hilum study match`){right}"
    if match.outcome == "order-cancelled":
        return f"its order was called off{found.replace(' with ', ': ')}"
    if match.outcome == "withdrawn":
        return "withdrawn by rejection notes"
    candidates = len(match.candidates)
    might = f"; {candidates} might be its, see below" if candidates > 1 else "; one might be its, see below" if candidates else ""
    return f"{'no order in time' if match.outcome == 'no-order' else 'no order yet'}{might}"


def show_ordered(ordered: Ordered) -> None:
    """Tables of the orders and performed steps, where there are any."""
    _show_orders("Ordered", ordered.orders)
    _show_orders("Orders that might be its", ordered.candidates)
    _show_performed(ordered.performed)


def _show_orders(title: str, orders: Sequence[OrderOfStudy]) -> None:
    if not orders:
        return
    out.print()
    rows = [
        (
            each.accession_number,
            each.placer_number,
            each.description,
            each.modality,
            ", ".join(each.stations),
            moment(each.start_at),
            each.status,
            each.sender,
            each.message_id,
        )
        for each in orders
    ]
    show_table(title, ("Accession", "Placer number", "What", "Modality", "Station", "Start", "Status", "From", "HL7 message"), rows)


def _show_performed(performed: Sequence[PerformedForStudy]) -> None:
    if not performed:
        return
    out.print()
    rows = [
        (
            each.station_aet,
            f"{each.state}{', wrong entry of the worklist' if each.wrong_entry else ''}",
            each.description,
            each.modality,
            each.objects,
            moment(each.began_at),
            moment(each.changed_at),
        )
        for each in performed
    ]
    show_table("Performed, as the modality says", ("Station", "State", "What", "Modality", "Objects", "Began", "Last said"), rows)
