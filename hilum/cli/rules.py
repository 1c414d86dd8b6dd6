"""`hilum rule list|test|explain|lint`: what the rules say, of which objects, and whether they say what they are meant to."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hilum.cli.context import ConfigOption, DataOption, Exit, Group, JsonOption, connected, err, loaded, moment, out, show_json, show_table
from hilum.errors import Misconfigured, NotFound

if TYPE_CHECKING:
    from hilum.candidate import Candidate
    from hilum.settings import Rule, Settings

FileOption = Annotated[
    Path | None, typer.Option("--file", "-f", help="Take the rules of this file or directory, instead of those that are in force.")
]
_DURATION = re.compile(r"([0-9]{1,6})\s*([hdw])\Z")
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    group = typer.Typer(cls=Group, help="See, test, explain and doubt the routing rules.", no_args_is_help=True)
    group.command("list")(list_rules)
    group.command("test")(try_rules)
    group.command()(explain)
    group.command()(lint)
    app.add_typer(group, name="rule")


class Found(Struct, frozen=True, kw_only=True):
    """Rules, and where they come from."""

    settings: Settings
    source: str
    #: Destinations that the file with the rules has; None if it is not of a file.
    own: tuple[str, ...] | None = None


def _found(config: Path | None, data: Path | None, file: Path | None) -> Found:
    """The rules of `file`; else those in force where a Hilum runs; else those of the settings file."""
    base = loaded(config, data).settings
    if file is not None:
        candidate = _candidate(file)
        return Found(settings=candidate.settings(base), source=str(file), own=tuple(candidate.destinations))
    try:
        running = connected(config, data)
    except NotFound:
        return Found(settings=base, source="the settings file")
    from hilum.bundle import current, in_force

    bundle = current(running)
    source = f"version {bundle.version}" if bundle else "the settings file"
    return Found(settings=in_force(running, bundle), source=source)


def _candidate(path: Path) -> Candidate:
    from hilum.candidate import read

    return read(path)


def list_rules(file: FileOption = None, config: ConfigOption = None, data: DataOption = None, json: JsonOption = False) -> None:
    """List the rules that are in force, in their order."""
    found = _found(config, data, file)
    rules = found.settings.rules
    if json:
        show_json({"source": found.source, "version": found.settings.config_version, "rules": rules})
        return
    rows = [(rule.name, rule.on, _condition(rule), ", ".join(rule.to), rule.priority or "", len(rule.tests) or "") for rule in rules]
    show_table("", ("Rule", "On", "When", "To", "Priority", "Tests"), rows, nothing="There is no rule.")
    out.print(f"From {found.source}.")


def _condition(rule: Rule) -> str:
    return rule.when if rule.study == "true" else f"{rule.when}; study: {rule.study}"


def explain(
    name: Annotated[str, typer.Argument(help="The rule's name.")],
    file: FileOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Say in words what a rule asks for, what each of its names stands for, and where what it matches goes."""
    from hilum.misfits import nearest
    from hilum.roles import find_stage

    rules = {rule.name: rule for rule in _found(config, data, file).settings.rules}
    if name not in rules:
        near = nearest(name, rules)
        raise NotFound(f"There is no rule {name!r}.", fix=f"Did you mean {near}?" if near else "See `hilum rule list`.")
    said = find_stage("processors.route.explain").explain(rules[name])
    if json:
        show_json(said)
        return
    out.print(said.asks)
    for title, parts in (("It holds if", said.all_of), ("and, once the study is complete, if", said.study)):
        for number, part in enumerate(parts):
            out.print(f"  {title if not number else 'and'} {part}", markup=False)
    out.print(said.goes, markup=False)
    if said.names:
        show_table("", ("Name", "Tag", "Means"), [(each.name, each.tag, each.says) for each in said.names])
    out.print(f"It has {said.tests} tests of its own." if said.tests else "It has no tests of its own.")


