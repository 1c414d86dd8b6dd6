"""Every setting of Hilum: one typed tree from one TOML file, then the environment, then flags; the later wins.

`HILUM_KAFKA__BOOTSTRAP` in the environment is `[kafka] bootstrap` in the file; a name that ends in `_FILE` reads its
value from the file that it names, for secrets. A key that nobody knows is refused with the nearest one that exists.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from hilum.deid_sections import Deid, Feed
from hilum.errors import Misconfigured
from hilum.hl7_sections import Hl7, Hl7Sender
from hilum.kinds import BareAeTitle
from hilum.misfits import misfits, nearest, together
from hilum.order_sections import Orders
from hilum.rule_sections import Example, Rule
from hilum.sections import (
    S3,
    Commitment,
    Completeness,
    Dicom,
    Folder,
    Kafka,
    Log,
    Node,
    Postgres,
    Probe,
    Query,
    Retention,
    Roles,
    Section,
    Sender,
    Site,
    Spool,
    Stow,
    Studies,
    Title,
)
from hilum.worklist_sections import Station, Worklist

__all__ = [
    "S3",
    "VARIABLES",
    "Commitment",
    "Completeness",
    "Dicom",
    "Example",
    "Folder",
    "Hl7",
    "Hl7Sender",
    "Kafka",
    "Loaded",
    "Log",
    "Node",
    "Orders",
    "Postgres",
    "Probe",
    "Query",
    "Roles",
    "Rule",
    "Section",
    "Sender",
    "Settings",
    "Site",
    "Spool",
    "Station",
    "Stow",
    "Studies",
    "Title",
    "Worklist",
    "check_network",
    "doubts",
    "entries",
    "forget_environment",
    "is_secret",
    "load",
    "wrong_rules",
]


class Settings(Section, frozen=True, kw_only=True):
    """The whole tree. `destinations` are tables of which `type` names the sink; the sink's own fields are its settings."""

    #: Where embedded servers, spool and run files live; empty: `~/.local/share/hilum`.
    data: str = ""
    site: Site = field(default_factory=Site)
    dicom: Dicom = field(default_factory=Dicom)
    stow: Stow = field(default_factory=Stow)
    hl7: Hl7 = field(default_factory=Hl7)
    orders: Orders = field(default_factory=Orders)
    spool: Spool = field(default_factory=Spool)
    kafka: Kafka = field(default_factory=Kafka)
    postgres: Postgres = field(default_factory=Postgres)
    s3: S3 = field(default_factory=S3)
    probe: Probe = field(default_factory=Probe)
    log: Log = field(default_factory=Log)
    roles: Roles = field(default_factory=Roles)
    senders: dict[BareAeTitle, Sender] = field(default_factory=dict)
    commitment: Commitment = field(default_factory=Commitment)
    peers: dict[BareAeTitle, Node] = field(default_factory=dict)
    worklist: Worklist = field(default_factory=Worklist)
    folders: dict[str, Folder] = field(default_factory=dict)
    completeness: Completeness = field(default_factory=Completeness)
    studies: Studies = field(default_factory=Studies)
    retention: Retention = field(default_factory=Retention)
    deid: Deid = field(default_factory=Deid)
    feed: Feed = field(default_factory=Feed)
    destinations: dict[str, dict[str, Any]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()

    @property
    def data_dir(self) -> Path:
        """The data directory, absolute."""
        return Path(self.data or "~/.local/share/hilum").expanduser().resolve()

    @property
    def spool_dir(self) -> Path:
        """The spool's directory, absolute."""
        return Path(self.spool.path).expanduser().resolve() if self.spool.path else self.data_dir / "spool"

    @property
    def role_names(self) -> frozenset[str]:
        """The roles that `roles.processes` names."""
        return frozenset(name.strip() for process in self.roles.processes for name in process.split(","))

    @property
    def config_version(self) -> str:
        """Twelve hexadecimal digits that change whenever destinations, rules or senders do."""
        bundle = msgspec.json.encode([self.destinations, self.rules, self.senders], order="deterministic")
        return hashlib.sha256(bundle).hexdigest()[:12]


#: What Hilum reads in the environment beside settings.
VARIABLES: Mapping[str, str] = {
    "HILUM_CONFIG": "The settings file, where `--config` is not given.",
    "HILUM_SLOT": "Name of this process among those that run the same role, so that it goes on where the former one with that name was.",
    "HILUM_CACHE": "Folder for what `hilum up` downloads, instead of `hilum` in the user's cache folder.",
    "HILUM_MAVEN": "URL of a mirror of Maven Central, from which `hilum up` takes Kafka.",
    "HILUM_PYTHON": "The Python that `./dev` makes its environment of.",
    "HILUM_SETTINGS": "The settings file that `docker-compose.yml` takes.",
}

_SECRET = re.compile(r"(^postgres\.dsn$)|(\.|_)(password|secret_key|access_key|token)$")


def is_secret(name: str) -> bool:
    """Whether the setting with this dotted name holds a secret, which `hilum config show` hides."""
    return _SECRET.search(name) is not None


class Loaded(Struct, frozen=True, kw_only=True):
    """Settings, and where each value came from: `origins["dicom.port"]` is `hilum.toml`, an environment variable or a flag."""

    settings: Settings
    origins: dict[str, str]


def load(file: Path | None = None, environment: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None) -> Loaded:
    """Read the settings: defaults < `file` < `environment` (`HILUM_…__…`) < `flags` (dotted names, None is not given).

    Raises `Misconfigured` that names every mistake: file, key and the nearest known key, or the value that does not fit and
    what is allowed. Rules are looked at once the rest is right.
    """
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[Misconfigured] = []
    if file is not None:
        _merge(tree, origins, _read(file), str(file))
    for name, value in (os.environ if environment is None else environment).items():
        try:
            path, text = _from_environment(name, value)
            if path:
                _put(tree, origins, path, text, name)
        except Misconfigured as error:
            problems.append(error)
    for dotted, value in (flags or {}).items():
        if value is not None:
            _put(tree, origins, dotted.split("."), value, "flag")
    problems += misfits(tree, Settings, origin=lambda dotted: _of(origins, dotted), secret=is_secret)
    if problems:
        raise together(problems)
    settings = msgspec.convert(tree, Settings, strict=False)
    if problems := [*wrong_rules(settings), *_wrong_networks(settings), *_wrong_syntaxes(settings)]:
        raise together(problems)
    return Loaded(settings=settings, origins=origins)


def entries(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Every leaf of the tree as (dotted name, value), in the order of the classes."""

    def walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Struct):
            for name in value.__struct_fields__:
                yield from walk(getattr(value, name), f"{path}.{name}" if path else name)
        elif isinstance(value, dict) and value:
            for name, item in value.items():
                yield from walk(item, f"{path}.{name}")
        else:
            yield path, msgspec.to_builtins(value)

    yield from walk(settings, "")


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Misconfigured("config-missing", f"{file} does not exist.", fix="Give the settings file with --config.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured("config-unreadable", f"{file} cannot be read: {error}.", fix="Check the file's rights and encoding.") from None
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured("config-syntax", f"{file} is not TOML: {error}.", fix="Correct that line.") from None


def _from_environment(name: str, value: str) -> tuple[list[str], str]:
    """The path in the tree that a variable names, `[]` if it names none. Raises `Misconfigured` if nobody reads it."""
    if not _is_setting(name):
        if name.startswith("HILUM_") and name not in VARIABLES and not _is_of_kubernetes(name, value):
            _refuse_variable(name)
        return [], ""
    path = name.removeprefix("HILUM_").lower().split("__")
    if path[-1].endswith("_file") and ".".join(path) != "s3.ca_file":
        path[-1] = path[-1].removesuffix("_file")
        try:
            value = Path(value).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Misconfigured(
                "secret-unreadable", f"{name} names a file that cannot be read: {error.strerror}.", fix="Check its path and rights."
            ) from None
    return path, value


def _wrong_networks(settings: Settings) -> Iterator[Misconfigured]:
    for aet, sender in settings.senders.items():
        for network in sender.addresses:
            try:
                check_network(network, f"senders.{aet}.addresses")
            except Misconfigured as error:
                yield error


def _wrong_syntaxes(settings: Settings) -> Iterator[Misconfigured]:
    for uid, kind, name in _standard_syntaxes(settings):
        if kind and kind != "Transfer Syntax":
            yield Misconfigured(
                "transfer-syntax-unknown",
                f"dicom.transfer_syntaxes: {uid} is no transfer syntax, but {name}.",
                fix="Take UIDs of transfer syntaxes (PS3.6 Table A-1), such as 1.2.840.10008.1.2.4.90 for JPEG 2000 Lossless.",
            )


def _standard_syntaxes(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """UID, kind and name of those of the standard's UIDs that are to be chosen first; empty for one that this release does not know."""
    if settings.dicom.transfer_syntaxes:
        from pydicom.uid import UID  # takes a while, and hardly anybody sets them

        for uid in settings.dicom.transfer_syntaxes:
            if uid.startswith("1.2.840.10008."):
                yield uid, UID(uid).type, UID(uid).name


def check_network(network: str, where: str) -> None:
    """Raise `Misconfigured` if `network` is neither an address nor a network such as `192.0.2.0/24`."""
    try:
        ip_network(network, strict=False)
    except ValueError:
        raise Misconfigured(
            "network-invalid", f"{where}: {network!r} is no address and no network.", fix="Write it as 192.0.2.7 or 192.0.2.0/24."
        ) from None


def doubts(settings: Settings) -> list[str]:
    """What is allowed and hardly meant, one sentence each."""
    used = {destination for rule in settings.rules for destination in rule.to}
    used |= {name for name, destination in settings.destinations.items() if destination.get("type") in ("hl7", "mpps")}  # no rule can
    found = [f"No rule sends anything to the destination {name}." for name in settings.destinations if name not in used]
    if not settings.rules:
        found.insert(0, "There is no rule: what comes in is kept and indexed, and goes nowhere.")
    if settings.folders and not any("folder" in process.split(",") for process in settings.roles.processes):
        found.append("Folders are to be watched, and no process in roles.processes has the role folder.")
    if "dicom" in settings.role_names and (settings.worklist.serve or settings.worklist.mpps) and "worklist" not in settings.role_names:
        found.append(
            "No process in roles.processes has the role worklist: modalities are refused their worklist (0xA700), and what they say of"
            " performed steps waits beside the spool. Add the role, or set worklist.serve and worklist.mpps to false."
        )
    found += [
        f"dicom.transfer_syntaxes: {uid} is of the standard, and not known to this release. Is it spelled right?"
        for uid, kind, _ in _standard_syntaxes(settings)
        if not kind
    ]
    found += [
        f"senders.{aet}.returns names {name!r}, which is no destination of this file."
        for aet, sender in settings.senders.items()
        for name in sender.returns
        if name not in settings.destinations
    ]
    dicom = settings.dicom
    if settings.hl7.senders and "hl7" not in settings.role_names:
        found.append("hl7.senders has senders, and no process in roles.processes has the role hl7.")
    lenient = [settings.hl7.validation, *(sender.validation for sender in settings.hl7.senders.values())]
    if "hl7" in settings.role_names and "lenient" in lenient and "grammar" not in settings.role_names:
        found.append("hl7.validation is lenient, and no process in roles.processes has the role grammar: messages are not validated.")
    for section, table in (("dicom", dicom), ("hl7", settings.hl7)):
        named = [name for name in ("tls_certificate", "tls_key", "tls_client_ca") if getattr(table, name)]
        if named and not table.tls_port:
            found.append(f"{section}.{named[0]} is set, and {section}.tls_port is 0: no TLS is spoken.")
    clients = settings.stow.clients
    if clients and "stow" in settings.role_names and not os.path.exists(os.path.expanduser(clients)):  # noqa: PTH110, PTH111  # never raises
        found.append(f"stow.clients: {clients} is not there yet, so nobody has a key. Make one with `hilum stow key TITLE`.")
    return found


def forget_environment() -> None:
    """Take what names settings or a slot out of this process's environment: for a Hilum of its own beside another one."""
    for name in [name for name in os.environ if name in ("HILUM_SLOT", "HILUM_CONFIG") or _is_setting(name)]:
        del os.environ[name]


def _refuse_variable(name: str) -> None:
    settings = (dotted.upper().replace(".", "__") for dotted, _ in entries(Settings()))
    others = (each.removeprefix("HILUM_") for each in VARIABLES)
    near = nearest(name.removeprefix("HILUM_"), [*others, *settings], cutoff=0.7)
    fix = f"Did you mean HILUM_{near}?" if near else f"Settings are written as HILUM_SECTION__KEY; others are {', '.join(VARIABLES)}."
    raise Misconfigured("variable-unknown", f"{name} in the environment means nothing to Hilum.", fix=fix)


def _is_of_kubernetes(name: str, value: str) -> bool:
    """Kubernetes tells every container of every service, such as one by the name `hilum`: HILUM_SERVICE_HOST, HILUM_PORT=tcp://..."""
    return bool(re.search(r"_SERVICE_(HOST|PORT(_\w+)?)\Z|_PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?\Z", name)) or (
        name.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))
    )


