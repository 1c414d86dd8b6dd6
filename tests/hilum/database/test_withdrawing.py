"""What is taken back by itself is surely of the patient who opted out; what only may be waits for a person."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hilum.database import connect
from hilum.database.choices import add
from hilum.database.persons import standing, survivor_of
from hilum.database.withdrawing import TakeBack, to_take_back
from hilum.identity import Authorities
from hilum.order_events import Identifier
from processors.anonymize.identity import subject_of_identifier

pytestmark = pytest.mark.system

SITE = Authorities(default="NORTH", same={"1.2.3.4": "NORTH"})
Pair = tuple[str, str]


class Ledger:
    """Studies that a destination has, each of one object, and what messages say about patients."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.connection = connect(dsn)

    def clear(self) -> None:
        self.connection.execute(
            "DELETE FROM patient; DELETE FROM patient_id; DELETE FROM patient_choice; DELETE FROM study; DELETE FROM deidentified"
        )

    def left(self, study: str, patient: Pair, *, as_patient: str = "PSEUDONYM", instance: str = "") -> None:
        """An object of a study left as a patient; the study has the identifier of the first."""
        self.connection.execute(
            "INSERT INTO study (study_instance_uid, patient_id, issuer_of_patient_id, receipt, received_at)"
            " VALUES (%s, %s, nullif(%s, ''), 'r', now()) ON CONFLICT DO NOTHING",
            (study, *patient),
        )
        instance = instance or f"{study}.1"
        self.connection.execute(
            "INSERT INTO deidentified (delivery_id, destination, policy, policy_version, key_id, study_instance_uid, sop_instance_uid,"
            " sent_study, sent_series, sent_as, sent_at, project, sent_patient)"
            " VALUES (%s, 'cohort', 'research', 'v', 'k', %s, %s, %s, 's', %s, now(), 'research', %s)",
            (instance, study, instance, f"2.25.{study}", f"2.25.{instance}", as_patient),
        )

    def patient(self, key: str, ids: Sequence[Pair], into: str | None = None) -> None:
        detail = json.dumps({"key": key, "ids": [{"value": value, "issuer": issuer} for value, issuer in ids]})
        self.connection.execute(
            "INSERT INTO patient (patient_key, version, patient_id, merged_into, detail, said_at, changed_at)"
            " VALUES (%s, 1, %s, %s, %s, now(), now())",
            (key, ids[0][0], into, detail),
        )
        for value, issuer in ids:
            self.connection.execute("INSERT INTO patient_id (value, issuer, patient_key) VALUES (%s, %s, %s)", (value, issuer, key))

    def order(self, study: str, patient: Pair) -> None:
        ordered = {"patient": {"ids": [{"value": patient[0], "issuer": patient[1]}]}}
        self.connection.execute(
            "INSERT INTO scheduled_order (order_id, version, status, patient_key, patient_id, said_at, created_at, changed_at, detail)"
            " VALUES ('o1', 1, 'scheduled', 'k', %s, now(), now(), now(), %s)",
            (patient[0], json.dumps(ordered)),
        )
        self.connection.execute(
            "INSERT INTO match (about, id, version, outcome, study_instance_uid, order_ids, candidates, differences, cause, changed_at)"
            " VALUES ('study', %(study)s, 1, 'matched', %(study)s, '{o1}', '{}', '[]', 'index', now())",
            {"study": study},
        )

    def named(self, study: str, patient: Pair) -> None:
        self.connection.execute(
            "INSERT INTO named_id (study_instance_uid, value, issuer, universal_id) VALUES (%s, %s, %s, '')", (study, *patient)
        )

    def opts_out(self, *patients: Pair) -> None:
        add(self.dsn, "opt-out", list(patients), "research", "me", "")

    def found(self, authorities: Authorities = SITE, *, consent: bool = False) -> list[TakeBack]:
        return to_take_back(self.dsn, "cohort", "research", authorities, consent=consent)

    def studies(self, authorities: Authorities = SITE, *, consent: bool = False) -> dict[str, bool]:
        """Which studies are to be taken back, and whether that is sure."""
        return {each.output.study_instance_uid: each.sure for each in self.found(authorities, consent=consent)}


@pytest.fixture
def ledger(postgres: str) -> Iterator[Ledger]:
    ledger = Ledger(postgres)
    yield ledger
    ledger.connection.close()


def test_an_identifier_written_otherwise_is_another_patients(ledger: Ledger) -> None:
    ledger.left("1.2.3", ("12-345", "NORTH"))
    ledger.left("1.2.4", ("1-2345", "NORTH"))
    ledger.opts_out(("12-345", "NORTH"))

    assert ledger.studies() == {"1.2.3": True, "1.2.4": False}


def test_what_the_issuer_of_another_was_merged_into_is_no_matter_of_a_patient(ledger: Ledger) -> None:
    ledger.patient("a", [("ROT", "NORTH")], into="b")
    ledger.patient("b", [("SURV9", "NORTH")])
    ledger.left("1.2.3", ("ROT", "NORTH"))
    ledger.left("1.2.4", ("ROT", "SOUTH"))
    ledger.left("1.2.5", ("SURV9", ""))
    ledger.opts_out(("SURV9", "NORTH"))

    assert ledger.studies() == {"1.2.3": True, "1.2.4": False, "1.2.5": True}


