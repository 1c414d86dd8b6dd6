"""`hilum sender`: who sends, on what terms, what was agreed to in their associations, and who may."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from msgspec import Struct
from msgspec.structs import replace

from hilum.cli.context import ConfigOption, DataOption, Exit, JsonOption, connected, loaded, moment, out, show_facts, show_json, show_table

if TYPE_CHECKING:
    from datetime import datetime

    from hilum.database.associations import AssociationOfSender, SenderSummary
    from hilum.events import ContextResult
    from hilum.senders import SenderException
    from hilum.settings import Settings

AetArgument = Annotated[str, typer.Argument(help="The sender's calling AE title.", metavar="AET")]

#: Results of a presentation context in words (PS3.8 9.3.3.2).
RESULTS = {
    -1: "not negotiated",
    0: "accepted",
    1: "user rejection",
    2: "no reason",
    3: "SOP class not supported",
    4: "transfer syntaxes not supported",
}

Standing = Literal["blocked", "allowed", "known", "unknown"]


class SenderLine(Struct, frozen=True, kw_only=True):
    """A sender in a line: how it stands, and what came of it. `served` is whether it may send at all."""

    calling_aet: str
    standing: Standing
    served: bool
    #: How it came in: `dicom`, `stow`, `folder`, `media`.
    adapters: list[str] = []
    peers: list[str] = []
    implementation: str = ""
    associations: int = 0
    refused: int = 0
    objects: int = 0
    size_bytes: int = 0
    last_at: datetime | None = None
    last_refused: str = ""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    sender = typer.Typer(help="See who sends and what was agreed to; allow or block a sender.", no_args_is_help=True)
    sender.command("list")(list_all)
    sender.command("show")(show)
    sender.command("allow")(allow)
    sender.command("block")(block)
    sender.command("forget")(forget)
    app.add_typer(sender, name="sender")


def list_all(config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """List the senders that are known: from the settings, by hand, or because something came from them."""
    from hilum.database.associations import list_senders
    from hilum.senders import Exceptions

    settings = connected(config, data)
    exceptions = Exceptions.of(settings).all()
    lines = {(aet, ""): _line(settings, exceptions, aet) for aet in (*settings.senders, *exceptions)}
    for found in list_senders(settings.postgres.dsn):
        who = (found.calling_aet, "" if found.calling_aet else found.peers[0])
        lines.pop(who, None)  # to its place by time
        lines[who] = _line(settings, exceptions, found.calling_aet, found)
    if json:
        show_json(list(lines.values()))
        return
    columns = (
        "Sender",
        "Standing",
        "By",
        "From",
        "Implementation",
        "Associations",
        "Refused",
        "Objects",
        "Size",
        "Last",
        "Last refused because",
    )
    rows = [
        (
            each.calling_aet or "(no title)",
            each.standing if each.served else f"{each.standing}, not served",
            " ".join(each.adapters),
            " ".join(each.peers),
            each.implementation,
            each.associations,
            each.refused or "",
            each.objects,
            f"{each.size_bytes / 1e6:.1f} MB" if each.objects else "",
            moment(each.last_at),
            each.last_refused,
        )
        for each in lines.values()
    ]
    show_table("", columns, rows, nothing="Nobody has sent anything yet.")


def show(
    which: Annotated[
        str,
        typer.Argument(
            help="Calling AE title, the id of an association, or the address of a peer that gave no title.", metavar="AET_OR_ASSOCIATION"
        ),
    ],
    limit: Annotated[int, typer.Option("--limit", "-n", help="Show at most so many associations.", min=1)] = 20,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Show a sender's last associations, and which SOP classes it proposed in the latest one that was accepted, else in the latest."""
    from hilum.database.associations import associations_of, list_senders
    from hilum.errors import NotFound
    from hilum.senders import Exceptions

    settings = connected(config, data)
    exceptions = Exceptions.of(settings).all()
    found = associations_of(settings.postgres.dsn, which, limit=limit)
    aet = found[0].calling_aet if found else which
    if not found and aet not in settings.senders and aet not in exceptions:
        raise NotFound(f"No sender and no association {which!r} is known.", fix="See `hilum sender list`.")
    if json:
        peers = [] if aet else [found[0].peer]
        known = list_senders(settings.postgres.dsn)
        summary = next((each for each in known if each.calling_aet == aet and (aet or each.peers == peers)), None)
        show_json({"sender": _line(settings, exceptions, aet, summary), "associations": found})
        return
    terms, exception = settings.senders.get(aet), exceptions.get(aet)
    show_facts(
        {
            "Sender": aet or f"(no title) at {found[0].peer}",
            "Standing": _standing(settings, exceptions, aet) + ("" if _served(settings, exceptions, aet) else ", not served"),
            "By hand since": moment(exception.since) if exception else None,
            "Addresses": " ".join((*(terms.addresses if terms else ()), *(exception.addresses if exception else ()))) or "any",
            "May call": " ".join(terms.called) if terms and terms.called else "any title of Hilum's",
            "Objects a second": terms.max_objects_per_s if terms and terms.max_objects_per_s else None,
            "Certificate": found[0].certificate if found else None,
            "Largest object": f"{terms.max_object_bytes} bytes" if terms and terms.max_object_bytes else None,
        }
    )
    if not found:
        out.print("It has not asked for an association yet.")
        return
    out.print()
    columns = ("At", "By", "Association", "Called", "From", "Implementation", "Objects", "Size", "Statuses", "Ended")
    show_table("Associations", columns, [_row(each) for each in found])
    told = next((each for each in found if each.contexts and not each.refused), next((each for each in found if each.contexts), None))
    if told is not None:
        out.print()
        title = f"Proposed in association {told.association}"
        show_table(title, ("SOP class", "Result", "Transfer syntax", "Also proposed"), classes(told.contexts))


