"""Several destinations that stand for one: each object goes to one of them, and to another if that one is away."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256
from typing import ClassVar, Literal

from msgspec.structs import replace

from hilum.anonymizing import refuse_policy
from hilum.errors import Misconfigured
from hilum.part10 import Part10
from hilum.runtime.delivery.breaker import Breaker
from hilum.settings import Settings
from hilum.sink import Delivery, Expected, Outage, Session, Settled, Sink, Step, sink_of


class Group(Sink, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Destinations of the settings of which one gets each object; the ledger says which. Each may have deliveries of its own, too."""

    takes_policy: ClassVar[bool] = True

    #: Names of destinations, none of them a group.
    members: tuple[str, ...]
    #: `failover`: the first one that is not away; `balance`: studies are spread over all that are not.
    mode: Literal["failover", "balance"] = "failover"
    #: `study`: what is claimed at once is of one study, which goes to one member as long as that is not away; `none`: whatever comes next.
    group_by: Literal["study", "none"] = "study"

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("`members` names no destination")

    @property
    def grouped(self) -> bool:
        """See `Sink.grouped`."""
        return self.group_by == "study"

    def titled_in(self, settings: Settings) -> bool:
        """See `Sink.titled_in`: if one of the members wants them."""
        return any(sink.titled_in(settings) for sink in self._sinks(settings).values())

    def asks_before_replacing(self, settings: Settings) -> bool:
        """See `Sink.asks_before_replacing`: if one of the members asks."""
        return any(sink.asks_before_replacing(settings) for sink in self._sinks(settings).values())

    def fits(self, name: str, settings: Settings) -> None:
        """See `Sink.fits`."""
        for member in self.members:
            if member not in settings.destinations:
                raise Misconfigured("member-unknown", f"destinations.{name}: there is no destination {member!r}.", fix="Correct `members`.")
            if settings.destinations[member].get("type") == "group":
                raise Misconfigured("member-group", f"destinations.{name}: {member} is a group itself.", fix="Name its members instead.")
            if (of_member := settings.destinations[member].get("policy") or "") not in ("", self.policy):
                raise Misconfigured(
                    "member-policy",
                    f"destinations.{name}: its member {member} gets only what the policy {of_member} lets out, and the group has"
                    f" {f'the policy {self.policy}' if self.policy else 'none'}.",
                    fix="Give the group the same `policy`.",
                )
            if self.policy:
                of = settings.destinations[member]
                refuse_policy(f"destinations.{name}", "group", takes=True, lossy=bool(of.get("lossy")), layout=str(of.get("layout", "")))
        if len(set(self.members)) < len(self.members):
            raise Misconfigured("member-twice", f"destinations.{name}: a member is named twice.", fix="Correct `members`.")

    def check(self, settings: Settings, *, with_object: bool = False) -> Iterator[Step]:
        """See `Sink.check`: the steps of each member."""
        for name, sink in self._sinks(settings).items():
            for step in sink.check(settings, with_object=with_object):
                yield replace(step, name=f"{name}: {step.name}")

    def holdings(self, settings: Settings, study_instance_uid: str, expected: Collection[Expected]) -> frozenset[str]:
        """See `Sink.holdings`: what any member has."""
        sinks = self._sinks(settings).values()
        return frozenset().union(*(sink.holdings(settings, study_instance_uid, expected) for sink in sinks))

    def open(self, settings: Settings) -> Session:
        """See `Sink.open`."""
        self.fits("group", settings)
        return _Members(self._sinks(settings), settings, self.mode)

    def _sinks(self, settings: Settings) -> dict[str, Sink]:
        return {name: sink_of(name, settings.destinations[name]) for name in self.members}


class _Member:
    """One member, as one thread uses it."""

    def __init__(self, name: str, sink: Sink, settings: Settings) -> None:
        self.name = name
        self.breaker = Breaker()
        self._sink = sink
        self._settings = settings
        self._session: Session | None = None

    def begin(self, deliveries: Sequence[Delivery]) -> None:
        self._opened().begin(deliveries)

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """Raises `Outage` if the member cannot be used, whatever the reason; `Later` and `Park` are about the object."""
        settled = self._opened().deliver(delivery, part10)
        self.breaker.success()
        return replace(settled, member=self.name)

    def awaits(self, delivery: Delivery) -> bool:
        """Whether it has the object and has yet to say what becomes of it; not known of one that cannot be used."""
        try:
            return self._opened().awaits(delivery)
        except Outage:
            return False

    def rest(self) -> None:
        if self._session is not None:
            self._session.rest()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _opened(self) -> Session:
        if self._session is None:
            try:
                self._session = self._sink.open(self._settings)
            except Misconfigured as error:
                raise Outage(error.sentence, fix=error.fix) from None
        return self._session


class _Members:
    """The members of a group, in one thread."""

    def __init__(self, sinks: dict[str, Sink], settings: Settings, mode: str) -> None:
        self._members = [_Member(name, sink, settings) for name, sink in sinks.items()]
        self._spread = mode == "balance"
        self._coming: list[Delivery] = []
        self._begun: _Member | None = None

    def begin(self, deliveries: Sequence[Delivery]) -> None:
        """See `Session.begin`."""
        self._coming, self._begun = list(deliveries), None

    def deliver(self, delivery: Delivery, part10: Part10) -> Settled:
        """See `Session.deliver`. A member that is away is left alone for a while, and another one is taken.

        Not for what a member has already and is yet to commit: another one would have it a second time. But if it cannot even be asked to,
        nobody knows whether it ever will.
        """
        having = next((member for member in self._members if member.awaits(delivery)), None)
        if having is not None:
            try:
                return having.deliver(delivery, part10)
            except Outage as away:
                having.breaker.outage(away)
        for member in self._order(delivery.study_instance_uid):
            if member.breaker.wait_s():
                continue
            try:
                if self._begun is not member:
                    member.begin(self._rest(delivery))
                    self._begun = member
                return member.deliver(delivery, part10)
            except Outage as away:
                member.breaker.outage(away)
                self._begun = None
        says = "; ".join(f"{member.name}: {member.breaker.says}" for member in self._members)
        raise Outage(f"No member of the group can be used. {says}")

    def awaits(self, delivery: Delivery) -> bool:
        """See `Session.awaits`."""
        return any(member.awaits(delivery) for member in self._members)

    def rest(self) -> None:
        """See `Session.rest`."""
        for member in self._members:
            member.rest()

    def close(self) -> None:
        """See `Session.close`."""
        for member in self._members:
            member.close()

    def _order(self, study_instance_uid: str) -> list[_Member]:
        """Which member to take first, and which then. Each study has an order of its own, always the same, if studies are spread."""
        if not self._spread:
            return self._members
        return sorted(self._members, key=lambda member: sha256(f"{member.name}/{study_instance_uid}".encode()).digest())

    def _rest(self, delivery: Delivery) -> list[Delivery]:
        ids = [each.delivery_id for each in self._coming]
        return self._coming[ids.index(delivery.delivery_id) :] if delivery.delivery_id in ids else [delivery]