@pytest.mark.parametrize(
    ("patient", "sure"),
    [
        (("P1", "NORTH"), True),
        ((" P1\0", "urn:oid:1.2.3.4"), True),
        (("P1", "north&1.2.3.4&ISO"), True),
        (("P1", ""), True),
        (("p1", "NORTH"), False),
        (("P 1", "NORTH"), False),
        (("P1", "WEST&1.2.3.9&ISO"), None),
    ],
)
def test_an_opt_out_surely_means_who_has_the_same_pseudonym(ledger: Ledger, patient: Pair, sure: bool | None) -> None:
    ledger.left("1.2.3", ("P1", "NORTH"))
    ledger.opts_out((patient[0].replace("\0", ""), patient[1]))

    assert ledger.studies().get("1.2.3") is sure


def test_without_an_issuer_on_one_side_nobody_is_surely_meant(ledger: Ledger) -> None:
    ledger.left("1.2.3", ("P1", ""))
    ledger.opts_out(("P1", "NORTH"))
    assert ledger.studies(Authorities()) == {"1.2.3": False}

    ledger.opts_out(("P1", ""))
    (found,) = ledger.found(Authorities())
    assert found.sure
    assert [(line.value, line.issuer) for line in found.by] == [("P1", "")]


def test_the_patient_whom_an_order_replaced_does_not_take_back_what_left_as_another(ledger: Ledger) -> None:
    ledger.left("1.2.3", ("TYPO", "NORTH"))
    ledger.order("1.2.3", ("P1", "NORTH"))
    ledger.named("1.2.3", ("TYPO", "NORTH"))
    ledger.opts_out(("TYPO", "NORTH"))
    assert ledger.studies() == {"1.2.3": False}

    ledger.opts_out(("P1", "NORTH"))
    assert ledger.studies() == {"1.2.3": True}


@pytest.mark.parametrize(("issuer", "sure"), [("INSURANCE", True), ("", False)])
def test_what_images_name_besides_counts_if_it_says_who_assigned_it(ledger: Ledger, issuer: str, sure: bool) -> None:
    ledger.left("1.2.3", ("P1", "NORTH"))
    ledger.named("1.2.3", ("7", issuer))
    ledger.opts_out(("7", issuer))

    assert ledger.studies() == {"1.2.3": sure}


def test_a_study_that_left_as_two_patients_waits_for_a_person(ledger: Ledger) -> None:
    ledger.left("1.2.3", ("P1", "NORTH"), as_patient="ONE")
    ledger.left("1.2.3", ("P1", "NORTH"), as_patient="TWO", instance="1.2.3.9")
    ledger.opts_out(("P1", "NORTH"))
    assert ledger.studies() == {"1.2.3": False}
    assert ledger.studies(consent=True) == {"1.2.3": False}

    ledger.connection.execute("INSERT INTO deid_link (project, key_id, prior, surviving) VALUES ('research', 'k', 'ONE', 'TWO')")

    assert ledger.studies() == {"1.2.3": True}


VALUES = st.sampled_from(["12-345", "1-2345", "12345", " 12345", "ab", "AB", "Ａb", "UNKNOWN", ""])
ISSUERS = st.sampled_from(["", "NORTH", "north", "SOUTH", "1.2.3.4", "NORTH&1.2.3.4&ISO", "SOUTH&1.2.3.4&ISO"])
PAIRS = st.tuples(VALUES, ISSUERS)
NAMED = PAIRS.filter(lambda pair: bool(pair[0].strip()))


@pytest.fixture(scope="module")
def shared(own_database: Any) -> Iterator[Ledger]:
    with own_database() as dsn:
        ledger = Ledger(dsn)
        yield ledger
        ledger.connection.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    image=PAIRS,
    line=NAMED,
    merges=st.lists(st.tuples(NAMED, NAMED), max_size=2),
    authorities=st.sampled_from([SITE, Authorities(), Authorities(default="SOUTH")]),
)
@example(image=("ROT", "SOUTH"), line=("S", "NORTH"), merges=[(("ROT", "NORTH"), ("S", "NORTH"))], authorities=SITE)
@example(image=("ROT", "NORTH"), line=("S", "NORTH"), merges=[(("ROT", "NORTH"), ("S", "NORTH"))], authorities=SITE)
def test_only_what_left_as_who_opted_out_or_was_merged_with_that_very_patient_is_surely_meant(
    shared: Ledger, image: Pair, line: Pair, merges: list[tuple[Pair, Pair]], authorities: Authorities
) -> None:
    def subject(pair: Pair) -> Any:
        return subject_of_identifier(Identifier(value=pair[0], issuer=pair[1]), authorities)

    shared.clear()
    shared.left("1.2.3", image)
    for n, (former, survivor) in enumerate(merges):
        shared.patient(f"former{n}", [former], into=f"survivor{n}")
        shared.patient(f"survivor{n}", [survivor])
    shared.opts_out(line)
    meant = {subject(image)}
    for merge in merges:
        both = {subject(each) for each in merge} - {None}
        meant |= both if subject(image) in both else set()

    found = shared.studies(authorities)

    assert (found.get("1.2.3") is True) == (subject(line) in meant and subject(image) is not None)
    if found:  # whatever is taken back, or may be, is held as well
        assert held(shared.connection, image, authorities)


def held(connection: psycopg.Connection[Any], pair: Pair, authorities: Authorities) -> bool:
    patient = Identifier(value=pair[0], issuer=pair[1])
    return standing(connection, patient, "research", survivor_of(connection, patient, authorities), authorities).opted_out
