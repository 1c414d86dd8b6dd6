"""`hilum deid`: see what a policy does, de-identify files, look at what left, and keep its keys."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from hilum.cli import (
    deid_feed,
    deid_lookup,
    deid_manifest,
    deid_patients,
    deid_policies,
    deid_projects,
    deid_records,
    deid_settings,
    deid_study,
)
from hilum.cli.context import ConfigOption, DataOption, Exit, JsonOption, connected, err, loaded, moment, out, show_json, show_table
from hilum.cli.deid_policies import UnpublishedOption
from hilum.cli.deid_records import PolicyOption
from hilum.errors import Misconfigured, NotFound

if TYPE_CHECKING:
    from hilum.deid_sections import Deid

KeyOption = Annotated[Path | None, typer.Option("--key", help="The key's file; wins over `deid.key_path` in the settings.")]
_OFFLINE = "processors.anonymize.offline"
_SAID = {"there": "there already", "no-original": "without original"}
#: States of files, see `processors.anonymize.offline.Outcome`.
_OF_RUN = ("written", "there", "replaced", "duplicate", "conflict", "held", "skipped", "failed")
_OF_VERIFY = ("clean", "found", "no-original", "conflict", "skipped", "failed")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    deid = typer.Typer(help="See what a policy does, de-identify files, see what left, and keep the keys.", no_args_is_help=True)
    deid.command(epilog="Example: hilum deid preview slice.dcm --policy research --html preview.html")(preview)
    deid.command(epilog="Example: hilum deid run images --policy research --out out --manifest manifest.csv")(run)
    deid.command(epilog="Example: hilum deid verify out --originals images --policy research")(verify)
    deid_records.add_to(deid)
    deid_lookup.add_to(deid)
    keys = typer.Typer(help="Keys of pseudonyms.", no_args_is_help=True)
    keys.command("list", epilog="Example: hilum deid keys list --key /etc/hilum/deid.key")(list_keys)
    keys.command(epilog="Example: hilum deid keys make --key /etc/hilum/deid.key")(make)
    keys.command(epilog="Example: hilum deid keys rotate --key /etc/hilum/deid.key --dry-run")(rotate)
    deid.add_typer(keys, name="keys")
    deid_settings.add_to(deid)
    deid_policies.add_to(deid)
    deid_projects.add_to(deid)
    deid_patients.add_to(deid)
    deid_feed.add_to(deid)
    app.add_typer(deid, name="deid")


def _deid(config: Path | None, data: Path | None, key: Path | None = None) -> Deid:
    deid = loaded(config, data).settings.deid
    return replace(deid, key_path=str(key), key_id="") if key is not None else deid


def _offline() -> Any:
    from hilum.anonymizing import package

    return package(_OFFLINE)


def _outgoing(table: dict[str, Any], deid: Deid) -> Any:
    from hilum.anonymizing import package

    return package().Outgoing.of(table, deid)


def _policy(name: str, unpublished: bool, config: Path | None, data: Path | None) -> dict[str, Any]:
    return deid_policies.chosen(name, loaded(config, data).settings, unpublished)


def _files(path: Path) -> tuple[list[Path], int]:
    """Files, and how many hidden ones are left out, which is said."""
    if not path.exists():
        raise NotFound(f"There is no {path}.", fix="Name a file or a folder.")
    files, hidden = _offline().files_in(path)
    if hidden:
        err.print(f"Hidden files are left out: {hidden:,} in {path}.", markup=False, soft_wrap=True)
    return files, hidden


def _check_apart(path: Path, out: Path) -> None:
    """Raise `Misconfigured` if originals and what is de-identified would lie in one another: sooner or later both would be given away."""
    originals, made = path.resolve(), out.resolve()
    if originals == made:
        raise Misconfigured("out-is-in", "--out is the folder of the originals.", fix="Name another one.")
    if made.is_relative_to(originals):
        raise Misconfigured("out-in-originals", "--out is within the folder of the originals.", fix="Name one beside it.")
    if originals.is_relative_to(made):
        raise Misconfigured("originals-in-out", "The originals are within --out.", fix="Name a folder without them.")


# Files


def preview(
    what: Annotated[str, typer.Argument(help="A DICOM file, a folder of which the first one is shown, or the UID of a stored study.")],
    policy: PolicyOption,
    key: KeyOption = None,
    unpublished: UnpublishedOption = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with before and after side by side into this file.")] = None,
    frame: Annotated[int, typer.Option("--frame", min=1, help="The frame that the page shows.")] = 1,
    changed: Annotated[bool, typer.Option("--changed", help="Only elements that do not stay as they are.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show each element before and after, with the action of PS3.15 Table E.1-1 and why. Nothing leaves, nothing is kept.

    Of a stored study the first instance of each series is shown, and of all others whether they would leave: with what their order sets
    right, merges and opt-outs, as on the way out. What is shown names the patient: it is for who may see the original. Exit code 4: an
    object would be held.
    """
    from hilum.anonymizing import package

    outgoing = _outgoing(_policy(policy, unpublished, config, data), _deid(config, data, key))
    page = package("processors.anonymize.page").page
    if deid_study.is_stored(what):
        from hilum import desired
        from hilum.store import open_store

        def drawn(original: Any) -> Any:
            with suppress(Misconfigured):  # of an object without such a frame there is no picture
                return outgoing.pictures(original, frame)

        settings = desired.destinations(connected(config, data))
        with Progress(TextColumn("{task.description}"), MofNCompleteColumn(), console=err, transient=True) as progress:
            task = progress.add_task("Looking", total=None)
            way = deid_study.Showing(
                full=_offline().preview_of,
                page=(lambda found, original: page(found, drawn(original))) if html is not None else None,
                say=lambda: progress.advance(task),
            )
            study = deid_study.preview_of(what, settings, open_store(settings), outgoing, way)
        deid_study.show(study, html, way.pages, changed=changed, json=json)
        return
    files, _ = _files(Path(what))
    file = _offline().first_part10(files)
    if file is None:
        says = f"{what} is no DICOM file (PS3.10 7.1)." if Path(what).is_file() else f"Nothing in {what} is DICOM."
        raise NotFound(says, fix="Name a DICOM file, or a folder with DICOM files.")
    found = _offline().preview(file, outgoing)
    actions = [each for each in found.actions if not changed or each.changed]
    if html is not None:
        deid_study.write(html, page(found, _offline().pictures(file, outgoing, frame)))
    if json:
        show_json(replace(found, actions=actions))
    else:
        if html is None:
            deid_study.show_elements(replace(found, actions=actions))
        elif found.mask:
            out.print(f"A mask of images like this one begins so:\n{found.mask}", markup=False, soft_wrap=True)
        out.print(deid_study.summary(found), markup=False, soft_wrap=True)
    if found.held is not None:
        err.print(f"It would be held ({found.held.reason}): {found.held.says} {found.held.fix}", markup=False)
        sys.exit(Exit.REFUSED)


