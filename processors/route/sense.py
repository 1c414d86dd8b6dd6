"""Rules that can be evaluated, and cannot mean what they say: `ImageType == "ORIGINAL"` compares a list with a text, and never matches.

The library refuses what it cannot evaluate. What it evaluates to the same for every object is refused here, when the
settings are read, since nobody would notice it later.
"""

from __future__ import annotations

from collections.abc import Iterator
from json import dumps
from typing import Any

from rule_engine import ast
from rule_engine.types import DataType

from hilum.errors import Misconfigured

from .bounded import WITHOUT_END

_SEE = "docs/reference/rules.md says what each name is, with examples."
ITEM = "item"  # the name of the type of a sequence's items
_DIVISIONS = {"tdiv": "/", "fdiv": "//", "mod": "%"}
_NAMES = {
    "STRING": "text",
    "FLOAT": "a number",
    "BOOLEAN": "true or false",
    "DATETIME": "a moment",
    "TIMEDELTA": "a duration",
    "NULL": "null",
}


def refuse_senseless(name: str, when: str, expression: Any) -> None:
    """Raise `Misconfigured` if the rule `name`, whose text is `when` and whose syntax tree is `expression`, cannot be meant."""
    for node in nodes(expression):
        if isinstance(node, ast.SymbolExpression) and node.scope is not None and node.name not in (known_names := _built_in(node)):
            known = ", ".join(f"${each}" for each in known_names)
            raise _refused(name, f"names ${node.name}, which is unknown", f"Known with a $ are: {known}. Attributes have none.")
    if expression.result_type != DataType.BOOLEAN:
        raise _refused(name, f"gives {_a(expression.result_type)}, not true or false", f"Compare it with something. {_SEE}")
    if isinstance(expression, ast.LiteralExpressionBase) and when.partition("#")[0].strip(" \t\r\n()") not in ("true", "false"):
        raise _refused(name, f"is always {_said(expression)}, whatever the object", f"Write {_said(expression)}, or name an attribute.")
    for node in nodes(expression):
        if isinstance(node, ast.ArithmeticExpression) and node.type in _DIVISIONS and _is_zero(node.right):
            raise _refused(name, "divides by zero, whatever the object", f"Put something else behind {_DIVISIONS[node.type]}.")
        for condition in _conditions(node):
            _check_condition(name, condition)
        if type(node) is ast.ComparisonExpression and not _may_equal(node.left.result_type, node.right.result_type):
            never = "they are never equal" if node.type == "eq" else "they always differ"
            raise _refused(name, f"compares {_described(node.left)} with {_described(node.right)}: {never}", _instead(node))
        if isinstance(node, ast.ContainsExpression):
            _check_contains(name, node)


def _built_in(node: Any) -> list[str]:
    return sorted(each for each in node.context.builtins if each not in WITHOUT_END)


def _refused(name: str, what: str, fix: str) -> Misconfigured:
    return Misconfigured("rule-senseless", f"Rule {name!r} {what}.", fix=fix)


def nodes(node: Any) -> Iterator[Any]:
    """`node` and all below it."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        yield each
        waiting += children(each)


def children(node: Any) -> Iterator[Any]:
    """What is directly below `node`. The library's classes keep it in slots and in their dictionaries, some in tuples."""
    slots = [slot for kind in type(node).__mro__ for slot in getattr(kind, "__slots__", ()) if slot != "context"]
    waiting = [*(getattr(node, slot, None) for slot in slots), *vars(node).values()]
    while waiting:
        each = waiting.pop()
        if isinstance(each, (tuple, list, set)):
            waiting += each
        elif isinstance(each, ast.ExpressionBase):
            yield each


def _is_zero(node: Any) -> bool:
    return isinstance(node, ast.FloatExpression) and node.value == 0


def _conditions(node: Any) -> tuple[Any, ...]:
    """The parts of `node` that are taken for true or false."""
    if isinstance(node, ast.LogicExpression):
        return node.left, node.right
    if isinstance(node, ast.UnaryExpression) and node.type == "not":
        return (node.right,)
    if isinstance(node, (ast.TernaryExpression, ast.ComprehensionExpression)) and node.condition is not None:
        return (node.condition,)
    return ()


def _check_condition(name: str, condition: Any) -> None:
    """Refuse `Modality == "CT" or "MR"`, and what the library has made of `... or ("MR" or "US")`."""
    if condition.result_type != DataType.BOOLEAN:
        what = f"takes {_described(condition)} for true or false"
        raise _refused(name, what, f'Write the comparison out, as in Modality == "CT" or Modality == "MR". {_SEE}')
    if isinstance(condition, ast.LiteralExpressionBase):
        what = f"has a part that is always {_said(condition)}, whatever the object"
        raise _refused(name, what, "Write that comparison out, or leave it out.")


def _check_contains(name: str, node: Any) -> None:
    container = node.container
    literal = isinstance(container, (ast.ArrayExpression, ast.SetExpression))
    kinds = (
        [each.result_type for each in container.value] if literal else [getattr(container.result_type, "value_type", DataType.UNDEFINED)]
    )
    for kind in kinds:
        # A literal list may hold null; an attribute's list never does.
        if not (_may_equal(node.member.result_type, kind) and (literal or node.member.result_type != DataType.NULL)):
            what = f"looks for {_described(node.member)} in a list that holds {_a(kind)}: it is never there"
            raise _refused(name, what, f"Compare text with text and numbers with numbers. {_SEE}")


def _may_equal(left: Any, right: Any) -> bool:
    """Whether values of these types can be equal. Any single value may be null; a list never is, it is empty."""
    for one, other in ((left, right), (right, left)):
        if one == DataType.NULL:
            return not other.is_compound
    return bool(DataType.is_compatible(left, right))


def _instead(node: Any) -> str:
    one, other = node.left, node.right
    if not _is_list(one):
        one, other = other, one
    if _is_list(one) and other.result_type == DataType.NULL:
        return f"Write {_said(one)}.is_empty." if _said(one) else "Write .is_empty behind the list."
    if _is_list(one) and _may_equal(one.result_type.value_type, other.result_type):
        word = "in" if node.type == "eq" else "not in"
        return f"Write {_said(other) or '...'} {word} {_said(one) or '...'}."
    return f"Compare text with text and numbers with numbers. {_SEE}"


def _is_list(node: Any) -> bool:
    return bool(DataType.is_type(node.result_type, DataType.ARRAY))


def _described(node: Any) -> str:
    said = _said(node)
    kind = _a(node.result_type)
    return said if said == kind else f"{said} ({kind})" if said else kind


def _said(node: Any) -> str:
    """`node` as a rule writes it, if that is short."""
    if isinstance(node, ast.SymbolExpression):
        return f"${node.name}" if node.scope is not None else str(node.name)
    if isinstance(node, (ast.StringExpression, ast.BooleanExpression, ast.NullExpression)):
        return dumps(node.value, ensure_ascii=False)
    return str(node.value) if isinstance(node, ast.FloatExpression) else ""


def _a(kind: Any) -> str:
    if DataType.is_type(kind, DataType.ARRAY):
        return {"STRING": "a list of texts", "FLOAT": "a list of numbers"}.get(kind.value_type.name, "a list")
    if kind.name == ITEM:
        return "an item of a sequence"
    return _NAMES.get(kind.name, "a value of no fixed type" if kind == DataType.UNDEFINED else f"a {kind.name.lower()}")
