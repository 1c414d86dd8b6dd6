"""The rules of the settings: which objects go where. The language is that of the library `rule-engine`.

Its names and what they stand for are described in `docs/reference/rules.md`, which is generated with the tables below.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import rule_engine
from msgspec import Struct
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_dict

from hilum.dicom import CutValue, Header, tag_of
from hilum.errors import Misconfigured, Quarantine, Reason
from hilum.events import InstanceAccepted
from hilum.settings import Rule, Settings

from .facts import Matched, StudyFacts, StudyRoute
from .sense import refuse_senseless

MAX_RULE_CHARS = 8192

_NUMBERS = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "OB or OW"})


class Fact(Struct, frozen=True):
    """What a rule may ask about an arrival."""

    says: str
    of: Callable[[InstanceAccepted], Any]


#: What a rule may ask about the arrival itself. All are text but `findings`, a list.
ARRIVAL: Mapping[str, Fact] = {
    "calling_aet": Fact("The sender's AE title.", lambda event: event.instance.source.calling_aet),
    "called_aet": Fact("The AE title that the sender called.", lambda event: event.instance.source.called_aet),
    "peer": Fact("The sender's address, without port.", lambda event: event.instance.source.peer),
    "adapter": Fact("The way in, such as `dicom`.", lambda event: event.instance.source.adapter),
    "transfer_syntax": Fact("UID of the transfer syntax in which it came.", lambda event: event.instance.transfer_syntax_uid),
    "findings": Fact("A list: the codes of its [findings](findings.md).", lambda event: tuple(finding.code for finding in event.findings)),
}


class Compiled(Struct, frozen=True, kw_only=True):
    """A rule, ready to be asked."""

    name: str
    to: tuple[str, ...]
    keywords: frozenset[str]
    expression: Any


class _Asked(Struct, frozen=True, kw_only=True):
    """What a rule is asked about."""

    event: InstanceAccepted
    header: Header


class Rules:
    """All rules of a configuration, in their order.

    Raises `Misconfigured` that names the rule and the nearest known name, if one cannot work.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(_compile(rule) for rule in rules)

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """The rules of `settings`."""
        return cls(settings.rules)

    @property
    def tags(self) -> frozenset[str]:
        """The tags (`GGGGEEEE`) of every attribute that a rule names."""
        return frozenset(tag_of(keyword) for rule in self._rules for keyword in rule.keywords)

    @property
    def any_of_study(self) -> bool:
        """Whether there are rules for complete studies."""
        return False

    def matched(self, event: InstanceAccepted, header: Header | None = None) -> Matched:
        """What the rules say of an instance that arrives. Raises `Quarantine` if one fails on it."""
        return Matched(destinations=self.destinations(event, header))

    def of_study(self, facts: StudyFacts, matched: Mapping[str, int]) -> tuple[StudyRoute, ...]:
        """What the rules say of a complete study."""
        del facts, matched
        return ()

    def destinations(self, event: InstanceAccepted, header: Header | None = None) -> dict[str, tuple[str, ...]]:
        """Each destination that `event` goes to, with the names of the rules that ask for it.

        `header` stands in for the event's own where that one leaves out what a rule names. Raises `Quarantine` if a rule
        fails on the object.
        """
        found: dict[str, tuple[str, ...]] = {}
        asked = _Asked(event=event, header=header or event.instance.header)
        for rule in self._rules:
            if _matches(rule, asked):
                for destination in rule.to:
                    found[destination] = (*found.get(destination, ()), rule.name)
        return found


def _compile(rule: Rule) -> Compiled:
    if len(rule.when) > MAX_RULE_CHARS:
        raise Misconfigured(
            "rule-too-long", f"Rule {rule.name!r} has {len(rule.when)} characters.", fix=f"Split it: {MAX_RULE_CHARS} are read."
        )
    context = rule_engine.Context(type_resolver=_type_of, resolver=_value_of)  # one a rule: it collects the rule's names
    try:
        expression = rule_engine.Rule(rule.when, context=context)
    except rule_engine.SymbolResolutionError as error:
        name = str(error.symbol_name)
        raise Misconfigured("rule-name-unknown", f"Rule {rule.name!r} names {name!r}, which is unknown.", fix=_nearest(name)) from None
    except (rule_engine.EngineError, ArithmeticError) as error:
        text = str(getattr(error, "message", error))
        fix = "Correct its `when`; docs/reference/rules.md says what each name is, with examples."
        raise Misconfigured("rule-invalid", f"Rule {rule.name!r} cannot be read: {text}.", fix=fix) from None
    except RecursionError:
        fix = 'Shorten it, as with Modality in ["CT", "MR"], or split it.'
        raise Misconfigured("rule-too-long", f"Rule {rule.name!r} has too many parts.", fix=fix) from None
    refuse_senseless(rule.name, rule.when, expression.statement.expression)
    # Other symbols are facts of the arrival, built-in names, and variables of the rule's own.
    return Compiled(name=rule.name, to=rule.to, keywords=frozenset(context.symbols) & keyword_dict.keys(), expression=expression)


def _nearest(name: str) -> str:
    known = [*keyword_dict, *ARRIVAL]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else "Use a DICOM keyword, such as Modality, or one of: " + ", ".join(ARRIVAL) + "."


def _is_list(keyword: str) -> bool:
    return dictionary_VM(keyword_dict[keyword]) not in ("1", "0-1")


def _type_of(name: str) -> Any:
    kinds = rule_engine.DataType
    if name in ARRIVAL:
        return kinds.ARRAY(kinds.STRING) if name == "findings" else kinds.STRING
    if name not in keyword_dict:
        raise rule_engine.SymbolResolutionError(name)
    vr = dictionary_VR(keyword_dict[name])
    if vr == "SQ" or vr in _BULK:
        raise rule_engine.EvaluationError(f"{name} is {'a sequence' if vr == 'SQ' else 'binary'} and cannot be compared")
    kind = kinds.FLOAT if vr.split(" or ")[0] in _NUMBERS else kinds.STRING
    return kinds.ARRAY(kind) if _is_list(name) else kind


def _value_of(asked: _Asked, name: str) -> Any:
    if name in ARRIVAL:
        return ARRIVAL[name].of(asked.event)
    if not _is_list(name):
        return _plain(asked.header.value(name), name)
    return tuple(_plain(value, name) for value in asked.header.values(name) if value is not None)


def _plain(value: Any, name: str) -> Any:
    if value is None or value == "":
        return None
    if isinstance(value, dict):
        return value.get("Alphabetic", "")
    if isinstance(value, str) and dictionary_VR(keyword_dict[name]).split(" or ")[0] in _NUMBERS:
        try:
            return float(value)
        except ValueError:
            return None
    return value


def _matches(rule: Compiled, asked: _Asked) -> bool:
    try:
        return bool(rule.expression.matches(asked))
    except CutValue as error:
        raise _failed(rule, asked, f"the value of {error.keyword} is too long") from None
    except (rule_engine.EngineError, ArithmeticError, TypeError, ValueError, RecursionError) as error:
        if any(not _is_list(keyword) and _value_of(asked, keyword) is None for keyword in rule.keywords):
            return False
        raise _failed(rule, asked, type(error).__name__) from None


def _failed(rule: Compiled, asked: _Asked, why: str) -> Quarantine:
    return Quarantine(
        Reason.RULE_FAILED,
        f"Rule {rule.name!r} could not be evaluated on instance {asked.event.instance.sop_instance_uid} ({why}).",
        fix="Correct the rule's `when`; `hilum config check` shows what it may name.",
    )
