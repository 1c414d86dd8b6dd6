"""What is known of the products that Hilum sends to: the table of all destination profiles."""

from __future__ import annotations

from hilum import profiles
from hilum.profiles import Profile, Row

from .markdown import code, table

#: The test that holds each kind of fact, by the beginning of the fact's name. A test looks whether these tests exist.
TESTED_BY = {
    "statuses": "tests/sinks/test_profiles_at_work.py::test_each_status_becomes_what_the_profile_says",
    "answers": "tests/sinks/test_profiles_at_work.py::test_a_product_that_gives_its_documented_answers_leaves_nothing_open",
    "group_by": "tests/hilum/test_profiles.py::test_a_profile_sets_what_the_destination_does_not",
    "max_associations": "tests/sinks/test_profiles_at_work.py::test_one_association_too_many_is_an_outage_and_no_attempt",
    "takes": "tests/sinks/test_profiles_at_work.py::test_an_object_goes_out_in_a_syntax_that_is_documented",
    "prefers": "tests/sinks/test_profiles_at_work.py::test_what_must_be_written_anew_is_written_as_the_profile_prefers",
    "refused_contexts": "tests/sinks/test_dicom_refused_contexts.py::test_a_kind_that_is_not_taken_ends_as_setting_or_profile_say",
    "corrections": "tests/hilum/test_profiles.py::test_a_correction_waits_for_a_person_where_success_is_no_proof",
    "character_sets": "tests/hilum/test_profiles.py::test_the_character_sets_of_a_product_are_those_of_its_destinations",
    "query_title": "tests/sinks/test_profiles_at_work.py::test_a_check_says_how_the_peer_differs_from_its_profile",
    "verify_by": "tests/hilum/test_profiles.py::test_a_profile_says_how_a_product_is_asked_and_what_it_takes",
    "syntaxes": "tests/hilum/test_profiles.py::test_a_profile_says_how_a_product_is_asked_and_what_it_takes",
    "reasons": "tests/hilum/test_profiles.py::test_each_failure_reason_becomes_what_the_profile_says",
    "conflict": "tests/sinks/test_web_services_of_tests.py::test_another_file_with_the_same_uids_is_a_conflict_to_be_asked_about",
    "warnings": "tests/sinks/test_web_services_of_tests.py::test_a_warning_comes_with_202_and_the_instance_is_stored",
    "max_instance_bytes": "tests/sinks/test_web_services_of_tests.py::test_a_service_may_take_no_such_request",
    "http": "tests/hilum/test_profiles.py::test_every_http_status_means_something_in_every_profile",
}


def page() -> str:
    """Every profile and every fact, with its ground."""
    found = [profiles.profile(name) for name in profiles.names()]
    lines = [
        "# Destination profiles",
        "",
        '`profile = "NAME"` in `[destinations.X]` chooses one; the destination\'s own settings win. How to use them, and how to find out',
        "what is not known: [operations/profiles.md](../operations/profiles.md). `hilum dest profiles NAME` shows one with what it",
        "inherits.",
        "",
        "The basis of a fact: **documented** by the maker, **reported** by somebody else, or a **default** of Hilum's, which is no fact",
        "about the product. Of a status it speaks of what the status says; whether Hilum then tries again, rejects the object or waits",
        "for a person is always Hilum's choice. A *stub* knows nothing of how the product takes objects. What a profile does not say is",
        "as in [`generic-strict`](#generic-strict). Where no test is named, the fact sets nothing in Hilum: it is there to be known.",
        "",
        table(("Profile", "Vendor", "Product", "Versions", "Types", ""), [_line(each) for each in found]),
    ]
    for each in found:
        lines += [f"\n## {each.name}\n", f"{each.title}{f', {each.vendor}' if each.vendor else ''}.", "", _facts(each)]
        if each.sources:
            lines += ["", "Sources: " + "; ".join(_source(source) for source in each.sources.values()) + "."]
    return "\n".join(lines)


def _line(each: Profile) -> tuple[str, ...]:
    link = f"[{code(each.name)}](#{each.name})"
    return link, each.vendor, each.title, each.versions, ", ".join(each.types), "stub" if each.is_stub else ""


def _facts(each: Profile) -> str:
    rows = []
    for row in each.rows():
        if not row.inherited:
            value = row.value if row.field == "note" else code(row.value)
            rows.append((each.vendor or "any", code(row.field), value, row.basis, _ground(row), _tested(row)))
    return table(("Vendor", "Field", "Value", "Basis", "Source", "Tested by"), rows)


def _ground(row: Row) -> str:
    return ": ".join(filter(None, (row.source, row.says)))


def _source(source: profiles.Source) -> str:
    return f"[{source.title}]({source.url})" if source.url else source.title


def _tested(row: Row) -> str:
    test = next((test for field, test in TESTED_BY.items() if row.field == field or row.field.startswith(f"{field}.")), "")
    file, _, name = test.partition("::")
    return f"[{code(name)}](../../{file})" if test else ""
