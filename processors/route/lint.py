"""Rules that can work and are hardly meant: what a careful reader would ask about."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from msgspec import Struct
from rule_engine import ast

from hilum.settings import Rule, Settings

from .compiled import compiled
from .text import written


class Doubt(Struct, frozen=True, kw_only=True):
    """A rule or destination, and what is odd about it."""

    name: str
    code: str
    sentence: str


def doubts_of(settings: Settings, destinations: Collection[str] | None = None) -> Iterator[Doubt]:
    """What is odd about the rules of `settings`, and about the destinations that they name or do not. Raises `Misconfigured`.

    Of `destinations`, if they are given, and otherwise of all, it is said that no rule names them.
    """
    everything: dict[tuple[str, str], Rule] = {}
    seen: dict[tuple[str, str, str], tuple[str, tuple[str, ...]]] = {}
    for rule in settings.rules:
        expression = compiled(rule).when.statement.expression
        text = written(expression)
        never = isinstance(expression, ast.BooleanExpression) and not expression.value
        if never:
            yield Doubt(name=rule.name, code="never", sentence="Its `when` is false: it matches nothing.")
        for destination in rule.to:
            earlier = everything.get((rule.on, destination))  # what is more urgent says something, though
            if earlier and not never and rule.priority <= earlier.priority:
                sentence = f"Rule {earlier.name} sends everything to {destination} already: this one adds no object there."
                yield Doubt(name=rule.name, code="overlap", sentence=sentence)
        if rule.on == "instance" and isinstance(expression, ast.BooleanExpression) and expression.value:
            everything |= {(rule.on, destination): rule for destination in rule.to}
        same = (rule.on, text, rule.study)
        if same in seen and not never:
            first, destinations = seen[same]
            shared = [each for each in rule.to if each in destinations]
            says = f"to {', '.join(shared)}, too" if shared else "elsewhere; one rule with both in its `to` says the same"
            yield Doubt(name=rule.name, code="same-condition", sentence=f"Rule {first} has the same condition and sends {says}.")
        seen.setdefault(same, (rule.name, rule.to))
        if len(set(rule.to)) < len(rule.to):
            yield Doubt(name=rule.name, code="destination-twice", sentence="Its `to` names a destination twice; objects go there once.")
        yield from _about_tests(rule.name, [example.matches for example in rule.tests], all_objects=text == "true")
    used = {destination for rule in settings.rules for destination in rule.to}
    for name in settings.destinations if destinations is None else destinations:
        if name not in used:
            yield Doubt(name=name, code="destination-unused", sentence=f"No rule sends anything to the destination {name}.")


def _about_tests(name: str, tests: list[bool], *, all_objects: bool) -> Iterator[Doubt]:
    if not tests:
        if not all_objects:
            yield Doubt(name=name, code="untested", sentence="It has no tests.")
    elif all(tests) and not all_objects:
        yield Doubt(name=name, code="no-counterexample", sentence="None of its tests is of an object that it must leave alone.")
    elif not any(tests):
        yield Doubt(name=name, code="no-example", sentence="None of its tests is of an object that it must match.")
