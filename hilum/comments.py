"""What the source says about its own fields: `#:` comments, read for schemas and reference pages.

A field's comment stands in the lines above it, or behind it on its line.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from typing import Any

MARK = "#:"


@cache
def comments_of(kind: type[Any]) -> dict[str, str]:
    """The comment of each field of `kind` and of the classes that it extends, by the field's name in Python."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if each is not object and each.__module__.partition(".")[0] in ("hilum", "ingest", "processors", "sinks"):
            found.update(comments_in(textwrap.dedent(inspect.getsource(each))))
    return found


def comments_in(source: str) -> dict[str, str]:
    """The comment of each field of the one class in `source`."""
    lines = source.splitlines()
    body = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)).body
    found: dict[str, str] = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = _behind(lines, node) or _above(lines, node)
            if text:
                found[node.target.id] = text
    return found


def summary_of(thing: object) -> str:
    """The docstring of a class, function or module as one paragraph a blank line; empty if it has none of its own."""
    return inspect.cleandoc(getattr(thing, "__dict__", {}).get("__doc__") or getattr(thing, "__doc__", None) or "")


def _behind(lines: list[str], node: ast.AnnAssign) -> str:
    rest = lines[(node.end_lineno or node.lineno) - 1][node.end_col_offset :].strip()
    return rest.removeprefix(MARK).strip() if rest.startswith(MARK) else ""


def _above(lines: list[str], node: ast.AnnAssign) -> str:
    said: list[str] = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.strip().startswith(MARK):
            break
        said.insert(0, line.strip().removeprefix(MARK).strip())
    return " ".join(said)
