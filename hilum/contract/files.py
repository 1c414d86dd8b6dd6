"""The files in `schemas/`: what they should hold, what differs, and writing them without breaking a promise."""

from __future__ import annotations

import json
from pathlib import Path

from hilum.contract.asyncapi import asyncapi
from hilum.contract.compatibility import incompatibilities
from hilum.contract.examples import example_text
from hilum.contract.schemas import schema_of
from hilum.errors import HilumError
from hilum.events import EVENTS

FOLDER = Path("schemas")


class Incompatible(HilumError):
    """A schema would break those who rely on it."""


def contract_files() -> dict[str, str]:
    """The text of every file in `schemas/`, by its path there."""
    import yaml  # a development dependency: nothing that runs in production generates these files

    header = "# Generated from hilum/events.py by `./dev write`.\n"
    files = {"asyncapi.yaml": header + yaml.safe_dump(asyncapi(), sort_keys=False, allow_unicode=True, width=140)}
    for name, kind in EVENTS.items():
        files[f"{name}.json"] = json.dumps(schema_of(kind), indent=2, ensure_ascii=False) + "\n"
        files[f"examples/{name}.json"] = example_text(kind)
    return files


def breaks(folder: Path) -> list[str]:
    """One sentence for each promise of the schemas in `folder` that `hilum/events.py` does not keep."""
    found = []
    for path in sorted(folder.glob("*.json")):
        if path.stem not in EVENTS:
            found.append(f"{path.stem}: no event has this type any more. A released topic keeps its name.")
        else:
            released = json.loads(path.read_text("utf-8"))
            found += [f"{path.stem}: {said}" for said in incompatibilities(released, schema_of(EVENTS[path.stem]))]
    return found


def differences(folder: Path) -> list[str]:
    """The paths in `folder` that are absent, differ from what they should hold, or belong to nothing."""
    wanted = contract_files()
    there = {path.relative_to(folder).as_posix() for pattern in ("*.json", "*.yaml", "examples/*.json") for path in folder.glob(pattern)}
    changed = {name for name in there & wanted.keys() if (folder / name).read_text("utf-8") != wanted[name]}
    return sorted(changed | (there ^ wanted.keys()))


def write(folder: Path) -> None:
    """Make `folder` what it should be. Raises `Incompatible`, and writes nothing, if a schema there would be broken.

    There is no flag to force it: a schema that nobody relies on yet is removed by hand, where a review sees it.
    """
    if broken := breaks(folder):
        raise Incompatible(
            "\n".join(["These changes break who relies on the schemas:", *(f"  {sentence}" for sentence in broken)]) + "\n",
            fix="Make them additions with a default, or make a new event class with the next major version. "
            "If no release has the schema yet, delete its file and write again.",
        )
    for name, text in contract_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for stale in set(folder.glob("examples/*.json")) - {folder / name for name in contract_files()}:
        stale.unlink()
