"""What docs/wishes.md names as shown is shown by tests: ones that are collected, are not skipped, and can fail."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMED = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "wishes.md").read_text("utf-8"))

Scope = ast.Module | ast.ClassDef


def found_in(source: str) -> Iterator[tuple[str, str]]:
    """Each function of a test file that is named as a test, and what speaks against it; nothing if it is one."""
    module = ast.parse(source)
    # What a test class inherits is collected with it.
    classes = {each.name: each for each in ast.walk(module) if isinstance(each, ast.ClassDef)}
    collected = {name for name in classes if name.startswith("Test")}
    while more := {_name(base) for name in collected for base in classes[name].bases if _name(base) in classes} - collected:
        collected |= more
    scopes: list[Scope] = [module, *classes.values()]
    for scope in scopes:
        for each in scope.body:
            if isinstance(each, ast.FunctionDef) and each.name.startswith("test_"):
                left_out = isinstance(scope, ast.ClassDef) and scope.name not in collected
                yield each.name, "is in a class that is not collected" if left_out else _against(each, [module, scope])


def _against(test: ast.FunctionDef, scopes: Sequence[Scope]) -> str:
    marks: list[ast.AST] = list(test.decorator_list)
    for scope in scopes:
        marks += scope.decorator_list if isinstance(scope, ast.ClassDef) else []
        marks += [each for each in scope.body if isinstance(each, ast.Assign) and _name(each.targets[0]) == "pytestmark"]
    if any(_name(node) in ("skip", "skipif", "xfail") for mark in marks for node in ast.walk(mark)):
        return "is marked to be skipped or to fail"
    if any(isinstance(each, ast.Expr) and _name(each.value) in ("skip", "xfail") for each in test.body):
        return "skips itself"
    if not any(_can_fail(node) for node in ast.walk(test)):
        return "asserts nothing"
    return ""


def _can_fail(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return not isinstance(node.test, ast.Constant)
    return isinstance(node, ast.Call) and _name(node) in ("raises", "fail", "eventually", "run_state_machine_as_test")


def _name(node: ast.AST) -> str:
    """The last part of a dotted name, or of what is called."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@pytest.fixture(scope="module")
def found() -> dict[str, list[str]]:
    """What speaks against each test of the repository, by name."""
    said: dict[str, list[str]] = {}
    for file in (ROOT / "tests").rglob("test_*.py"):
        for name, against in found_in(file.read_text("utf-8")):
            said.setdefault(name, []).append(against)
    return said


@pytest.mark.parametrize("name", NAMED)
def test_what_the_page_of_wishes_names_is_a_test_that_can_fail(name: str, found: dict[str, list[str]]) -> None:
    assert found.get(name) is not None, "there is no such test"
    assert [against for against in found[name] if against] == []


@pytest.mark.parametrize(
    ("source", "against"),
    [
        ("def test_x():\n    assert f() == 1", ""),
        ("def test_x():\n    with pytest.raises(ValueError):\n        f()", ""),
        ("class TestX:\n    def test_x(self):\n        assert f()", ""),
        ("class Shared:\n    def test_x(self):\n        assert f()\nclass TestX(Shared): ...", ""),
        ("class Shared:\n    def test_x(self):\n        assert f()", "is in a class that is not collected"),
        ("def test_x(): ...", "asserts nothing"),
        ("def test_x():\n    assert True", "asserts nothing"),
        ("def test_x():\n    pytest.skip('later')\n    assert f()", "skips itself"),
        ("@pytest.mark.skip\ndef test_x():\n    assert f()", "is marked to be skipped or to fail"),
        ("@pytest.mark.xfail(reason='x')\ndef test_x():\n    assert f()", "is marked to be skipped or to fail"),
        ("pytestmark = [pytest.mark.skipif(True, reason='x')]\ndef test_x():\n    assert f()", "is marked to be skipped or to fail"),
        ("@pytest.mark.skip\nclass TestX:\n    def test_x(self):\n        assert f()", "is marked to be skipped or to fail"),
    ],
)
def test_an_empty_a_skipped_and_an_uncollected_test_show_nothing(source: str, against: str) -> None:
    assert list(found_in(source)) == [("test_x", against)]
