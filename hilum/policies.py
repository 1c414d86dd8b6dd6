"""Which policy a command takes: as it is in force where that can be read, else of this machine's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from hilum import bundle
from hilum.anonymizing import package, policy_table
from hilum.errors import HilumError, Misconfigured, NotFound
from hilum.misfits import nearest
from hilum.settings import Settings

#: A command that also works by itself waits no longer for Kafka.
READ_WITHIN_S = 2.0


class Published(Struct, frozen=True, kw_only=True):
    """The policies of the configuration in force."""

    #: By name, as `hilum.anonymizing.policy_table` gives them.
    tables: Mapping[str, dict[str, Any]] = {}
    #: The configuration's version; empty if none is in force.
    version: str = ""
    #: The names of its destinations.
    destinations: frozenset[str] = frozenset()
    #: Why it could not be read; empty if it was, or none is in force.
    unread: str = ""

    def where(self) -> str:
        """Where its policies are, in words."""
        return f"published in configuration {self.version}"


class Chosen(Struct, frozen=True, kw_only=True):
    """A policy, and where it is from."""

    table: dict[str, Any]
    #: `published in configuration VERSION`, a file, or `shipped`.
    where: str
    #: What else to know: that it could not be asked what is in force, or that the file here is another version.
    remark: str = ""

    def says(self) -> str:
        """By which policy a command works, for a person."""
        said = f"By {self.table['policy']['name']} {self.table['version']}, {self.where}."
        return f"{said} {self.remark}".strip()


def published(settings: Settings) -> Published:
    """What is in force, where Hilum or its Kafka can be reached within two seconds."""
    from hilum.services.endpoints import with_endpoints

    try:
        found = bundle.current(with_endpoints(settings), timeout_s=READ_WITHIN_S)
    except HilumError as error:
        return Published(unread=error.sentence)
    if found is None:
        return Published()
    return Published(tables=found.applied.policies, version=found.version, destinations=frozenset(found.applied.destinations))


def files(folder: Path) -> dict[str, str]:
    """The policies of this machine, by name: the file in `folder`, or `shipped`."""
    own = {each.stem: str(each) for each in sorted(folder.glob("*.toml"))} if folder.is_dir() else {}
    return dict.fromkeys(package("processors.anonymize.policy").shipped(), "shipped") | own


def choose(name: str, folder: Path, in_force: Published) -> Chosen:
    """The policy as it is in force, else of this machine's files. Raises `NotFound`, and `Misconfigured`, each problem named."""
    here = files(folder)
    if name in in_force.tables:
        table = in_force.tables[name]
        return Chosen(table=table, where=in_force.where(), remark=_other(name, folder, here, table["version"]))
    if name not in here:
        known = sorted({*here, *in_force.tables})
        near = nearest(name, known)
        fix = f"Did you mean {near}?" if near else f"Policies are: {', '.join(known)}."
        unread = f" What is in force could not be asked: {in_force.unread}" if in_force.unread else ""
        raise NotFound(f"There is no policy {name!r}.{unread}", fix=fix)
    remark = f"Whether another version is in force could not be asked: {in_force.unread}" if in_force.unread else ""
    return Chosen(table=policy_table(name, folder), where=here[name], remark=remark)


def _other(name: str, folder: Path, here: Mapping[str, str], version: str) -> str:
    """That the file on this machine is another version; empty if it is not, or there is none."""
    if here.get(name, "shipped") == "shipped":
        return ""
    try:
        other = policy_table(name, folder)["version"]
    except Misconfigured:
        return f"{here[name]} is not right: see `hilum deid policies lint`."
    return f"{here[name]} is another version, {other}: --unpublished takes that." if other != version else ""
