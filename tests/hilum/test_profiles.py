from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.errors import Misconfigured
from hilum.outcomes import meanings
from hilum.profiles import (
    BASES,
    GENERIC,
    DicomFacts,
    Fact,
    HttpOutcome,
    Outcome,
    Profile,
    ReasonOutcome,
    StowFacts,
    names,
    profile,
    shown,
)
from hilum.reference.profiles import TESTED_BY, page
from hilum.settings import Settings
from hilum.sink import Later, Park, sink_of
from sinks.dicom import Dicom
from sinks.stow import Stow
from tests.misbehaving import EVERY_STATUS

ROOT = Path(__file__).parents[2]
DICOM = {"type": "dicom", "host": "pacs.example", "port": 104, "aet": "PACS"}


def asked_for() -> dict[str, str]:
    """The vendors that profiles are wanted of, and the profile of each."""
    return {
        "Merge PACS": "merge",
        "IntelePACS": "intelepacs",
        "McKesson/Change Radiology": "change-radiology",
        "Laurel Bridge Compass": "compass",
        "DICOM Systems Unifier": "unifier",
        "Fuji Synapse PACS": "synapse-pacs",
        "Fuji Synapse VNA": "synapse-vna",
        "Philips IntelliSpace/iSite": "isite",
        "Carestream Vue PACS": "vue",
        "PowerShare": "powershare",
        "Sectra": "sectra",
        "Orthanc": "orthanc",
        "dcm4chee": "dcm4chee",
        "Google": "google",
        "AWS": "aws",
        "Azure": "azure",
        "generic strict": "generic-strict",
        "generic lenient": "generic-lenient",
    }


def raw(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / "sinks" / "profiles" / f"{name}.toml").read_text("utf-8"))


def facts(tree: Any) -> list[dict[str, Any]]:
    """Every fact in a file, wherever it stands."""
    if isinstance(tree, list):
        return [fact for each in tree for fact in facts(each)]
    if isinstance(tree, dict):
        return [tree] if "basis" in tree or "value" in tree else [fact for each in tree.values() for fact in facts(each)]
    return []


# The files


def test_there_is_a_profile_of_every_vendor_that_was_asked_for() -> None:
    assert set(asked_for().values()) == set(names())


@pytest.mark.parametrize("name", names())
def test_every_field_says_on_what_ground_it_stands(name: str) -> None:
    found = facts(raw(name))

    assert found
    assert {fact.get("basis") for fact in found} <= set(BASES)


@pytest.mark.parametrize("name", names())
def test_what_is_documented_or_reported_has_a_source(name: str) -> None:
    sources = raw(name).get("sources", {})

    for fact in facts(raw(name)):
        if fact["basis"] != "default" or "source" in fact:
            assert fact["source"] in sources, fact
    assert {fact["source"] for fact in facts(raw(name)) if "source" in fact} == set(sources), "no source is there for nothing"


@pytest.mark.parametrize("name", names())
def test_a_product_answers_only_what_its_profile_has_a_meaning_for(name: str) -> None:
    chosen = profile(name)

    for code in chosen.fact("dicom", "answers") or []:
        assert chosen.outcome(int(code, 16)) in get_args(Outcome)


@pytest.mark.parametrize("name", names())
def test_a_profile_says_nothing_of_a_type_that_it_is_not_for(name: str) -> None:
    assert set(raw(name)) & {"dicom", "stow"} <= set(profile(name).types)


def test_a_profile_of_a_vendor_that_knows_nothing_says_that_it_is_a_stub() -> None:
    assert {name for name in names() if profile(name).is_stub} == {
        *("merge", "intelepacs", "compass", "unifier", "synapse-vna", "vue", "powershare")
    }


def test_a_default_of_the_generic_profile_is_no_fact_about_a_product() -> None:
    inherited = [row for name in names() for row in profile(name).rows() if row.inherited]

    assert inherited
    assert {row.basis for row in inherited} == {"default"}


# What a status means


def oracle(name: str, table: str, code: int) -> str:
    """The meaning of a code, found another way: by the patterns in the files, longest first."""
    for patterns in (raw(name), raw(GENERIC)):
        found = patterns.get("dicom" if table == "statuses" else "stow", {}).get(table, {})
        for key in sorted(found, key=lambda key: key.count("x")):
            if key != "other" and re.fullmatch(key[:2] + key[2:].replace("x", "[0-9A-F]"), f"0x{code:04X}"):
                return str(found[key]["value"])
    for patterns in (raw(name), raw(GENERIC)):
        found = patterns.get("dicom" if table == "statuses" else "stow", {}).get(table, {})
        if "other" in found:
            return str(found["other"]["value"])
    raise AssertionError


