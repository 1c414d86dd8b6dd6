"""The research feed takes what is de-identified, and says so."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from hilum.edited import part10_of
from hilum.errors import Misconfigured, TryAgain
from hilum.settings import S3, Settings
from hilum.sink import sink_of, sinks_of
from hilum.study_events import InstanceDeidentified
from hilum.testing import MemoryStore
from sinks.research import Feed
from tests.hilum.test_anonymizing import going, key, settings, stored

__all__ = ["key", "settings"]

TABLE = {"type": "research", "bucket": "study-x", "policy": "research"}


class Said(list[tuple[InstanceDeidentified, str]]):
    """What was said, and Kafka away as often as a test wants."""

    away = 0

    def __call__(self, event: InstanceDeidentified, event_id: str) -> None:
        if self.away:
            self.away -= 1
            raise TryAgain("Kafka is away.")
        self.append((event, event_id))


def test_the_id_of_what_is_said_is_made_of_what_left_alone(settings: Settings) -> None:
    store, said = MemoryStore(), Said()
    delivery = going(settings, stored(store))
    for delivery_id in ("d1", "d2"):
        as_another = replace(delivery, delivery_id=delivery_id, receipt=delivery_id)
        Feed(MemoryStore(), "study-x", said, own=True).deliver(as_another, part10_of(store, as_another))

    assert said[0][1] == said[1][1]


def test_an_object_is_in_the_bucket_by_its_new_uids_and_the_event_does_not_lead_back(settings: Settings) -> None:
    store, bucket, said = MemoryStore(), MemoryStore(), Said()
    delivery = going(settings, stored(store))
    part10 = part10_of(store, delivery)

    Feed(bucket, "study-x", said, own=True).deliver(delivery, part10)

    ((event, _),) = said
    assert bucket.get("study-x", event.object_key) == part10.file()
    assert event.sop_instance_uid == delivery.sop_instance_uid
    for original in ("1.2.3.1", "1.2.3.2", "1.2.3.6", delivery.object.sha256, "P1234567"):
        assert original not in str(event).replace(delivery.sop_class_uid, "")


def test_after_a_crash_between_bucket_and_event_the_same_is_said(settings: Settings) -> None:
    store, bucket, said = MemoryStore(), MemoryStore(), Said()
    delivery = going(settings, stored(store))
    feed = Feed(bucket, "study-x", said, own=True)
    said.away = 1
    with pytest.raises(TryAgain):
        feed.deliver(delivery, part10_of(store, delivery))

    states = [feed.deliver(delivery, part10_of(store, delivery)).state for _ in range(2)]

    assert states == ["already_there"] * 2
    assert said[0][1] == said[1][1]


def test_what_is_not_de_identified_is_not_taken() -> None:
    store, bucket = MemoryStore(), MemoryStore()
    delivery = stored(store)

    with pytest.raises(Misconfigured):
        Feed(bucket, "study-x", Said(), own=True).deliver(delivery, part10_of(store, delivery))


def test_a_feed_has_a_policy_and_a_bucket_of_its_own() -> None:
    with pytest.raises(Misconfigured, match="policy"):
        sink_of("feed", {key: value for key, value in TABLE.items() if key != "policy"})
    with pytest.raises(Misconfigured, match="bucket of the originals"):
        sinks_of(Settings(s3=S3(bucket="study-x"), destinations={"feed": dict(TABLE)}))
    assert sinks_of(Settings(destinations={"feed": dict(TABLE)}))
