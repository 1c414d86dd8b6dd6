"""From a rule's text to something that can be asked. The language is that of the library `rule-engine`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import rule_engine
from msgspec import Struct
from pydicom.datadict import keyword_dict
from rule_engine import ast
from rule_engine import errors as rule_errors

from hilum.dicom import tag_of
from hilum.dicom.numbers import is_private, parts_of, tags_numbered
from hilum.errors import Misconfigured
from hilum.misfits import nearest as nearest_of
from hilum.settings import Rule

from .bounded import Bounded, BoundedRule, TooMuch
from .facts import STUDY, StudyFacts
from .names import TAG, Asked, kinds, nearest, type_of
from .sense import nodes, refuse_senseless
from .text import is_call_of

MAX_RULE_CHARS = 8192
#: What the library raises on an object that a rule does not fit; a `TypeError` or `ValueError` comes from its own operators.
FAILURES = (rule_engine.EngineError, ArithmeticError, TypeError, ValueError, RecursionError)


_DATES = 'Compare text with text and numbers with numbers. Dates and times are text: StudyDate >= "20240101".'
_REGEX = "The syntax is RE2's: without look-ahead, look-behind and references back, which may take any time; \\z is the end of the text."


class Compiled(Struct, frozen=True, kw_only=True):
    """A rule, ready to be asked."""

    rule: Rule
    #: The attributes that it names, within sequences not counted.
    keywords: frozenset[str]
    #: Tags (`GGGGEEEE`) of all that it names, also by number.
    tags: frozenset[str]
    #: Of an `Asked`.
    when: Any
    #: Of a pair: `StudyFacts`, and how many instances `when` held for. None for a rule for single instances.
    study: Any = None


def compiled(rule: Rule) -> Compiled:
    """The rule, ready to be asked. Raises `Misconfigured` that names it and the nearest known name, if it cannot work."""
    context = Bounded(type_resolver=type_of, resolver=Asked.value)  # one a rule: it collects the rule's names
    when = _read(rule.name, "when", rule.when, context, nearest)
    numbers = _numbers(rule.name, when)
    # Other symbols are facts of the arrival, built-in names, and variables of the rule's own.
    keywords = frozenset(context.symbols) & keyword_dict.keys()
    tags = frozenset(tag_of(keyword) for keyword in keywords).union(*(tags_numbered(number) for number in numbers))
    return Compiled(rule=rule, keywords=keywords, tags=tags, when=when, study=_study(rule) if rule.on == "study" else None)


def _read(name: str, key: str, text: str, context: Any, nearest: Callable[[str], str]) -> Any:
    if len(text) > MAX_RULE_CHARS:
        fix = f"Split it: {MAX_RULE_CHARS} are read."
        raise Misconfigured("rule-too-long", f"Rule {name!r} has {len(text)} characters in its `{key}`.", fix=fix)
    try:
        context.begin()
        expression = BoundedRule(text, context=context)
    except rule_engine.SymbolResolutionError as error:
        unknown = str(error.symbol_name)
        raise Misconfigured("rule-name-unknown", f"Rule {name!r} names {unknown!r}, which is unknown.", fix=nearest(unknown)) from None
    except rule_errors.ObjectAttributeError as error:
        fix = f"Did you mean {error.suggestion}?" if error.suggestion else "Within a sequence attributes have their DICOM keywords."
        sentence = f"Rule {name!r} names {error.attribute_name!r} within a sequence, which is unknown."
        raise Misconfigured("rule-name-unknown", sentence, fix=fix) from None
    except rule_errors.RegexSyntaxError as error:
        sentence = f"Rule {name!r} has a regular expression that cannot be used: {error.message} in {error.value!r}."
        raise Misconfigured("rule-invalid", sentence, fix=_REGEX) from None
    except (rule_engine.EngineError, ArithmeticError) as error:
        text = str(getattr(error, "message", error))
        fix = f"Correct its `{key}`; docs/reference/rules.md says what each name is, with examples."
        if text == "data type mismatch":
            text, fix = "it compares text with a number, or a list with a single value", _DATES
        raise Misconfigured("rule-invalid", f"Rule {name!r} cannot be read: {text}.", fix=fix) from None
    except RecursionError:
        fix = 'Shorten it, as with Modality in ["CT", "MR"], or split it.'
        raise Misconfigured("rule-too-long", f"Rule {name!r} has too many parts.", fix=fix) from None
    refuse_senseless(name, text, expression.statement.expression)
    return expression


def _numbers(name: str, expression: Any) -> list[str]:
    """The numbers of elements that the rule asks for. They must stand in its text, so that their values are kept in events."""
    found = []
    for node in nodes(expression.statement.expression):
        if not is_call_of(node, TAG):
            continue
        if not all(isinstance(argument, ast.StringExpression) for argument in node.arguments):
            raise _refused(name, f"works out what to ask {TAG}() for", f'Write it out: {TAG}("0009,1010", "GEMS_IDEN_01").')
        number, *creator = [str(argument.value) for argument in node.arguments]
        parts = parts_of(number)
        if parts is None:
            raise _refused(
                name, f"asks {TAG}() for {number!r}, which is no tag", f'Write group and element: {TAG}("0009,1010", "CREATOR").'
            )
        if is_private(parts[0]) and (not creator or not creator[0]):
            fix = f'Name the creator, as (gggg,0010) to (gggg,00FF) do: {TAG}("{number}", "CREATOR").'
            raise _refused(name, f"asks {TAG}() for the private element {number} without its creator", fix)
        if not is_private(parts[0]) and (creator or parts[1] == "xx"):
            raise _refused(name, f"asks {TAG}() for {number}, which is not private, by a creator or block", f'Write {TAG}("0008,0060").')
        found.append(number)
    return found


def failure(error: Exception) -> str:
    """Why a rule could not be evaluated, in words that name no value of the object."""
    if isinstance(error, TooMuch):
        return str(error.message)
    if isinstance(error, rule_errors.LookupError):
        return "it asks for a place that a list does not have"
    if isinstance(error, (ArithmeticError, rule_errors.ArithmeticError)):
        said = str(getattr(error, "message", error))
        return "division by zero" if isinstance(error, ZeroDivisionError) or "zero" in said else "a number is too large"
    if isinstance(error, (rule_errors.EvaluationError, TypeError, ValueError)):
        return f"a value is of another kind than the rule takes it for ({type(error).__name__})"
    return type(error).__name__


def _refused(name: str, what: str, fix: str) -> Misconfigured:
    return Misconfigured("rule-invalid", f"Rule {name!r} {what}.", fix=fix)


# Complete studies


def _study(rule: Rule) -> Any:
    context = Bounded(type_resolver=_study_type, resolver=lambda asked, name: STUDY[name].of(*asked))
    expression = _read(rule.name, "study", rule.study, context, _nearest_fact)
    for facts, matching in _SAMPLES:
        try:
            expression.matches((facts, matching))
        except FAILURES as error:
            said = f"{facts.instances} instances in {facts.series} series, revision {facts.revision}"
            raise _refused(
                rule.name,
                f"fails on a study with {said}: {failure(error)}",
                "Correct its `study`: every study must get an answer, or what is in it would go nowhere.",
            ) from None
    return expression


def _study_type(name: str) -> Any:
    if name not in STUDY:
        raise rule_engine.SymbolResolutionError(name)
    if name == "modalities":
        return kinds.ARRAY(kinds.STRING)
    return kinds.STRING if name in ("reason", "order_match") else kinds.FLOAT


def _nearest_fact(name: str) -> str:
    near = nearest_of(name, STUDY)
    return f"Did you mean {near}?" if near else f"A rule's `study` may name: {', '.join(STUDY)}. Attributes belong in its `when`."


#: Studies on which a rule must not fail: a division by zero, or a list that is too short, shows here and not at night.
_SAMPLES = [
    (StudyFacts(instances=instances, series=series, modalities=modalities, revision=revision, reason=reason), matching)
    for instances, series, modalities, revision, reason, matching in product(
        (1, 2, 500), (1, 2, 10), ((), ("CT",), ("CT", "SR")), (1, 2, 3), ("idle", ""), (0, 1, 2)
    )
]
