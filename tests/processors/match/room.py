"""A site around the stage `match`: orders and studies come, time passes, and one asks what is so."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from hilum.events import MatchChanged, MatchRequested, OrderChanged
from hilum.order_events import Identifier, Order, OrderStatus, Patient, RequestedProcedure, ScheduledStep
from hilum.pseudonyms import Pseudonyms
from hilum.runtime.state import Changes, Codec, PartitionState
from hilum.settings import Settings
from processors.match import Match
from processors.match.rows import Row

NAMES = Pseudonyms(b"not the site's")
CODEC = Codec(Row)
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def an_order(
    number: str = "1",
    *,
    accession: str | None = "A1",
    issuer: str = "",
    uid: str = "",
    ids: Iterable[str] = ("4711",),
    name: str = "Meier^Anna",
    status: OrderStatus = "scheduled",
    modality: str = "CT",
    start: datetime = NOON,
    version: int = 1,
    former: Iterable[str] = (),
    change: str = "new",
    born: str = "19700203",
) -> OrderChanged:
    """An order for a CT at noon."""
    procedure = RequestedProcedure(
        procedure_id="RP",
        study_instance_uid=uid or f"2.25.{number}",
        steps=(ScheduledStep(step_id="S", modality=modality, start_at=start),),
    )
    order = Order(
        order_id=f"order-{number}",
        version=version,
        status=status,
        patient=Patient(
            key="p",
            ids=tuple(Identifier(value=each, issuer="NORTH") for each in ids),
            former_ids=tuple(Identifier(value=each, issuer="NORTH") for each in former),
            name=name,
            birth_date=born,
            sex="F",
        ),
        procedures=(procedure,),
        accession=Identifier(value=accession, issuer=issuer) if accession else None,
        said_at=start - timedelta(hours=1),
    )
    return OrderChanged(order=order, change=change, changed_at=NOON)


def a_study(
    uid: str = "1.2.3",
    *,
    accession: str | Iterable[str] = "A1",
    issuer: str = "",
    patient: str = "4711",
    patient_issuer: str = "",
    name: str = "Meier^Anna",
    modality: str = "CT",
    instances: int = 10,
    at: datetime = NOON,
    replaces: bool = False,
    born: str = "19700203",
) -> MatchRequested:
    """A CT that came at noon."""
    accessions = [accession] if isinstance(accession, str) else accession
    return MatchRequested(
        study_instance_uid=uid,
        accessions=tuple(Identifier(value=each, issuer=issuer) for each in accessions if each),
        patient_ids=(Identifier(value=patient, issuer=patient_issuer),) if patient else (),
        patient_name=name,
        patient_birth_date=born,
        patient_sex="F",
        modalities=(modality,),
        sender="CT01",
        instances=instances,
        first_received_at=at,
        requested_at=at,
        replaces=replaces,
    )


class Room:
    """The stage with rows as they are on Kafka."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.now = NOON
        self._match = Match(settings or Settings(), NAMES, now=lambda: self.now)
        self.state = PartitionState(0)
        self.said: list[MatchChanged] = []
        #: Keys of the rows that the last event wrote.
        self.written: set[str] = set()

    def give(self, *events: OrderChanged | MatchRequested) -> list[MatchChanged]:
        """Events, in their order."""
        said: list[MatchChanged] = []
        for event in events:
            self.now += timedelta(milliseconds=10)
            changes = Changes(self.state, CODEC)
            said += self._match.handle(event, changes)
            changes.keep()
            self.written = {key for key, _ in changes.items()}
            changes.commit()
        self.said += said
        return said

    def pass_time(self, **time: float) -> list[MatchChanged]:
        """Let time pass, and timers fire."""
        self.now += timedelta(**time)
        said: list[MatchChanged] = []
        for _, key in self.state.due(int(self.now.timestamp() * 1000), 10_000):
            changes = Changes(self.state, CODEC)
            said += self._match.due(key, changes, self.now)
            changes.keep()
            changes.commit()
        self.said += said
        return said

    def of(self, subject: str) -> MatchChanged:
        """What was told last of a study or an order."""
        return [event for event in self.said if event.subject == subject][-1]

    def outcomes(self) -> dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]:
        """Of each study and order: outcome, orders, and which attributes differ."""
        last = {event.subject: event for event in self.said}
        return {
            subject: (event.outcome, event.order_ids, tuple(sorted(each.attribute for each in event.differences)))
            for subject, event in last.items()
            if event.outcome != "awaited"
        }
