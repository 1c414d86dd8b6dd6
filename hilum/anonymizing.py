"""De-identification on the way out: what the core knows of it. The package that does it is loaded by name, as sinks are.

A destination with `policy = "NAME"` gets nothing that has not been through its policy and the second look: `part10_of` makes the object of
a delivery that has a `Cleaning`, and whatever cannot be made raises `NotAnonymized` (a person looks at that object), `Misconfigured` (the
destination waits) or `TryAgain`. There is no way round: without key, policy or package nothing leaves.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from hilum.errors import HilumError, Misconfigured
from hilum.identity import Authorities
from hilum.misfits import tried
from hilum.order_events import Identifier, Patient

if TYPE_CHECKING:
    from hilum.settings import Settings
    from hilum.sink import Delivery

_MODULE = "processors.anonymize.delivering"

#: Into whom a patient was merged; None if into nobody. The first identifier is PatientID with its issuer, the others are those that the
#: object names besides. May raise `TryAgain`, and `NotAnonymized` if the patient's objects must not leave.
SurvivorOf = Callable[[Sequence[Identifier]], Patient | None]

#: Takes one object back, by the UIDs of study, series and instance by which it was sent; one that is not there is no error. `TryAgain`.
TakesBack = Callable[[str, str, str], None]


class NotAnonymized(HilumError):
    """The object is not de-identified, or something of it was left: it must not leave. `reason` is a code, `place` a path of tags."""

    def __init__(self, reason: str, sentence: str, *, fix: str, place: str = "") -> None:
        super().__init__(sentence, fix=fix)
        self.reason = reason
        self.place = place


def deidentified_before() -> NotAnonymized:
    """What was de-identified here, or made of that by a receiver, would get pseudonyms of pseudonyms."""
    return NotAnonymized(
        "deidentified-before",
        "It was de-identified here before, or made of what was: its patient and dates would be pseudonyms of pseudonyms. It was not sent.",
        fix='Have rules leave it out of what goes there, or set deidentified = "again" for the destination, and retry the delivery.',
    )


class Sealed(Struct, frozen=True, kw_only=True):
    """What leads from a pseudonym back: a row of the table `deid_reverse`. Only `sealed` tells who it is, to who has the table's key."""

    project: str
    #: `patient`, `accession` or `uid`.
    kind: str
    pseudonym: str
    #: Of the table's key.
    key_id: str
    #: Nonce and ciphertext.
    sealed: bytes


class Made(Struct, frozen=True, kw_only=True):
    """A de-identified object: a Part 10 file in parts, some of them slices of the original, and its UIDs."""

    parts: Sequence[bytes | memoryview]
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    #: The pseudonym of its patient.
    patient: str = ""
    #: What leads back, sealed, if its policy asks for that.
    reverse: tuple[Sealed, ...] = ()
    #: What became of its pixels, in words without values of the object; empty if they are as they were.
    stated: str = ""


class Deidentified(Struct, frozen=True, kw_only=True):
    """What left of an object that goes out de-identified."""

    policy: str
    policy_version: str
    key_id: str
    #: By which it left.
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    #: Of the data set that was made, SHA-256 in hexadecimal; empty if none was.
    sha256: str = ""
    #: The project, and the pseudonym of the patient in it; empty if none was made.
    project: str = ""
    patient: str = ""
    #: See `hilum.deid_sections.Deid.settings_id`.
    settings_id: str = ""


class Anonymizer(Protocol):
    """One policy under one key. Safe for several threads."""

    @property
    def policy(self) -> str:
        """The policy's name."""

    @property
    def domain(self) -> str:
        """The project whose pseudonyms it uses."""

    @property
    def authorities(self) -> Authorities:
        """Who assigns patient identifiers."""

    @property
    def version(self) -> str:
        """The policy's version: 12 hexadecimal digits of all that decides what leaves."""

    @property
    def said(self) -> Mapping[str, Any]:
        """What the policy says, as it was published."""

    @property
    def key_id(self) -> str:
        """The key's id."""

    @property
    def settings_id(self) -> str:
        """The id of the settings that decide pseudonyms and dates, too: see `hilum.deid_sections.Deid`."""

    @property
    def may_change_syntax(self) -> bool:
        """Whether an object may have another transfer syntax than before: pixels that are painted over are encoded anew."""

    def uid(self, uid: str) -> str:
        """The UID by which an instance, series or study goes out."""

    def current(self) -> Anonymizer:
        """The same with the key that is in force now. Raises `Misconfigured` if the key's file is not as it must be."""

    def check(self) -> None:
        """Raise `Misconfigured` if this machine lacks what the policy needs besides the key: a package, a program."""

    def made(self, original: bytes | mmap, *, unedited: bytes | mmap | None = None, survivor_of: SurvivorOf | None = None) -> Made:
        """The object as it may leave, after the second look: the same for the same original, policy, key and patient.

        `unedited` is the object before it was set right by its order; `survivor_of` tells into whom its patient was merged, or
        raises. Raises `NotAnonymized`; `TryAgain`, `Misconfigured` if this machine cannot; nothing else.
        """


