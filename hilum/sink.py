"""What a sink is: a type of destination, as a table `[destinations.NAME]` of the settings names it by `type`.

A sink is one class in one module: `type = "folder"` is the class in `sinks/folder.py`. Its fields are its settings, `check`
does nearly what `deliver` does, and `deliver` may be repeated. Nothing keeps a list.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

import msgspec
from msgspec import Meta, Struct

from hilum.anonymizing import Cleaning, Deidentified, TakesBack, refuse_policy
from hilum.dicom.edits import Edits
from hilum.errors import HilumError, Misconfigured
from hilum.events import DeliveryState, ObjectRef
from hilum.hours import Hours
from hilum.kinds import CharacterSet
from hilum.misfits import misfits, nearest, together, tried
from hilum.part10 import Part10
from hilum.profiles import with_profile
from hilum.settings import Settings, is_secret
from hilum.structs import prepare_structs
from hilum.untaken import Later, NotYet, Outage, Park, Waits

__all__ = [
    "URGENT",
    "Delivery",
    "Expected",
    "Later",
    "NotYet",
    "Outage",
    "Park",
    "Part10",
    "Session",
    "Settled",
    "Sink",
    "Step",
    "Waits",
    "sink_of",
    "sinks_of",
    "step",
]

#: From this priority on a delivery is urgent: it goes before all others, and outside a destination's hours, too.
URGENT = 100


class Delivery(Struct, frozen=True, kw_only=True):
    """One object that is to go to one destination: a row of the ledger."""

    delivery_id: str
    destination: str
    receipt: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    object: ObjectRef
    config_version: str = ""
    traceparent: str = ""
    #: How often it was tried before.
    attempts: int = 0
    received_at: datetime | None = None
    #: Higher ones go first; see `URGENT`.
    priority: int = 0
    #: How often a person had it tried again after it had ended.
    round: int = 0
    #: How often a worker claimed it and was never heard of again.
    abandoned: int = 0
    #: Attributes that are to be another value at the destination, as its order has them.
    edits: Edits | None = None
    #: That the object goes out de-identified; the UIDs above are then those by which it goes out.
    cleaning: Cleaning | None = None
    #: What is to be said of it with its outcome.
    remark: str = ""
    #: Whether the destination may have another object under this UID, and no person has looked yet.
    replaces: bool = False
    #: The policy that its destination had when it was entered: without one now it does not leave, unless somebody decided (`identified`).
    under_policy: str = ""
    identified: bool = False
    #: The titles of the association on which it came; empty if it came otherwise.
    calling_aet: str = ""
    called_aet: str = ""

    @property
    def origin(self) -> Delivery:
        """The delivery as the ledger has it, with the UIDs of the stored object."""
        return self.cleaning.original if self.cleaning is not None else self

    @property
    def stored_syntax_uid(self) -> str:
        """The transfer syntax of the stored object; `transfer_syntax_uid` is that in which it is handed to the sink."""
        return (self.edits.stored_as if self.edits is not None else "") or self.transfer_syntax_uid


class Expected(Struct, frozen=True, kw_only=True):
    """An object that a destination should have, under the UID under which it was sent."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


#: The comment of a delivery to an archive that is the original itself: what has it never expires, whatever becomes of the settings.
KEPT_IN_PLACE = "kept in place"


class Settled(Struct, frozen=True, kw_only=True):
    """The final state of a delivery."""

    state: DeliveryState
    #: The peer's status as it gave it, e.g. `0x0000` or `409`; empty where the destination has none.
    peer_status: str = ""
    #: What Hilum says about it: on the event, too. Never a value of the object.
    comment: str = ""
    #: The peer's own words, for the ledger only: nobody knows what a peer puts there.
    peer_comment: str = ""
    #: Which destination of a group has it; empty if the destination is no group.
    member: str = ""
    #: The SOP instance UID under which it is there, if that is not the object's own: of an image compressed with loss, or de-identified.
    sent_as: str = ""
    #: What was sent, if it was de-identified.
    deidentified: Deidentified | None = None


class Session(Protocol):
    """A sink at work, in one thread. An error of `deliver` never spoils the session for the next object."""

    def begin(self, deliveries: Sequence[Delivery]) -> None:
        """These come next, in this order; of one study, if the sink is `grouped`."""
        del deliveries

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """Deliver one object. It may have been delivered before, by this process or another.

        Raises `Later` (this object, not now), `Park` (this object, not without a person), `Waits` (its outcome), `Outage` or any other
        `TryAgain` (the destination, or what Hilum needs for it, is away), and lets through what `part10` raises.
        """
        ...

    def awaits(self, delivery: Delivery) -> bool:
        """Whether the destination has the object and its outcome is yet to come, or has come and was not asked for: see `Waits`."""
        del delivery
        return False

    def rest(self) -> None:
        """Nothing is to be delivered at present; called about once a second."""
        return

    def close(self) -> None:
        """Let go of everything. The session is not used again."""
        return


