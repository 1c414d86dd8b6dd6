"""What the stage remembers: a row for each order, one for each study, and for each number who has it. Rows are arrays, to be small."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

#: An identifier as it is compared: value and issuer.
Id: TypeAlias = tuple[str, str]
#: What a patient was called under identifiers that are former ones now: these, name, birth date and sex.
Former: TypeAlias = tuple[tuple[Id, ...], str, str, str]


class OrderRow(Struct, kw_only=True, array_like=True, tag="o"):
    """What of an order is held against studies. Moments are seconds since 1970."""

    version: int
    status: str
    #: AccessionNumber and its issuer; none.
    accession: Id | None
    #: StudyInstanceUIDs under which its images may come.
    uids: tuple[str, ...]
    #: All identifiers of its patient, former and linked ones too.
    ids: tuple[Id, ...]
    name: str
    birth_date: str
    sex: str
    modalities: tuple[str, ...]
    #: When it is planned, or when it came, if it has no plan.
    planned: int
    said: int
    #: Studies that are its.
    studies: tuple[str, ...] = ()
    outcome: str = "awaited"
    told: int = 0
    gone: bool = False
    #: Further AccessionNumbers, of an order whose procedures have different ones.
    more: tuple[Id, ...] = ()
    former: tuple[Former, ...] = ()

    @property
    def accessions(self) -> tuple[Id, ...]:
        """All accession numbers of it."""
        return (self.accession, *self.more) if self.accession is not None else self.more


class StudyRow(Struct, kw_only=True, array_like=True, tag="s"):
    """What the images of a study say of their order, and what came of it. Moments are seconds since 1970."""

    accessions: tuple[Id, ...] = ()
    ids: tuple[Id, ...] = ()
    name: str = ""
    birth_date: str = ""
    sex: str = ""
    modalities: tuple[str, ...] = ()
    instances: int = 0
    first: int = 0
    changed: int = 0
    outcome: str = ""
    by: str = ""
    orders: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    #: Attributes that differ, with both values.
    differences: tuple[tuple[str, str, str], ...] = ()
    told: int = 0
    #: Calling AE title of who sent its first object.
    sender: str = ""


class NameRow(Struct, kw_only=True, array_like=True, tag="n"):
    """Which orders and studies have a number."""

    orders: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()


Row: TypeAlias = OrderRow | StudyRow | NameRow

#: So many orders and studies with one number are remembered; of test patients and of accession number 0 there may be any number.
MOST = 200


def order_key(order_id: str) -> str:
    """The key of an order's row."""
    return f"o/{order_id}"


def study_key(study_instance_uid: str) -> str:
    """The key of a study's row."""
    return f"s/{study_instance_uid}"


def uid_key(study_instance_uid: str) -> str:
    """The key of the row of who has a StudyInstanceUID."""
    return f"u/{study_instance_uid}"


def added(values: tuple[str, ...], value: str) -> tuple[str, ...]:
    """With one more, the latest last."""
    return values if value in values else (*values, value)[-MOST:]


def without(values: tuple[str, ...], value: str) -> tuple[str, ...]:
    """Without one."""
    return tuple(each for each in values if each != value) if value in values else values
