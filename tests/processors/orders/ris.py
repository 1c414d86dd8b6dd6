"""A RIS and a registration desk around the stage `orders`: they write messages, and one asks what is so by then."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from hilum.events import Event, MessageReceived, OrderChanged, PatientChanged
from hilum.hl7_sections import Hl7, Hl7Sender
from hilum.order_events import Order, Patient
from hilum.order_sections import Orders as OrdersTable
from hilum.pseudonyms import Pseudonyms
from hilum.runtime.state import Changes, Codec, PartitionState
from hilum.settings import Settings
from processors.orders import Orders
from processors.orders.rows import Row

NAMES = Pseudonyms(b"not the site's")
CODEC = Codec(Row)
START = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)


def settings_for(**senders: Hl7Sender) -> Settings:
    """Times are those of Vienna."""
    return Settings(hl7=Hl7(senders=senders), orders=OrdersTable(time_zone="Europe/Vienna"))


class Site:
    """The stage with rows as they are on Kafka, and what others made of its events."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.now = START
        self._stage = Orders(settings or settings_for(), NAMES, now=lambda: self.now)
        self.state = PartitionState(0)
        self.said: list[Event] = []
        self._messages = 0

    def take(self, text: str, sender: str = "ris") -> list[Event]:
        """One message; lines are segments."""
        self._messages += 1
        self.now += timedelta(seconds=1)
        lines = [line.strip() for line in text.strip().splitlines()]
        event = MessageReceived(
            message_id=f"m{self._messages}",
            received_at=self.now,
            sender=sender,
            sha256="0" * 64,
            size_bytes=1,
            text="".join(f"{line}\r" for line in lines),
        )
        return self.give(event)

    def give(self, event: Event) -> list[Event]:
        """Any event."""
        changes = Changes(self.state, CODEC)
        said: list[Event] = list(self._stage.handle(event, changes))  # type: ignore[arg-type]  # of its inputs
        changes.keep()
        changes.commit()
        self.said += said
        return said

    def pass_time(self, **time: float) -> None:
        """Let time pass, and timers fire."""
        self.now += timedelta(**time)
        for _, key in self.state.due(int(self.now.timestamp() * 1000), 10_000):
            changes = Changes(self.state, CODEC)
            self.said += self._stage.due(key, changes, self.now)
            changes.keep()
            changes.commit()

    def orders(self) -> list[Order]:
        """Every order as it was told of last, those that were found to be another one left out."""
        last = {event.order.order_id: event for event in self.said if isinstance(event, OrderChanged)}
        return [event.order for event in last.values() if event.change != "superseded"]

    def order(self, placer: str) -> Order:
        """The order with this placer number."""
        found = [order for order in self.orders() if order.placer is not None and order.placer.value == placer]
        assert len(found) == 1, [order.placer for order in self.orders()]
        return found[0]

    def patient(self, value: str) -> PatientChanged:
        """Who has this identifier first, as it was told last."""
        found = [e for e in self.said if isinstance(e, PatientChanged) and e.patient.ids and e.patient.ids[0].value == value]
        return found[-1]


def codes(events: Iterable[Event]) -> set[str]:
    """The codes of notes."""
    return {note.code for event in events if isinstance(event, OrderChanged | PatientChanged) for note in event.notes}


def names_of(patient: Patient) -> tuple[str, ...]:
    """Its identifiers, former ones too."""
    return tuple(each.value for each in (*patient.ids, *patient.former_ids))


def order_message(
    *,
    control: str = "NW",
    placer: str = "P1",
    filler: str = "F1",
    accession: str = "A1",
    patient: str = "4711",
    name: str = "Meier^Anna",
    status: str = "",
    at: str = "202611260900",
    modality: str = "CT",
    start: str = "20261126143000",
    uid: str = "",
    procedure_id: str = "RP1",
    step_id: str = "S1",
) -> str:
    """An ORM^O01 as IHE has it."""
    zds = f"\nZDS|{uid}^RIS^Application^DICOM" if uid else ""
    obr = f"OBR|1|{placer}^HIS|{filler}^RIS|CTH^CT head^L^CTHP^CT head protocol^L||||||||||||||{accession}|{procedure_id}|{step_id}"
    obr += f"||||{modality}|||^^^{start}^^R"
    return f"""
        MSH|^~\\&|RIS|NORTH|HILUM|NORTH|{at}||ORM^O01|C{at}{placer}{control}|P|2.3.1
        PID|||{patient}^^^NORTH||{name}||19700203|F
        PV1||O
        ORC|{control}|{placer}^HIS|{filler}^RIS||{status}||^^^{start}^^R||{at}
        {obr}{zds}
    """


def adt(
    trigger: str = "A08",
    *,
    patient: str = "4711",
    name: str = "Meier^Anna",
    at: str = "202611260900",
    prior: str = "",
    born: str = "19700203",
    other: str = "",
) -> str:
    """An ADT message; `prior` is MRG-1, `other` a second PID."""
    mrg = f"\nMRG|{prior}^^^NORTH" if prior else ""
    pid = f"\nPID|||{other}^^^NORTH||Other^Olga" if other else ""
    return f"""
        MSH|^~\\&|DESK|NORTH|HILUM|NORTH|{at}||ADT^{trigger}|C{at}{patient}{trigger}|P|2.5.1
        EVN|{trigger}|{at}
        PID|||{patient}^^^NORTH||{name}||{born}|F{pid}{mrg}
    """


def result(number: int, at: str, status: str = "F") -> str:
    """An ORU^R01 of a reporting system for the order that `order_message` makes with that number; `status` is OBR-25."""
    return f"""
        MSH|^~\\&|REPORTS|NORTH|HILUM|NORTH|{at}||ORU^R01|C{at}P{number}{status}|P|2.5.1
        PID|||PAT{number}^^^NORTH||Family{number}^Given||19700203|F
        OBR|1|P{number}^HIS|F{number}^RIS|CTH^CT head^L||||||||||||||A{number}|||||||{status}
        OBX|1|TX|REPORT^Report^L||No clear finding.||||||F
    """
