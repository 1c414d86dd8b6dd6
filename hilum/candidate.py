"""A configuration that is to be published: the files of a directory, read, checked, and compared with what is in force."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from hilum.anonymizing import named_policies, policy_problems, policy_table
from hilum.bundle import Bundle, in_force, version_of
from hilum.errors import Misconfigured, NotFound
from hilum.events import ConfigApplied
from hilum.misfits import nearest, together, tried
from hilum.rule_sections import Rule
from hilum.settings import Settings, is_secret, wrong_rules

#: What files of a configuration may hold.
TABLES = ("destinations", "rules")
#: Where mistakes are that are found once all files are read.
_WHAT = "the rules and destinations"


class Candidate(Struct, frozen=True, kw_only=True):
    """Destinations and rules as they are to be published."""

    destinations: dict[str, dict[str, Any]]
    rules: tuple[dict[str, Any], ...]
    #: The policies that the destinations name, as `hilum.anonymizing.policy_table` gives them.
    policies: dict[str, dict[str, Any]] = {}

    @property
    def version(self) -> str:
        """The version that it will have."""
        return version_of(self.destinations, self.rules, self.policies)

    def settings(self, base: Settings) -> Settings:
        """What will be in force where `base` is the settings file. Raises `Misconfigured` that names every mistake."""
        settings = self._settings(base)
        if problems := [*wrong_rules(settings), *problems_of(settings)]:
            raise together(problems, _WHAT)
        return settings

    def untested_settings(self, base: Settings) -> Settings:
        """As `settings`, but the rules' own tests are not tried, and the destinations may be elsewhere: to see how rules do."""
        from hilum.roles import find_stage

        settings = self._settings(base)
        rules = find_stage("processors.route.rules").Rules
        if problems := tried(*(partial(rules, [rule]) for rule in settings.rules)):
            raise together(problems, _WHAT)
        return settings

    def _settings(self, base: Settings) -> Settings:
        applied = ConfigApplied(
            version=self.version,
            destinations=self.destinations,
            rules=self.rules,
            policies=self.policies,
            applied_at=datetime.now(UTC),
        )
        return in_force(base, Bundle(applied=applied, offset=-1))


def problems_of(settings: Settings) -> list[Misconfigured]:
    """What is wrong with the rules, each tried on its own tests, and with the destinations of `settings`."""
    from hilum.roles import find_stage
    from hilum.sink import sinks_of

    rules, examples = find_stage("processors.route.rules").Rules, find_stage("processors.route.examples")
    wrong = {rule.name: problems for rule in settings.rules if (problems := tried(partial(rules, [rule])))}
    failed = tried(*(partial(examples.check, rule) for rule in settings.rules if rule.name not in wrong))
    aside = {name: _secrets_aside(name, table) for name, table in settings.destinations.items()}
    sinks = tried(partial(sinks_of, msgspec.structs.replace(settings, destinations=aside)))
    return [*(each for problems in wrong.values() for each in problems), *failed, *sinks, *policy_problems(settings)]


