"""Which orders are a study's: by accession number, then by StudyInstanceUID; by patient and time only for a person to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

from hilum.order_events import MatchOutcome

from .compare import differences, same_id, same_modality, same_patient
from .rows import OrderRow, StudyRow

By = Literal["", "accession-number", "study-instance-uid"]
DAY_S = 86_400


class Windows(Struct, frozen=True, kw_only=True):
    """How long things belong together, in seconds."""

    order_within: float
    images_within: float
    candidate: float
    accession: float


class Joined(Struct, frozen=True, kw_only=True):
    """What a study is found to be."""

    outcome: MatchOutcome
    by: By = ""
    orders: tuple[str, ...] = ()
    differences: tuple[tuple[str, str, str], ...] = ()
    candidates: tuple[str, ...] = ()


class Found(Struct, frozen=True, kw_only=True):
    """Orders that may be a study's, by id."""

    by_accession: Mapping[str, OrderRow]
    by_uid: Mapping[str, OrderRow]
    #: Called only if none of them is.
    by_patient: Callable[[], Mapping[str, OrderRow]]


def join(uid: str, study: StudyRow, found: Found, windows: Windows, now: float) -> Joined:
    """Decide on a study as things are known now. The same facts give the same, in whatever order they came."""
    if not study.instances:
        return Joined(outcome="withdrawn")
    by: By = "accession-number"
    chosen = _by_accession(study, found.by_accession, windows)
    if not chosen:
        by = "study-instance-uid"
        chosen = _of_one_patient(study, {key: order for key, order in found.by_uid.items() if not order.gone})
    if not chosen:
        outcome: MatchOutcome = "no-order" if now >= study.first + windows.order_within else "unmatched"
        return Joined(outcome=outcome, candidates=_candidates(study, found.by_patient(), windows))
    valid = {key: order for key, order in chosen.items() if order.status != "cancelled"}
    differing = _differing(uid, study, valid or chosen, found, by)
    fits: MatchOutcome = "mismatched" if differing else "matched"
    return Joined(outcome=fits if valid else "order-cancelled", by=by, orders=tuple(sorted(valid or chosen)), differences=differing)


def _by_accession(study: StudyRow, orders: Mapping[str, OrderRow], windows: Windows) -> dict[str, OrderRow]:
    """Orders with one of the study's accession numbers: those of the time, and of these the ones of one patient."""
    near = {
        key: order
        for key, order in orders.items()
        if not order.gone
        and any(same_id(own, each) for own in order.accessions for each in study.accessions)
        and abs(study.first - order.planned) <= windows.accession
    }
    return _of_one_patient(study, near)


def _of_one_patient(study: StudyRow, orders: dict[str, OrderRow]) -> dict[str, OrderRow]:
    """Several orders with one number are a study's if they are of one patient: its own, or else that of the newest of them."""
    if len(orders) < 2:
        return orders
    fitting = {key: order for key, order in orders.items() if same_patient(order.ids, study.ids)}
    if fitting:
        return fitting
    last = max(orders, key=lambda key: (orders[key].planned, orders[key].said, key))
    return {key: order for key, order in orders.items() if key == last or same_patient(order.ids, orders[last].ids)}


def _differing(uid: str, study: StudyRow, orders: Mapping[str, OrderRow], found: Found, by: By) -> tuple[tuple[str, str, str], ...]:
    differing = dict.fromkeys(each for key in sorted(orders) for each in differences(orders[key], study))
    accessions = [each for order in orders.values() for each in order.accessions]
    if any(same_id(each, own) for each in accessions for own in study.accessions):  # one of a group has it
        differing = {each: None for each in differing if each[0] != "AccessionNumber"}
    if by == "accession-number":
        others = {key for key, order in found.by_uid.items() if not order.gone and order.status != "cancelled"} - orders.keys()
        if others:
            ordered = next((each for key in sorted(orders) for each in orders[key].uids), "")
            differing[("StudyInstanceUID", ordered, uid)] = None
    wanted = {each for order in orders.values() for each in order.modalities}
    if not same_modality(wanted, study.modalities):
        differing[("Modality", "\\".join(sorted(wanted)), "\\".join(sorted(study.modalities)))] = None
    return tuple(differing)


def _candidates(study: StudyRow, orders: Mapping[str, OrderRow], windows: Windows) -> tuple[str, ...]:
    """Orders of the same patient for about that time that wait for images."""
    return tuple(
        sorted(
            key
            for key, order in orders.items()
            if not order.gone
            and not order.studies
            and order.status != "cancelled"
            and abs(study.first - order.planned) <= windows.candidate
            and same_patient(order.ids, study.ids)
            and same_modality(order.modalities, study.modalities)
        )
    )[:20]
