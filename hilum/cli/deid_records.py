"""`hilum deid outputs`, `rerun`: what left under a policy, and what would leave under it now."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilum.cli import deid_manifest
from hilum.cli.context import ConfigOption, DataOption, Exit, JsonOption, connected, moment, out, show_json, show_table
from hilum.errors import Misconfigured, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from hilum.database.deidentified import Known
    from hilum.runtime.delivery.comparison import Compared, Comparison
    from hilum.settings import Settings

PolicyOption = Annotated[str, typer.Option("--policy", "-p", help="The policy's name.")]


def add_to(deid: typer.Typer) -> None:
    """Add the commands of this module to the group `deid`."""
    deid.command(epilog="Example: hilum deid outputs --policy research --destination study-server")(outputs)
    deid.command(epilog="Example: hilum deid rerun --policy research --to study-server-2 --since 90d --dry-run")(rerun)
    deid.command(epilog="Example: hilum deid links --project research")(links)


def outputs(
    policy: PolicyOption,
    version: Annotated[str, typer.Option("--version", help="One version of it.")] = "",
    to: Annotated[str, typer.Option("--destination", help="One destination.")] = "",
    patient: Annotated[str, typer.Option("--patient", help="What left as one patient, by the pseudonym.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many lines; --json has all.")] = 1000,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List every object that left under a policy, by its UIDs before and after: who may see this can tell whose they are.

    `left`: the destination said that it has it. `withdrawn`: it was taken back since. `held`: nothing of it ever left. `identified`: it was
    held, and left as it is, since somebody decided so. `perhaps`: it was about to leave, and nobody knows whether it is there.
    """
    from hilum.database.deidentified import outputs as found

    settings = connected(config, data)
    _check_known(settings, policy, version, to)
    listed = found(settings.postgres.dsn, policy, version, to, None if json else limit + 1, patient=patient)
    if json:
        show_json({"outputs": listed})
        return
    columns = ("State", "Version", "Key", "Destination", "Instance", "Sent as", "Patient", "At")
    cells = [
        (
            *(each.state, each.policy_version, each.key_id, each.destination, each.sop_instance_uid, each.sent_as, each.sent_patient),
            moment(each.withdrawn_at or each.sent_at or each.held_at),
        )
        for each in listed[:limit]
    ]
    show_table(f"Objects of {policy}", columns, cells, nothing="Nothing left by it.")
    if len(listed) > limit:
        out.print(f"There are more than these {limit:,}: see them with --limit, or all with --json.", markup=False)


def _check_known(settings: Settings, policy: str, version: str, to: str) -> None:
    """Raise `NotFound` for a policy, version or destination of which nobody ever heard: that nothing left by it would be no answer."""
    from hilum.database.deidentified import known
    from hilum.policies import files, published

    ledger = known(settings.postgres.dsn)
    versions = list(dict.fromkeys(each.policy_version for each in ledger if each.policy == policy))
    if not versions:
        names = {*files(settings.deid.folder), *(each.policy for each in ledger)}
        if policy not in names:
            names |= published(settings).tables.keys()
        _check_among(policy, names, "policy", "hilum deid policies list")
    if version:
        _check_among(version, versions, f"version of {policy} by which anything left", f"hilum deid outputs --policy {policy}")
    _check_destination(settings, to, ledger)


def _check_destination(settings: Settings, name: str, ledger: Iterable[Known]) -> None:
    """Raise `NotFound` for a destination of which nobody ever heard: in the settings, as applied, added by hand, or by what left."""
    from hilum import desired
    from hilum.policies import published

    names = {*settings.destinations, *(each.destination for each in ledger)}
    if name and name not in names:
        found = published(settings)
        by_hand = {} if found.unread else desired.read(settings).added
        _check_among(name, {*names, *found.destinations, *by_hand}, "destination", "hilum dest list")


def _check_among(name: str, known: Iterable[str], what: str, see: str) -> None:
    from hilum.misfits import nearest

    names = list(dict.fromkeys(known))
    if name not in names:
        near = nearest(name, names)
        fix = f"Did you mean {near}?" if near else f"See `{see}`." if len(names) > 20 or not names else f"There are: {', '.join(names)}."
        raise NotFound(f"There is no {what} {name!r}.", fix=fix)


