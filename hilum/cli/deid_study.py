"""`hilum deid preview STUDY`: a stored study as it would leave by a policy now."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from hilum.cli.context import Exit, err, out, show_json, show_table
from hilum.errors import Misconfigured, NotFound
from hilum.part10 import IN_MEMORY_BYTES, Missing, Part10, Unsound

if TYPE_CHECKING:
    from hilum.anonymizing import Anonymizer
    from hilum.runtime.delivery.rehearsal import Rehearsal
    from hilum.settings import Settings
    from hilum.sink import Delivery
    from hilum.store import ObjectStore

#: Series of which the first instance is shown in full; more are only counted through, so that no study fills the memory.
MOST_SERIES = 50
#: Larger objects are not shown in full.
MOST_BYTES = 8 * IN_MEMORY_BYTES
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")


class ObjectLine(Struct, frozen=True, kw_only=True):
    """What would become of one object of a study."""

    series_instance_uid: str
    sop_instance_uid: str
    #: The UID under which it would leave; empty if it would be held.
    leaves_as: str = ""
    #: Why it would be held: a code, a path of tags, a sentence, and what to do; empty if it would leave.
    reason: str = ""
    place: str = ""
    says: str = ""
    fix: str = ""


class StudyPreview(Struct, frozen=True, kw_only=True):
    """A study as it would leave. Its series hold values of objects: it is shown, never logged."""

    study_instance_uid: str
    policy: str
    version: str
    objects: list[ObjectLine] = field(default_factory=list)
    #: The first instance of each series in full; see `processors.anonymize.offline.Preview`.
    series: list[Any] = field(default_factory=list)


class Showing(Struct, kw_only=True):
    """How the first instance of each series is shown."""

    #: Gives the preview of one object, as `processors.anonymize.offline.preview_of`.
    full: Callable[..., Any]
    #: Gives its page, of that preview and the object; None if no page is wanted.
    page: Callable[[Any, Any], str] | None = None
    #: The pages, each with the object's name.
    pages: list[tuple[str, str]] = field(default_factory=list)
    #: Is called after each object.
    say: Callable[[], None] = lambda: None


def is_stored(what: str) -> bool:
    """Whether what a command names is a study and no file: a UID that no file here has as its name."""
    return bool(_UID.fullmatch(what)) and not Path(what).exists()


def preview_of(
    study: str,
    settings: Settings,
    store: ObjectStore,
    anonymizer: Anonymizer,
    way: Showing,
) -> StudyPreview:
    """How a study would leave, by its order, merges, choices, the policy and the second look.

    Objects are taken from the store one after the other. Raises `NotFound`, `TryAgain`, `Misconfigured`.
    """
    from hilum.database.past import of_study
    from hilum.runtime.delivery.rehearsal import Ledger, Rehearsal

    found = StudyPreview(study_instance_uid=study, policy=anonymizer.policy, version=anonymizer.version)
    ledger = Ledger(settings.postgres.dsn)
    with ledger.connection:
        rehearsal = Rehearsal(settings, store, ledger, again=True)
        shown: set[str] = set()
        for deliveries in of_study(settings.postgres.dsn, study):
            for going in rehearsal.going(rehearsal.edited(deliveries), anonymizer):
                found.objects.append(_line(rehearsal, going))
                series = going.origin.series_instance_uid
                if series not in shown and len(shown) < MOST_SERIES and going.origin.object.size_bytes <= MOST_BYTES:
                    shown.add(series)
                    found.series.extend(_in_full(rehearsal, going, anonymizer, way))
                way.say()
    if not found.objects:
        raise NotFound(f"Nothing is kept of a study {study}.", fix="See `hilum study list`; or name a file.")
    return found


def _line(rehearsal: Rehearsal, going: Delivery) -> ObjectLine:
    left = rehearsal.leaving(going)
    origin = going.origin
    line = ObjectLine(series_instance_uid=origin.series_instance_uid, sop_instance_uid=origin.sop_instance_uid)
    if isinstance(left, Part10):
        left.forget()
        return replace(line, leaves_as=going.sop_instance_uid)
    return replace(line, reason=left.reason, place=left.place, says=left.says, fix=left.fix)


def _in_full(rehearsal: Rehearsal, going: Delivery, anonymizer: Anonymizer, way: Showing) -> Iterator[Any]:
    from hilum.edited import NotEditable

    try:
        with rehearsal.original(going) as (original, unedited, survivor_of):
            name = going.origin.sop_instance_uid
            found = way.full(name, original, anonymizer, unedited=unedited, survivor_of=survivor_of)
            if way.page is not None:
                way.pages.append((name, way.page(found, original)))
            yield found
    except (Missing, Unsound, NotEditable):
        return  # its line says so


def show(found: StudyPreview, html: Path | None, pages: Sequence[tuple[str, str]], *, changed: bool, json: bool) -> None:
    """Show it, and write the page if one is asked for, for its owner alone. Ends the command: `REFUSED` if anything would be held."""
    if html is not None:
        write(html, _page(found, pages))
    held = [each for each in found.objects if each.reason]
    if changed:
        series = [replace(each, actions=[one for one in each.actions if one.changed]) for each in found.series]
        found = replace(found, series=series)
    if json:
        show_json(found)
    elif html is None:
        for each in found.series:
            show_elements(each)
        lines = [
            (each.series_instance_uid, each.sop_instance_uid, each.leaves_as or "held", each.reason, f"{each.says} {each.fix}".strip())
            for each in found.objects
        ]
        show_table(f"Study {found.study_instance_uid}", ("Series", "Instance", "Would leave as", "Reason", "Why"), lines)
    if not json:
        out.print(_counts(found), markup=False)
    if held:
        err.print(f"{len(held):,} objects would be held.", markup=False)
        sys.exit(Exit.REFUSED)


def _counts(found: StudyPreview) -> str:
    held = sum(bool(each.reason) for each in found.objects)
    return f"{len(found.objects) - held:,} of {len(found.objects):,} objects would leave, {held:,} would be held."


def show_elements(found: Any) -> None:
    """A table of what becomes of each element of a `processors.anonymize.offline.Preview`. It names the patient."""
    from hilum.anonymizing import package

    says = package("processors.anonymize.wording")
    cells = [
        (each.path, each.keyword, each.vr, says.standing(each), says.words(each), each.before, each.after, says.because(each))
        for each in found.actions
    ]
    columns = ("Element", "Keyword", "VR", "Table E.1-1", "Becomes", "Before", "After", "Why")
    show_table(f"{found.path} by {found.policy} {found.version}", columns, cells, nothing="Nothing of it can be shown.")


def summary(found: Any) -> str:
    """How many elements of a `processors.anonymize.offline.Preview` go and stay, of which risky kinds the object is, and what masks do."""
    from hilum.anonymizing import package

    says = package("processors.anonymize.wording")
    counts = Counter(says.became(each) for each in found.actions)
    elements = ", ".join(f"{counts[each]:,} {each}" for each in says.Became)
    kinds = "; ".join(f"{each.kind} ({each.becomes})" for each in found.risks.kinds)
    lines = (f"Elements: {elements}." if counts else "", f"Risky kinds: {kinds or 'none'}.", found.risks.masks)
    return "\n".join(filter(None, lines))


def write(html: Path, text: str) -> None:
    """Write a page that names a patient, readable for its owner alone from its first byte. Raises `Misconfigured`."""
    try:
        html.touch(mode=0o600)
        html.chmod(0o600)
        html.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise Misconfigured("page-unwritable", f"{html} cannot be written ({error.strerror}).", fix="Name another file.") from None


_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; color: #1a1a1a }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ccc; overflow-wrap: anywhere }
.held { background: #fbdcdc }
summary { padding: .5rem 0; font-weight: 600 }
iframe { width: 100%; height: 85vh; border: 1px solid #bbb }
"""