def allow(
    aet: AetArgument,
    addresses: Annotated[
        list[str] | None, typer.Option("--from", help="Address or network from which it may call; may be repeated.")
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Serve a sender from its next association on, whatever the settings say of unknown senders."""
    from hilum.settings import check_network

    for address in addresses or ():
        check_network(address, "--from")
    _put(aet, config, data, blocked=False, addresses=tuple(addresses or ()))
    only = f", from {', '.join(addresses)} only" if addresses else ""
    out.print(f"{aet} is served from its next association on{only}.")


def block(aet: AetArgument, config: ConfigOption = None, data: DataOption = None) -> None:
    """Refuse a sender's associations from the next one on; one that is open goes on to its end."""
    _put(aet, config, data, blocked=True)
    out.print(f"{aet} is refused from its next association on.")


def forget(aet: AetArgument, config: ConfigOption = None, data: DataOption = None) -> None:
    """Take back `allow` or `block`: the settings alone hold again."""
    from hilum.senders import Exceptions

    if not Exceptions.of(loaded(config, data).settings).forget(aet):
        out.print(f"{aet} was neither allowed nor blocked by hand.")
        sys.exit(Exit.NOT_FOUND)
    out.print(f"What the settings say holds for {aet} again.")


def _put(aet: str, config: ConfigOption, data: DataOption, *, blocked: bool, addresses: tuple[str, ...] = ()) -> None:
    from hilum.kinds import check_ae_title
    from hilum.senders import Exceptions

    check_ae_title(aet, "AET")
    Exceptions.of(loaded(config, data).settings).put(aet.strip(), blocked=blocked, addresses=addresses)


def _line(settings: Settings, exceptions: dict[str, SenderException], aet: str, found: SenderSummary | None = None) -> SenderLine:
    line = SenderLine(calling_aet=aet, standing=_standing(settings, exceptions, aet), served=_served(settings, exceptions, aet))
    if found is None:
        return line
    return replace(
        line,
        # Who has a key, or may write into a watched folder, is known without being named in the settings.
        served=line.served or (line.standing == "unknown" and "dicom" not in found.adapters),
        adapters=found.adapters,
        peers=found.peers,
        implementation=found.implementation_version_name or "",
        associations=found.associations,
        refused=found.refused,
        objects=found.objects,
        size_bytes=found.size_bytes,
        last_at=found.last_at,
        last_refused=found.last_refused or "",
    )


def _standing(settings: Settings, exceptions: dict[str, SenderException], aet: str) -> Standing:
    exception = exceptions.get(aet)
    if exception is not None:
        return "blocked" if exception.blocked else "allowed"
    return "known" if aet in settings.senders else "unknown"


def _served(settings: Settings, exceptions: dict[str, SenderException], aet: str) -> bool:
    standing = _standing(settings, exceptions, aet)
    return standing in ("allowed", "known") or (standing == "unknown" and settings.dicom.unknown_senders == "accept")


def _row(each: AssociationOfSender) -> tuple[object, ...]:
    return (
        moment(each.opened_at),
        each.adapter,
        each.association,
        each.called_aet,
        each.peer,
        each.implementation_version_name or "",
        each.objects,
        f"{each.size_bytes / 1e6:.1f} MB" if each.objects else "",
        " ".join(f"{status}:{count}" for status, count in sorted(each.statuses.items())),
        f"refused: {each.refused}" if each.refused else each.ended,
    )


def classes(contexts: Iterable[ContextResult]) -> list[tuple[str, str, str, str]]:
    """A line for each SOP class: its results, the transfer syntaxes that were accepted, and the others that were proposed.

    Senders propose a class in several contexts, one for each transfer syntax or group of them.
    """
    from pydicom.uid import UID

    def names(uids: Iterable[str]) -> str:
        return ", ".join(UID(uid).name for uid in uids)

    of_class: dict[str, list[ContextResult]] = {}
    for each in contexts:
        of_class.setdefault(each.abstract_syntax, []).append(each)
    lines = []
    for sop_class, found in of_class.items():
        results = dict.fromkeys(each.result for each in found)
        accepted = dict.fromkeys(each.transfer_syntax for each in found if each.transfer_syntax)
        proposed = dict.fromkeys(uid for each in found for uid in each.transfer_syntaxes)
        lines.append(
            (
                names([sop_class]) if sop_class else "",
                ", ".join(RESULTS.get(result, str(result)) for result in results),
                names(accepted),
                names(uid for uid in proposed if uid not in accepted),
            )
        )
    return lines
