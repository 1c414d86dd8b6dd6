"""Destination profiles: what is known of a product's way to take objects, and on what ground.

One TOML file a product in `sinks/profiles/`; `profile = "NAME"` in a destination's settings chooses one. Each fact says whether it is
documented by the maker, reported by others, or a default of Hilum's; what a profile says nothing of is as in `generic-strict`.
A destination's own settings win over its profile's. The table of all: docs/reference/profiles.md.
"""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct, field

from hilum.errors import Misconfigured
from hilum.kinds import CharacterSet, Uid
from hilum.misfits import nearest

#: What every other profile is read over.
GENERIC = "generic-strict"

#: `documented`: by the maker, in its `source`; `reported`: by somebody else, in its `source`; `default`: Hilum's choice, no fact. Of a
#: status that speaks of what it says; what becomes of a delivery then is always Hilum's choice, which a destination may change.
Basis = Literal["documented", "reported", "default"]
BASES: tuple[Basis, ...] = get_args(Basis)
#: What becomes of a delivery: `retry` tries again, up to `max_attempts` times; `permanent` rejects it; `person` waits for somebody who
#: changes something there or here.
Outcome = Literal["delivered", "already_there", "retry", "permanent", "person"]
#: The same of a FailureReason: `conflict`: as the setting `conflict` says, because it does not tell what is there.
ReasonOutcome = Literal["delivered", "already_there", "retry", "permanent", "person", "conflict"]
#: The same of a whole HTTP response: `by_instance`: the body tells of each instance; `conflict`: as the setting `conflict` says;
#: `outage`: nothing is wrong with the objects, the queue waits.
HttpOutcome = Literal["by_instance", "conflict", "retry", "permanent", "person", "outage"]
#: One status, a range of them with `x` for any last digits, or all that is named nowhere else.
StatusCode = Annotated[
    str,
    Meta(
        pattern=r"^(0x([0-9A-F]{4}|[0-9A-F]{3}x|[0-9A-F]{2}xx|[0-9A-F]xxx)|other)\Z",
        description="a status such as `0xA700`, a range such as `0xA7xx`, or `other`",
    ),
]

T = TypeVar("T")