def codes_of(name: str, table: str) -> list[int]:
    """Every status of the standard, every one that the profile names, and their neighbours."""
    keys = {*raw(name).get("dicom", {}).get(table, {}), *raw(name).get("stow", {}).get(table, {})} - {"other"}
    named = {int(key[2:].replace("x", digit), 16) for key in keys for digit in "0F"}
    around = {code + step for code in (*EVERY_STATUS, *named) for step in (-1, 0, 1)}
    return sorted(code for code in around if 0 <= code <= 0xFFFF)


@pytest.mark.parametrize("name", names())
def test_each_status_means_what_the_file_says(name: str) -> None:
    found = {code: profile(name).outcome(code) for code in codes_of(name, "statuses")}

    assert found == {code: oracle(name, "statuses", code) for code in found}


@pytest.mark.parametrize("name", names())
def test_each_failure_reason_becomes_what_the_profile_says(name: str) -> None:
    found = {code: profile(name).reason(code) for code in codes_of(name, "reasons")}

    assert found == {code: oracle(name, "reasons", code) for code in found}


@pytest.mark.parametrize("name", names())
def test_every_http_status_means_something_in_every_profile(name: str) -> None:
    assert {profile(name).http(status) for status in range(100, 600)} <= set(get_args(HttpOutcome))


@settings(deadline=None)  # the first example reads the files
@given(st.integers(0, 0xFFFF))
def test_every_possible_status_means_something_in_every_profile(code: int) -> None:
    for name in names():
        assert profile(name).outcome(code) in get_args(Outcome)
        assert profile(name).reason(code) in get_args(ReasonOutcome)
        assert profile(name).words("statuses", code)


@pytest.mark.parametrize("name", names())
def test_success_and_warnings_of_the_standard_are_never_a_failure(name: str) -> None:
    stored = (0x0000, 0xB000, 0xB006, 0xB007)

    assert {profile(name).outcome(status) for status in stored} == {"delivered"}


STANDARD = {
    0x0000: "delivered",
    0x0001: "delivered",
    0x0105: "permanent",
    0x0106: "permanent",
    0x0107: "delivered",
    0x0110: "retry",
    0x0111: "already_there",
    0x0112: "permanent",
    0x0113: "permanent",
    0x0114: "permanent",
    0x0115: "permanent",
    0x0116: "delivered",
    0x0117: "permanent",
    0x0118: "permanent",
    0x0119: "permanent",
    0x0120: "permanent",
    0x0121: "permanent",
    0x0122: "permanent",
    0x0123: "permanent",
    0x0124: "person",
    0x0210: "retry",
    0x0211: "permanent",
    0x0212: "permanent",
    0x0213: "retry",
    0xA700: "retry",
    0xA7FF: "retry",
    0xA900: "permanent",
    0xA9FF: "permanent",
    0xB000: "delivered",
    0xB006: "delivered",
    0xB007: "delivered",
    0xC000: "permanent",
    0xCFFF: "permanent",
    0xFE00: "retry",
    0xFF00: "permanent",
    0xFF01: "permanent",
}


@pytest.mark.parametrize("status", EVERY_STATUS)
def test_each_status_of_the_standard_means_what_it_says_in_the_strict_profile(status: int) -> None:
    assert profile(GENERIC).outcome(status) == STANDARD[status]


@pytest.mark.parametrize(
    ("name", "status", "outcome"),
    [
        ("dcm4chee", 0xA700, "retry"),
        ("dcm4chee", 0xA770, "already_there"),
        ("dcm4chee", 0xA771, "permanent"),
        ("dcm4chee", 0xA777, "person"),
        ("dcm4chee", 0xA778, "person"),
        ("dcm4chee", 0xA77A, "retry"),
        ("dcm4chee", 0xA77C, "retry"),
        ("dcm4chee", 0xC409, "permanent"),
        ("orthanc", 0xA700, "retry"),
        ("orthanc", 0x0111, "already_there"),
        ("synapse-pacs", 0xC000, "permanent"),
        ("generic-lenient", 0xC000, "retry"),
        ("generic-lenient", 0x0122, "permanent"),
        ("generic-lenient", 0x9999, "retry"),
    ],
)
def test_a_status_means_what_its_product_says(name: str, status: int, outcome: str) -> None:
    assert profile(name).outcome(status) == outcome


