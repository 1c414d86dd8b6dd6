"""How tables look on a terminal, on a narrow one, and in a pipe."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from hilum.cli.context import show_table

COLUMNS = ("Receipt", "Reason", "Study", "What")
UID = "1.2.840.113619.2.55.3.604688119.971.1448457783.1"
ROWS = [("0190163d", "uid-invalid", UID, "A UID is no UID.\nIt has a letter."), ("0190163e", None, "", "[bold]")]


def shown(width: int, *, terminal: bool) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=terminal, no_color=True, legacy_windows=False, highlight=False)
    show_table("In quarantine", COLUMNS, ROWS, console=console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [20, 250])
def test_in_a_pipe_each_row_is_a_line_with_tabs(width: int) -> None:
    assert shown(width, terminal=False).splitlines() == [
        "In quarantine",
        "Receipt\tReason\tStudy\tWhat",
        f"0190163d\tuid-invalid\t{UID}\tA UID is no UID. It has a letter.",
        "0190163e\t\t\t[bold]",
    ]


def test_on_a_terminal_it_is_a_table() -> None:
    lines = shown(120, terminal=True).splitlines()

    assert [word for word in COLUMNS if word in lines[1]] == list(COLUMNS)
    assert UID in lines[2]


def test_on_a_terminal_that_would_cut_words_each_cell_has_a_line() -> None:
    lines = [line.rstrip() for line in shown(66, terminal=True).splitlines()]

    assert f"Study    {UID}" in lines
    assert "What     [bold]" in lines


def test_what_is_empty_says_so() -> None:
    console = Console(file=StringIO(), width=80)
    show_table("In quarantine", COLUMNS, [], nothing="Nothing waits [here].", console=console)

    assert isinstance(console.file, StringIO)
    assert console.file.getvalue() == "Nothing waits [here].\n"


def test_what_a_peer_calls_itself_cannot_write_to_the_terminal() -> None:
    console = Console(file=StringIO(), width=80)

    show_table("", ("Sender",), [("CT\x1b[31m\x01",)], console=console)

    assert console.file.getvalue() == "Sender\nCT\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}\n"  # type: ignore[attr-defined]  # a StringIO
