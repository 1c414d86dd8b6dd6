"""The `hilum` command. Each module beside this one holds one group of commands."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from hilum import __version__
from hilum.cli.context import Exit, Group, err, show_json
from hilum.errors import HilumError, Misconfigured, NotFound, Refused, TryAgain

app = typer.Typer(
    name="hilum",
    cls=Group,
    help="Hilum: an event-driven imaging pipeline for hospitals.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version.")] = False,
) -> None:
    """Take the options that stand before any command; each of them has answered when this is called."""
    del show_version


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"hilum {__version__}")


def _commands() -> None:
    from hilum.cli import (
        commitments,
        config,
        deid,
        deliver,
        demo,
        dicom,
        hl7,
        hl7_map,
        media,
        orders,
        rules,
        run,
        senders,
        services,
        storage,
        stow,
        studies,
        worklist,
    )

    first = (services, run, config, rules, studies, orders, storage, deliver, senders)
    for module in (*first, deid, commitments, dicom, stow, media, demo, hl7, hl7_map, worklist):
        module.add_to(app)


_commands()


def main() -> None:
    """Run the command; every error that Hilum knows is a sentence on stderr and an exit code."""
    try:
        app(prog_name="hilum")
    except NotFound as error:
        _end(error, Exit.NOT_FOUND)
    except Misconfigured as error:
        _end(error, Exit.USAGE)
    except TryAgain as error:
        _end(error, Exit.UNREACHABLE)
    except Refused as error:
        _end(error, Exit.REFUSED)
    except HilumError as error:
        _end(error, Exit.FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILED)
    except Exception as error:  # its text may hold values of an object: where it happened is told, and not what it says
        from hilum.telemetry import described

        fix = "Report it with this line; it names no patient."
        _end(HilumError(f"This failed in a way nobody foresaw: {described(error)}.", fix=fix), Exit.FAILED)


def _end(error: HilumError, code: Exit) -> None:
    err.print(f"hilum: {error}", markup=False)
    if "--json" in sys.argv:
        show_json({"error": {"sentence": error.sentence, "fix": error.fix, "exit_code": int(code)}})
    sys.exit(code)