@pytest.mark.parametrize(
    ("name", "reason", "outcome"),
    [
        ("azure", 0xB00E, "already_there"),
        ("azure", 0xB00F, "retry"),
        ("azure", 0xA900, "permanent"),
        ("azure", 0x0110, "retry"),
        ("google", 0x0110, "conflict"),
        ("dcm4chee", 0xA778, "person"),
        ("dcm4chee", 0xA922, "permanent"),
        ("generic-strict", 0xB000, "permanent"),
    ],
)
def test_a_failure_reason_means_what_its_service_says(name: str, reason: int, outcome: str) -> None:
    assert profile(name).reason(reason) == outcome


def test_a_conflict_at_google_says_that_it_must_be_asked() -> None:
    assert (profile("google").http(409), profile("google").fact("stow", "conflict")) == ("conflict", "ask")


def test_what_a_destination_says_of_a_range_wins_over_what_its_profile_says_of_one_status() -> None:
    assert profile("dcm4chee").outcome(0xA778, {"0xA7xx": "permanent"}) == "permanent"


def test_what_a_destination_says_of_others_does_not_change_what_its_profile_names() -> None:
    assert profile("dcm4chee").outcome(0xA778, {"other": "permanent"}) == "person"
    assert profile("dcm4chee").outcome(0x4242, {"other": "retry"}) == "retry"


def test_success_is_success_whatever_a_destination_says() -> None:
    assert profile(GENERIC).outcome(0, {"0x0xxx": "permanent", "other": "retry"}) == "delivered"


@pytest.mark.parametrize(("outcome", "state"), [("delivered", "delivered"), ("already_there", "already_there"), ("permanent", "rejected")])
def test_an_outcome_settles_with_the_peers_status_and_words(outcome: Outcome, state: str) -> None:
    settled = meanings("", {"0x1234": outcome}).of_status("PACS", 0x1234, "in my words")

    assert (settled.state, settled.peer_status, settled.peer_comment) == (state, "0x1234", "in my words")
    assert "in my words" not in settled.comment  # that is on the event


@pytest.mark.parametrize(("outcome", "error"), [("retry", Later), ("person", Park)])
def test_an_outcome_puts_off_with_the_peers_status_and_words(outcome: Outcome, error: type[Later | Park]) -> None:
    with pytest.raises(error) as stop:
        meanings("", own_reasons={"0x1234": outcome}).of_reason("service", 0x1234, "in my words", http=409)

    assert isinstance(stop.value, Later | Park)
    assert (stop.value.peer_status, stop.value.peer_comment) == ("409 0x1234", "in my words")
    assert "in my words" not in str(stop.value)  # that is logged
    assert stop.value.fix


def test_a_conflict_is_left_to_the_setting_that_says_what_to_make_of_it() -> None:
    assert meanings("google").of_reason("service", 0x0110) is None
    assert {profile(name).fact("stow", "conflict") for name in names()} == {"ask"}


def test_an_http_status_may_be_named_by_its_class() -> None:
    assert {profile(GENERIC).http(status) for status in (402, 406, 418, 499)} == {"permanent"}
    assert {profile(GENERIC).http(status) for status in (302, 404, 405, 429, 503)} == {"outage"}
    assert {profile(GENERIC).http(status) for status in (408, 500, 599)} == {"retry"}


def test_a_status_is_told_in_the_words_of_the_profile() -> None:
    assert profile("dcm4chee").words("statuses", 0xA778) == "Patient ID differs from the study's patient"
    assert profile("merge").words("statuses", 0xA701) == "out of resources"
    assert profile("merge").words("statuses", 0x4242) == "failure"


# In the settings


def a_profile(**more: Any) -> Profile:
    return Profile(title="Product", vendor="Vendor", types=("dicom",), base=profile(GENERIC), **more)


def test_a_profile_sets_what_the_destination_does_not() -> None:
    grouped = a_profile(dicom=DicomFacts(group_by=Fact(value="none", basis="default")))

    assert grouped.settings("dicom", Dicom.__struct_fields__) == {"group_by": "none", "refused_contexts": "person"}
    assert profile("merge").settings("dicom", Dicom.__struct_fields__) == {"group_by": "study", "refused_contexts": "person"}


def test_a_profile_says_how_a_product_is_asked_and_what_it_takes() -> None:
    node = a_profile(dicom=DicomFacts(verify_by=Fact(value="commitment", basis="default")))
    service = a_profile(stow=StowFacts(syntaxes=Fact(value=["1.2.840.10008.1.2.1"], basis="default")))

    assert node.settings("dicom", Dicom.__struct_fields__)["verify_by"] == "commitment"
    assert service.settings("stow", Stow.__struct_fields__)["syntaxes"] == ["1.2.840.10008.1.2.1"]


