"""Facts of steps as they are told to others, and the status of an order by those of its steps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from hilum.hl7.extract import KEYWORDS, LONGEST
from hilum.order_events import Code, ScheduledStep
from hilum.runtime.state import moment

from .rows import Facts

T = TypeVar("T")

FINAL = ("completed", "discontinued", "cancelled")
#: The status of a step of an order that has this one.
STEP_OF_ORDER = {"in-progress": "started"}


def scheduled_step(order_id: str, procedure: str, key: str, facts: Facts, order_status: str, unusable: dict[str, str]) -> ScheduledStep:
    """A step as others are told; values that DICOM cannot hold go into `unusable`, by keyword."""
    start, end = facts.get("start") or ["", "", None], facts.get("end") or ["", "", None]
    step_id = facts.get("step_id") or ""
    if len(step_id) > LONGEST["step_id"]:
        unusable[KEYWORDS["step_id"]], step_id = step_id, ""
    own = facts.get("status")
    inherited = STEP_OF_ORDER.get(order_status, order_status)
    status: Any = inherited if not own or (inherited in FINAL and own not in FINAL) else own
    return ScheduledStep(
        step_id=step_id or f"S{short_id(order_id, procedure, key)}",
        status=status,
        modality=facts.get("modality") or "",
        station_ae_titles=tuple(facts.get("station_ae_titles") or ()),
        station_name=facts.get("station_name") or "",
        location=facts.get("location") or "",
        start_date=start[0],
        start_time=start[1],
        start_at=moment(int(start[2] * 1000)) if start[2] is not None else None,
        end_date=end[0],
        end_time=end[1],
        description=facts.get("description") or "",
        protocols=all_of(facts.get("protocols"), Code),
        performing_physician=facts.get("performing_physician") or "",
        premedication=facts.get("premedication") or "",
        contrast=facts.get("contrast") or "",
        comments=facts.get("comments") or "",
    )


def status_of(status: str, steps: Iterable[str]) -> Any:
    """The order's status, seen with those of its steps."""
    found = set(steps)
    if status in FINAL or status == "on-hold":
        return status
    if found and found <= {"cancelled"}:
        return "cancelled"
    if found and found <= {"cancelled", "discontinued"}:
        return "discontinued"
    if found and found <= set(FINAL):
        return "completed"
    if found & {"started", "completed"}:
        return "in-progress"
    return status


def short_id(*parts: str) -> str:
    """An id that fits into SH: 15 characters."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:13].upper()


def as_kind(value: Any, kind: type[T]) -> T | None:
    """A fact as a `kind`; None if there is none."""
    return None if value is None else msgspec.convert(value, kind)


def all_of(values: Any, kind: type[T]) -> tuple[T, ...]:
    """Each value of a fact as a `kind`."""
    return tuple(msgspec.convert(each, kind) for each in values or ())
