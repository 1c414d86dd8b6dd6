"""What rules are asked about a study, and what they answer: the seam between the rules and the state of studies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from msgspec import Struct

from hilum.dicom import Header
from hilum.events import InstanceAccepted


class Matched(Struct, frozen=True, kw_only=True):
    """What the rules say of one instance, when it arrives."""

    #: Each destination that it goes to now, with the names of the rules that ask for it.
    destinations: Mapping[str, tuple[str, ...]]
    #: The rules for studies whose `when` holds for it: they are asked again once its study is complete.
    study_rules: tuple[str, ...] = ()


class StudyFacts(Struct, frozen=True, kw_only=True):
    """A study that is complete, as its rules see it."""

    #: Instances so far, without those that rejection notes name.
    instances: int
    series: int
    modalities: tuple[str, ...]
    #: 1 the first time it is complete; one more each time that something came later.
    revision: int
    #: Why it is complete: `idle`, `expected`, `by-hand` or `maximum`.
    reason: str
    #: Instances for which the rule's own `when` held; set by the rules, rule by rule.
    matching: int = 0


class StudyRoute(Struct, frozen=True, kw_only=True):
    """What one rule asks for of a complete study."""

    rule: str
    to: tuple[str, ...]
    #: Every new instance, or only those for which `when` held; `whole`: those of former revisions, too, each time.
    send: Literal["all", "matching", "whole"] = "all"
    #: Higher goes first.
    priority: int = 0


class Deciding(Protocol):
    """The rules, as the state of studies asks them."""

    @property
    def tags(self) -> frozenset[str]:
        """The tags of every attribute that a rule names."""
        ...

    @property
    def any_of_study(self) -> bool:
        """Whether there are rules for complete studies: only then anything waits for them."""
        ...

    def matched(self, event: InstanceAccepted, header: Header | None = None) -> Matched:
        """What the rules say of an instance that arrives. Raises `Quarantine` if one fails on it."""
        ...

    def of_study(self, facts: StudyFacts, matched: Mapping[str, int]) -> tuple[StudyRoute, ...]:
        """What the rules say of a complete study; `matched` counts for each rule the instances for which its `when` held."""
        ...
