"""The rule language with an end: whatever a rule and an object say, the rule is asked in time that grows with the object and no faster.

The library `rule-engine` matches regular expressions with Python's `re`, which may take time that doubles with each letter; here
RE2 matches them, in time that grows with the text. Lists that a rule makes or goes through, and shifts, are limited too: one
rule that never ends would stop every object of every sender.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import re2
import rule_engine
from rule_engine import ast, errors, parser

#: Longer text is not matched: the rule fails on the object. The whole header of an event has as much.
MAX_TEXT_CHARS = 65_536
#: So many values of lists may a rule go through on one object, lists in lists multiplied; `CHARS_A_STEP` of matched text are one.
MAX_STEPS = 20_000
CHARS_A_STEP = 256

#: Built-in functions of the library that may take any time, or any memory.
WITHOUT_END = frozenset({"range"})


class TooMuch(errors.EvaluationError):  # type: ignore[misc]  # the library has no types
    """Asking the rule about this object would take too long; its message says why, without any value of the object."""


class Match:
    """What was found."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def groups(self) -> tuple[str | None, ...]:
        """The text of each group."""
        return tuple(None if each is None else each.decode() for each in self._found.groups())


class Pattern:
    """A regular expression that takes time in proportion to the text."""

    def __init__(self, text: str, context: Bounded) -> None:
        """Raises `RegexSyntaxError` with what RE2 says of it."""
        options = re2.Options()
        options.log_errors = False  # they go into the sentence
        try:
            self._pattern = re2.compile(text, options)
        except (re2.error, UnicodeEncodeError) as error:
            said = error.args[0] if error.args else ""
            why = said.decode("utf-8", "replace") if isinstance(said, bytes) else "it is no text"
            raise errors.RegexSyntaxError(why, error=error, value=text) from None
        self._context = context

    def match(self, text: str) -> Match | None:
        """What it finds at the beginning of `text`."""
        return self._found(self._pattern.match, text)

    def search(self, text: str) -> Match | None:
        """What it finds anywhere in `text`."""
        return self._found(self._pattern.search, text)

    def _found(self, look: Any, text: str) -> Match | None:
        if len(text) > MAX_TEXT_CHARS:
            raise TooMuch(f"a text is longer than the {MAX_TEXT_CHARS:,} characters in which is searched")
        self._context.step(1 + len(text) // CHARS_A_STEP)
        found = look(text.encode("utf-8", "replace"))
        return None if found is None else Match(found)


class Bounded(rule_engine.Context):  # type: ignore[misc]
    """What one rule is read and asked with. It counts the steps of an evaluation."""

    steps = 0

    def begin(self) -> None:
        """Count anew."""
        self.steps = 0

    def step(self, steps: int = 1) -> None:
        """Count `steps`. Raises `TooMuch`."""
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise TooMuch(f"it would go through more than {MAX_STEPS:,} values")

    @contextmanager
    def assignments(self, *assignments: Any) -> Iterator[None]:
        """Called for each value that a comprehension goes through."""
        self.step()
        with super().assignments(*assignments):
            yield


class _Matches(ast.FuzzyComparisonExpression):  # type: ignore[misc]
    """`=~` and the like, with an expression that stands in the rule."""

    def __init__(self, context: Bounded, type_: str, left: Any, right: Any) -> None:
        if not isinstance(right, ast.StringExpression):
            raise errors.EvaluationError("a regular expression must stand in the rule as text")
        super().__init__(context, type_, left, right)

    def _compile_regex(self, regex: str) -> Pattern:
        return Pattern(regex, self.context)


class _Parser(parser.Parser):  # type: ignore[misc]
    """The library's, with other operators in two places. The docstrings are the grammar."""

    start = "statement"  # else PLY takes what it finds first

    def p_expression_fuzzy_comparison(self, p: Any) -> None:
        """
        expression : expression EQ_FZM expression
                   | expression EQ_FZS expression
                   | expression NE_FZM expression
                   | expression NE_FZS expression
        """  # PLY reads it
        left, op, right = p[1:4]
        p[0] = parser._DeferredAstNode(_Matches, args=(self.context, self.op_names[op], left, right))

    def p_expression_bitwise_shift(self, p: Any) -> None:
        """
        expression : expression BWLSH expression
                   | expression BWRSH expression
        """  # PLY reads it
        raise errors.EvaluationError(f"{p[2]} is not known here")


class BoundedRule(rule_engine.Rule):  # type: ignore[misc]
    """A rule's text, read. Its context is a `Bounded`."""

    parser = _Parser()

    def evaluate(self, thing: Any) -> Any:
        """What it comes to for `thing`. Raises `TooMuch`, and what the library raises."""
        self.context.begin()
        return super().evaluate(thing)
