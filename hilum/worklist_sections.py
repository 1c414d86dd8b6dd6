"""The table `[worklist]` of the settings file: what modalities are told of scheduled steps, and tell of performed ones."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from hilum.kinds import BareAeTitle
from hilum.sections import Section

CharacterSet = Annotated[str, Meta(max_length=100, pattern=r"^[A-Z0-9 _\\]*\Z", description="terms of PS3.3 C.12.1.1.2")]


class Station(Section, frozen=True, kw_only=True):
    """What is different for one modality, by its calling AE title."""

    #: The character set in which it is answered, several joined by a backslash; what this does not hold is transliterated. Empty: as
    #: it asks, or as `worklist.character_set` says.
    character_set: CharacterSet = ""
    #: Scheduled station AE titles whose steps it is told of, and those of no station; empty: of all.
    stations: tuple[BareAeTitle, ...] = ()
    #: Modalities whose steps it is told of, such as `CT`, and those of none; empty: of all.
    modalities: tuple[str, ...] = ()


class Worklist(Section, frozen=True, kw_only=True):
    """Modality Worklist and Modality Performed Procedure Step, as the receiver serves them beside the role `worklist`."""

    #: Whether the receiver answers worklist queries (PS3.4 K).
    serve: bool = True
    #: Whether the receiver takes performed procedure steps (PS3.4 F).
    mpps: bool = True
    #: The character set in which a query is answered that names none, or none that holds all of an answer; several are joined by a
    #: backslash. What it does not hold is transliterated.
    character_set: CharacterSet = "ISO_IR 192"
    #: Steps that one query is answered with at most; a query that matches more ends with 0xA700. 0: all.
    max_answers: Annotated[int, Meta(ge=0)] = 2000
    #: What takes a step from the worklist, beside its end or cancellation by the order's own messages and its age: `started`, a performed
    #: step that says it is for it; `completed`, that one's end; `images`, the completion of its study.
    leaves: tuple[Literal["started", "completed", "images"], ...] = ("started", "completed", "images")
    #: Hours after its start time after which a step leaves the worklist.
    keep_h: Annotated[float, Meta(gt=0, le=87_600)] = 72.0
    #: How often the orders are looked at, in seconds.
    refresh_s: Annotated[float, Meta(ge=0.1, le=3600)] = 1.0
    #: Whether a study is held whose step was discontinued since the wrong entry of the worklist was chosen (110514 of PS3.16 CID 9300).
    hold_wrong_entry: bool = True
    #: Days for which a performed step is remembered after the last that was said of it.
    remember_days: Annotated[float, Meta(gt=0, le=3650)] = 90.0
    stations: dict[BareAeTitle, Station] = field(default_factory=dict)
