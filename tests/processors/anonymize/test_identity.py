from __future__ import annotations

import unicodedata

import pytest

from hilum.identity import Authorities
from hilum.order_events import Identifier, Patient
from processors.anonymize.identity import subject_of, subject_of_identifier, subject_of_patient, subject_of_study


@pytest.mark.parametrize("value", ["4711 A", " 4711 A ", "4711 A\0", "4711  A", "4711\tA", "4711\u00a0A", "\u200b4711 A"])
def test_padding_and_spaces_make_no_other_patient(value: str) -> None:
    assert subject_of(value, "NORTH") == subject_of("4711 A", "NORTH")


@pytest.mark.parametrize("value", ["4711 a", "04711 A", "4711-A", "4711A", "4711"])
def test_case_zeros_and_punctuation_do(value: str) -> None:
    assert subject_of(value, "NORTH") != subject_of("4711 A", "NORTH")


def test_letters_may_be_composed_or_not() -> None:
    assert subject_of(unicodedata.normalize("NFD", "MÜ1")) == subject_of("MÜ1")


@pytest.mark.parametrize("value", ["UNKNOWN", "0", "000", "Anonymous", "ANON", "n/a", "-", "Patient^Unknown", "none", "XXX"])
def test_who_is_called_as_nobody_is_no_patient(value: str) -> None:
    assert subject_of(value, "NORTH") is None


@pytest.mark.parametrize("value", ["10", "ANON1", "X1", "P-0", "Unknown-7", "NA7"])
def test_who_has_an_identifier_that_looks_a_little_like_nobodys_is_somebody(value: str) -> None:
    assert subject_of(value, "NORTH") is not None


@pytest.mark.parametrize("value", ["", " ", "\0", '""'])
def test_without_identifier_there_is_no_subject(value: str) -> None:
    assert subject_of(value, "NORTH") is None


@pytest.mark.parametrize(
    ("issuer", "universal_id"),
    [("NORTH", ""), ("north ", ""), ("NORTH", "1.2.3"), ("NORTH&1.2.3&ISO", ""), ("NORTH&1.2.3&ISO", "9.9")],
)
def test_an_issuer_is_one_in_all_its_forms(issuer: str, universal_id: str) -> None:
    assert subject_of("1", issuer, universal_id) == subject_of("1", "NORTH")


@pytest.mark.parametrize(("issuer", "universal_id"), [("", "1.2.3"), ("&1.2.3&ISO", ""), ("", "urn:oid:1.2.3"), ("1.2.3", "")])
def test_an_issuer_may_be_known_by_its_universal_id_alone(issuer: str, universal_id: str) -> None:
    assert subject_of("1", issuer, universal_id) == subject_of("1", "", "1.2.3")


def test_another_issuer_is_another_patient() -> None:
    assert len({subject_of("1", each) for each in ("", "NORTH", "SOUTH")}) == 3


def test_parts_do_not_run_into_each_other() -> None:
    assert subject_of("1\x1f2", "A") != subject_of("2", "A\x1f1")


def test_the_site_says_who_assigns_where_nobody_does_and_which_names_are_one() -> None:
    site = Authorities(default="HIS", same={"1.2.3": "NORTH", "his": "North"})
    north = subject_of("1", "NORTH")

    assert {subject_of("1", *each, authorities=site) for each in (("", ""), ("HIS", ""), ("", "1.2.3"), ("NORTH", ""), ("X", "1.2.3"))} == {
        north
    }
    assert subject_of("1", "SOUTH", authorities=site) == subject_of("1", "SOUTH")


def test_dicom_and_hl7_mean_the_same_patient() -> None:
    message = Identifier(value="4711", issuer="NORTH", universal_id="1.2.3", universal_id_type="ISO", type="MR")

    assert subject_of_identifier(message) == subject_of("4711 ", "NORTH")
    assert subject_of_patient(Patient(key="k", ids=(message, Identifier(value="other")))) == subject_of("4711 ", "NORTH")
    assert subject_of_patient(Patient(key="k", ids=())) is None


def test_a_study_without_patient_id_is_of_a_patient_of_its_own() -> None:
    assert subject_of_study("1.2.3\0") == subject_of_study("1.2.3")
    assert len({subject_of_study("1.2.3"), subject_of_study("1.2.4"), subject_of("1.2.3")}) == 3
    assert subject_of_study("") is None


def test_no_text_form_shows_who_it_is() -> None:
    subject = subject_of("SECRET", "NORTH")

    assert "SECRET" not in f"{subject} {subject!r} {subject.__rich_repr__() if subject else ''}"