class Step(Struct, frozen=True, kw_only=True):
    """One step of a check."""

    name: str
    ok: bool
    seconds: float
    #: What was found.
    says: str = ""
    #: What to do about it, if it is not ok or a warning.
    fix: str = ""
    #: It is ok, and somebody should know of it.
    warning: bool = False


class Sink(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A type of destination. Subclasses add their settings, and are frozen, keyword-only and refuse unknown fields as this one does.

    A sink without connections is its own session, as here; one with them gives a session of its own in `open`.
    """

    #: Sessions at work at the same time in one process.
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    #: Sessions at work at the same time in all processes; 0: `workers` in each of them. With 1, a study never has two associations.
    max_associations: Annotated[int, Meta(ge=0, le=1024)] = 0
    #: Objects a second, over all processes; 0: as many as it takes.
    objects_per_s: Annotated[float, Meta(ge=0)] = 0.0
    #: Megabytes (of 1,000,000 bytes) a second, over all processes; 0: as many as it takes.
    megabytes_per_s: Annotated[float, Meta(ge=0)] = 0.0
    #: When it is delivered to, such as `Mo-Fr 18:00-07:00; Sa,Su 00:00-24:00`; empty: always. What is urgent does not wait for it.
    hours: Annotated[str, Meta(max_length=500)] = ""
    #: The time zone of `hours`, such as `Europe/Vienna`; empty: this machine's.
    time_zone: Annotated[str, Meta(max_length=64)] = ""
    #: `hold`: nothing of a study is delivered before an order fits it, or a person has accepted it as it is; `warn`: the delivery says
    #: so; `ignore`: nobody asks. See [orders](../operations/orders.md).
    require_order: Literal["ignore", "warn", "hold"] = "ignore"
    #: Character sets (0008,0005) in which it takes an object of which a value of its order is not of the object's own, the first first;
    #: empty: ISO_IR 192 (UTF-8). What fits none of them waits for a person. See [orders](../operations/orders.md).
    character_sets: tuple[CharacterSet, ...] = ()
    #: After so many attempts an object that the destination does not take is put aside for a person; 1,000 take about a week.
    max_attempts: Annotated[int, Meta(ge=1)] = 1000
    #: Longest pause between two attempts of one object, in seconds.
    retry_max_s: Annotated[float, Meta(gt=0, le=604_800)] = 600.0
    #: The policy by which objects are de-identified; empty: they go as they are: [de-identification](../operations/deidentification.md).
    policy: Annotated[str, Meta(max_length=32)] = ""
    #: With a policy: `opt-out`, objects of patients who opted out do not leave; `consent`, nor do those of patients who did not consent.
    patients: Literal["opt-out", "consent"] = "opt-out"
    #: With a policy, what becomes of what was de-identified here before, or made of that by a receiver: `hold`, a person looks; `again`.
    deidentified: Literal["hold", "again"] = "hold"

    #: Objects claimed at once.
    batch: ClassVar[int] = 64
    #: Whether `policy` is of use: it sends nothing of an object but what `part10_of` gives it.
    takes_policy: ClassVar[bool] = False

    def open_hours(self) -> Hours:
        """When it is delivered to. Raises `ValueError` if the setting says no hours."""
        return Hours.read(self.hours, self.time_zone)

    @property
    def grouped(self) -> bool:
        """Whether what is claimed at once must be of one study."""
        return False

    @property
    def reads(self) -> bool:
        """Whether `deliver` reads the object, so that it is worth reading ahead."""
        return True

    def titled_in(self, settings: Settings) -> bool:
        """Whether deliveries must come with the titles of the associations on which objects came."""
        del settings
        return False

    def asks_before_replacing(self, settings: Settings) -> bool:
        """Whether a person must look before a correction is sent of an object that the destination may have."""
        del settings
        return False

    def fits(self, name: str, settings: Settings) -> None:
        """Raise `Misconfigured` if the destination `name`, which this is, cannot work beside what else is in the settings."""
        del name, settings

    def check(self, settings: Settings, *, with_object: bool = False) -> Iterator[Step]:
        """Try the way to the destination without delivering: each step, timed; the last one is the one that fails, if one does.

        With `with_object` the last step delivers a marked object of nobody (`hilum.testobject`).
        """
        raise NotImplementedError

    def holdings(self, settings: Settings, study_instance_uid: str, expected: Collection[Expected]) -> frozenset[str]:
        """Ask the destination which of these instances of a study it has now: their SOPInstanceUIDs, and those of others, perhaps.

        Raises `Misconfigured` if destinations of this type cannot be asked, or are not configured for it; `TryAgain` while it is away.
        """
        del settings, study_instance_uid, expected
        raise Misconfigured(
            "destination-not-asked",
            f"A destination of type {type(self).__name__.lower()} cannot be asked what it has.",
            fix="Compare by hand, or deliver again with `hilum deliver resend`: what is there already stays as it is.",
        )

    def taking_back(self, settings: Settings) -> TakesBack:
        """What takes objects back from the destination. Raises `Misconfigured` if destinations of this type let nothing go."""
        del settings
        fix = "Have it deleted there: `hilum deid outputs` lists what was sent."
        raise Misconfigured("not-taken-back", "Nothing can be taken back from a destination of this type.", fix=fix)

    def open(self, settings: Settings) -> Session:
        """A session for one thread. Connects on first use. Raises `Misconfigured` if the settings cannot work."""
        del settings
        return self

    def begin(self, deliveries: Sequence[Delivery]) -> None:
        """See `Session.begin`."""
        del deliveries

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """See `Session.deliver`."""
        raise NotImplementedError

    def awaits(self, delivery: Delivery) -> bool:
        """See `Session.awaits`."""
        del delivery
        return False

    def rest(self) -> None:
        """See `Session.rest`."""

    def close(self) -> None:
        """See `Session.close`."""


class step:  # noqa: N801  # reads as a word: `with step("connect") as connecting:`
    """Time one step of a check and turn an error into its words: `with step("name") as s: s.says = "…"`, then `yield s.done`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.says = ""
        self._warning = self._fix = ""
        self.done = Step(name=name, ok=False, seconds=0.0)
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def warn(self, says: str, *, fix: str) -> None:
        """The step is ok, and somebody should know of this."""
        self.says, self._warning, self._fix = says, says, fix

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> Literal[True] | None:
        seconds = time.monotonic() - self._began
        if error is None:
            self.done = Step(name=self.name, ok=True, seconds=seconds, says=self.says, fix=self._fix, warning=bool(self._warning))
            return None
        if isinstance(error, HilumError):
            self.done = Step(name=self.name, ok=False, seconds=seconds, says=error.sentence, fix=error.fix)
            return True
        return None


def sinks_of(settings: Settings) -> dict[str, Sink]:
    """Every destination of the settings by name. Raises `Misconfigured` that names every mistake, by destination and key."""
    if problems := tried(*(partial(sink_of, name, table) for name, table in settings.destinations.items())):
        raise together(problems)
    sinks = {name: sink_of(name, table) for name, table in settings.destinations.items()}
    if problems := tried(*(partial(sink.fits, name, settings) for name, sink in sinks.items())):
        raise together(problems)
    return sinks


def sink_of(name: str, table: dict[str, Any]) -> Sink:
    """The sink of `[destinations.NAME]`. Raises `Misconfigured`."""
    where = f"destinations.{name}"
    kind = table.get("type")
    if not isinstance(kind, str) or not kind:
        raise Misconfigured("destination-type-missing", f"{where} has no `type`.", fix=f"Set it to one of: {', '.join(types())}.")
    if kind not in types():
        near = nearest(kind, types())
        fix = f"Did you mean {near}?" if near else f"Types are: {', '.join(types())}."
        raise Misconfigured("destination-type-unknown", f"{where}: there is no destination type {kind!r}.", fix=fix)
    values = {key: value for key, value in with_secrets(name, table).items() if key != "type"}
    values = with_profile(where, kind, values, sink_class(kind).__struct_fields__)
    if problems := list(misfits(values, sink_class(kind), where, secret=is_secret)):
        raise together(problems)
    sink = msgspec.convert(values, sink_class(kind), strict=False)
    if sink.policy:
        refuse_policy(where, kind, takes=sink.takes_policy, lossy=bool(values.get("lossy")), layout=str(values.get("layout", "")))
    try:
        sink.open_hours()
    except ValueError as error:
        raise Misconfigured("hours-invalid", f"{where}: {error}.", fix="Correct `hours` or `time_zone`.") from None
    return sink


def named_secrets(name: str, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The secrets that a destination's table names by files: the key, and the key that the file is for.

    Without those whose file the sink reads itself, so that they may change while it works.
    """
    kind = table.get("type")
    its_own = sink_class(kind).__struct_fields__ if kind in types() else ()
    for key in table:
        secret = key.removesuffix("_file")
        if key not in its_own and secret != key and is_secret(f"destinations.{name}.{secret}"):
            yield key, secret


def with_secrets(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """The table with `secret_key` instead of `secret_key_file = "/run/secrets/…"`. Raises `Misconfigured` if a file cannot be read."""
    found = dict(table)
    for key, secret in named_secrets(name, table):
        path = found.pop(key)
        try:
            found[secret] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, TypeError, UnicodeDecodeError) as error:
            says = f"destinations.{name}.{key} names a file that cannot be read here ({type(error).__name__})."
            fix = "Put it on every machine on which Hilum delivers, readable for Hilum's account."
            raise Misconfigured("secret-unreadable", says, fix=fix) from None
    return found


def types() -> list[str]:
    """The types that a destination may have."""
    modules = pkgutil.iter_modules(importlib.import_module("sinks").__path__)
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def sink_class(kind: str) -> type[Sink]:
    """The class of a type."""
    module = importlib.import_module(f"sinks.{kind}")
    prepare_structs()  # of a type that `hilum apply` brings, several workers begin at once
    classes = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Sink) and each is not Sink]
    if len(classes) != 1:
        raise TypeError(f"sinks.{kind} must offer one sink, and offers {len(classes)}")
    return classes[0]
