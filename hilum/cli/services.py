"""`hilum up`, `hilum down`, `hilum status`: the whole of Hilum on this machine."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from hilum.cli.context import ConfigOption, DataOption, Exit, JsonOption, err, loaded, moment, out, show_facts, show_json, show_table
from hilum.cli.studies import show_failed_rules
from hilum.roles import role_doubts
from hilum.settings import Settings, doubts
from hilum.status import Hl7Endpoint, RoleStatus, Status
from hilum.status import status as status_of


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command()(up)
    app.command()(down)
    app.command()(status)


def up(
    config: ConfigOption = None,
    data: DataOption = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when everything is ready; `hilum down` ends it.")] = False,
    json: JsonOption = False,
) -> None:
    """Start Kafka, PostgreSQL, the object store and Hilum's roles; those that the settings name elsewhere are not started."""
    from hilum.services.up import doubts_about_this_machine
    from hilum.up import run, start

    settings = loaded(config, data).settings
    for sentence in (*doubts(settings), *role_doubts(settings), *doubts_about_this_machine(settings)):
        err.print(sentence, markup=False)

    def ready() -> None:
        now = status_of(settings)
        if json:
            show_json(now)
        else:
            _show(now)
            out.print()
            _show_what_to_point_where(now)

    if detach:
        with err.status("Starting Kafka, PostgreSQL, the object store and Hilum's roles"):
            start(settings, config)
        ready()
    else:
        run(settings, config.resolve() if config else None, ready=ready)


def down(config: ConfigOption = None, data: DataOption = None) -> None:
    """Stop the Hilum that runs on the data directory, with its servers. Nothing is lost: it goes on with the next `hilum up`."""
    from hilum.services.up import down as stop

    directory = loaded(config, data).settings.data_dir
    with err.status("Stopping"):
        done = stop(directory)
    for sentence in done or [f"No Hilum was running on {directory}."]:
        err.print(sentence, markup=False)


def status(
    config: ConfigOption = None,
    data: DataOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again every two seconds, until Ctrl-C.")] = False,
    json: JsonOption = False,
) -> None:
    """Show endpoints, processes and roles; exit code 0 if all are ready."""
    settings = loaded(config, data).settings
    with suppress(KeyboardInterrupt):
        _show_status(settings, watch, json)


def _show_status(settings: Settings, watch: bool, json: bool) -> None:
    while True:
        now = status_of(settings)
        if json:
            show_json(now)
        else:
            if watch:
                out.clear()
            _show(now)
        if not watch:
            sys.exit(Exit.DONE if now.ready else Exit.FAILED)
        time.sleep(2)


def _show(now: Status) -> None:
    show_facts(
        {
            "State": now.state,
            "DICOM": f"{now.dicom.aet} at {now.dicom.host}:{now.dicom.port}" if now.dicom.services else "",
            "STOW-RS": now.stow.url if now.stow else "",
            "HL7": _hl7(now.hl7) if now.hl7 else "",
            "Kafka": now.kafka.bootstrap,
            "PostgreSQL": f"{now.postgres.host}:{now.postgres.port}/{now.postgres.database} as {now.postgres.user}",
            "S3": f"{now.s3.endpoint}, bucket {now.s3.bucket}",
            "Data": now.data,
        }
    )
    out.print()
    rows = [(p.name, p.state, p.pid, f"{p.memory_mb:.0f} MB", p.restarts, p.last_exit) for p in now.processes]
    show_table("", ("Process", "State", "PID", "Memory", "Restarts", "Last end"), rows)
    out.print()
    lines = [
        (label, "ready" if role.ready else "not ready", "" if role.lag is None else role.lag, role.says)
        for label, role in zip(role_labels(now.roles), now.roles, strict=True)
    ]
    show_table("", ("Role", "State", "Waiting", "Says"), lines)
    if now.stuck:
        out.print()
        stuck = [(each.study_instance_uid, moment(each.since), each.says) for each in now.stuck]
        show_table("Studies that wait for a rule that can be evaluated", ("Study", "Since", "Why"), stuck)
    if now.failed_rules:
        out.print()
        show_failed_rules(now.failed_rules)
    if now.misfits:
        out.print()
        misfits = [(*_MISFITS[each.about, each.outcome], each.count, moment(each.latest)) for each in now.misfits]
        show_table("What does not fit, of the last 24 hours", ("What", "See", "How many", "Latest"), misfits)


def _hl7(now: Hl7Endpoint) -> str:
    ports = [f"{now.host}:{now.port}"] if now.port else []
    return ", ".join([*ports, *([f"with TLS on {'' if now.port else f'{now.host}:'}{now.tls_port}"] if now.tls_port else [])])


_MISFITS = {
    ("study", "mismatched"): ("studies that differ from their order", "hilum study list --order mismatched"),
    ("study", "no-order"): ("studies for which no order came in time", "hilum study list --order no-order"),
    ("study", "order-cancelled"): ("studies whose order was called off", "hilum study list --order order-cancelled"),
    ("order", "no-images"): ("orders for which no images came in time", "hilum order list --images no-images"),
}

#: Services of the DICOM listener as modalities' dialogues call them.
_SERVICES = {"storage-commitment": "storage commitment", "worklist": "worklist (MWL)", "mpps": "performed steps (MPPS)"}


def _show_what_to_point_where(now: Status) -> None:
    """What to enter on a modality and in a RIS."""
    services = ", ".join(_SERVICES.get(each, each) for each in now.dicom.services)
    messages = "HL7 v2 over MLLP: orders, patients, appointments, reports"
    listeners = [
        ("Modality", now.dicom.host, now.dicom.port, now.dicom.aet, services) if now.dicom.services else None,
        ("RIS, HL7 engine", now.hl7.host, now.hl7.port or f"{now.hl7.tls_port} (TLS)", "", messages) if now.hl7 else None,
    ]
    show_table("Point at it", ("What", "Host", "Port", "AE title", "For"), [each for each in listeners if each is not None])
    alone = [setting for setting, at in (("dicom.host", now.dicom), ("hl7.host", now.hl7)) if at is not None and _is_loopback(at.host)]
    if alone:
        them = f"set {' and '.join(alone)} to the address that others use, or to 0.0.0.0"
        out.print(f"Only this machine reaches 127.0.0.1: for others {them}.", markup=False)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def role_labels(roles: Sequence[RoleStatus]) -> list[str]:
    """The names of roles, numbered as their processes are where several have one: `dicom`, `dicom#1`."""
    seen: Counter[str] = Counter()
    labels = []
    for role in roles:
        labels.append(f"{role.name}#{seen[role.name]}" if seen[role.name] else role.name)
        seen[role.name] += 1
    return labels
