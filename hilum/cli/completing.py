"""`hilum study complete`: a person says that a study is complete."""

from __future__ import annotations

import getpass
import sys
import uuid
from datetime import UTC, datetime
from typing import Annotated

import typer

from hilum.cli.context import ConfigOption, DataOption, Exit, JsonOption, connected, err, out, show_json
from hilum.errors import Misconfigured


def complete(
    study: Annotated[str, typer.Argument(help="StudyInstanceUID or AccessionNumber.", metavar="UID_OR_ACCESSION")],
    why: Annotated[str, typer.Option("--why", help="Why; kept with the study. Not for names of patients.")] = "",
    revision: Annotated[
        int, typer.Option("--revision", help="The last complete revision as you saw it; if it is another one by now, nothing is done.")
    ] = -1,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for the answer.")] = 30.0,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Say that a study is complete as it is, so that rules for complete studies need not wait. What comes later makes a revision."""
    from hilum.commands import ask
    from hilum.database.queries import show_study
    from hilum.events import StudyCommand

    settings = connected(config, data)
    found = show_study(settings.postgres.dsn, study)
    if len(found) > 1:
        uids = ", ".join(each.summary.study_instance_uid for each in found)
        raise Misconfigured("study-ambiguous", f"{len(found)} studies have that accession number: {uids}.", fix="Name one by its UID.")
    command = StudyCommand(
        id=str(uuid.uuid4()),
        action="complete",
        study_instance_uid=found[0].summary.study_instance_uid,
        actor=getpass.getuser(),
        why=why,
        expected_revision=revision,
        asked_at=datetime.now(UTC),
    )
    with err.status("Waiting for the answer"):
        outcome = ask(settings, command, wait_s=wait)
    if json:
        show_json({"command": command.id, "outcome": outcome})
    elif outcome is not None:
        out.print(outcome.sentence, markup=False)
    else:
        err.print(
            f"No answer within {wait:g} s; the command {command.id} is kept. Does the role route run? See `hilum status`.", markup=False
        )
    if outcome is None:
        sys.exit(Exit.UNREACHABLE)
    if not outcome.done:
        sys.exit(Exit.REFUSED)