def run(
    path: Annotated[Path, typer.Argument(help="A file or a folder with DICOM files.")],
    policy: PolicyOption,
    to: Annotated[Path, typer.Option("--out", "-o", help="The folder for what is de-identified; made if it is not there.")],
    key: KeyOption = None,
    unpublished: UnpublishedOption = False,
    manifest: Annotated[
        Path | None,
        typer.Option("--manifest", help="Write which file became which, with old and new UIDs, into this CSV file."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, help="Processes; 0: one for each core.")] = 0,
    replacing: Annotated[
        bool, typer.Option("--replace", help="Replace what is in --out under the same UIDs with other bytes; without, it stays.")
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """De-identify files, into `STUDY/SERIES/INSTANCE.dcm` by their new UIDs. May be stopped and repeated: what is there already stays.

    No ledger has them: --manifest keeps which file became which, and leads back to the patients. Exit code 4: objects were held, or are in
    conflict, which are several files with one SOP instance UID and other bytes, and those of which --out has other bytes under their new
    UID; of these nothing was written. 1: files could not be read or written.
    """
    _check_apart(path, to)
    deid = _deid(config, data, key)
    table = _policy(policy, unpublished, config, data)
    _outgoing(table, deid)  # what is wrong with it is said before anything else
    files, hidden = _files(path)
    made = _offline().run(files, to, table, deid, jobs=jobs or os.cpu_count() or 1, with_uids=manifest is not None, replace=replacing)
    if manifest is not None:
        made = deid_manifest.written(manifest, to, made)
    outcomes = deid_manifest.watched("De-identifying", made, len(files))
    facts = {"policy": policy, "version": table["version"], "out": str(to), "manifest": str(manifest or ""), "hidden": hidden}
    _say_outcomes(outcomes, json, facts, _OF_RUN)


def verify(
    path: Annotated[Path, typer.Argument(help="A file or a folder with de-identified files.")],
    policy: PolicyOption,
    originals: Annotated[Path, typer.Option("--originals", help="The folder with what they were made of.")],
    key: KeyOption = None,
    unpublished: UnpublishedOption = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Look in each file for what identifies in its original, as the second look does before anything leaves.

    The originals alone tell whose identifiers to look for: give them, and the policy and key of that time. Of what left through Hilum,
    `hilum deid outputs` names the original of each; the look was made before it left. Exit code 1: something was found, or a file has no
    original here, or several, or cannot be read.
    """
    outgoing = _outgoing(_policy(policy, unpublished, config, data), _deid(config, data, key))
    (files, hidden), (given, _) = _files(path), _files(originals)
    outcomes = deid_manifest.watched("Looking", _offline().verify(files, given, outgoing), len(files))
    facts = {"policy": policy, "version": outgoing.version, "originals": str(originals), "hidden": hidden}
    _say_outcomes(outcomes, json, facts, _OF_VERIFY, verified=True)


def _say_outcomes(outcomes: list[Any], json: bool, facts: dict[str, Any], states: Sequence[str], *, verified: bool = False) -> None:
    counts = Counter(each.state for each in outcomes)
    troubles = [each for each in outcomes if each.state in ("held", "conflict", "failed", "found", "no-original")]
    if json:
        show_json({**facts, "counts": {state: counts[state] for state in states}, "files": outcomes})
    else:
        if troubles:
            show_table("", ("File", "State", "Reason", "Why", "What to do"), deid_manifest.summed(troubles))
        said = (f"{count:,} {_SAID.get(state, state)}" for state, count in sorted(counts.items()))
        out.print(", ".join(said) or "No files.", markup=False)
        if facts.get("manifest"):
            out.print(f"{facts['manifest']} leads from each file back to its patient: keep it apart from {facts['out']}.", markup=False)
    if counts.total() == counts["skipped"]:
        err.print("Nothing there is DICOM. Name a DICOM file, or a folder with DICOM files.", markup=False)
        sys.exit(Exit.NOT_FOUND)
    if counts["failed"] or counts["found"] or counts["no-original"] or (verified and counts["conflict"]):
        sys.exit(Exit.FAILED)
    sys.exit(Exit.REFUSED if counts["held"] or counts["conflict"] else Exit.DONE)


# Keys


def _key_file(config: Path | None, data: Path | None, key: Path | None) -> Path:
    file = _deid(config, data, key).key_file
    if file is None:
        raise Misconfigured("key-not-named", "No key is named.", fix="Give --key FILE, or set `deid.key_path` in the settings.")
    return file


def list_keys(key: KeyOption = None, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """List the key in force and the former ones, by their ids."""
    from hilum.anonymizing import package

    found = package("processors.anonymize.keys").list_keys(_key_file(config, data, key))
    if json:
        show_json({"keys": found})
        return
    cells = [(each.id, "in force" if each.in_force else "former", moment(each.made_at), each.path) for each in found]
    show_table("Keys", ("Key", "State", "Written at", "File"), cells)


def make(key: KeyOption = None, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Make the first key, readable for this account alone. One that is there stays."""
    from hilum.anonymizing import package

    file = _key_file(config, data, key)
    made = package("processors.anonymize.keys").make_key(file)
    if json:
        show_json({"key_id": made.id, "path": file})
    else:
        out.print(f"Key {made.id} is in {file}. Back it up: without it, nothing that comes fits what left.", markup=False)


def rotate(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be.")] = False,
    key: KeyOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Put a new key into force; the old one stays beside it. From then on a patient has other pseudonyms than in what left before."""
    from hilum.anonymizing import package

    keys = package("processors.anonymize.keys")
    file = _key_file(config, data, key)
    old = keys.read_key(file)
    if dry_run:
        show_json({"old": old.id, "dry_run": True}) if json else out.print(f"Key {old.id} would no longer be in force.", markup=False)
        return
    if not yes:
        typer.confirm(f"Put another key than {old.id} into force? What comes will not fit what left.", abort=True, err=True)
    old, new = keys.rotate(file)
    if json:
        show_json({"old": old.id, "new": new.id, "dry_run": False})
    else:
        out.print(f"Key {new.id} is in force; {old.id} stays readable. Bring both to every machine that delivers.", markup=False)
