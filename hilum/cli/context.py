"""What all commands share: how settings are found, how results are shown, which exit code means what."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from hilum.settings import Loaded, Settings, load

#: People see tables and progress; with `--json` standard output is one JSON document and progress stays on stderr.
#: What goes to no terminal is not wrapped: a line is a line.
out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
err = Console(stderr=True, highlight=False, soft_wrap=True)
#: Wide enough for any table, to learn how wide one must be.
_WIDEST = 10_000

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", envvar="HILUM_CONFIG", help="The settings file (TOML).")]
DataOption = Annotated[Path | None, typer.Option("--data", help="The data directory; wins over `data` in the settings.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class Exit(IntEnum):
    """Exit codes, the same for every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5
    PARTLY = 6


class Group(TyperGroup):
    """A group of commands; its name alone shows its help, and that is no failure."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See `click.Command.parse_args`."""
        return super().parse_args(ctx, args or ["--help"] * self.no_args_is_help)


def loaded(config: Path | None, data: Path | None) -> Loaded:
    """Settings and their origins, as this command line gives them. Raises `Misconfigured`."""
    return load(config, flags={"data": str(data) if data else None})


def connected(config: Path | None, data: Path | None) -> Settings:
    """Settings whose Kafka, PostgreSQL and S3 are those that run: embedded ones are taken from the data directory."""
    from hilum.services.endpoints import with_endpoints

    return with_endpoints(loaded(config, data).settings)


def show_json(value: Any) -> None:
    """Print `value` (structs, dates and paths allowed) as JSON."""
    sys.stdout.write(json.dumps(msgspec.to_builtins(value, str_keys=True, enc_hook=str), indent=2, ensure_ascii=False) + "\n")


def show_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, nothing: str = "Nothing to show.", console: Console = out
) -> None:
    """Print a table for people; text is shown as it is, never read as markup.

    Where it goes to no terminal, each row is a line of its own with a tab between cells. On a terminal that is too narrow for the words
    of a row, each cell has a line.
    """
    cells = [["" if cell is None else _printable(str(cell)) for cell in row] for row in rows]
    if not cells:
        console.print(nothing, markup=False)
    elif not console.is_terminal:
        for line in [[title]] * bool(title) + [list(columns)] * any(columns) + cells:
            console.file.write("\t".join(" ".join(cell.split()) for cell in line) + "\n")  # rich would make blanks of tabs
    else:
        table = _table(title, columns, cells)
        if len(columns) > 2 and Measurement.get(console, console.options.update_width(_WIDEST), table).minimum > console.width:
            _print_long(console, title, columns, cells)
        else:
            console.print(table)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _print_long(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if title:
        console.print(title, markup=False)
    for row in rows:
        facts = [(column, cell) for column, cell in zip(columns, row, strict=True) if cell]
        console.print(_table("", ("", ""), facts))
        console.print()


def _printable(text: str) -> str:
    """Without control characters, with which a peer could write to the terminal: they come from AE titles and comments of others."""
    return "".join(char if char.isprintable() or char in " \n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def moment(at: datetime | None) -> str:
    """A time as people read it: on this machine's clock, with its zone; empty for None."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}" if at else ""


def show_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, one a line."""
    show_table("", ("", ""), [(name, value) for name, value in facts.items() if value not in (None, "")])
