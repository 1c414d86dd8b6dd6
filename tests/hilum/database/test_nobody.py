"""An identifier that stands for nobody (`UNKNOWN`, `0`) is no one patient's: for opt-outs, consents, merges and what is taken back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from hilum.database.choices import add
from hilum.database.persons import Standing, standing, survivor_of
from hilum.identity import Authorities
from hilum.order_events import Identifier, Patient
from processors.anonymize.identity import subject_of_patient
from tests.hilum.database.test_withdrawing import Ledger

pytestmark = pytest.mark.system

SITE = Authorities(default="NORTH")
NOBODIES = ["UNKNOWN", "0", "N/A", " unknown ", "Patient^Anonymous"]


class Site(Ledger):
    def merged(self, *way: str) -> None:
        """Each of these patients was merged into the next."""
        for n, value in enumerate(way):
            self.patient(value, [(value, "NORTH")], into=way[-1] if n + 1 < len(way) else None)
            former = {"former_ids": [{"value": each, "issuer": "NORTH"} for each in way[:n]]} if n else {}
            self.connection.execute("UPDATE patient SET detail = detail || %s WHERE patient_key = %s", (json.dumps(former), value))

    def consents(self, value: str) -> None:
        add(self.dsn, "consent", [(value, "NORTH")], "research", "me", "")

    def survivor(self, value: str) -> Patient | None:
        return survivor_of(self.connection, Identifier(value=value, issuer="NORTH"), SITE)

    def standing(self, value: str) -> Standing:
        patient = Identifier(value=value, issuer="NORTH")
        return standing(self.connection, patient, "research", self.survivor(value), SITE)


@pytest.fixture
def site(postgres: str) -> Iterator[Site]:
    site = Site(postgres)
    site.clear()
    yield site
    site.connection.close()


@pytest.mark.parametrize("nobody", NOBODIES)
def test_nobodys_image_is_held_as_soon_as_anybody_opted_out(site: Site, nobody: str) -> None:
    assert not site.standing(nobody).opted_out

    site.opts_out(("P1", "NORTH"))

    assert site.standing(nobody) == Standing(opted_out=True, consented=False, unnamed=True)


def test_an_opt_out_that_names_nobody_holds_what_is_called_so(site: Site) -> None:
    site.opts_out(("unknown", ""))

    assert site.standing("UNKNOWN") == Standing(opted_out=True, consented=False)
    assert not site.standing("P1").opted_out


def test_a_consent_of_nobody_is_none(site: Site) -> None:
    site.consents("UNKNOWN")

    assert not site.standing("UNKNOWN").consented


def test_nobody_who_was_merged_into_a_patient_has_neither_pseudonym_nor_consent_of_that_patient(site: Site) -> None:
    site.merged("UNKNOWN", "P1")
    site.consents("P1")

    assert site.survivor("UNKNOWN") is None
    assert not site.standing("UNKNOWN").consented
    assert site.standing("P1").consented


@pytest.mark.parametrize("way", [("P1", "UNKNOWN"), ("P1", "UNKNOWN", "P2")])
def test_who_was_merged_into_nobody_is_of_no_pseudonym_and_of_nobody_elses_consent(site: Site, way: tuple[str, ...]) -> None:
    site.merged(*way)
    for each in way[1:]:
        site.consents(each)

    survivor = site.survivor("P1")

    assert survivor is not None  # so that it is held
    assert subject_of_patient(survivor, SITE) is None
    assert not site.standing("P1").consented


def test_a_merge_beside_that_of_nobody_counts(site: Site) -> None:
    site.merged("P1", "P2")
    site.patient("UNKNOWN", [("UNKNOWN", "NORTH")], into="P2")

    survivor = site.survivor("P1")

    assert survivor is not None
    assert survivor.ids[0].value == "P2"


@pytest.mark.parametrize("way", [("P1", "UNKNOWN"), ("UNKNOWN", "P1"), ("P1", "UNKNOWN", "P2"), ("P2", "UNKNOWN", "P1")])
def test_an_opt_out_holds_all_whom_merges_of_nobody_make_one(site: Site, way: tuple[str, ...]) -> None:
    site.merged(*way)
    site.opts_out(("P1", "NORTH"))

    assert all(site.standing(each).opted_out for each in way)


def test_what_left_of_nobody_is_never_surely_of_who_opted_out(site: Site) -> None:
    site.left("1.2.3", ("UNKNOWN", "NORTH"))
    site.opts_out(("UNKNOWN", "NORTH"))

    assert site.studies(SITE) == {"1.2.3": False}


@pytest.mark.parametrize(
    ("way", "line", "image"),
    [
        (("UNKNOWN", "P1"), "P1", "UNKNOWN"),
        (("UNKNOWN", "P1"), "UNKNOWN", "P1"),
        (("P1", "UNKNOWN", "P2"), "P1", "P2"),
        (("P1", "UNKNOWN", "P2"), "P2", "P1"),
        (("P1", "P2", "UNKNOWN"), "P1", "P2"),
    ],
)
def test_what_left_is_not_surely_of_whom_a_merge_of_nobody_makes_one(site: Site, way: tuple[str, ...], line: str, image: str) -> None:
    site.merged(*way)
    site.left("1.2.3", (image, "NORTH"))
    site.opts_out((line, "NORTH"))

    assert site.studies(SITE) == {"1.2.3": False}


def test_an_opt_out_of_the_very_patient_takes_back_what_left_though_nobody_was_merged_in(site: Site) -> None:
    site.merged("P1", "UNKNOWN", "P2")
    site.left("1.2.3", ("P1", "NORTH"))
    site.opts_out(("P1", "NORTH"))

    assert site.studies(SITE) == {"1.2.3": True}


def test_of_nobody_no_consent_stands_whatever_the_list_has(site: Site) -> None:
    site.left("1.2.3", ("UNKNOWN", "NORTH"))
    site.consents("UNKNOWN")

    assert [each.why for each in site.found(SITE, consent=True)] == ["no-consent"]
