"""What a rule for complete studies is asked about, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct


class StudyFacts(Struct, frozen=True, kw_only=True):
    """A study at the moment at which it is complete."""

    #: Instances that count as the study's: neither duplicates nor quarantined.
    instances: int
    series: int
    #: The modalities of its series, each once.
    modalities: tuple[str, ...] = ()
    #: 1 for the first time, and one more for each time that something came afterwards.
    revision: int = 1
    #: Why it counts as complete, such as `idle`.
    reason: str = ""
    #: What is known of its order.
    order_match: str = ""


class StudyRoute(Struct, frozen=True, kw_only=True):
    """Where a complete study goes by one rule."""

    rule: str
    to: tuple[str, ...]
    #: `all` of it, or the instances for which the rule's `when` held (`matching`).
    send: str
    priority: int


class Matched(Struct, frozen=True, kw_only=True):
    """What the rules say of one instance on its arrival."""

    #: Each destination to which it goes at once, with the rules that ask for it, in their order.
    destinations: dict[str, tuple[str, ...]]
    #: Rules for complete studies whose `when` holds for it.
    study_rules: tuple[str, ...] = ()
    #: The highest priority of the rules that ask for each destination.
    priorities: dict[str, int] = {}


class StudyFact(Struct, frozen=True):
    """A name in a rule's `study`, and what it stands for. `matching` is how many instances the rule's `when` held for."""

    says: str
    of: Callable[[StudyFacts, int], Any]


STUDY: Mapping[str, StudyFact] = {
    "instances": StudyFact("How many instances there are.", lambda facts, _: facts.instances),
    "series": StudyFact("How many series there are.", lambda facts, _: facts.series),
    "modalities": StudyFact("A list: the modalities of its series, each once.", lambda facts, _: facts.modalities),
    "revision": StudyFact("1 at first, and one more each time after something came later.", lambda facts, _: facts.revision),
    "reason": StudyFact("Why it counts as complete, such as `idle`.", lambda facts, _: facts.reason),
    "matching": StudyFact("For how many instances the rule's `when` holds.", lambda _, matching: matching),
    "order_match": StudyFact("What is known of its order; empty if nothing is.", lambda facts, _: facts.order_match),
}
