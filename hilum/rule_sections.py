"""Rules as the settings file has them, with their examples. `hilum.settings` reads them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from hilum.sections import Section


class Example(Section, frozen=True, kw_only=True):
    """An object that a rule must match, or must leave alone: what is not said of it is absent."""

    #: Whether the rule is to match.
    matches: bool
    #: Attributes by keyword, or by tag as `"0009,1010"`; a list where there are several values, and of tables for a sequence's items.
    header: dict[str, Any] = field(default_factory=dict)
    #: Facts about the arrival, as a rule may ask for them: `calling_aet = "CT1"`.
    arrival: dict[str, Any] = field(default_factory=dict)
    #: Facts about the complete study, for a rule `on = "study"`: `instances = 3`.
    study: dict[str, Any] = field(default_factory=dict)
    #: What this is an example of.
    says: str = ""


class Rule(Section, frozen=True, kw_only=True):
    """Objects for which `when` holds go to the destinations in `to`."""

    name: Annotated[str, Meta(min_length=1)]
    #: An expression over DICOM keywords, e.g. `Modality == "CT"`; see [the rule language](rules.md).
    when: str = "true"
    #: Names of destinations.
    to: tuple[str, ...]
    #: Whether each object goes at once, or those of a study once it is complete.
    on: Literal["instance", "study"] = "instance"
    #: An expression over facts of the complete study, e.g. `"CT" in modalities and instances > 1`; for `on = "study"`.
    study: str = "true"
    #: What goes of a complete study: all objects that did not go yet, those of them for which `when` holds, or the whole study again
    #: each time that something came later; for `on = "study"`.
    send: Literal["all", "matching", "whole"] = "all"
    #: What goes first: 0 is routine, the higher the more urgent.
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    #: Examples that must match and that must not; `hilum rule test`, `hilum config check` and `hilum apply` try them.
    tests: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        if self.on == "instance" and (self.study != "true" or self.send != "all"):
            raise ValueError('`study` and `send` are for rules with `on = "study"`')
