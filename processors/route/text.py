"""An expression of a rule, or a part of one, as a person would write it."""

from __future__ import annotations

from json import dumps
from typing import Any

from rule_engine import ast

#: As the library names its operators, and as rules write them.
_WORDS = dict(
    each.split()
    for each in (
        *("eq ==", "ne !=", "lt <", "le <=", "gt >", "ge >=", "eq_fzm =~", "eq_fzs =~~", "ne_fzm !~", "ne_fzs !~~"),
        *("add +", "sub -", "mul *", "tdiv /", "fdiv //", "mod %", "pow **"),
    )
)


def is_call_of(node: Any, function: str) -> bool:
    """Whether `node` calls the function that rules know by this name."""
    return isinstance(node, ast.FunctionCallExpression) and getattr(node.function, "name", "") == function


def written(node: Any) -> str:
    """`node` as text; `…` stands for what has no short form."""
    if isinstance(node, ast.SymbolExpression):
        return f"${node.name}" if node.scope is not None else str(node.name)
    if isinstance(node, (ast.ArrayExpression, ast.SetExpression)):
        return f"[{', '.join(map(written, node.value))}]"
    if isinstance(node, (ast.StringExpression, ast.BooleanExpression, ast.NullExpression)):
        return dumps(node.value, ensure_ascii=False)
    if isinstance(node, ast.FloatExpression):
        return str(node.value)
    if isinstance(node, ast.GetAttributeExpression):
        return f"{_inner(node.object)}{'&.' if node.safe else '.'}{node.name}"
    if isinstance(node, ast.GetItemExpression):
        return f"{_inner(node.container)}{'&[' if node.safe else '['}{written(node.item)}]"
    if isinstance(node, ast.FunctionCallExpression):
        return f"{written(node.function)}({', '.join(map(written, node.arguments))})"
    return _compound(node)


def _compound(node: Any) -> str:
    if isinstance(node, ast.ContainsExpression):
        return f"{_inner(node.member)} in {_inner(node.container)}"
    if isinstance(node, ast.UnaryExpression):
        if node.type == "not" and isinstance(node.right, ast.ContainsExpression):
            return f"{_inner(node.right.member)} not in {_inner(node.right.container)}"
        return f"{'not ' if node.type == 'not' else '-'}{_inner(node.right)}"
    if isinstance(node, ast.CoalesceExpression):
        return f"{_inner(node.left)} ?? {_inner(node.right)}"
    if isinstance(node, ast.BinaryExpressionBase):
        return f"{_inner(node.left)} {_WORDS.get(node.type, node.type)} {_inner(node.right)}"
    if isinstance(node, ast.TernaryExpression):
        return f"{_inner(node.condition)} ? {_inner(node.case_true)} : {_inner(node.case_false)}"
    if isinstance(node, ast.ComprehensionExpression):
        condition = f" if {written(node.condition)}" if node.condition is not None else ""
        return f"[{written(node.result)} for {node.variable} in {written(node.iterable)}{condition}]"
    return "…"


def _inner(node: Any) -> str:
    text = written(node)
    compound = isinstance(
        node, (ast.BinaryExpressionBase, ast.ContainsExpression, ast.UnaryExpression, ast.CoalesceExpression, ast.TernaryExpression)
    )
    return f"({text})" if compound else text
