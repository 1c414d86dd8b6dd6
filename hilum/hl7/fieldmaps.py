"""Where each value of an order and a patient stands in a sender's messages: profiles, which are data (`hl7/profiles/*.toml`).

A profile is read over `hl7`, the standard's own: what it does not name is there. A target has paths such as `OBR-4.2` or
`PV1-3`; the first that has a value fills it. Every fact has the ground on which it is there (`basis`), as in `hilum.profiles`.
"""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from hilum.errors import Misconfigured
from hilum.misfits import nearest

#: What every other profile is read over.
STANDARD = "hl7"

Path = Annotated[
    str,
    Meta(
        pattern=r"^[A-Z][A-Z0-9]{2}-[1-9]\d{0,2}(\.[1-9]\d?){0,2}\Z",
        description="a segment and a field, perhaps a component and a subcomponent, such as `OBR-4.2`",
    ),
]
Paths = tuple[Path, ...]
Change = Literal["new", "changed", "cancelled", "discontinued", "on-hold", "scheduled", "status"]
Status = Literal["scheduled", "arrived", "in-progress", "completed", "on-hold", "discontinued", "cancelled"]

PATIENT = ("ids", "name", "birth_date", "sex", "weight_kg", "size_m", "allergies", "alerts", "special_needs", "comments")
ORDER = (
    "placer",
    "filler",
    "group",
    "accession",
    "referring_physician",
    "requesting_physician",
    "requesting_service",
    "entered_by",
    "admission",
    "patient_location",
    "institution",
    "clinical_information",
    "comments",
)
PROCEDURE = (
    "procedure_id",
    "study_instance_uid",
    "description",
    "codes",
    "priority",
    "reason",
    "reason_codes",
    "comments",
    "transport",
)
STEP = (
    "step_id",
    "modality",
    "station_ae_titles",
    "station_name",
    "location",
    "start",
    "end",
    "description",
    "protocols",
    "performing_physician",
    "premedication",
    "contrast",
    "comments",
)
TARGETS: Mapping[str, tuple[str, ...]] = {"patient": PATIENT, "order": ORDER, "procedure": PROCEDURE, "step": STEP}

Targets = dict[str, Paths]


class Places(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paths by target, for each thing that a message tells of."""

    patient: Targets = field(default_factory=dict)
    order: Targets = field(default_factory=dict)
    procedure: Targets = field(default_factory=dict)
    step: Targets = field(default_factory=dict)

    def over(self, other: Places) -> Places:
        """These, and what they do not name as `other` has it."""
        return Places(**{part: getattr(other, part) | getattr(self, part) for part in TARGETS})


class FieldMap(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One profile, as its file has it."""

    title: str
    says: str
    #: `documented` by the maker, `reported` by others, or `default`: Hilum's choice, no fact.
    basis: Literal["documented", "reported", "default"]
    source: str = ""
    patient: Targets = field(default_factory=dict)
    order: Targets = field(default_factory=dict)
    procedure: Targets = field(default_factory=dict)
    step: Targets = field(default_factory=dict)
    #: ORC-1 (table 0119), ORC-5 (0038), OBR-25 (0123), PID-8 (0001) and priorities, each as what it means here.
    control: dict[str, Change] = field(default_factory=dict)
    status: dict[str, Status] = field(default_factory=dict)
    result: dict[str, Status] = field(default_factory=dict)
    sex: dict[str, Literal["M", "F", "O", ""]] = field(default_factory=dict)
    priority: dict[str, Literal["STAT", "HIGH", "ROUTINE", "MEDIUM", "LOW"]] = field(default_factory=dict)
    #: What the sender calls modalities, in capitals, where that is no defined term of PS3.3 C.7.3.1.1.1: `XRAY = "DX"`.
    modality: dict[str, Annotated[str, Meta(pattern=r"^[A-Z0-9_ ]{1,16}\Z")]] = field(default_factory=dict)
    #: What is different in messages of one kind, by MSH-9.1: `[of.SIU.order]`.
    of: dict[str, Places] = field(default_factory=dict)

    def places(self, code: str) -> Places:
        """Where values are in messages of this kind, such as `ORM`."""
        own = Places(patient=self.patient, order=self.order, procedure=self.procedure, step=self.step)
        return self.of[code].over(own) if code in self.of else own


_TABLES = ("control", "status", "result", "sex", "priority", "modality")


def names() -> list[str]:
    """Every profile there is, the standard's first."""
    found = sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    return [STANDARD, *(name for name in found if name != STANDARD)]


@cache
def fieldmap(name: str) -> FieldMap:
    """The profile `name`, read over the standard's. Raises `Misconfigured` that names the nearest one."""
    if name not in names():
        near = nearest(name, names())
        fix = f"Did you mean {near}?" if near else f"There are {', '.join(names())}."
        raise Misconfigured("hl7-profile-unknown", f"There is no HL7 profile {name!r}.", fix=fix)
    own = read((_folder() / f"{name}.toml").read_text("utf-8"), name)
    return own if name == STANDARD else over(own, fieldmap(STANDARD))


def over(own: FieldMap, base: FieldMap) -> FieldMap:
    """`own`, and what it does not name as `base` has it."""
    merged = {part: getattr(base, part) | getattr(own, part) for part in (*TARGETS, *_TABLES)}
    of = {code: own.of.get(code, Places()).over(base.of.get(code, Places())) for code in {*own.of, *base.of}}
    return FieldMap(title=own.title, says=own.says, basis=own.basis, source=own.source, of=of, **merged)


def read(text: str, name: str) -> FieldMap:
    """A profile's file. Raises `Misconfigured` if it names a target that nobody knows, or is no profile."""
    try:
        found = msgspec.convert(tomllib.loads(text), FieldMap)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise Misconfigured("hl7-profile-invalid", f"HL7 profile {name}: {error}.", fix="Correct the file.") from None
    for places in (found, *found.of.values()):
        for part, known in TARGETS.items():
            for target in getattr(places, part):
                if target not in known:
                    near = nearest(target, known)
                    raise Misconfigured(
                        "hl7-profile-invalid",
                        f"HL7 profile {name}: {part}.{target} is nothing that a message can tell.",
                        fix=f"Did you mean {near}?" if near else f"There are {', '.join(known)}.",
                    )
    return found


def parts_of(path: str) -> tuple[str, int, int, int]:
    """Segment, field, component and subcomponent of a path; 0 where it does not say."""
    found = _PARTS.match(path)
    assert found is not None
    return found[1], int(found[2]), int(found[3] or 0), int(found[4] or 0)


_PARTS = re.compile(r"([A-Z][A-Z0-9]{2})-(\d+)(?:\.(\d+))?(?:\.(\d+))?\Z")


def _folder() -> importlib.resources.abc.Traversable:
    return importlib.resources.files("hilum.hl7") / "profiles"
