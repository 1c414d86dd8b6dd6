"""What a message says of orders and patients, as data: what `hilum.hl7.mapping` makes of it.

A value that a message does not have is not in `facts`; one that it deletes (`""`, HL7 v2.5.1 2.5.3) is there as None.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from hilum.order_events import Identifier, Note

Kind = Literal["order", "patient", "merge", "link", "unlink", "move", "result", "appointment", "other"]
#: `move`: an admission goes to another patient (A45). `other`: kept, and nothing follows from it.


class PatientFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a message says of a patient. The first identifier is the one by which the patient is known."""

    ids: tuple[Identifier, ...]
    facts: dict[str, Any] = {}


class StepFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a message says of a scheduled procedure step. `key` is its id, or its place among those without."""

    key: str
    facts: dict[str, Any] = {}


class ProcedureFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a message says of a requested procedure. `key` is its id; empty: it has none.

    Of several that have one id, or none, and different accession numbers, the further ones have that number added to the key.
    """

    key: str
    facts: dict[str, Any] = {}
    steps: tuple[StepFacts, ...] = ()


class OrderFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a message says of an order."""

    #: ORC-1 as it was sent, and what it means.
    control: str = ""
    change: str
    #: The order's status, if it is said.
    status: str = ""
    placer: Identifier | None = None
    filler: Identifier | None = None
    accession: Identifier | None = None
    facts: dict[str, Any] = {}
    procedures: tuple[ProcedureFacts, ...] = ()


class Merge(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A patient who is another one from now on. `facts` are of the one that stays."""

    prior: Identifier
    surviving: Identifier
    #: The name of `prior` (MRG-7), PN; empty if the message does not say.
    prior_name: str = ""


class Mapped(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a message says."""

    kind: Kind
    #: Such as `ORM^O01`.
    message: str
    #: EVN-6, EVN-2, ORC-9 or MSH-7, as a moment; None if none of them is a time.
    said_at: datetime | None = None
    patients: tuple[PatientFacts, ...] = ()
    orders: tuple[OrderFacts, ...] = ()
    merges: tuple[Merge, ...] = ()
    #: Of a `move`: the admissions that are the patient's now.
    admissions: tuple[Identifier, ...] = ()
    notes: tuple[Note, ...] = ()