def _is_setting(name: str) -> bool:
    """Others are `VARIABLES`."""
    return name.startswith("HILUM_") and ("__" in name or name in ("HILUM_DATA", "HILUM_DATA_FILE"))


def _put(tree: dict[str, Any], origins: dict[str, str], path: list[str], value: Any, origin: str) -> None:
    here = tree
    for part in path[:-1]:
        here = here.setdefault(part, {})
        if not isinstance(here, dict):
            raise Misconfigured("setting-invalid", f"{origin} sets {'.'.join(path)}, but {part} is a value.", fix="Check its name.")
    if isinstance(value, str) and value[:1] in ("[", "{"):
        value = msgspec.json.decode(value) if _is_json(value) else value
    here[path[-1]] = value
    origins[".".join(path)] = origin


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _merge(tree: dict[str, Any], origins: dict[str, str], more: dict[str, Any], origin: str, path: str = "") -> None:
    for name, value in more.items():
        dotted = f"{path}.{name}" if path else name
        if isinstance(value, dict):
            _merge(tree.setdefault(name, {}), origins, value, origin, dotted)
        else:
            tree[name] = value
            origins[dotted] = origin


def _of(origins: Mapping[str, str], dotted: str) -> str:
    whole = dotted.partition("[")[0]  # a list comes from one place
    origin = next((o for k, o in origins.items() if k == whole or k.startswith(whole + ".")), "")
    return f" (set by {origin})" if origin else ""


def wrong_rules(settings: Settings) -> Iterator[Misconfigured]:
    """What is wrong with the rules as a whole: names that are taken, and destinations that are not there."""
    counts = Counter(rule.name for rule in settings.rules)
    for name, count in counts.items():
        if count > 1:
            yield Misconfigured("rule-name-taken", f"{count} rules have the name {name!r}.", fix="Give each a name of its own.")
    for rule in settings.rules:
        if not rule.to:
            yield Misconfigured("rule-without-destination", f"Rule {rule.name!r} sends to no destination.", fix="Name some in its `to`.")
        for name in rule.to:
            if name not in settings.destinations:
                near = nearest(name, settings.destinations)
                fix = f"Did you mean {near}?" if near else f"Add [destinations.{name}]."
                yield Misconfigured("destination-unknown", f"Rule {rule.name!r} sends to {name!r}, which is no destination.", fix=fix)
