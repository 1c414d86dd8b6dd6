"""`hilum worklist`: what a modality is told."""

from __future__ import annotations

from typing import Annotated

import typer

from hilum.cli.context import ConfigOption, DataOption, JsonOption, err, show_json, show_table
from hilum.cli.dicom import AetOption, HostOption, PortOption, peer_named


def add_to(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    app.command()(worklist)


def worklist(
    date: Annotated[str, typer.Option("--date", help="Start date, `YYYYMMDD`, or a range, `YYYYMMDD-YYYYMMDD`.")] = "",
    modality: Annotated[str, typer.Option("--modality", help="Such as CT.")] = "",
    station: Annotated[str, typer.Option("--station", help="Scheduled station AE title.")] = "",
    accession: Annotated[str, typer.Option("--accession", help="AccessionNumber.")] = "",
    patient: Annotated[str, typer.Option("--patient", help="PatientID.")] = "",
    calling_aet: Annotated[
        str, typer.Option("--calling-aet", help="The AE title to call with: that modality's, to see what it sees.")
    ] = "HILUM_ASK",
    host: HostOption = None,
    port: PortOption = None,
    aet: AetOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Ask this Hilum, or a peer, for scheduled steps as a modality does (PS3.4 K)."""
    from hilum.modality_scu import scheduled_steps

    peer = peer_named(host, port, aet, calling_aet, config, data)
    of_step = [("ScheduledProcedureStepStartDate", date), ("Modality", modality), ("ScheduledStationAETitle", station)]
    with err.status(f"Waiting for {peer.address}"):
        found = scheduled_steps(peer, of_order=[("AccessionNumber", accession), ("PatientID", patient)], of_step=of_step)
    if json:
        show_json([each.to_json_dict() for each in found])
        return
    columns = ("Start", "Accession", "Patient", "Name", "Modality", "Station", "Description", "Step", "Study")
    rows = []
    for each in found:
        [step] = each.ScheduledProcedureStepSequence
        stations = step.get("ScheduledStationAETitle") or ""
        rows.append(
            (
                f"{step.get('ScheduledProcedureStepStartDate', '')} {step.get('ScheduledProcedureStepStartTime', '')}".strip(),
                each.get("AccessionNumber", ""),
                each.get("PatientID", ""),
                str(each.get("PatientName", "")),
                step.get("Modality", ""),
                stations if isinstance(stations, str) else ", ".join(stations),
                step.get("ScheduledProcedureStepDescription", ""),
                step.get("ScheduledProcedureStepID", ""),
                each.get("StudyInstanceUID", ""),
            )
        )
    show_table("", columns, rows, nothing="No step fits.")
