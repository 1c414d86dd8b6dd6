"""Orders and patients that cannot be as their messages say: `test_wrong_orders.py` sends them, `docs/reference/hl7.md` shows them."""

from __future__ import annotations

from msgspec import Struct

from hilum.order_events import MatchRequested as Claim
from tests.hospital_day import at, images
from tests.processors.orders.ris import adt, order_message


class WrongOrder(Struct, frozen=True, kw_only=True):
    """What is sent, in its order, and what is shown of it. Every message is acknowledged with `AA`: that it came is not in doubt."""

    title: str
    #: Messages, and what images say.
    sent: tuple[str | Claim, ...]
    #: By placer number what `hilum order show` says: pairs of a label and its value.
    orders: dict[str, tuple[tuple[str, str], ...]]
    #: What `hilum study match` says; orders by their placer numbers.
    study: tuple[tuple[str, str], ...]
    #: By identifier what `hilum patient show` has in its last column.
    patients: dict[str, str] = {}
    #: What becomes of it, for people.
    outcome: str

    @property
    def answers(self) -> tuple[str, ...]:
        """MSA-1 of each message."""
        return tuple("AA" for each in self.sent if isinstance(each, str))


WRONG_ORDERS: tuple[WrongOrder, ...] = (
    WrongOrder(
        title="An order whose accession number belongs to another patient",
        sent=(
            order_message(placer="P1", filler="F1", accession="A1", patient="PAT1", name="Family1^Given", at=at(0)),
            order_message(placer="P2", filler="F2", accession="A1", patient="PAT2", name="Family2^Given", at=at(1)),
            images("1.2.1", accession="A1", patient="PAT1", name="Family1^Given"),
        ),
        orders={
            "P1": (("Status", "scheduled"), ("Images", "imaged")),
            "P2": (("Status", "scheduled"), ("Images", "awaited"), ("Noticed", "accession-of-another-patient")),
        },
        study=(("Outcome", "matched"), ("Orders", "P1")),
        outcome="Both orders are taken. Images go by their patient; those of neither patient are held against the order that is planned"
        " last, and differ from it.",
    ),
    WrongOrder(
        title="A merge cycle (A into B, B into A)",
        sent=(
            order_message(placer="P3", filler="F3", accession="A3", patient="A", name="Family3^Given", at=at(0)),
            adt("A40", patient="B", prior="A", name="Family3^Given", at=at(1)),
            adt("A40", patient="A", prior="B", name="Family3^Given", at=at(2)),
            images("1.2.3", accession="A3", patient="B", name="Family3^Given"),
        ),
        orders={"P3": (("Patient", "A of NORTH Family3^Given"), ("Formerly", "B of NORTH"), ("Images", "imaged"))},
        study=(("Outcome", "matched"), ("Orders", "P3")),
        patients={"A": "merge-cycle"},
        outcome="The oldest of the merges does not count: the patient is A. Images under either identifier are the patient's."
        " `hilum patient unmerge` undoes the rest.",
    ),
    WrongOrder(
        title="A cancelled order with images",
        sent=(
            order_message(placer="P4", filler="F4", accession="A4", patient="PAT4", name="Family4^Given", at=at(0)),
            images("1.2.4", accession="A4", patient="PAT4", name="Family4^Given"),
            order_message(control="CA", placer="P4", filler="F4", accession="A4", patient="PAT4", name="Family4^Given", at=at(1)),
        ),
        orders={"P4": (("Status", "cancelled"), ("Images", "imaged"))},
        study=(("Outcome", "order-cancelled"), ("Orders", "P4"), ("Noticed", "order-corrected")),
        outcome="The study is kept; destinations with `hold` do not get it until a person accepts it. It is the same"
        " when the images come later.",
    ),
    WrongOrder(
        title="Two orders with one accession number",
        sent=(
            order_message(placer="P5", filler="F5", accession="A5", patient="PAT5", name="Family5^Given", at=at(0)),
            order_message(placer="P6", filler="F6", accession="A5", patient="PAT5", name="Family5^Given", at=at(1)),
            images("1.2.5", accession="A5", patient="PAT5", name="Family5^Given"),
        ),
        orders={
            "P5": (("Status", "scheduled"), ("Images", "imaged")),
            "P6": (("Status", "scheduled"), ("Images", "imaged"), ("Noticed", "accession-shared")),
        },
        study=(("Outcome", "matched"), ("Orders", "P5, P6"), ("Noticed", "several-orders")),
        outcome="Of one patient: one study serves both.",
    ),
)
