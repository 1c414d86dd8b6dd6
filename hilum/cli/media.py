"""`hilum import`: objects from folders, ZIP archives, CDs and DVDs."""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hilum.cli.context import ConfigOption, DataOption, Exit, JsonOption, err, loaded, out, show_json, show_table
from hilum.errors import HilumError, Misconfigured, NotFound
from hilum.settings import Settings

if TYPE_CHECKING:
    from hilum.media.importing import Index, Summary

#: Rows of a table for people; `--json` has all.
_SHOWN = 50


def add_to(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    app.command("import")(import_)


def import_(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders, ZIP archives, mounted CDs or DVDs.")],
    sender: Annotated[str, typer.Option(help="Who counts as their sender: at most 16 characters, as an AE title.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be taken; take nothing.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Take also what the index has already, or an interrupted run took.")] = False,
    delete_imported: Annotated[
        bool, typer.Option("--delete-imported", help="Delete each file once its object is safe; an archive, once all in it is.")
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Take every object in files, folders, ZIP archives and media into the spool, each once.

    It may run while Hilum does or while it does not: what is taken is on disk, and is published when Hilum runs. Broken off, it goes on
    where it was when it is run again. Nothing at the source is changed, unless --delete-imported asks for it.

    Exit codes: 0, everything that is an object is taken or was there before; 1, no object was found, or none could be taken; 3, a path
    does not exist; 6, something could not be read, a DICOMDIR names a file that is not there, or the import was broken off.
    """
    from hilum.media.importing import Import, roots_of
    from hilum.media.journal import Journal
    from hilum.spool import Spool

    settings = loaded(config, data).settings
    _check_sender(sender)
    if not dry_run:
        _check_place(settings)
    roots_of(paths)  # a path that is not there is said before anything is begun
    record, began = secrets.token_hex(8), datetime.now(UTC)
    with ExitStack() as stack:
        nowhere = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hilum-dry-run-"))) if dry_run else None
        spool = Spool(nowhere) if nowhere else Spool.of(settings)
        journal = None if dry_run else Journal(settings.data_dir / "imports", [path.resolve() for path in paths], sender, again=again)
        index, index_says = (None, "") if again else _index(settings)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        progress = stack.enter_context(Progress(*columns, console=err))
        bar = progress.add_task("Counting", total=None)
        run = Import(
            paths,
            spool,
            sender=sender,
            max_object_bytes=settings.dicom.max_object_bytes,
            journal=journal,
            index=index,
            dry_run=dry_run,
            delete_imported=delete_imported,
            record=record,
            progress=lambda: progress.advance(bar),
            says=lambda sentence: progress.console.print(sentence, markup=False),
        )
        progress.update(bar, total=run.count(), description="Reading" if dry_run else "Importing")
        summary = run.run()
        if journal is not None:
            journal.end(complete=not summary.interrupted)
    if not dry_run:
        _remember(settings, sender, summary, record, began)
    summary.notes += [sentence for sentence in (index_says, "" if dry_run or not summary.taken else _publishing(settings)) if sentence]
    if json:
        show_json(summary)
    else:
        _show(summary, dry_run)
    sys.exit(_exit_code(summary))


def _remember(settings: Settings, sender: str, summary: Summary, record: str, began: datetime) -> None:
    """Leave a record of the import, as an association does."""
    from hilum.events import AssociationEnded
    from hilum.records import Records

    outcomes = {"taken": summary.taken, "duplicate": summary.duplicates + summary.taken_before + summary.indexed}
    whys = Counter(str(problem.why) for problem in summary.unreadable)
    event = AssociationEnded(
        association=record,
        adapter="media",
        calling_aet=sender,
        called_aet="",
        peer="import",
        ended="broken off" if summary.interrupted else "complete",
        objects=summary.taken,
        size_bytes=summary.taken_bytes,
        statuses={status: count for status, count in (outcomes | whys).items() if count},
        opened_at=began,
        ended_at=datetime.now(UTC),
    )
    try:
        Records.of(settings).put(event)
    except OSError as error:
        summary.notes.append(f"The import is not in the records ({error.strerror}): `hilum sender` does not show it.")


def _exit_code(summary: Summary) -> Exit:
    if not summary.objects_safe:
        return Exit.FAILED if not summary.interrupted else Exit.PARTLY
    return Exit.DONE if summary.complete else Exit.PARTLY


def _check_sender(sender: str) -> None:
    if len(sender) > 16 or not sender.isascii() or not sender.isprintable() or "\\" in sender:
        sentence = f"{sender!r} cannot be a sender's name."
        raise Misconfigured("sender-invalid", sentence, fix="Take at most 16 characters of ASCII, without backslash (PS3.5 6.2).")


def _check_place(settings: Settings) -> None:
    """Raise `Misconfigured` if no Hilum would ever find what is taken: a spool is not begun in a place that is not there."""
    if not (settings.data_dir.is_dir() or settings.spool_dir.is_dir()):
        raise Misconfigured(
            "data-missing",
            f"The data directory {settings.data_dir} does not exist: Hilum has never run there.",
            fix="Give the same --data and --config as `hilum up` has, or run `hilum up` there first.",
        )


def _index(settings: Settings) -> tuple[Index | None, str]:
    """The index, if it can be asked, and a sentence if not."""
    from hilum.media.indexed import Indexed
    from hilum.services.endpoints import with_endpoints

    try:
        index = Indexed(with_endpoints(settings))
        index.check()
    except HilumError:
        return None, "The index could not be asked: what Hilum has already is not told from what is new; taken again, it is a duplicate."
    return index, ""


def _publishing(settings: Settings) -> str:
    """A sentence if what is taken will have to wait, as far as this machine can tell."""
    from hilum.services.endpoints import embedded_names
    from hilum.status import status

    try:
        roles = {role.name: role for role in status(settings).roles}
    except NotFound:
        if not embedded_names(settings):
            return ""  # Hilum's processes are run by something else
        return f"No Hilum runs on {settings.data_dir}: what was taken waits in the spool until `hilum up`."
    if "publish" not in roles:
        return "No process runs the role publish: what was taken waits in the spool until one does."
    if not roles["publish"].ready:
        return f"What was taken waits in the spool for the publisher: {roles['publish'].says}"
    return ""


def _show(summary: Summary, dry_run: bool) -> None:
    from hilum.media.errors import Why

    if summary.objects:
        rows = [(each.file, each.sop_class_uid, each.transfer_syntax_uid, each.size_bytes) for each in summary.objects[:_SHOWN]]
        show_table("", ("File", "SOP class", "Transfer syntax", "Bytes"), rows)
        _and_more(len(summary.objects))
        out.print()
    if summary.unreadable:
        problems = [(each.file, f"{each.sentence} {each.fix}".rstrip()) for each in summary.unreadable[:_SHOWN]]
        show_table("Not taken", ("File", "Why"), problems)
        _and_more(len(summary.unreadable))
        out.print()
    if summary.missing:
        show_table("Named by a DICOMDIR, and not there", ("File",), [(name,) for name in summary.missing[:_SHOWN]])
        _and_more(len(summary.missing))
        out.print()
    facts = [
        ("would be taken" if dry_run else "taken", summary.taken),
        ("duplicates within this import", summary.duplicates),
        ("taken before this import was broken off", summary.taken_before),
        ("in the index already", summary.indexed),
        ("not taken", len(summary.unreadable)),
        ("missing from the medium", len(summary.missing)),
        ("deleted", summary.deleted),
        *((f"left out: {Why(why).meaning[0].lower()}{Why(why).meaning[1:].rstrip('.')}", count) for why, count in summary.skipped.items()),
    ]
    show_table("", ("", "Files"), [(name, count) for name, count in facts if count], nothing="There is no file.")
    for sentence in summary.notes:
        out.print(sentence, markup=False)
    if summary.interrupted:
        out.print("It was broken off. Run it again: it goes on where it was.")


def _and_more(count: int) -> None:
    if count > _SHOWN:
        out.print(f"and {count - _SHOWN} more; --json has all.")
