"""Why a rule matches an object or does not: which of its comparisons are in the way, and what they found."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from json import dumps
from typing import Any

from msgspec import Struct
from rule_engine import ast

from hilum.dicom import CutValue
from hilum.errors import Quarantine
from hilum.settings import Rule

from .compiled import FAILURES, Compiled, failure
from .names import TAG, Asked, Item
from .rules import is_absent, matches
from .sense import children
from .text import is_call_of, written

_SHOWN_CHARS = 80


class Part(Struct, frozen=True, kw_only=True):
    """A comparison that would have to come out otherwise."""

    text: str
    #: The values of what it names. They may be the object's: for people to see, and for no log.
    found: str


class Why(Struct, frozen=True, kw_only=True):
    """How a rule took an object."""

    rule: str
    on: str
    to: tuple[str, ...]
    matches: bool
    #: Why the rule could not be evaluated; empty if it could.
    fails: str = ""
    #: The fewest comparisons that are in the way.
    missed: tuple[Part, ...] = ()

    @property
    def near(self) -> bool:
        """Whether one comparison alone was in the way."""
        return not self.matches and not self.fails and len(self.missed) == 1


def why(each: Compiled, asked: Asked) -> Why:
    """How a rule takes an object."""
    rule: Rule = each.rule
    try:
        found = matches(each, asked)
    except Quarantine as error:
        return Why(rule=rule.name, on=rule.on, to=rule.to, matches=False, fails=error.sentence)
    missed = () if found else tuple(_Look(each, asked).missed(each.when.statement.expression, wanted=True))
    return Why(rule=rule.name, on=rule.on, to=rule.to, matches=found, missed=missed)


class _Look:
    """One rule, and one object."""

    def __init__(self, rule: Compiled, asked: Asked) -> None:
        self._rule = rule
        self._asked = asked

    def missed(self, node: Any, *, wanted: bool) -> Iterator[Part]:
        """The fewest comparisons in `node` that would have to come out otherwise for it to be `wanted`."""
        if self._truth(node) is wanted:
            return
        if isinstance(node, ast.LogicExpression):
            sides = [list(self.missed(side, wanted=wanted)) for side in (node.left, node.right)]
            both = (node.type == "and") == wanted
            yield from [part for side in sides for part in side] if both else min(sides, key=len)
        elif isinstance(node, ast.UnaryExpression) and node.type == "not" and not isinstance(node.right, ast.ContainsExpression):
            yield from self.missed(node.right, wanted=not wanted)
        else:
            text = written(node)
            yield Part(text=text if wanted else f"not ({text})", found=self._found(node))

    def _truth(self, node: Any) -> bool | None:
        """What a part of the rule comes to; None if it cannot be evaluated."""
        try:
            return bool(self._evaluated(node))
        except (CutValue, *FAILURES):
            return None

    def _evaluated(self, node: Any) -> Any:
        self._asked.missing = False
        self._rule.when.context.begin()
        return node.evaluate(self._asked)

    def _found(self, node: Any) -> str:
        said = []
        for name in _names(node):
            try:
                value = self._evaluated(name)
            except CutValue:
                shown = "left out of the header for its length"
            except FAILURES as error:
                shown = "absent" if is_absent(self._rule, self._asked, error) else f"no value ({failure(error)})"
            else:
                shown = _shown(value)
            said.append(f"{written(name)} is {shown}")
        return ", ".join(dict.fromkeys(said))


def _names(node: Any) -> Iterator[Any]:
    """What a comparison asks the object for: names, with what is taken of them."""
    if isinstance(node, ast.SymbolExpression):
        if node.scope is None and node.name != TAG:
            yield node
    elif isinstance(node, ast.ComprehensionExpression):
        yield from _names(node.iterable)
    elif _asks(node) or is_call_of(node, TAG):
        yield node
    else:
        for child in children(node):
            yield from _names(child)


def _asks(node: Any) -> bool:
    """Whether it is an access, such as `ImageType[0]`, that begins with a name of the object's."""
    if not isinstance(node, (ast.GetAttributeExpression, ast.GetItemExpression)):
        return False
    while isinstance(node, (ast.GetAttributeExpression, ast.GetItemExpression)):
        node = node.object if isinstance(node, ast.GetAttributeExpression) else node.container
    return isinstance(node, ast.SymbolExpression) and node.scope is None


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "absent"
    if isinstance(value, tuple):
        text = ", ".join(_shown(each) for each in value)
    elif isinstance(value, (float, Decimal)):
        text = f"{float(value):g}"
    else:
        text = "an item" if isinstance(value, Item) else dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
