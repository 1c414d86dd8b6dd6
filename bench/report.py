"""The table of a benchmark: printed, and written to `bench/results/` with the day and the machine."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Processor, cores, memory and system, on one line."""
    info = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace") if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


class Report:
    """Sections of one benchmark's run. `write` replaces the committed result of the same name."""

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self._lines = [
            f"# {title}",
            "",
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC. {machine()}.",
            f"Command: `./dev bench {shlex.join(sys.argv[1:]) or name}`.",
            "",
        ]
        self._console = Console(highlight=False)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for column in columns:
            shown.add_column(column)
        for row in rows:
            shown.add_row(*map(str, row))
        self._console.print(shown)
        self._lines += [f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        self._lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows] + [""]

    def say(self, sentence: str) -> None:
        self._console.print(sentence)
        self._lines += [sentence, ""]

    def write(self) -> Path:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.md"
        path.write_text("\n".join(self._lines), encoding="utf-8")
        self._console.print(f"Written: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
        return path
