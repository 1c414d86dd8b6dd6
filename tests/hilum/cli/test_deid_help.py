"""`--help` of each `hilum deid` command ends with an example that the command takes."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.reference import commands

OF_DEID = [(words, command) for words, command in commands() if words[0] == "deid"]


@pytest.mark.parametrize(("words", "command"), OF_DEID, ids=[" ".join(words) for words, _ in OF_DEID])
def test_help_ends_with_an_example_that_the_command_takes(words: tuple[str, ...], command: Any) -> None:
    said = " ".join(CliRunner().invoke(app, [*words, "--help"]).stdout.split())

    _, example, tail = said.rpartition("Example: ")
    assert example
    given = shlex.split(tail)
    assert tuple(given[: 1 + len(words)]) == ("hilum", *words)
    command.make_context(words[-1], given[1 + len(words) :])  # parses it, and runs nothing
