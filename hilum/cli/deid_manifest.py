"""What `hilum deid run` and `verify` say while they work, and the list of which file became which."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hilum.cli.context import err
from hilum.errors import Misconfigured

#: What goes to no terminal is told how far it is after so long.
SAY_S = 10.0
#: Files that are named of those of which the same is said.
FIRST = 10
T = TypeVar("T")
_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
_HEAD = ("file", "state", "reason", "written", "study", "series", "instance", "new_study", "new_series", "new_instance")


def watched(what: str, outcomes: Iterable[Any], count: int, *, say_s: float = SAY_S) -> list[Any]:
    """All outcomes of files, told as `telling` does."""
    return list(telling(what, outcomes, count, "files", say_s=say_s))


def telling(what: str, outcomes: Iterable[T], count: int, unit: str, *, say_s: float = SAY_S) -> Iterator[T]:
    """The same outcomes, with a bar on a terminal, and else with a line every `say_s` seconds. `count` is how many there will be."""
    if err.is_terminal:
        with Progress(*_COLUMNS, console=err) as progress:
            yield from progress.track(outcomes, total=count, description=what)
        return
    said = time.monotonic()
    for done, each in enumerate(outcomes, 1):
        yield each
        if time.monotonic() - said >= say_s:
            said = time.monotonic()
            err.print(f"{what}: {done:,} of {count:,} {unit}", markup=False)


def summed(outcomes: Iterable[Any]) -> list[tuple[str, ...]]:
    """A line for each outcome: of equal ones for the first `FIRST` files, and one with the number of the others."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for each in outcomes:
        alike.setdefault((each.state, each.reason, each.says, each.fix), []).append(str(each.path))
    return [
        (file, *said)
        for said, files in alike.items()
        for file in (*files[:FIRST], *([f"{len(files) - FIRST:,} more; --json has all"] if len(files) > FIRST else []))
    ]


def written(manifest: Path, out: Path, outcomes: Iterable[Any]) -> Iterator[Any]:
    """The same outcomes, each written into a list for its owner alone, which is there once it is whole.

    Raises `Misconfigured` where it cannot be, or would go with what is de-identified.
    """
    if manifest.resolve().is_relative_to(out.resolve()):
        raise Misconfigured("manifest-in-out", "The manifest would go with what is de-identified.", fix="Name a file outside of --out.")
    return _written(manifest, outcomes)


def _written(manifest: Path, outcomes: Iterable[Any]) -> Iterator[Any]:
    part = manifest.with_name(f".{manifest.name}.part")  # what a process that was killed left is written over
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            os.fchmod(descriptor, 0o600)
            lines = csv.writer(file)
            lines.writerow(_HEAD)
            for each in outcomes:
                lines.writerow((each.path, each.state, each.reason, each.written, *_three(each.uids), *_three(each.new_uids)))
                yield each
            file.flush()
            os.fsync(file.fileno())
        part.replace(manifest)
    except OSError as error:
        raise Misconfigured("manifest-unwritable", f"{manifest} cannot be written ({error.strerror}).", fix="Name another file.") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _three(uids: tuple[str, ...]) -> tuple[str, ...]:
    return uids or ("", "", "")