def _secrets_aside(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """The table with something in place of each secret that is in a file: the files are where Hilum delivers, perhaps not here."""
    from hilum.sink import named_secrets

    files = dict(named_secrets(name, table))
    return {files.get(key, key): "in its file" if key in files else value for key, value in table.items()}


def of_bundle(bundle: Bundle) -> Candidate:
    """What was published."""
    return Candidate(destinations=bundle.applied.destinations, rules=bundle.applied.rules, policies=bundle.applied.policies)


def of_settings(base: Settings) -> Candidate:
    """What holds before anything is published, as it could be: the settings file's rules. Its destinations stand beside whatever is."""
    return Candidate(destinations={}, rules=tuple(_plain(msgspec.to_builtins(rule)) for rule in base.rules))


def effective(base: Settings, candidate: Candidate | None) -> Candidate:
    """All that holds where `candidate` is published, or nothing is: with the destinations of the settings `base`, their secrets hidden."""
    own = {
        name: {key: "(secret)" if is_secret(f"destinations.{name}.{key}") else value for key, value in table.items()}
        for name, table in base.destinations.items()
    }
    if candidate is None:
        candidate = of_settings(base)
    return Candidate(destinations=own | candidate.destinations, rules=candidate.rules, policies=candidate.policies)


def _plain(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule without what it would have anyway, so that the same rule is the same however it is written."""
    try:
        whole: dict[str, Any] = msgspec.to_builtins(msgspec.convert(rule, Rule))
    except msgspec.ValidationError:  # of another release
        return rule
    return {key: value for key, value in whole.items() if key not in _DEFAULTS or value != _DEFAULTS[key]}


# Files


def read(path: Path) -> Candidate:
    """The configuration in the file `path`, or in the files `*.toml` of the directory, by their names.

    Raises `NotFound` without such a file, and `Misconfigured` that names every mistake with its file.
    """
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        fix = "Name a file, or a directory with files such as rules.toml."
        raise NotFound(f"{path} is no file, and no directory with files *.toml.", fix=fix)
    problems: list[Misconfigured] = []
    destinations: dict[str, tuple[Path, dict[str, Any]]] = {}
    rules: dict[str, tuple[Path, dict[str, Any]]] = {}
    for file in files:
        problems += tried(partial(_take, file, destinations, rules))
    tables = {name: table for name, (_, table) in destinations.items()}
    policies: dict[str, dict[str, Any]] = {}
    for name in named_policies(tables):
        problems += tried(partial(_take_policy, name, (path if path.is_dir() else path.parent) / "policies", policies))
    if problems:
        raise together(problems, str(path))
    return Candidate(destinations=tables, rules=tuple(table for _, table in rules.values()), policies=policies)


def _take_policy(name: str, folder: Path, policies: dict[str, dict[str, Any]]) -> None:
    policies[name] = policy_table(name, folder)


def _take(file: Path, destinations: dict[str, tuple[Path, dict[str, Any]]], rules: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    """Add what is in `file`. Raises `Misconfigured` that names all that cannot be added."""
    found = _parsed(file)
    problems = list(_strange(file, found))
    for name, table in _tables(found.get("destinations")):
        problems += _twice(file, "destination", name, destinations)
        problems += _unfit(file, f"destinations.{name}", table)
        problems += _inline_secrets(file, name, table)
        destinations[name] = (file, table)
    listed = found.get("rules")
    for number, table in enumerate(listed if isinstance(listed, list) else [], 1):
        name = str(table.get("name", "")) if isinstance(table, dict) else ""
        if not name:
            fix = "Give each rule a name of its own."
            problems.append(Misconfigured("rule-name-missing", f"{file}: rule #{number} has no name.", fix=fix))
            continue
        problems += _twice(file, "rule", name, rules)
        problems += _unfit(file, f"rules[{name}]", table)
        rules[name] = (file, table)
    if problems:
        raise together(problems)


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured("config-unreadable", f"{file} cannot be read ({type(error).__name__}).", fix="Check its rights.") from None
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured("config-syntax", f"{file} is not TOML: {error}.", fix="Correct that line.") from None


def _strange(file: Path, found: Mapping[str, Any]) -> Iterator[Misconfigured]:
    for name, value in found.items():
        if name not in TABLES:
            near = nearest(name, TABLES)
            fix = (
                f"Did you mean {near}?" if near else "Only [[rules]] and [destinations.NAME] are applied; all else is in the settings file."
            )
            yield Misconfigured("setting-unknown", f"{file} has {name!r}, which cannot be applied.", fix=fix)
        elif not isinstance(value, dict if name == "destinations" else list):
            fix = "Write [destinations.NAME]." if name == "destinations" else "Write [[rules]], with two brackets."
            yield Misconfigured("setting-invalid", f"{file}: {name} is not what it should be.", fix=fix)


def _tables(value: Any) -> Iterable[tuple[str, dict[str, Any]]]:
    return [(name, table) for name, table in value.items() if isinstance(table, dict)] if isinstance(value, dict) else []


def _twice(file: Path, what: str, name: str, known: Mapping[str, tuple[Path, dict[str, Any]]]) -> Iterator[Misconfigured]:
    if name in known:
        where = f"in {known[name][0]} and in {file}" if known[name][0] != file else f"twice in {file}"
        yield Misconfigured(f"{what}-name-taken", f"The {what} {name!r} is {where}.", fix="Give each a name of its own.")


def _unfit(file: Path, where: str, table: Mapping[str, Any]) -> Iterator[Misconfigured]:
    """Dates of TOML have no place in a rule: what it compares is text."""
    try:
        msgspec.json.encode(table)
        plain = not any(isinstance(each, _DATES) for each in _leaves(table))
    except (TypeError, ValueError):
        plain = False
    if not plain:
        fix = 'Write dates and times as text, as DICOM does: "20260131".'
        yield Misconfigured("setting-invalid", f"{file}: {where} holds a value that is neither text, number nor truth value.", fix=fix)


def _leaves(value: Any) -> Iterator[Any]:
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _leaves(each) if isinstance(each, (Mapping, list)) else (each,)


def _inline_secrets(file: Path, name: str, table: Mapping[str, Any]) -> Iterator[Misconfigured]:
    """What is published stays on Kafka for ever, readable for all who may read there."""
    from hilum.sink import named_secrets

    named = {key for key, _ in named_secrets(name, table)}
    for key in table:
        if key not in named and is_secret(f"destinations.{name}.{key}"):
            fix = f'Put it into a file on each machine, and write {key}_file = "/path".'
            yield Misconfigured("secret-inline", f"{file}: destinations.{name}.{key} is a secret, and would be published.", fix=fix)


# Comparing


class Change(Struct, frozen=True, kw_only=True):
    """One thing that is different in another configuration."""

    what: str
    name: str
    change: str
    #: Keys whose values differ: before and after.
    keys: dict[str, tuple[Any, Any]] = {}


def changes(before: Candidate, after: Candidate) -> list[Change]:
    """What is different in `after`: added, removed, changed; and `moved` if only the order of rules is another."""
    found = [*_changes("destination", before.destinations, after.destinations)]
    old, new = ({str(rule.get("name")): _plain(rule) for rule in each.rules} for each in (before, after))
    found += _changes("rule", old, new)
    # What was published comes as JSON has it, of a file there are tuples.
    found += _changes("policy", *({name: _as_json(table) for name, table in each.policies.items()} for each in (before, after)))
    if not found and list(old) != list(new):
        found.append(Change(what="rules", name="", change="moved"))
    return found


def _as_json(table: Mapping[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(table))
    return read


def _changes(what: str, before: Mapping[str, dict[str, Any]], after: Mapping[str, dict[str, Any]]) -> Iterator[Change]:
    for name in [each for each in before if each not in after]:
        yield Change(what=what, name=name, change="removed", keys={key: (value, None) for key, value in before[name].items()})
    for name, table in after.items():
        if name not in before:
            yield Change(what=what, name=name, change="added", keys={key: (None, value) for key, value in table.items()})
        elif table != before[name]:
            keys = {
                key: (before[name].get(key), table.get(key)) for key in {**before[name], **table} if before[name].get(key) != table.get(key)
            }
            yield Change(what=what, name=name, change="changed", keys=keys)


_DEFAULTS: dict[str, Any] = msgspec.to_builtins({each.name: each.default for each in msgspec.structs.fields(Rule) if not each.required})
_DATES: tuple[type, ...] = tuple(type(value) for value in tomllib.loads("a = 2026-01-31\nb = 10:00:00\nc = 2026-01-31T10:00:00Z").values())
