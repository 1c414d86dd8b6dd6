"""Expiry on the real store and tables, killed at any point."""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import msgspec
import pytest

from hilum import bus
from hilum.database import connect
from hilum.errors import NotFound, TryAgain
from hilum.runtime.expire import Expire
from hilum.sections import Retention
from hilum.settings import S3, Postgres, Settings
from hilum.storage import marker
from hilum.storage.expiring import Done, Expirer
from hilum.storage.records import Records
from hilum.store import S3Store, StoredObject, open_store
from hilum.testing import eventually

pytestmark = pytest.mark.system
OBJECTS = 60
AGE = timedelta(days=40)

ROWS = """
INSERT INTO receipt (receipt, study_instance_uid, series_instance_uid, sop_instance_uid, bucket, object_key, size_bytes, sha256,
    calling_aet, received_at, received, accepted_at, decision, decided_at, delivery_ids)
SELECT 'r' || n, '2.2', '2.3', '2.4.' || n, %(bucket)s, 'k' || n, 1, 'x', 'CT1', %(at)s, true, %(at)s, 'deliver', %(at)s, ARRAY['d' || n]
FROM generate_series(1, %(count)s) AS n;
"""
DELIVERIES = """
INSERT INTO delivery (delivery_id, destination, receipt, study_instance_uid, sop_instance_uid, bucket, object_key, state, settled_at,
    comment)
SELECT 'd' || n, 'pacs', 'r' || n, '2.2', '2.4.' || n, %(bucket)s, 'k' || n,
    CASE n %% 10 WHEN 1 THEN 'pending' ELSE 'delivered' END, %(at)s,
    CASE n %% 10 WHEN 2 THEN 'kept in place' END
FROM generate_series(1, %(count)s) AS n;
"""


class AgedStore(S3Store):
    """The real one, in which every original is old: nobody can wait for it."""

    def stat(self, bucket: str, key: str) -> StoredObject:
        found = super().stat(bucket, key)
        return found if key == marker.KEY else msgspec.structs.replace(found, modified_at=found.modified_at - AGE)


@pytest.fixture
def settings(postgres: str, s3: S3) -> Settings:
    made = Settings(
        postgres=Postgres(dsn=postgres),
        s3=msgspec.structs.replace(s3, bucket=f"e{uuid.uuid4().hex[:8]}"),
        retention=Retention(originals_days=30),
    )
    store = open_store(made)
    store.ensure_bucket(made.s3.bucket)
    for n in range(1, OBJECTS + 1):
        store.put(made.s3.bucket, f"k{n}", BytesIO(b"x"), 1)
    with connect(postgres) as connection:
        values = {"bucket": made.s3.bucket, "at": datetime.now(UTC) - AGE, "count": OBJECTS}
        connection.execute(ROWS, values)
        connection.execute(DELIVERIES, values)
    return made


def work(settings: Settings) -> bool:
    """Steps until nothing more expires; whether anything did."""
    store = AgedStore(settings.s3.endpoint, settings.s3.access_key, settings.s3.secret_key)
    with connect(settings.postgres.dsn) as connection:
        records = Records(connection, bus.Writer(settings, "expire"), settings.s3.bucket, ["archive"])
        expirer = Expirer(records, store, marker.Marker(store, settings.s3.bucket), settings.retention, "test")
        after, any_ = "", False

        def step() -> Done | None:
            try:
                return expirer.step(after, datetime.now(UTC))
            except TryAgain:  # the database has yet to undo what one that was killed had begun
                return None

        while True:
            done = eventually(step)
            assert done is not None
            after, any_ = done.after, any_ or bool(done.deleted)
            if not after and not done.deleted and not done.decided:
                return any_


def test_killed_at_any_point_what_expires_goes_once_and_all_else_stays(settings: Settings) -> None:
    for _ in range(5):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work(settings)
            os._exit(0)
        time.sleep(random.uniform(0.03, 0.25))  # where it is killed is what is tried
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    work(settings)

    kept = {f"k{n}" for n in range(1, OBJECTS + 1) if n % 10 in (1, 2)}
    assert {each.key for each in open_store(settings).list(settings.s3.bucket)} - {marker.KEY} == kept
    with connect(settings.postgres.dsn) as connection:
        expired = connection.execute("SELECT object_key FROM expiry WHERE deleted_at IS NOT NULL").fetchall()
        said = connection.execute("SELECT headers ->> 'ce_id' FROM outbox").fetchall()
    assert len(expired) == OBJECTS - len(kept)
    assert len(said) == len(set(said)) == OBJECTS - len(kept)
    assert not work(settings)


def test_the_role_keeps_what_is_young_in_the_store(log: Any, settings: Settings) -> None:
    """Old by the tables alone: a clock was wrong, or it came again a moment ago."""
    log.make(partitions=1)
    settings = msgspec.structs.replace(settings, kafka=log.settings.kafka, data="/nonexistent")

    role = Expire(settings, steady=timedelta(0), pass_s=0.1, deleted_pause_s=0.0)
    with log.running(role):
        eventually(lambda: _has_marker(settings), what="the marker of a decision")
        eventually(lambda: _count(settings, "SELECT count(*) FROM expiry") == 0, what="decisions that are taken back")
        assert role.health().ready
    assert len([each for each in open_store(settings).list(settings.s3.bucket) if each.key.startswith("k")]) == OBJECTS


def _has_marker(settings: Settings) -> bool:
    try:
        open_store(settings).stat(settings.s3.bucket, marker.KEY)
    except NotFound:
        return False
    return True


def _count(settings: Settings, query: str) -> int:
    with connect(settings.postgres.dsn) as connection:
        [(count,)] = connection.execute(query.encode()).fetchall()
    return int(count)


def test_what_the_store_retains_is_kept(settings: Settings) -> None:
    locked = msgspec.structs.replace(settings, s3=msgspec.structs.replace(settings.s3, bucket=f"{settings.s3.bucket}-locked"))
    store, bucket = open_store(locked), locked.s3.bucket
    store.ensure_bucket(bucket, object_lock=True)
    for n in (3, 4):
        store.put(bucket, f"k{n}", BytesIO(b"x"), 1)
    assert not store.is_retained(bucket, "k3")
    store.retain(bucket, "k3", "governance", datetime.now(UTC) + timedelta(days=1))
    assert store.is_retained(bucket, "k3")
    assert not store.is_retained(bucket, "gone")
    with connect(settings.postgres.dsn) as connection:
        connection.execute("UPDATE receipt SET bucket = %s WHERE receipt IN ('r3', 'r4')", (bucket,))
        connection.execute("UPDATE delivery SET bucket = %s WHERE delivery_id IN ('d3', 'd4')", (bucket,))

    assert work(locked)

    assert [each.key for each in store.list(bucket) if each.key != marker.KEY] == ["k3"]
