"""`hilum deliver urgent|hold|release|holds`: which studies go first, and which go nowhere until a person says so."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from msgspec import Struct
from msgspec.structs import replace

from hilum.cli.context import ConfigOption, DataOption, JsonOption, connected, moment, out, show_json, show_table
from hilum.errors import NotFound
from hilum.settings import Settings

StudyArgument = Annotated[str, typer.Argument(help="StudyInstanceUID or AccessionNumber.", metavar="UID_OR_ACCESSION")]
WhyOption = Annotated[str, typer.Option("--why", help="Why, for whoever looks at it later. Name no patient.")]


class Mark(Struct, frozen=True, kw_only=True):
    """A study that is `held` or `urgent`; `objects` of it are here, and `waiting` deliveries of it have no final state."""

    study_instance_uid: str
    what: str
    since: datetime
    by: str = ""
    why: str = ""
    objects: int = 0
    waiting: int = 0


def add_to(group: typer.Typer) -> None:
    """Add the commands of this module to the group `deliver`."""
    for name, command in (("urgent", urgent), ("hold", hold), ("release", release), ("holds", list_holds)):
        group.command(name)(command)


def urgent(study: StudyArgument, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Let a study go before all others, to all of its destinations and outside their hours too, with what still comes of it."""
    from hilum.deliveries import hurry

    settings = connected(config, data)
    uid = _uid_of(settings, study)
    count = hurry(settings, uid)
    if json:
        show_json({"study_instance_uid": uid, "hurried": count})
    else:
        out.print(f"{count:,} deliveries that wait go first now, and what is entered of the study later.", markup=False)


def hold(study: StudyArgument, why: WhyOption = "", config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Deliver nothing of a study to anybody until it is released, for weeks if need be. What comes of it waits, too."""
    _set_held(study, True, why, config, data, json)


def release(study: StudyArgument, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Let a held study go on."""
    _set_held(study, False, "", config, data, json)


def _set_held(study: str, held: bool, why: str, config: ConfigOption, data: DataOption, json: bool) -> None:
    from hilum import desired
    from hilum.database.queues import study_counts

    settings = connected(config, data)
    uid = _uid_of(settings, study)
    wanted = desired.change(settings, desired.study(uid), held=held, why=why)
    if json:
        show_json(wanted)
        return
    out.print(f"Study {uid} is {'held' if held else 'released'}.", markup=False)
    count = study_counts(settings.postgres.dsn, [uid])[uid]
    if held and not (count.objects or count.pending):
        out.print("Nothing of it has come yet: check the UID. `hilum deliver holds` shows it.", markup=False)


def list_holds(
    limit: Annotated[int, typer.Option("--limit", "-n", help="Show at most so many urgent studies.", min=1)] = 100,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List the studies that are held, and those that go first: also those of which nothing has come yet."""
    from hilum import desired
    from hilum.database.queues import study_counts, urgent_studies

    settings = connected(config, data)
    dsn = settings.postgres.dsn
    held = desired.read(settings).held
    marked = urgent_studies(dsn, limit=limit)
    counts = study_counts(dsn, [*held, *(each.study_instance_uid for each in marked)])
    marks = [Mark(study_instance_uid=uid, what="held", by=each.by, since=each.since, why=each.why) for uid, each in held.items()]
    marks += [Mark(study_instance_uid=each.study_instance_uid, what="urgent", since=each.since) for each in marked]
    found = [
        replace(each, objects=counts[each.study_instance_uid].objects, waiting=counts[each.study_instance_uid].pending) for each in marks
    ]
    if json:
        show_json(found)
        return
    rows = [
        (each.study_instance_uid, each.what, moment(each.since), each.by, each.why, each.objects or "not known yet", each.waiting)
        for each in found
    ]
    show_table("", ("Study", "Is", "Since", "By", "Why", "Objects", "Waiting"), rows, nothing="No study is held, and none is urgent.")


def _uid_of(settings: Settings, study: str) -> str:
    """The StudyInstanceUID of a study, which may not have come yet. Raises `NotFound`."""
    from hilum.database.deliveries import study_named

    try:
        return study_named(settings.postgres.dsn, study)
    except NotFound:
        if not study.replace(".", "").isdigit() or "." not in study:
            raise
        return study