def _page(found: StudyPreview, pages: Sequence[tuple[str, str]]) -> str:
    """One page: how many would leave, the page of each series' first instance in a frame of its own, and a line for each object."""
    rows = "\n".join(
        f'<tr class="{"held" if each.reason else ""}">'
        + "".join(
            f"<td>{escape(cell)}"
            for cell in (
                *(each.series_instance_uid, each.sop_instance_uid, each.leaves_as or "held"),
                *(each.reason, f"{each.says} {each.fix}".strip()),
            )
        )
        + "</tr>"
        for each in found.objects
    )
    frames = "\n".join(
        f'<details><summary>{escape(name)}</summary><iframe sandbox srcdoc="{escape(text)}"></iframe></details>' for name, text in pages
    )
    reasons = Counter((each.reason, each.says) for each in found.objects if each.reason)
    held = "".join(f"<li>{count:,} held, {escape(reason)}: {escape(says)}" for (reason, says), count in reasons.most_common())
    title = f"Preview of study {found.study_instance_uid} by policy {found.policy} {found.version}"
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>\n'
        f"<h1>{escape(title)}</h1>\n<p><strong>This page names the patient.</strong> It is for who may see the originals.</p>\n"
        f"<h2>In short</h2>\n<p>{_counts(found)}</p>\n<ul>{held}</ul>\n<h2>The first instance of each series</h2>\n{frames}\n"
        "<h2>Every object</h2>\n<table><thead><tr><th scope=col>Series<th scope=col>Instance<th scope=col>Would leave as"
        "<th scope=col>Reason<th scope=col>Why</tr></thead>\n"
        f"<tbody>{rows}</tbody></table></html>\n"
    )
