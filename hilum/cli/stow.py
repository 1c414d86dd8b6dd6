"""`hilum stow key`: who may send over STOW-RS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hilum.cli.context import ConfigOption, DataOption, JsonOption, err, loaded, out, show_json


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    group = typer.Typer(help="Let DICOMweb clients send to this Hilum.", no_args_is_help=True)
    group.callback()(_stow)
    group.command()(key)
    app.add_typer(group, name="stow")


def _stow() -> None:
    """Let DICOMweb clients send to this Hilum."""


def key(
    title: Annotated[str, typer.Argument(help="What the client is called in events and rules: at most 16 characters.")],
    file: Annotated[Path | None, typer.Option("--file", help="The file of clients; else `stow.clients` in the settings.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Make a key for a client and add the client to the file of `stow.clients`. The key is shown this once and kept nowhere.

    It holds at once. To take it back, remove the client's line from the file.
    """
    from hilum.errors import Misconfigured
    from hilum.web import add_client

    settings = loaded(config, data).settings
    path = file or (Path(settings.stow.clients) if settings.stow.clients else None)
    if path is None:
        raise Misconfigured("clients-unset", "No file of clients is set.", fix="Set stow.clients, or name the file with --file.")
    made = add_client(path.expanduser(), title)
    if json:
        show_json({"title": title, "key": made, "file": path})
    else:
        out.print(made, markup=False)
        err.print(f"{title} may send with this key, which is not shown again. Its digest is in {path}.", markup=False)