def rerun(
    policy: PolicyOption,
    to: Annotated[str, typer.Option("--to", help="The destination of its own, with the policy as it is now.")],
    since: Annotated[str, typer.Option("--since", help="What left since then: 2026-01-31T18:00, or 2h, 3d ago.")],
    of: Annotated[str, typer.Option("--from", help="Only what left for this destination; else for any but --to.")] = "",
    held: Annotated[bool, typer.Option("--held", help="Also what was held and waits for a person.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only compare what left with what would leave now, object by object.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it; without, it is only counted.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """De-identify past objects once more, by the policy as it is now, for a destination of its own. What left before stays where it is.

    A destination that has objects of these already, as another version made them, is refused: they would be replaced. So is the source.
    --dry-run makes each object as it left and as it would leave now, and tells what would be held and which attributes come, go or change,
    by keyword and number of objects, without any value. Exit code 4: something that left would be held now.
    `hilum deid outputs --policy P --destination TO` lists what came of it, with the version.
    """
    from hilum import desired
    from hilum.anonymizing import anonymizer_of, policy_for
    from hilum.cli.deliver import check_destination, enter
    from hilum.cli.moments import moment_of
    from hilum.database.deidentified import known
    from hilum.deliveries import Run
    from hilum.runtime.delivery.comparison import Comparison
    from hilum.sink import sink_of
    from hilum.store import open_store

    own, begin = connected(config, data), moment_of(since, "--since")
    check_destination(own, to)
    settings = desired.destinations(own)
    table = settings.destinations.get(to, {})
    if table.get("policy") != policy:
        raise Misconfigured("policy-differs", f"Destination {to} has another policy than {policy}.", fix="Name another one.")
    _check_destination(settings, of, known(settings.postgres.dsn))
    places = _same_place(to, settings.destinations)
    if of in places:
        where = "is the source" if of == to else f"is where {of} is"
        raise Misconfigured("destination-same", f"Destination {to} {where}.", fix="Add one of its own with this policy.")
    _check_way(settings, policy, of, to, begin, places)
    if dry_run:
        anonymizer, sink = anonymizer_of(to, policy, settings), sink_of(to, table)
        consent, again, sets = sink.patients == "consent", sink.deidentified == "again", sink.character_sets
        comparison = Comparison(settings, open_store(settings), anonymizer, consent=consent, again=again, character_sets=sets)
        facts = {"policy": policy, "version": anonymizer.version, "key_id": anonymizer.key_id, "to": to}
        count, _, _ = Run(destination=to, of=of, policy=policy, held=True, since=begin).count(own.postgres.dsn)
        report(comparison, facts, of, to, begin, json, count=count)
    version = policy_for(to, policy, settings)["version"]
    if not json:
        out.print(f"By {policy} {version}. What would be different: --dry-run.", markup=False)
    run = Run(destination=to, of=of, policy=policy, held=held, since=begin, why=f"policy {policy} {version}")
    enter(own, run, yes, json)


#: What tells where a destination is.
_PLACE = ("type", "path", "host", "port", "aet", "url", "endpoint", "bucket")


def _same_place(to: str, destinations: dict[str, dict[str, Any]]) -> list[str]:
    """Names of all destinations that are where `to` is, itself first."""

    def place(name: str) -> list[Any]:
        return [destinations[name].get(key) for key in _PLACE]

    other = [name for name in destinations if name != to and place(name) == place(to)]
    return [to, *(name for name in other if any(place(name)[1:]))]


def _check_way(settings: Settings, policy: str, of: str, to: str, since: datetime | None, places: list[str]) -> None:
    """Raise `Misconfigured` if objects would be replaced that another version made. `places` are the names of where they would go."""
    from hilum.anonymizing import anonymizer_of, package, policy_for
    from hilum.database.past import in_the_way

    table, key_id = policy_for(to, policy, settings), ""
    with suppress(Misconfigured):  # whoever only asks for it needs no key: then it may be any
        key_id = anonymizer_of(to, policy, settings).key_id
    project, version = package().policy_in(table).domain, table["version"]
    asked = {"of": of, "to": to, "since": since, "places": places, "version": version, "project": project, "key_id": key_id}
    found = in_the_way(settings.postgres.dsn, policy, **asked)
    if found.objects:
        raise Misconfigured(
            "destination-has-them",
            f"Destination {to} has {found.objects:,} of these objects already, made by {', '.join(found.versions)}: those of "
            f"{policy} {version} would replace them, under the same UIDs.",
            fix="Add a destination of its own for this version, in another place, and name it with --to.",
        )


def report(comparison: Comparison, facts: dict[str, str], of: str, to: str, since: datetime | None, json: bool, *, count: int) -> None:
    """Show what is different between what left and what would leave now, of about `count` objects. Ends the command."""
    from hilum.runtime.delivery.comparison import attributes

    each: list[Compared] = []
    objects: Counter[tuple[str, str]] = Counter()
    told: Counter[str] = Counter()
    held: Counter[tuple[str, str, str]] = Counter()
    changes: Counter[tuple[str, str]] = Counter()
    for found in deid_manifest.telling("Comparing", comparison.of(of=of, to=to, since=since), count, "objects"):
        objects[found.before, found.now] += 1
        for kind, keywords in (("stays", found.stays), ("goes", found.goes), ("differs", found.differs)):
            changes.update((keyword, kind) for keyword in keywords)
        different = bool(found.stays or found.goes or found.differs)
        told.update({"different": different, found.unsure: bool(found.unsure), "unsure": bool(found.unsure)})
        if found.now == "held":
            held[found.before, found.reason, found.says] += 1
        if json and (different or found.unsure or "held" in (found.now, found.before)):  # of others, millions need no memory
            each.append(found)
    counted = attributes(changes)
    counts = {
        "objects": objects.total(),
        "left_before_leaves_now": objects["left", "leaves"],
        "left_before_held_now": objects["left", "held"],
        "held_before_leaves_now": objects["held", "leaves"],
        "held_before_held_now": objects["held", "held"],
        "unsure": told.pop("unsure", 0),
        "different": told.pop("different", 0),
    }
    if json:
        show_json({**facts, "dry_run": True, "counts": counts, "attributes": counted, "different": each})
    else:
        _show(facts, counts, counted, held, told)
    sys.exit(Exit.REFUSED if objects["left", "held"] else Exit.DONE)


def _show(
    facts: dict[str, str], counts: dict[str, int], counted: list[Any], held: Counter[tuple[str, str, str]], unsure: Counter[str]
) -> None:
    show_table(
        f"By {facts['policy']} {facts['version']}, for {facts['to']}",
        ("", "Objects"),
        [(name.replace("_", " "), f"{count:,}") for name, count in counts.items()],
    )
    cells = [(one.keyword, one.stays, one.goes, one.differs) for one in counted]
    show_table("Attributes, by number of objects", ("Attribute", "Comes", "Goes", "Differs"), cells, nothing="No attribute changes.")
    if held:
        cells = [(before, reason, f"{count:,}", says) for (before, reason, says), count in held.most_common()]
        show_table("Held now", ("Before", "Reason", "Objects", "Why"), cells)
    reasons = [(why, f"{count:,}") for why, count in unsure.most_common() if why and count]
    if reasons:
        show_table("What left is not known for sure", ("Why", "Objects"), reasons)


def links(
    project: Annotated[str, typer.Option("--project", help="The `domain` of policies, by default a policy's name; empty: all.")] = "",
    ended: Annotated[bool, typer.Option("--ended", help="Also those whose merge was taken back.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List pseudonyms that are one patient since a merge: what left under the first is of the patient who leaves under the second now.

    It is kept up to date by what delivers, within five minutes. It names nobody.
    """
    from hilum.database.links import listed

    found = listed(connected(config, data).postgres.dsn, project, ended=ended)
    if json:
        show_json({"links": found})
        return
    cells = [(each.project, each.key_id, each.prior, each.surviving, moment(each.since), moment(each.ended_at)) for each in found]
    show_table("Links", ("Project", "Key", "Left as", "Leaves now as", "Since", "Ended"), cells, nothing="No merge links pseudonyms.")
