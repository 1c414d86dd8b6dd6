"""A rule in words: what each of its names stands for, and where what it matches goes."""

from __future__ import annotations

from msgspec import Struct
from pydicom.datadict import dictionary_description, dictionary_VR, keyword_dict
from rule_engine import ast

from hilum.dicom import tag_of
from hilum.settings import Rule

from .compiled import compiled
from .facts import STUDY
from .names import ARRIVAL, TAG, is_list
from .sense import nodes
from .text import is_call_of, written


class Named(Struct, frozen=True, kw_only=True):
    """A name in a rule, and what it stands for."""

    name: str
    tag: str
    says: str


class Explained(Struct, frozen=True, kw_only=True):
    """A rule, explained."""

    rule: str
    #: What it is asked about, in a sentence.
    asks: str
    #: Comparisons that must all hold.
    all_of: list[str]
    #: Comparisons about the complete study that must all hold.
    study: list[str]
    goes: str
    names: list[Named]
    tests: int


_WHAT = {
    "all": "All objects of the study that did not go yet go",
    "matching": "The objects of the study for which `when` holds go",
    "whole": "The whole study goes, again each time that something came later,",
}


def explain(rule: Rule) -> Explained:
    """Explain a rule. Raises `Misconfigured` if it cannot work."""
    each = compiled(rule)
    whole = rule.on == "study"
    asks = (
        "Asked about each object when it arrives; once a study is complete, about the study in which it held for at least one object."
        if whole
        else "Asked about each object when it arrives."
    )
    urgency = "" if not rule.priority else f", with priority {rule.priority} ({'before' if rule.priority > 0 else 'after'} what is routine)"
    expression = each.when.statement.expression
    return Explained(
        rule=rule.name,
        asks=asks,
        all_of=[written(part) for part in _joined(expression)],
        study=[written(part) for part in _joined(each.study.statement.expression)] if whole else [],
        goes=f"{_WHAT[rule.send] if whole else 'The object goes'} to {', '.join(rule.to) or 'no destination'}{urgency}.",
        names=[*_names(expression), *(_names(each.study.statement.expression) if whole else ())],
        tests=len(rule.tests),
    )


def _joined(node: ast.ExpressionBase) -> list[ast.ExpressionBase]:
    """The parts of `a and b and c`."""
    if isinstance(node, ast.LogicExpression) and node.type == "and":
        return [*_joined(node.left), *_joined(node.right)]
    return [node]


def _names(expression: ast.ExpressionBase) -> list[Named]:
    found: dict[str, Named] = {}
    for node in nodes(expression):
        if is_call_of(node, TAG):
            found[written(node)] = Named(name=written(node), tag="", says="The element with this number, in the block of that creator.")
        name = str(getattr(node, "name", ""))
        if isinstance(node, ast.SymbolExpression) and node.scope is None and name in ARRIVAL:
            found[name] = Named(name=name, tag="", says=ARRIVAL[name].says)
        elif isinstance(node, ast.SymbolExpression) and node.scope is None and name in STUDY:
            found[name] = Named(name=name, tag="", says=STUDY[name].says)
        elif isinstance(node, (ast.SymbolExpression, ast.GetAttributeExpression)) and name in keyword_dict:
            tag = tag_of(name)
            vr = dictionary_VR(keyword_dict[name])
            many = ", a list" if is_list(name) else ""
            found[name] = Named(
                name=name, tag=f"({tag[:4]},{tag[4:]})", says=f"{dictionary_description(keyword_dict[name])}; VR {vr}{many}."
            )
    return [found[name] for name in sorted(found)]
