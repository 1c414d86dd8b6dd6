"""Who opted out or consented, and who the image is of, where the issuer of either is not said: nothing leaves in doubt."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from msgspec.structs import replace
from pydicom import Dataset

from hilum.database import connect
from hilum.database.choices import add
from hilum.database.withdrawing import to_take_back
from hilum.deid_sections import Deid
from hilum.identity import Authorities
from hilum.part10 import Part10
from hilum.sink import Delivery, Settled
from hilum.testing import MemoryStore, eventually
from tests.hilum.test_anonymizing import key_file, stored
from tests.ledger import DELIVERED, Scripted, enter, rows, working

pytestmark = pytest.mark.system

#: By PatientID: the issuer that the list has, and that of the image; its own, or a universal one alone.
COMBINATIONS = {
    "P11": ("NORTH", "NORTH"),
    "P10": ("NORTH", ""),
    "P01": ("", "NORTH"),
    "P00": ("", ""),
    "P12": ("NORTH", "SOUTH"),
    "P1U": ("NORTH", "universal 1.2.3.9"),
    "PU1": ("1.2.3.9", "NORTH"),
    "PUV": ("1.2.3.9", "universal 1.2.3.8"),
}


def takes(_: Delivery, part10: Part10) -> Settled:
    part10.file()
    return DELIVERED


def qualifier(universal: str) -> Dataset:
    item = Dataset()
    item.UniversalEntityID, item.UniversalEntityIDType = universal, "ISO"
    return item


def entered(dsn: str, store: MemoryStore) -> dict[str, str]:
    """One object of each patient; their PatientIDs by instance."""
    patients = {}
    for n, (patient, (_, issuer)) in enumerate(COMBINATIONS.items()):
        universal = issuer.removeprefix("universal ") if issuer.startswith("universal ") else ""
        named: dict[str, Any] = {"IssuerOfPatientID": "" if universal else issuer}
        more = {"IssuerOfPatientIDQualifiersSequence": [qualifier(universal)]} if universal else {}
        study, instance = f"1.2.3.1.{n}", f"1.2.3.6.{n}"
        delivery = stored(store, PatientID=patient, SOPInstanceUID=instance, StudyInstanceUID=study, **named, **more)
        enter(dsn, replace(delivery, delivery_id=f"of-{patient}"))
        patients[instance] = patient
        with connect(dsn) as connection:
            connection.execute(
                "INSERT INTO study (study_instance_uid, patient_id, issuer_of_patient_id, receipt, received_at)"
                " VALUES (%s, %s, nullif(%s, ''), 'r', now())",
                (study, patient, named["IssuerOfPatientID"]),
            )
    return patients


def left(dsn: str, store: MemoryStore, folder: Path, default_issuer: str, *, consent: bool = False) -> set[str]:
    """Of whom objects left, once each was tried."""
    patients = entered(dsn, store)
    sink = Scripted(answer=takes, policy="research", patients="consent" if consent else "opt-out")
    deid = Deid(key_path=str(key_file(folder)), policies="/nonexistent", default_issuer=default_issuer)
    with working(dsn, store, sink, name="study", deid=deid):
        eventually(lambda: {row["state"] for row in rows(dsn).values()} <= {"parked", "delivered"})
    return {patients[uid] for uid, row in rows(dsn).items() if row["state"] == "delivered"}


def said(dsn: str, kind: Literal["opt-out", "consent"]) -> None:
    """What each patient said is in the list."""
    for patient, (issuer, _) in COMBINATIONS.items():
        add(dsn, kind, [(patient, issuer)], "research", "me", "")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.mark.parametrize("default", ["", "NORTH", "SOUTH"])
def test_an_opt_out_holds_unless_both_name_an_issuer_and_surely_another(
    postgres: str, store: MemoryStore, tmp_path: Path, default: str
) -> None:
    said(postgres, "opt-out")

    assert left(postgres, store, tmp_path, default) == {"P12", "PUV"}


@pytest.mark.parametrize(
    ("default", "who"),
    [("", {"P11", "P00"}), ("NORTH", {"P11", "P10", "P01", "P00"}), ("SOUTH", {"P11", "P00"})],
)
def test_a_consent_counts_for_the_very_issuer_alone_which_is_the_sites_where_none_is_said(
    postgres: str, store: MemoryStore, tmp_path: Path, default: str, who: set[str]
) -> None:
    said(postgres, "consent")

    assert left(postgres, store, tmp_path, default, consent=True) == who


@pytest.mark.parametrize(("default", "sure"), [("", {"P11", "P00"}), ("NORTH", {"P11", "P10", "P01", "P00"}), ("SOUTH", {"P11", "P00"})])
def test_what_left_is_taken_back_for_the_very_issuer_and_waits_for_a_person_in_doubt(
    postgres: str, store: MemoryStore, tmp_path: Path, default: str, sure: set[str]
) -> None:
    assert left(postgres, store, tmp_path, default) == set(COMBINATIONS)
    said(postgres, "opt-out")

    found = to_take_back(postgres, "study", "research", Authorities(default=default))

    of = {each.output.delivery_id.removeprefix("of-"): each.sure for each in found}
    assert {patient for patient, is_sure in of.items() if is_sure} == sure
    assert {"P10", "P01", "PU1"} <= of.keys()
    assert "P12" not in of
