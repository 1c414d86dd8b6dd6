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
from rich.table import Table

from hilum.settings import Loaded, Settings, load

#: People see tables and progress; with `--json` standard output is one JSON document and progress stays on stderr.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 250)
err = Console(stderr=True, highlight=False, soft_wrap=True)

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


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, nothing: str = "Nothing to show.") -> None:
    """Print a table for people; text is shown as it is, never read as markup."""
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False, show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    if table.row_count:
        out.print(table)
    else:
        out.print(nothing)


def moment(at: datetime | None) -> str:
    """A time as people read it: on this machine's clock, with its zone; empty for None."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}" if at else ""


def show_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, one a line."""
    show_table("", ("", ""), [(name, value) for name, value in facts.items() if value not in (None, "")])
