"""Decide, once for each accepted instance, where it goes.

Reads `imaging.instance.accepted.v1`, writes `imaging.instance.routed.v1`. It remembers which object each SOP instance
was, so that another object under the same UID waits for a person, and where it was to go, so that the same object again
goes only where the rules of now send it and it was never to go; if nowhere, it is a duplicate. What has left its memory
is looked up in the index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from hilum.database.known import Decided, IndexedInstances
from hilum.dicom import Header
from hilum.dicom.dataset import read_header
from hilum.errors import Quarantine, Reason
from hilum.events import Decision, Instance, InstanceAccepted, InstanceRouted, PlannedDelivery, delivery_id_for
from hilum.part10 import data_set_offset
from hilum.role import Role
from hilum.runtime.loop import ProcessorRole
from hilum.runtime.processor import Memory
from hilum.settings import Settings
from hilum.store import ObjectStore, open_store

from .rules import Rules

#: How long an instance stays in memory after its last decision; afterwards the index answers.
REMEMBERED = timedelta(hours=24)


class Known(Protocol):
    """What the index says of instances that were decided on before."""

    def decided(self, sop_instance_uids: Sequence[str]) -> Mapping[str, Decided]:
        """What was decided on these instances. Raises `TryAgain`."""
        ...


class Headers(Protocol):
    """Reads headers in the object store."""

    def whole(self, instance: Instance, tags: frozenset[str]) -> Header:
        """The header of the stored object with the values of `tags`, however long. Raises `TryAgain`."""
        ...


class StoredHeaders:
    """Headers of objects in the object store, where a rule names what the event's header leaves out: a rare way."""

    #: Pixel data comes last, so that what a rule may name is in the beginning.
    READ_BYTES = 16 * 2**20

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def whole(self, instance: Instance, tags: frozenset[str]) -> Header:
        """See `Headers`."""
        size = min(self.READ_BYTES, instance.object.size_bytes)
        part10 = self._store.get(instance.object.bucket, instance.object.key, 0, size)
        found = read_header(part10, instance.transfer_syntax_uid, start=data_set_offset(part10), keep=tags)
        # What may come after the part that was read is not absent either.
        beyond = tags - found.json.keys() if found.fault else frozenset()
        return Header(found.json, cut=frozenset(found.cut) | beyond)


class Route:
    """One decision per accepted instance."""

    name = "route"
    State = Decided

    def __init__(self, rules: Rules, known: Known, headers: Headers, config_version: str) -> None:
        self._rules = rules
        self._known = known
        self._headers = headers
        self._whole: dict[str, Header] = {}
        self._config_version = config_version
        self._found: Mapping[str, Decided] = {}

    def configure(self, settings: Settings) -> None:
        """Go on with the rules of `settings`. Raises `Misconfigured` and changes nothing if one cannot work."""
        self._rules = Rules.of(settings)
        self._config_version = settings.config_version

    def prepare(self, events: Sequence[InstanceAccepted]) -> None:
        """Ask the index, once for the batch, which of these instances it knows, and the store for what a header leaves out.

        Raises `TryAgain` while one of them is away.
        """
        self._found = self._known.decided([event.instance.sop_instance_uid for event in events])
        instances = (event.instance for event in events)
        cut = [instance for instance in instances if not self._rules.tags.isdisjoint(instance.header_cut)]
        self._whole = {instance.receipt: self._headers.whole(instance, self._rules.tags) for instance in cut}

    def handle(self, event: InstanceAccepted, memory: Memory[Decided]) -> Iterable[InstanceRouted]:
        """Decide. The same event again gives nothing: its decision is made. Raises `Quarantine` on a conflict."""
        instance = event.instance
        known = memory.get(instance.sop_instance_uid) or self._found.get(instance.sop_instance_uid)
        if known is not None and instance.receipt in known.receipts:
            return
        if known is not None and known.sha256 != instance.object.sha256:
            raise Quarantine(
                Reason.INSTANCE_CONFLICT,
                f"Instance {instance.sop_instance_uid} came again with other content:"
                f" first {known.sha256[:12]}… (receipt {known.receipts[0]}), now {instance.object.sha256[:12]}….",
                found=instance.object.sha256,
                expected=known.sha256,
            )
        planned = [
            PlannedDelivery(
                delivery_id=delivery_id_for(instance.object.sha256, instance.sop_instance_uid, destination),
                destination=destination,
                rules=rules,
            )
            for destination, rules in self._rules.destinations(event, self._whole.get(instance.receipt)).items()
        ]
        deliveries = tuple(each for each in planned if known is None or each.delivery_id not in known.deliveries)
        now = datetime.now(UTC)
        if known is not None and not deliveries:
            yield self._routed(event, "duplicate", (), now)
            return
        known = (known or Decided(receipts=(), sha256=instance.object.sha256)).following(
            instance.receipt, (each.delivery_id for each in deliveries)
        )
        memory.put(instance.sop_instance_uid, known, due=now + REMEMBERED)
        yield self._routed(event, "deliver" if deliveries else "no-rule", deliveries, now)

    def due(self, key: str, memory: Memory[Decided], now: datetime) -> Iterable[InstanceRouted]:
        """Forget an instance whose decisions the index has; wait for the index otherwise. Raises `TryAgain`."""
        known = memory.get(key)
        if known is None:
            return ()
        indexed = self._known.decided([key]).get(key)
        if indexed is not None and set(known.receipts) <= set(indexed.receipts):
            memory.forget(key)
        else:
            memory.put(key, known, due=now + timedelta(hours=1))
        return ()

    def _routed(
        self, event: InstanceAccepted, decision: Decision, deliveries: tuple[PlannedDelivery, ...], now: datetime
    ) -> InstanceRouted:
        instance = event.instance
        return InstanceRouted(
            receipt=instance.receipt,
            study_instance_uid=instance.study_instance_uid,
            series_instance_uid=instance.series_instance_uid,
            sop_instance_uid=instance.sop_instance_uid,
            sop_class_uid=instance.sop_class_uid,
            transfer_syntax_uid=instance.transfer_syntax_uid,
            object=instance.object,
            received_at=instance.received_at,
            decision=decision,
            deliveries=deliveries,
            config_version=self._config_version,
            decided_at=now,
        )


def role(settings: Settings) -> Role:
    """The role `route`."""
    known = IndexedInstances(settings)
    return ProcessorRole(settings, Route(Rules.of(settings), known, StoredHeaders(open_store(settings)), settings.config_version))