def lint(
    last: Annotated[str, typer.Option("--last", help="Also name rules that matched nothing that came in so lately: 12h, 30d, 4w.")] = "",
    file: FileOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Name what is allowed and hardly meant: rules that never match, that say the same, without tests; destinations without rules.

    With `--file`, only its own destinations are looked at: those of the settings may be for other rules.
    """
    from hilum.roles import find_stage

    since = _since(last) if last else None
    found = _found(config, data, file)
    module = find_stage("processors.route.lint")
    doubts = list(module.doubts_of(found.settings, found.own))
    if since is not None:
        outcome = _replayed(connected(config, data), found.settings, found.settings, since, json)
        for each in outcome.rules.values():
            if not each.takes.instances:
                sentence = f"It matched nothing of {outcome.instances} instances since {since:%Y-%m-%d}."
                doubts.append(module.Doubt(name=each.rule, code="unmatched", sentence=sentence))
    if json:
        show_json(doubts)
    else:
        rows = [(each.name, each.code, each.sentence) for each in doubts]
        show_table("", ("Name", "What", ""), rows, nothing="Nothing is odd about the rules.")
    sys.exit(Exit.FAILED if doubts else Exit.DONE)


def try_rules(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Candidate rules (a file *.toml, or a directory of them), and DICOM files to try them on.")
    ] = None,
    last: Annotated[str, typer.Option("--last", help="Try the candidates on all that came in so lately: 12h, 30d, 4w.")] = "",
    calling_aet: Annotated[str, typer.Option("--calling-aet", help="Who sends the DICOM files.")] = "",
    called_aet: Annotated[str, typer.Option("--called-aet", help="The title that is called.")] = "",
    peer: Annotated[str, typer.Option("--peer", help="The sender's address.")] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Try rules: on their own tests, on DICOM files, on what came in lately. Nothing is sent. Exit code 1 if a test fails.

    Without candidates, the rules in force are tried.
    """
    since = _since(last) if last else None
    given = paths or []
    candidates = [path for path in given if path.suffix == ".toml" or path.is_dir()]
    objects = [path for path in given if path not in candidates]
    if len(candidates) > 1:
        raise Misconfigured("candidates-many", "Several candidates are given.", fix="Put their files into one directory, and name that.")
    found = _tested(config, data, candidates[0] if candidates else None)
    result: dict[str, Any] = {"source": found.source, "tests": _own_tests(found.settings.rules)}
    if objects:
        result["objects"] = [_tried_on(path, found.settings, (calling_aet, called_aet, peer)) for path in objects]
    if since is not None:
        running = connected(config, data)
        result["history"] = _replayed(running, _in_force(running), found.settings, since, json)
    if json:
        show_json(result)
    else:
        _show_tests(result["tests"], found, quiet=bool(objects or since))
        for each in result.get("objects", ()):
            _show_object(each)
        if since is not None:
            _show_history(result["history"])
    sys.exit(Exit.DONE if all(test["ok"] for test in result["tests"]) else Exit.FAILED)


def _tested(config: Path | None, data: Path | None, candidate: Path | None) -> Found:
    """As `_found`; but that a rule's own test fails is to be shown, not raised."""
    if candidate is None:
        return _found(config, data, None)
    settings = _candidate(candidate).untested_settings(loaded(config, data).settings)
    return Found(settings=settings, source=str(candidate))


def _in_force(running: Settings) -> Settings:
    from hilum.bundle import current, in_force

    return in_force(running, current(running))


def _since(last: str) -> datetime:
    found = _DURATION.match(last)
    if not found:
        raise Misconfigured("duration-invalid", f"--last cannot be {last!r}.", fix="Write hours, days or weeks: 12h, 30d, 4w.")
    return datetime.now(UTC) - timedelta(hours=int(found[1]) * _HOURS[found[2]])


# Their own tests


def _own_tests(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    from hilum.roles import find_stage

    tried = find_stage("processors.route.examples").tried(rules)
    return [{"rule": each.rule, "number": each.number, "about": each.about, "ok": each.ok, "says": each.says} for each in tried]


def _show_tests(tests: Sequence[dict[str, Any]], found: Found, *, quiet: bool) -> None:
    failed = [test for test in tests if not test["ok"]]
    if failed:
        rows = [(test["rule"], f"{test['number']} {test['about']}".strip(), test["says"]) for test in failed]
        show_table("Tests that fail", ("Rule", "Test", "Why"), rows)
    if tests:
        out.print(f"{len(tests) - len(failed)} of {len(tests)} tests pass, of the rules of {found.source}.")
    elif not quiet:
        out.print(f"The rules of {found.source} have no tests of their own.")


# On an object


def _tried_on(path: Path, settings: Settings, source: tuple[str, str, str]) -> dict[str, Any]:
    from hilum.roles import find_stage

    rules = find_stage("processors.route.rules").Rules.of(settings)
    asked = find_stage("processors.route.objects").asked_about(path, rules.tags, *source)
    why = find_stage("processors.route.why").why
    return {"file": str(path), "rules": [why(each, asked) for each in rules.compiled]}


def _show_object(tried: dict[str, Any]) -> None:
    rows = []
    for each in tried["rules"]:
        outcome = "FAILS" if each.fails else "matches" if each.matches else "nearly" if each.near else "no"
        missed = "; ".join(f"{part.text}: {part.found}" if part.found else part.text for part in each.missed)
        goes = ", ".join(each.to) + (" once its study is complete" if each.on == "study" else "")
        rows.append((outcome, each.rule, each.fails or (f"goes to {goes}" if each.matches else missed)))
    show_table(tried["file"], ("", "Rule", "Why"), rows, nothing=f"{tried['file']}: there is no rule.")


# On what came in


def _replayed(running: Settings, current: Settings, candidate: Settings, since: datetime, json: bool) -> Any:
    from hilum.roles import find_stage

    rules, history = find_stage("processors.route.rules").Rules, find_stage("processors.route.history")
    until = datetime.now(UTC)
    dsn = running.postgres.dsn
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=json, transient=True) as progress:
        task = progress.add_task("Studies", total=history.studies_since(dsn, since, until))
        return history.replay(dsn, rules.of(current), rules.of(candidate), since, until, lambda: progress.advance(task))


def _show_history(outcome: Any) -> None:
    out.print(f"\nSince {moment(outcome.since)}: {outcome.instances} instances of {outcome.studies} studies. Nothing was sent.")
    rows = [
        (each.destination, _counted(each.takes), _counted(each.newly), _counted(each.no_longer), " ".join(_examples(each)))
        for each in outcome.destinations.values()
    ]
    columns = ("Destination", "Would get", "Newly", "No longer", "Such as study")
    show_table("", columns, rows, nothing="Nothing would go anywhere.")
    by_rule = [(each.rule, _counted(each.takes), _counted(each.fails)) for each in outcome.rules.values()]
    show_table("", ("Rule", "Matches", "Fails"), by_rule, nothing="There is no rule.")
    near = [(each.rule, each.missed, _counted(each.count), " ".join(each.count.examples[:1])) for each in outcome.near]
    if near:
        show_table("Nearly matched, but for one comparison", ("Rule", "Missed", "", "Such as study"), near)
    if outcome.by_series:
        names = ", ".join(outcome.by_series)
        out.print(f"Taken from one object of each series, for the index has no more: {names}.")


def _counted(count: Any) -> str:
    return f"{count.instances} in {count.studies} studies" if count.instances else ""


def _examples(each: Any) -> list[str]:
    examples: list[str] = each.newly.examples or each.no_longer.examples
    return examples[:1]
