"""`hilum run`, `hilum provision`, `hilum health`: what supervisors and containers call."""

from __future__ import annotations

import http.client
import json
import sys
from typing import Annotated

import typer

from hilum.cli.context import ConfigOption, DataOption, Exit, JsonOption, connected, loaded, show_json, show_table


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command()(run)
    app.command()(provision)
    app.command()(health)


def run(
    roles: Annotated[str, typer.Argument(help="One role, or several joined by commas; they share one process.")],
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Run roles until SIGTERM: `hilum run validate,route`."""
    from hilum.host import run as host

    sys.exit(host(roles, config, data))


def provision(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """Make topics, tables and buckets, or bring them up to date. Safe to repeat."""
    from hilum.provision import provision as make

    done = make(connected(config, data))
    if json:
        show_json(done)
    else:
        show_table("Provisioned", ("What", "How many", "Made now"), [(d.what, d.total, d.made) for d in done])


def health(config: ConfigOption = None, data: DataOption = None) -> None:
    """Ask the process of this machine at `probe.port` how its roles are; exit code 0 if all are ready.

    A `hilum up` has several processes: `hilum status` asks them all.
    """
    probe = loaded(config, data).settings.probe
    connection = http.client.HTTPConnection(probe.host if probe.host != "0.0.0.0" else "127.0.0.1", probe.port, timeout=5)  # noqa: S104  # compared, not bound
    try:
        connection.request("GET", "/health")
        answer = json.loads(connection.getresponse().read())
    except OSError:
        typer.echo(f"Nothing answers at {probe.host}:{probe.port}. Is the role running, and is probe.port its port?", err=True)
        sys.exit(Exit.UNREACHABLE)
    show_json(answer)
    sys.exit(Exit.DONE if answer["ready"] else Exit.FAILED)
