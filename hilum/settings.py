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
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from hilum.errors import Misconfigured
from hilum.kinds import AeTitle, Bucket, Endpoint, Host, PduBytes, Port, Seconds, refuse_tiny_pdus
from hilum.misfits import misfits, nearest, together


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file."""


class Site(Section, frozen=True, kw_only=True):
    """Who this Hilum is."""

    #: Name in event sources and metrics.
    name: Annotated[
        str, Meta(max_length=63, pattern=r"^[a-z0-9]+(-+[a-z0-9]+)*\Z", description="lower case letters, digits and hyphens, 63 at most")
    ] = "hilum"


class Dicom(Section, frozen=True, kw_only=True):
    """The DICOM listener."""

    aet: AeTitle = "HILUM"
    host: Host = "127.0.0.1"
    #: 0 picks a free port and keeps it.
    port: Port = 11112
    #: Whether a peer may call Hilum by any AE title; otherwise only by `aet` (PS3.8 9.3.4).
    any_called_aet: bool = True
    #: Largest PDU that Hilum offers to receive, in bytes (PS3.8 D.1); 0 means no limit, and less than 4,096 is refused.
    max_pdu_bytes: PduBytes = 131_072
    #: Associations open at once; one more is rejected as transient (PS3.8 9.3.4).
    max_associations: Annotated[int, Meta(ge=1, le=10_000)] = 100
    #: Seconds without a byte from the peer before an association is aborted.
    idle_timeout_s: Seconds = 60.0
    #: Largest object accepted, in bytes of data set; larger ones get 0xA700.
    max_object_bytes: Annotated[int, Meta(ge=1)] = 16 * 2**30

    def __post_init__(self) -> None:
        refuse_tiny_pdus(self.max_pdu_bytes)


class Spool(Section, frozen=True, kw_only=True):
    """Where received objects are kept until the object store and Kafka have them."""

    #: Empty: `spool` in the data directory.
    path: str = ""
    #: Below this much free space new objects are refused with 0xA700, before the disk is full.
    min_free_bytes: Annotated[int, Meta(ge=0)] = 512 * 2**20


class Kafka(Section, frozen=True, kw_only=True):
    """The broker. With `bootstrap` empty, `hilum up` runs Apache Kafka itself."""

    bootstrap: str = ""
    #: Put before the name of every topic, consumer group and transactional id, on a cluster that others use too; e.g. `north.`.
    prefix: Annotated[
        str, Meta(max_length=100, pattern=r"^[A-Za-z0-9._-]*\Z", description="letters, digits, dots, hyphens and underscores, 100 at most")
    ] = ""
    #: Port of the embedded broker; 0 picks a free one and keeps it.
    port: Port = 0
    #: Partitions of each event topic; 0 means 4 on a cluster of one broker, 12 on a larger one.
    partitions: Annotated[int, Meta(ge=0, le=10_000)] = 0
    #: Copies of each partition; 0 means one on each broker, three at most.
    replication: Annotated[int, Meta(ge=0, le=100)] = 0
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: str = ""
    ssl_ca_location: str = ""
    ssl_certificate_location: str = ""
    ssl_key_location: str = ""


class Postgres(Section, frozen=True, kw_only=True):
    """The database. With `dsn` empty, `hilum up` runs PostgreSQL itself."""

    dsn: Annotated[
        str,
        Meta(pattern=r"^(postgres(ql)?://\S+|[^\n]*=[^\n]*)?\Z", description="`postgresql://user:password@host:port/database`, or empty"),
    ] = ""
    #: Port of the embedded server; 0 picks a free one and keeps it.
    port: Port = 0


class S3(Section, frozen=True, kw_only=True):
    """The object store. With `endpoint` empty, `hilum up` runs SeaweedFS itself."""

    endpoint: Endpoint = ""
    #: Port of the embedded store; 0 picks a free one and keeps it.
    port: Port = 0
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: str = ""
    #: Bucket of the originals.
    bucket: Bucket = "hilum-originals"
    #: PEM file of the authorities to trust; empty: the system's.
    ca_file: str = ""
    #: Directory of a store that runs on this machine alone: its disk is synced before an object counts as durable. `hilum up`
    #: fills it in; empty: the store's answer is enough, as it is for one that keeps copies.
    sync_path: str = ""


class Probe(Section, frozen=True, kw_only=True):
    """Where a process of Hilum answers `/health` (JSON) and `/metrics` (Prometheus)."""

    host: Host = "127.0.0.1"
    #: 0 picks a free one; `hilum status` shows it.
    port: Port = 0


class Log(Section, frozen=True, kw_only=True):
    """What is logged: JSON lines on stderr, without patient data."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Roles(Section, frozen=True, kw_only=True):
    """Which roles run together in one process under `hilum up`: each entry is one process, roles joined by commas."""

    processes: tuple[str, ...] = ("dicom", "publish", "validate,route,ledger,index", "deliver")


class Sender(Section, frozen=True, kw_only=True):
    """What is different for one sender, by its calling AE title."""

    #: Codes of findings that send this sender's objects to quarantine.
    refuse: tuple[str, ...] = ()


class Rule(Section, frozen=True, kw_only=True):
    """Objects for which `when` holds go to the destinations in `to`."""

    name: Annotated[str, Meta(min_length=1)]
    #: An expression over DICOM keywords, e.g. `Modality == "CT"`; see [the rule language](rules.md).
    when: str
    to: tuple[str, ...]


class Settings(Section, frozen=True, kw_only=True):
    """The whole tree. `destinations` are tables of which `type` names the sink; the sink's own fields are its settings."""

    #: Where embedded servers, spool and run files live; empty: `~/.local/share/hilum`.
    data: str = ""
    site: Site = field(default_factory=Site)
    dicom: Dicom = field(default_factory=Dicom)
    spool: Spool = field(default_factory=Spool)
    kafka: Kafka = field(default_factory=Kafka)
    postgres: Postgres = field(default_factory=Postgres)
    s3: S3 = field(default_factory=S3)
    probe: Probe = field(default_factory=Probe)
    log: Log = field(default_factory=Log)
    roles: Roles = field(default_factory=Roles)
    senders: dict[str, Sender] = field(default_factory=dict)
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
    if problems := list(_wrong_rules(settings)):
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


def doubts(settings: Settings) -> list[str]:
    """What is allowed and hardly meant, one sentence each."""
    used = {destination for rule in settings.rules for destination in rule.to}
    found = [f"No rule sends anything to the destination {name}." for name in settings.destinations if name not in used]
    if not settings.rules:
        found.insert(0, "There is no rule: what comes in is kept and indexed, and goes nowhere.")
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


def _wrong_rules(settings: Settings) -> Iterator[Misconfigured]:
    counts = Counter(rule.name for rule in settings.rules)
    for name, count in counts.items():
        if count > 1:
            yield Misconfigured("rule-name-taken", f"{count} rules have the name {name!r}.", fix="Give each a name of its own.")
    for rule in settings.rules:
        if not rule.to:
            fix = "Name destinations in its `to`, or take the rule out."
            yield Misconfigured("rule-without-destination", f"Rule {rule.name!r} sends to no destination.", fix=fix)
        for name in rule.to:
            if name not in settings.destinations:
                near = nearest(name, settings.destinations)
                fix = f"Did you mean {near}?" if near else f"Add [destinations.{name}]."
                yield Misconfigured("destination-unknown", f"Rule {rule.name!r} sends to {name!r}, which is no destination.", fix=fix)