class Source(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where something is said."""

    title: str
    url: str = ""


class Fact(Struct, Generic[T], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value, and on what ground it is there."""

    value: T
    basis: Basis
    #: Key of the profile's `sources`; what is documented or reported has one.
    source: str = ""
    #: What the source says, in a few words of Hilum's own.
    says: str = ""


class DicomFacts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a product that takes C-STORE."""

    #: What a C-STORE status means (PS3.4 B.2.3, PS3.7 C).
    statuses: dict[StatusCode, Fact[Outcome]] = field(default_factory=dict)
    #: The only statuses that it answers.
    answers: Fact[list[StatusCode]] | None = None
    #: Whether a study has an association of its own.
    group_by: Fact[Literal["study", "none"]] | None = None
    #: Associations that it takes at the same time.
    max_associations: Fact[Annotated[int, Meta(ge=1)]] | None = None
    #: Transfer syntaxes that it takes; `hilum dest test` says where it does not.
    takes: Fact[list[Uid]] | None = None
    #: In which transfer syntax, the first first, an object is written that it does not take as it is.
    prefers: Fact[list[Uid]] | None = None
    #: What becomes of an object of which it takes no presentation context, while it takes others.
    refused_contexts: Fact[Literal["person", "permanent", "retry"]] | None = None
    #: Private SOP classes that it takes.
    private_sop_classes: Fact[list[Uid]] | None = None
    #: Character sets in which it takes an object that has to be in another one than its own, by C-STORE or by STOW-RS.
    character_sets: Fact[list[CharacterSet]] | None = None
    #: What it answers to an object that it has.
    duplicates: Fact[Literal["success", "refused", "unknown"]] | None = None
    #: Whether a person looks before it is sent a correction of what it has, by C-STORE or by STOW-RS.
    corrections: Fact[Literal["send", "person"]] | None = None
    #: Whether queries go to another AE title than C-STORE does.
    query_title: Fact[Literal["same", "separate"]] | None = None
    #: Whether it is an SCP of storage commitment (PS3.4 J).
    commitment: Fact[bool] | None = None
    #: How it is asked what it has: by C-FIND, or by storage commitment if it answers no queries.
    verify_by: Fact[Literal["query", "commitment"]] | None = None
    #: Whether it acts upon rejection notes (IHE RAD IOCM).
    rejection_notes: Fact[bool] | None = None


class StowFacts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a service that takes STOW-RS (PS3.18 10.5)."""

    #: What a FailureReason (0008,1197) means. An instance that is in the ReferencedSOPSequence is stored, whatever the warning beside it.
    reasons: dict[StatusCode, Fact[ReasonOutcome]] = field(default_factory=dict)
    #: What a response means as a whole, by its HTTP status, its class such as `4xx`, or `other` for all that are not named.
    http: dict[Annotated[str, Meta(pattern=r"^([1-5][0-9][0-9]|[1-5]xx|other)\Z")], Fact[HttpOutcome]] = field(default_factory=dict)
    #: What a conflict means for an instance of which the answer does not tell why: `ask` the service whether it has it, by QIDO-RS.
    conflict: Fact[Literal["ask", "already-there", "rejected"]] | None = None
    #: WarningReasons (0008,1196) that it gives with instances that are stored.
    warnings: Fact[list[StatusCode]] | None = None
    #: The only transfer syntaxes that it takes: what is in another one is written without loss before it is sent.
    syntaxes: Fact[list[Uid]] | None = None
    #: Largest instance, where that is known.
    max_instance_bytes: Fact[Annotated[int, Meta(ge=1)]] | None = None


class Row(Struct, frozen=True, kw_only=True):
    """One fact of a profile, for people."""

    field: str
    value: str
    basis: Basis
    source: str
    says: str
    #: Whether the profile says nothing of it, so that it is as in `generic-strict`.
    inherited: bool


class Profile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one product, with what is inherited from `generic-strict`."""

    name: str = ""
    title: str
    vendor: str = ""
    #: What the sources are about.
    versions: str = ""
    #: Types of destination that it is for.
    types: tuple[Literal["dicom", "stow"], ...]
    sources: dict[str, Source] = field(default_factory=dict)
    dicom: DicomFacts = DicomFacts()
    stow: StowFacts = StowFacts()
    #: What is worth knowing and sets nothing.
    notes: list[Fact[str]] = field(default_factory=list)
    #: What it was read over.
    base: Profile | None = None

    @property
    def is_stub(self) -> bool:
        """Whether nothing is known of how the product takes objects: every value is a default, to be confirmed on site."""
        known = (row for row in self.rows() if row.basis != "default" and not row.inherited and row.field != "note")
        return bool(self.vendor) and not any(known)

    def outcome(self, status: int, own: Mapping[str, Outcome] | None = None) -> Outcome:
        """What a C-STORE status means; `own` are the destination's own meanings.

        What the destination says wins over what the profile says, and that over `generic-strict`, `other` coming last in all of them.
        In each the most exact name wins. Success is success, whatever they say.
        """
        if status == 0:
            return "delivered"
        return _meaning(status, own or {}, *(_values(each.dicom.statuses) for each in self._lineage()))

    def reason(self, code: int, own: Mapping[str, ReasonOutcome] | None = None) -> ReasonOutcome:
        """What a FailureReason (0008,1197) of STOW-RS means; `own` as in `outcome`."""
        return _meaning(code, own or {}, *(_values(each.stow.reasons) for each in self._lineage()))

    def words(self, table: Literal["statuses", "reasons", "http"], code: int) -> str:
        """What a status says, in a few words."""
        facts: list[Mapping[str, Fact[Any]]] = [
            each.dicom.statuses if table == "statuses" else getattr(each.stow, table) for each in self._lineage()
        ]
        names = _http_names(code) if table == "http" else (*_names(code), "other")
        found = (each[key].says for key in names for each in facts if key in each)
        return next(filter(None, found), "failure")

    def http(self, status: int) -> HttpOutcome:
        """What an HTTP response means as a whole."""
        for key in _http_names(status):
            for each in self._lineage():
                if key in each.stow.http:
                    return each.stow.http[key].value
        raise AssertionError("generic-strict says what any other means")

    def fact(self, kind: Literal["dicom", "stow"], name: str) -> Any:
        """The value of a fact, inherited or not; None if nothing is said of it."""
        found = (getattr(getattr(each, kind), name) for each in self._lineage())
        return next((fact.value for fact in found if fact is not None), None)

    def in_order(self, syntaxes: Sequence[str]) -> list[str]:
        """Transfer syntaxes that an object can be written in, in the order that the product prefers; else as they are."""
        prefers: list[str] = self.fact("dicom", "prefers") or []
        return sorted(syntaxes, key=lambda uid: prefers.index(uid) if uid in prefers else len(prefers))

    def settings(self, kind: str, known: Collection[str]) -> dict[str, Any]:
        """Those facts that are settings of a destination of the type `kind`; `known` are the names of its settings."""
        kinds = {"dicom": DicomFacts, "stow": StowFacts}
        names = kinds[kind].__struct_fields__ if kind in kinds else ()
        found = {name: self.fact("stow" if kind == "stow" else "dicom", name) for name in names if name in known and name not in _TABLES}
        found |= {name: self.fact("dicom", name) for name in _OF_PRODUCT if name in known}
        return {name: value for name, value in found.items() if value is not None}

    def against(self, asked: Collection[str], taken: Collection[str]) -> list[str]:
        """Where a peer does otherwise than its profile says: `asked` are the transfer syntaxes it was asked for, `taken` those it takes."""
        takes: list[str] = self.fact("dicom", "takes") or []
        return [f"{_syntax(uid)} is said to be taken, and is not" for uid in takes if uid in asked and uid not in taken]

    def rows(self) -> list[Row]:
        """Every fact, inherited ones too, of the types of destination that it is for."""
        found: dict[str, Row] = {}
        for each in self._lineage():
            for kind in self.types:
                for name, fact in _facts(getattr(each, kind)):
                    said = Row(
                        field=name,
                        value=shown(fact.value),
                        basis=fact.basis if each is self else "default",
                        source=each.sources[fact.source].title if fact.source else "",
                        says=fact.says,
                        inherited=each is not self,
                    )
                    found.setdefault(name, said)
        noted = [
            Row(
                field="note",
                value=note.value,
                basis=note.basis,
                source=self.sources[note.source].title if note.source else "",
                says=note.says,
                inherited=False,
            )
            for note in self.notes
        ]
        return [*found.values(), *noted]

    def _lineage(self) -> Iterator[Profile]:
        yield self
        if self.base is not None:
            yield from self.base._lineage()


#: Facts that are tables of several.
_TABLES = ("statuses", "reasons", "http")
#: Facts of the product, whichever way objects come to it; they stand among those of DICOM.
_OF_PRODUCT = ("corrections", "character_sets")


def names() -> list[str]:
    """Every profile there is."""
    return sorted(path.name.removesuffix(".toml") for path in _folder().iterdir() if path.name.endswith(".toml"))


@cache
def profile(name: str) -> Profile:
    """The profile `name`. Raises `Misconfigured` that names the nearest one."""
    if name not in names():
        near = nearest(name, names())
        fix = f"Did you mean {near}?" if near else f"Profiles are: {', '.join(names())}."
        raise Misconfigured("profile-unknown", f"There is no destination profile {name!r}.", fix=fix)
    read = tomllib.loads((_folder() / f"{name}.toml").read_text(encoding="utf-8"))
    found = msgspec.convert(read, Profile)
    return msgspec.structs.replace(found, name=name, base=None if name == GENERIC else profile(GENERIC))


def with_profile(where: str, kind: str, values: dict[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """The settings `values` of the destination `where`, over what its profile says; `known` are the names of the settings of its type.

    Raises `Misconfigured` if there is no such profile, or if it is for other types of destination.
    """
    name = values.get("profile")
    if not name or not isinstance(name, str) or "profile" not in known:
        return values
    try:
        chosen = profile(name)
    except Misconfigured as error:
        raise Misconfigured(error.reason, f"{where}: {error.sentence}", fix=error.fix) from None
    if kind not in chosen.types:
        fix = f"Take another profile, or `type = {chosen.types[0]!r}`."
        raise Misconfigured("profile-misfit", f"{where}: the profile {name!r} is for {' and '.join(chosen.types)}, not {kind}.", fix=fix)
    return {**chosen.settings(kind, known), **values}


def shown(value: Any) -> str:
    """A fact's value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else str(value)


def _meaning(code: int, *tables: Mapping[str, T]) -> T:
    for keys in (_names(code), ["other"]):
        for table in tables:
            for key in keys:
                if key in table:
                    return table[key]
    raise AssertionError("generic-strict says what any other means")


def _http_names(status: int) -> tuple[str, ...]:
    """Under which names an HTTP status may be in a profile, the narrowest first."""
    return str(status), f"{status // 100}xx", "other"


def _names(code: int) -> list[str]:
    """What a status may be named by, the most exact first."""
    text = f"0x{code:04X}"
    return [text[: 6 - wild] + "x" * wild for wild in range(4)]


def _values(facts: Mapping[str, Fact[T]]) -> dict[str, T]:
    return {key: fact.value for key, fact in facts.items()}


def _facts(facts: Struct) -> Iterator[tuple[str, Fact[Any]]]:
    for name in facts.__struct_fields__:
        found = getattr(facts, name)
        if name in _TABLES:
            yield from ((f"{name}.{key}", fact) for key, fact in found.items())
        elif found is not None:
            yield name, found


def _folder() -> Any:
    return importlib.resources.files("sinks") / "profiles"


def _syntax(uid: str) -> str:
    from pydicom.uid import UID  # takes a while, and only a check needs it

    return str(UID(uid).name)
