"""`hilum storage`: what takes room, what is kept and why, what expires."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from hilum.cli.context import ConfigOption, DataOption, Group, JsonOption, connected, err, moment, out, show_facts, show_json, show_table
from hilum.words import counted

if TYPE_CHECKING:
    from hilum.storage.usage import Amount, Usage


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    storage = typer.Typer(cls=Group, help="See what takes room, and what expires.", no_args_is_help=True)
    storage.command("usage")(usage)
    storage.command("retention")(retention)
    app.add_typer(storage, name="storage")


def usage(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Show what the originals take: by why they are kept, age, modality and sender; disks, growth, and when it will be full."""
    from hilum.storage.usage import usage as measure

    settings = connected(config, data)
    with err.status("Reading index and ledger"):
        found = measure(settings)
    if json:
        show_json(found)
        return
    _show_amounts("Originals", "Kept because", _in_words(found.kept))
    for title, heading, amounts in (
        ("By age", "Received", found.by_age),
        ("By modality", "Modality", _largest(found.by_modality)),
        ("By sender", "Sender", _largest(found.by_sender)),
    ):
        out.print()
        _show_amounts(title, heading, amounts)
    out.print()
    disks = [(disk.path, ", ".join(disk.holds), size(disk.free_bytes), size(disk.size_bytes)) for disk in found.disks]
    show_table("Disks of this machine", ("Where", "Holds", "Free", "Of"), disks, nothing="Nothing of Hilum's is on this machine.")
    out.print()
    show_facts(_facts(found))


def _facts(found: Usage) -> dict[str, str]:
    expired = f"{counted(found.expired.objects, 'original')}, {size(found.expired.size_bytes)}"
    known = any("object store" in disk.holds for disk in found.disks)
    never = "not at this rate" if known else "not known: the object store is not on this machine"
    return {
        "Spool": f"{counted(found.spool.objects, 'object')} to be published, {size(found.spool.size_bytes)}",
        "Expired": expired + (f"; {found.undeleted:,} of them are still to be deleted" if found.undeleted else ""),
        "Comes a day": f"{counted(found.per_day.objects, 'original')}, {size(found.per_day.size_bytes)}",
        "Expires a day": size(found.expired_bytes_per_day),
        "Full": moment(found.full_at) or never,
    }


def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Nothing expires by this command, with it or without.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show the terms in force, and what each has expire now. It changes nothing: the role `expire` does that, a few times a day."""
    from hilum.storage.usage import expiring

    del dry_run
    settings = connected(config, data)
    with err.status("Reading index and ledger"):
        found = expiring(settings)
    if json:
        show_json(found)
        return
    terms = found.terms
    lines = {"originals_days": terms.originals_days, "repeats_days": terms.repeats_days}
    lines |= {f"modalities.{name}": days for name, days in terms.modalities.items()}
    lines |= {f"senders.{name}": days for name, days in terms.senders.items()}
    show_facts(
        {f"retention.{name}": counted(days, "day") if days else "never" for name, days in lines.items()}
        | {"retention.promised": terms.promised, "Version": found.version}
    )
    out.print()
    _show_amounts("Expires now", "By", found.expires, nothing="Nothing expires now.")
    out.print()
    _show_amounts("Is kept", "Because", _in_words({reason: amount for reason, amount in found.kept.items() if amount.objects}))
    if found.waits:
        out.print()
        out.print(found.waits, markup=False)


def size(size_bytes: float) -> str:
    """Bytes as people read them, in powers of 1,000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size_bytes) < 1000:
            return f"{size_bytes:,.0f} {unit}" if unit == "B" else f"{size_bytes:,.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} PB"


def _in_words(amounts: Mapping[str, Amount]) -> dict[str, Amount]:
    from hilum.storage.keeping import REASONS
    from hilum.storage.usage import EXPIRES

    words = {str(reason): says for reason, says in REASONS.items()} | {EXPIRES: "nothing: it expires now"}
    return {words[reason]: amount for reason, amount in amounts.items() if amount.objects}


def _largest(amounts: Mapping[str, Amount], most: int = 20) -> dict[str, Amount]:
    ordered = sorted(amounts.items(), key=lambda each: -each[1].size_bytes)
    return {name or "not known": amount for name, amount in ordered[:most]}


def _show_amounts(title: str, heading: str, amounts: Mapping[str, Amount], nothing: str = "There are none.") -> None:
    rows = [(name, f"{amount.objects:,}", size(amount.size_bytes)) for name, amount in amounts.items()]
    show_table(title, (heading, "Objects", "Size"), rows, nothing=nothing)
