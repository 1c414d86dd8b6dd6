from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hilum.sections import Retention
from hilum.storage.keeping import Facts, Term, verdict

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=60)
TERMS = Retention(originals_days=30, modalities={"MR": 90, "XA": 0}, senders={"CT1": 45}, repeats_days=5)


def facts(**what: Any) -> Facts:
    """Of a CT slice that was delivered at noon."""
    known: dict[str, Any] = {"decisions": ("deliver",), "arrived": True, "modality": "CT", "received_at": NOON, "changed_at": NOON}
    return Facts(bucket="b", object_key="k", **(known | what))


def test_nothing_expires_unless_a_term_is_set() -> None:
    assert verdict(facts(), Retention(), LATER + timedelta(days=36_500)) == "for-ever"
    assert not Retention().anything


def test_the_term_begins_when_the_last_thing_happened() -> None:
    assert verdict(facts(changed_at=LATER - timedelta(days=30)), TERMS, LATER) == Term(policy="originals_days = 30", days=30)
    assert verdict(facts(changed_at=LATER - timedelta(days=29)), TERMS, LATER) == "too-early"


@pytest.mark.parametrize(
    ("what", "policy"),
    [
        ({"senders": ("CT1",)}, "senders.CT1 = 45"),
        ({"modality": "MR"}, "too-early"),
        ({"modality": "MR", "senders": ("CT1",)}, "too-early"),
        ({"modality": "XA", "senders": ("CT1",)}, "for-ever"),
    ],
)
def test_of_several_terms_the_longest_holds(what: dict[str, Any], policy: str) -> None:
    found = verdict(facts(**what), TERMS, LATER)

    assert (found.policy if isinstance(found, Term) else found) == policy


def test_what_open_requests_for_commitment_name_is_kept() -> None:
    assert verdict(facts(), TERMS, LATER, awaited=True) == "awaited"


def test_a_promise_may_be_left_to_destinations() -> None:
    assert verdict(facts(promised=True), TERMS, LATER) == "promised"
    assert isinstance(verdict(facts(promised=True), Retention(originals_days=30, promised="as-others"), LATER), Term)


def test_what_a_destination_rejected_is_kept_though_others_have_it() -> None:
    assert verdict(facts(rejected=True), TERMS, LATER) == "rejected"


def test_what_came_in_another_form_of_one_that_is_here_has_a_term_of_its_own() -> None:
    repeat = facts(decisions=("duplicate",), arrived=False, first=False)

    assert verdict(repeat, TERMS, LATER) == Term(policy="repeats_days = 5", days=5)
    assert verdict(repeat, Retention(originals_days=30), LATER) == "for-ever"
    assert verdict(facts(decisions=("duplicate",), arrived=False, first=True), TERMS, LATER) == "nowhere"


def test_what_is_not_of_the_past_is_kept() -> None:
    assert verdict(facts(received_at=LATER + timedelta(days=1)), TERMS, LATER) == "too-early"


def test_the_version_of_the_terms_changes_with_each() -> None:
    versions = {Retention(originals_days=days).version for days in (0, 30, 31)} | {Retention(promised="as-others").version}

    assert len(versions) == 4