class Cleaning:
    """That a delivery goes out de-identified, and from what: for one attempt. No Struct: it is never part of a message."""

    def __init__(
        self,
        anonymizer: Anonymizer,
        original: Delivery,
        survivor_of: SurvivorOf | None = None,
        keep: Callable[[Sequence[Sealed]], None] | None = None,
    ) -> None:
        """`original` is the delivery as the ledger has it; `keep` keeps what leads back, for good, or raises `TryAgain`."""
        self.anonymizer = anonymizer
        self.original = original
        self.survivor_of = survivor_of
        self.keep = keep
        #: The digest of the data set that was made, SHA-256 in hexadecimal; empty before.
        self.sha256 = ""
        #: The transfer syntax of what was made; empty before.
        self.transfer_syntax_uid = ""
        #: The pseudonym of its patient; empty before.
        self.patient = ""


def package(module: str = _MODULE) -> Any:
    """The package that de-identifies, or another module of it. Raises `Misconfigured` without it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Misconfigured(
            "anonymizer-missing",
            f"The package that de-identifies cannot be loaded ({type(error).__name__}: {error.name or 'unknown'}).",
            fix="Install Hilum whole, on every machine that delivers.",
        ) from None


def refuse_policy(where: str, kind: str, *, takes: bool, lossy: bool, layout: str = "") -> None:
    """Raise `Misconfigured` if a destination of this type, compressed with loss, or with this layout of files, can have no policy."""
    if not takes:
        raise Misconfigured(
            "policy-not-possible",
            f"{where}: nothing is de-identified for a destination of type {kind}.",
            fix="Take `policy` out of it, or use another type.",
        )
    if lossy:  # what leaves is in the ledger before it does, under the UID by which it does
        raise Misconfigured(
            "policy-and-lossy",
            f"{where}: what is de-identified is not compressed with loss, which would give it yet another UID.",
            fix="Take `lossy` or `policy` out of it.",
        )
    if "{received_date}" in layout:  # images come on the day of the study: beside a moved date it tells by how much that was moved
        raise Misconfigured(
            "policy-and-received-date",
            f"{where}: its `layout` has {{received_date}}, which tells a true date of what is de-identified.",
            fix="Write {StudyDate}, which is as the policy has it, or take `policy` out of it.",
        )


def policy_table(name: str, folder: Path) -> dict[str, Any]:
    """The policy `name`, of the folder or shipped, as it is published: `version`, `policy`. Raises `Misconfigured`, each problem named."""
    table: dict[str, Any] = package().table_of(name, folder)
    return table


def policy_for(destination: str, name: str, settings: Settings) -> dict[str, Any]:
    """The policy by which a destination is sent to: as published with it, else of this machine's files. Raises `Misconfigured`."""
    from hilum.bundle import InForce

    if not isinstance(settings, InForce) or destination not in settings.applied:
        return policy_table(name, settings.deid.folder)
    table = settings.policies.get(name)
    if table is None:
        raise Misconfigured(
            "policy-not-published",
            f"destinations.{destination}: the configuration in force names the policy {name!r} and does not have it.",
            fix="Publish it again with this release: hilum apply",
        )
    return table


def published_policy(destination: str, table: Mapping[str, Any], settings: Settings) -> Any:
    """The policy that was published for a destination; None if none was, or it is of this machine's files."""
    from hilum.bundle import InForce

    if not isinstance(settings, InForce) or destination not in settings.applied:
        return None
    return settings.policies.get(table.get("policy") or "")


def anonymizer_of(destination: str, name: str, settings: Settings) -> Anonymizer:
    """What de-identifies for a destination. Raises `Misconfigured` if policy, key or package is not as it must be."""
    again = settings.destinations.get(destination, {}).get("deidentified") == "again"
    anonymizer: Anonymizer = package().Outgoing.of(policy_for(destination, name, settings), settings.deid, delivers=True, again=again)
    return anonymizer


def policy_problems(settings: Settings) -> list[Misconfigured]:
    """What is wrong with the policies that destinations name, without the key: that is where Hilum delivers."""
    found = []
    for destination, table in settings.destinations.items():
        if (name := table.get("policy")) and isinstance(name, str):

            def check(destination: str = destination, name: str = name) -> None:
                module = package()
                module.check_machine(module.policy_in(policy_for(destination, name, settings)))

            found += tried(check)
    return found


def policies_of(destinations: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The policies of those of these destinations that name one, by the destinations' names."""
    return {name: policy for name, table in destinations.items() if isinstance(policy := table.get("policy"), str) and policy}


def named_policies(destinations: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The policies that these destinations name."""
    return sorted(set(policies_of(destinations).values()))
