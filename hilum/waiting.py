"""Why a delivery waits, in words: held, paused, without its order, outside hours, an outage, its next attempt, a limit, or others.

One place puts together what the ledger, the settings and people's wishes say, so that no command shows a delivery that waits for
nothing, or a next attempt in the past.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from hilum import bundle, desired
from hilum.database.queues import Outage, QueueNow, is_watched, outages, queues, waiting_for_orders
from hilum.desired import Desired
from hilum.errors import Misconfigured, TryAgain
from hilum.events import ResourceWanted
from hilum.runtime.delivery.orders import Orders
from hilum.runtime.delivery.suspects import STRIKES
from hilum.settings import Settings
from hilum.sink import URGENT, Sink, sink_of
from hilum.words import counted

#: How long a command waits for Kafka before it says that it does not know what is held and paused.
KAFKA_WITHIN_S = 3.0


class Waiter(Struct, frozen=True, kw_only=True):
    """What must be known of a delivery, or of several to one destination of one study, that have no final state."""

    destination: str
    study_instance_uid: str
    priority: int = 0
    attempts: int = 0
    #: When it may be tried; in the past if it is due.
    not_before: datetime | None = None
    in_hand: bool = False
    #: How many that are due come before it, if that was counted.
    before: int | None = None
    #: How many of its study were put off by the destination.
    refused: int = 0
    #: Whether no order fits its study.
    without_order: bool = False


class Circumstances(Struct, frozen=True, kw_only=True):
    """All on which it depends whether something is delivered now."""

    #: With the destinations that there are now.
    settings: Settings
    wanted: Desired = Desired()
    #: Why it is not known what is wanted; empty if it is.
    unknown: str = ""
    queues: Mapping[str, QueueNow] = {}
    outages: Mapping[str, Outage] = {}
    #: How many deliveries wait for an order, by destinations that ask for one.
    without_order: Mapping[str, int] = {}
    #: Whether any process delivers.
    delivers: bool = True
    now: datetime

    def sink(self, name: str) -> Sink:
        """The destination. Raises `Misconfigured` if it cannot work, as the workers find, too; `KeyError` if there is none."""
        sink = sink_of(name, self.settings.destinations[name])
        sink.fits(name, self.settings)
        return sink

    def of_destination(self, name: str, *, urgent: bool = False) -> list[str]:
        """Why nothing is delivered to a destination, or nothing that is not urgent; nothing, if it is not so."""
        said = [] if self.delivers else ["no process of the role deliver is connected to the ledger; see `hilum status`"]
        of_it = self.wanted.destinations.get(name)
        if of_it and of_it.paused:
            said.append(f"paused {_by(of_it)}")
        if outage := self.outages.get(name):
            said.append(f"{outage.says} (since {_moment(outage.since)})")
        if name not in self.settings.destinations:
            if not self.unknown:
                said.append("there is no such destination any more: add it again, or cancel what waits")
            return said
        try:
            orders = Orders.of(name, self.sink(name), self.wanted)
        except Misconfigured as error:
            return [*said, str(error)]
        if orders.paused and not (of_it and of_it.paused):
            said.append("all members of the group are paused")
        if not urgent and (closed := orders.closed(self.now)):
            said.append(closed)
        return said

    def asks_for_orders(self, name: str) -> bool:
        """Whether nothing of a study is delivered to a destination before an order fits it."""
        return self.settings.destinations.get(name, {}).get("require_order") == "hold"

    def held(self, study_instance_uid: str) -> str:
        """By whom a study is held, since when, and why; empty if it is not."""
        held = self.wanted.held.get(study_instance_uid)
        return f"held {_by(held)}" if held else ""

    def because(self, waiter: Waiter) -> str:
        """Why a delivery waits: never empty."""
        name = waiter.destination
        said = [held] if (held := self.held(waiter.study_instance_uid)) else []
        said += self.of_destination(name, urgent=waiter.priority >= URGENT)
        if waiter.without_order and self.asks_for_orders(name):
            said.append("waits for an order that fits (`hilum study match`)")
        if waiter.in_hand:
            return "; ".join(["a worker has it in its hands", *said])
        if waiter.not_before and waiter.not_before > self.now:
            said.append("waits for its next attempt" if waiter.attempts else "is looked at again later")
        elif waiter.refused >= STRIKES:
            refused = counted(waiter.refused, "object")
            said.append(f"its study rests between attempts, since {refused} of it were not taken; the others go on")
        if not said:
            limits = self.limits(name, hours=False)
            said = [f"limited to {limits}"] if limits else []
            said.append(self._turn(waiter))
        return "; ".join([*said, *([self.unknown] if self.unknown else [])])

    def next_attempt_at(self, waiter: Waiter) -> datetime | None:
        """When it is tried next, if that is known and yet to come."""
        return waiter.not_before if waiter.not_before and waiter.not_before > self.now and not waiter.in_hand else None

    def queue(self, name: str) -> str:
        """What is to be said of the queue of a destination as a whole; empty if nothing waits."""
        queue = self.queues.get(name)
        if queue is None:
            return ""
        said = self.of_destination(name)
        if held := sum(queue.of_studies.get(uid, 0) for uid in self.wanted.held):
            said.append(f"{held:,} of held studies, see `hilum deliver holds`")
        if lacking := self.without_order.get(name, 0):
            said.append(f"{lacking:,} wait for an order that fits, see `hilum study match`")
        if queue.put_off:
            said.append(f"{queue.put_off:,} wait for their next attempt, the first at {_moment(queue.next_attempt_at)}")
        if not said and queue.due:
            said.append(f"{queue.due:,} are due" + (f", limited to {limits}" if (limits := self.limits(name, hours=False)) else ""))
        return "; ".join(said)

    def limits(self, name: str, *, hours: bool = True) -> str:
        """What the destination gets at most now, in words, with or without when; empty if nothing limits it."""
        try:
            sink = self.sink(name)
        except (Misconfigured, KeyError):
            return ""
        orders = Orders.of(name, sink, self.wanted)
        of_it = self.wanted.destinations.get(name)
        when = of_it.limits.hours if of_it and of_it.limits and of_it.limits.hours is not None else sink.hours
        parts = (
            (orders.objects_per_s, f"{orders.objects_per_s:g} objects/s"),
            (orders.megabytes_per_s, f"{orders.megabytes_per_s:g} MB/s"),
            (orders.max_associations, counted(orders.max_associations, "association")),
            (hours and when, when),
        )
        return ", ".join(words for limit, words in parts if limit)

    def _turn(self, waiter: Waiter) -> str:
        if waiter.before is not None:
            return f"{waiter.before:,} are due before it" if waiter.before else "it is due now, and next"
        queue = self.queues.get(waiter.destination)
        return f"is due, one of {queue.due:,}" if queue and queue.due else "is due"


def circumstances(settings: Settings) -> Circumstances:
    """How it is now. Raises `TryAgain` and `Misconfigured` of PostgreSQL; while Kafka is away it says that it does not know."""
    dsn, wanted, unknown = settings.postgres.dsn, Desired(), ""
    try:
        wanted = desired.read(settings, timeout_s=KAFKA_WITHIN_S)
        in_force = bundle.in_force(settings, bundle.current(settings, timeout_s=KAFKA_WITHIN_S))
        settings = replace(in_force, destinations=wanted.tables(in_force))
    except (TryAgain, Misconfigured) as error:
        unknown = f"what is held, paused, limited, applied or added by hand is not known: {error}"
    asking = [name for name, table in settings.destinations.items() if table.get("require_order") == "hold"]
    return Circumstances(
        settings=settings,
        wanted=wanted,
        unknown=unknown,
        queues=queues(dsn, wanted.held),
        outages=outages(dsn),
        without_order=waiting_for_orders(dsn, asking),
        delivers=is_watched(dsn),
        now=datetime.now(UTC),
    )


def _by(wanted: ResourceWanted) -> str:
    return f"by {wanted.by} since {_moment(wanted.since)}{': ' if wanted.why else ''}{wanted.why}"


def _moment(at: datetime | None) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}" if at else ""
