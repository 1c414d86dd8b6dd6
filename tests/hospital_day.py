"""A day at a hospital: what the RIS, the registration desk and the modalities send, each in its own order, and what must be so at the end.

The names of studies say what happens to them; `TRUTH` says for each its outcome, its orders by placer number, and what differs.
"""

from __future__ import annotations

from datetime import UTC, datetime

from hilum.order_events import Identifier
from hilum.order_events import MatchRequested as Claim
from tests.processors.orders.ris import adt, order_message, result

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def at(minute: int) -> str:
    """A moment of the day, by the clocks of Vienna."""
    return f"20261126{8 + minute // 60:02}{minute % 60:02}00"


def images(
    study: str, *, accession: str = "", patient: str = "", name: str = "", modality: str = "CT", instances: int = 20, replaces: bool = False
) -> Claim:
    """What images of a study say."""
    return Claim(
        study_instance_uid=study,
        accessions=(Identifier(value=accession),) if accession else (),
        patient_ids=(Identifier(value=patient),) if patient else (),
        patient_name=name,
        patient_birth_date="19700203",
        patient_sex="F",
        modalities=(modality,),
        sender="CT01",
        instances=instances,
        first_received_at=NOON,
        requested_at=NOON,
        replaces=replaces,
    )


def _order(number: int, minute: int, **more: str) -> str:
    """Order number so-and-so of the patient with the same number."""
    values = {
        "placer": f"P{number}",
        "filler": f"F{number}",
        "accession": f"A{number}",
        "patient": f"PAT{number}",
        "name": f"Family{number}^Given",
        "start": "20261126130000",
        "procedure_id": f"RP{number}",
        "step_id": f"S{number}",
    }
    return order_message(at=at(minute), **(values | more))


RIS = [
    _order(1, 0),  # all is well
    _order(2, 1, uid="1.2.840.99.2"),  # its images have a mistyped accession number
    _order(3, 2),  # its patient is merged while images come
    _order(4, 3),  # is called off after its images
    _order(5, 4),  # its name is misspelled and set right later
    _order(6, 5, accession="A6"),  # the first of a group
    _order(61, 6, accession="A6", patient="PAT6", name="Family6^Given"),  # the second
    _order(7, 7),  # nobody sends images for it
    _order(8, 8, name="Meyer^Anna"),  # the modality spells the name otherwise
    _order(9, 9),  # accession number of order 9 is also on an order of somebody else
    _order(91, 10, accession="A9", patient="PAT91", name="Else^Elsa"),
    _order(4, 100, control="CA"),
    _order(5, 110, control="XO", name="Family5^Right"),
    _order(10, 200),  # comes long after its images
    _order(1, 210, control="SC", status="CM"),
]
DESK = [
    adt("A04", patient="PAT1", name="Family1^Given", at=at(0)),
    adt("A08", patient="OLD3", name="Family3^Given", at=at(30)),
    adt("A40", patient="NEW3", prior="PAT3", name="Family3^Given", at=at(90)),
    adt("A40", patient="NEW3", prior="OLD3", name="Family3^Given", at=at(91)),
    adt("A40", patient="B12", prior="A12", name="Family12^Given", at=at(92)),
    adt("A40", patient="A12", prior="B12", name="Family12^Given", at=at(93)),  # the other way round after all
]
REPORTS = [result(1, at(150), "P"), result(9, at(160)), result(1, at(220))]
#: Each modality in its own order.
CT = [
    images("1.2.1", accession="A1", patient="PAT1", name="FAMILY1^GIVEN"),
    images("1.2.840.99.2", accession="A22", patient="PAT2", name="Family2^Given"),
    images("1.2.3", accession="A3", patient="OLD3", name="Family3^Given"),
    images("1.2.4", accession="A4", patient="PAT4", name="Family4^Given"),
    images("1.2.5", accession="A5", patient="PAT5", name="Family5^Right"),
    images("1.2.1", accession="A1", patient="PAT1", name="FAMILY1^GIVEN", modality="SR", instances=21),
]
MR = [
    images("1.2.6", accession="A6", patient="PAT6", name="Family6^Given"),
    images("1.2.8", accession="A8", patient="PAT8", name="Maier^Anna"),
    images("1.2.9", accession="A9", patient="PAT9", name="Family9^Given"),
    images("1.2.10", accession="A10", patient="PAT10", name="Family10^Given"),
    images("1.2.11", patient="PAT11", name="Unknown^Ulla"),
    images("1.2.13", accession="A13", patient="PAT13", name="Wrong^Wanda"),
    images("1.2.13", accession="A8", patient="PAT8", name="Maier^Anna", replaces=True),  # set right at its origin, to the same order
    images("1.2.14", accession="A14", patient="PAT14", name="Gone^Gerda"),
    images("1.2.14", accession="A14", patient="PAT14", name="Gone^Gerda", instances=0),
]
QUEUES: dict[str, list[str | Claim]] = {"ris": [*RIS], "desk": [*DESK], "reports": [*REPORTS], "CT01": [*CT], "MR01": [*MR]}

#: By study: outcome, placer numbers of its orders, and attributes that differ.
TRUTH: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "1.2.1": ("matched", ("P1",), ()),
    "1.2.840.99.2": ("mismatched", ("P2",), ("AccessionNumber",)),
    "1.2.3": ("matched", ("P3",), ()),
    "1.2.4": ("order-cancelled", ("P4",), ()),
    "1.2.5": ("matched", ("P5",), ()),
    "1.2.6": ("matched", ("P6", "P61"), ()),
    "1.2.8": ("mismatched", ("P8",), ("PatientName",)),
    "1.2.9": ("matched", ("P9",), ()),
    "1.2.10": ("matched", ("P10",), ()),
    "1.2.11": ("unmatched", (), ()),
    "1.2.13": ("mismatched", ("P8",), ("PatientName",)),
    "1.2.14": ("withdrawn", (), ()),
}
#: Placer numbers of orders without images.
WITHOUT_IMAGES = {"P7", "P91"}

#: What happens to each study, for people.
STORY: dict[str, str] = {
    "1.2.1": "All is well. Its order is completed later, and a structured report comes late.",
    "1.2.840.99.2": "Somebody mistyped the accession number; the modality took the StudyInstanceUID from the worklist.",
    "1.2.3": "While it is made, the patient is merged twice; the images have an identifier that is no more.",
    "1.2.4": "Its order is cancelled after the images came.",
    "1.2.5": "The RIS misspelled the name and corrects it after the images came.",
    "1.2.6": "One study for two orders with one accession number (group case).",
    "1.2.8": "The modality spells the name otherwise.",
    "1.2.9": "The accession number is also that of an order of somebody else.",
    "1.2.10": "The order comes hours after the images.",
    "1.2.11": "Nobody ordered it, and it has no accession number.",
    "1.2.13": "Accession number and patient are wrong; they are set right at its origin, to those of order P8.",
    "1.2.14": "Rejection notes take all of it back.",
}