def test_a_destinations_own_setting_wins() -> None:
    sink = sink_of("pacs", {**DICOM, "profile": "merge", "group_by": "none"})

    assert isinstance(sink, Dicom)
    assert (sink.profile, sink.group_by) == ("merge", "none")


def test_a_profile_that_there_is_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(Misconfigured, match=r"destinations\.pacs: There is no destination profile 'mrge'\. Did you mean merge\?"):
        sink_of("pacs", {**DICOM, "profile": "mrge"})


def test_a_profile_of_a_web_service_is_refused_for_a_dicom_node() -> None:
    with pytest.raises(Misconfigured, match="the profile 'azure' is for stow, not dicom"):
        sink_of("pacs", {**DICOM, "profile": "azure"})


def test_a_type_without_profiles_refuses_one_as_any_unknown_setting() -> None:
    with pytest.raises(Misconfigured, match=r"There is no setting destinations\.archive\.profile"):
        sink_of("archive", {"type": "archive", "profile": "merge"})


@pytest.mark.parametrize("key", ["A700", "0xA70", "0xa700", "0xA7x0", "0xxxxx", "others", "0xA7000"])
def test_a_status_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(Misconfigured, match="status"):
        sink_of("pacs", {**DICOM, "statuses": {key: "retry"}})


def test_an_outcome_that_is_none_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(Misconfigured, match=r'Allowed: "delivered" or "already_there" or "retry" or "permanent" or "person"'):
        sink_of("pacs", {**DICOM, "statuses": {"0xA7xx": "later"}})


def test_syntaxes_are_ordered_as_the_product_prefers_and_else_stay_as_they_are() -> None:
    prefers = a_profile(dicom=DicomFacts(prefers=Fact(value=["1.2.3"], basis="default")))

    assert prefers.in_order(["1.2.1", "1.2.2", "1.2.3"]) == ["1.2.3", "1.2.1", "1.2.2"]
    assert profile("merge").in_order(["1.2.1", "1.2.2"]) == ["1.2.1", "1.2.2"]


@pytest.mark.parametrize(
    "table",
    [{"type": "dicom", "host": "pacs", "port": 104, "aet": "PACS"}, {"type": "stow", "url": "https://pacs.example.org/dicom-web"}],
    ids=["dicom", "stow"],
)
def test_a_correction_waits_for_a_person_where_success_is_no_proof(table: dict[str, Any]) -> None:
    def asks(**more: str) -> bool:
        return sink_of("pacs", {**table, **more}).asks_before_replacing(Settings())

    assert asks(profile="orthanc")
    assert not asks(profile="orthanc", corrections="send")
    assert not asks()
    assert asks(corrections="person")


@pytest.mark.parametrize(("kind", "sink"), [("dicom", Dicom), ("stow", Stow)])
def test_the_character_sets_of_a_product_are_those_of_its_destinations(kind: str, sink: type[msgspec.Struct]) -> None:
    takes: Fact[list[Any]] = Fact(value=["ISO_IR 100", "ISO_IR 192"], basis="default")
    product = Profile(title="A product", types=("dicom", "stow"), dicom=DicomFacts(character_sets=takes))

    assert product.settings(kind, sink.__struct_fields__)["character_sets"] == ["ISO_IR 100", "ISO_IR 192"]


def test_a_profile_that_calls_success_no_proof_says_what_becomes_of_corrections() -> None:
    for name in names():
        if profile(name).dicom.duplicates is not None and profile(name).fact("dicom", "duplicates") == "success":
            assert profile(name).dicom.corrections is not None, name


# The page


def test_each_kind_of_fact_that_sets_something_names_a_test_that_there_is() -> None:
    for test in TESTED_BY.values():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text("utf-8"), test


def test_the_page_has_every_fact_of_every_profile() -> None:
    text = page()

    for name in names():
        for fact in facts(raw(name)):
            assert shown(fact["value"]) in text


@pytest.mark.parametrize("kind", [DicomFacts, StowFacts])
def test_a_fact_that_sets_something_is_named_among_those_that_are_tested(kind: type[msgspec.Struct]) -> None:
    for_people_only = {"private_sop_classes", "duplicates", "commitment", "rejection_notes"}
    assert {field.name for field in msgspec.structs.fields(kind)} <= TESTED_BY.keys() | for_people_only


def test_a_fact_of_dicom_has_another_name_than_one_of_stow() -> None:
    assert not set(DicomFacts.__struct_fields__) & set(StowFacts.__struct_fields__)
