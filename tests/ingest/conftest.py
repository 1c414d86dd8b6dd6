from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from msgspec.structs import replace

from hilum import bus
from hilum.events import EVENTS
from hilum.settings import S3, Kafka, Settings, Spool
from hilum.store import open_store


@pytest.fixture
def site(tmp_path: Path, own_topics: Callable[[], AbstractContextManager[Kafka]], s3: S3) -> Iterator[Settings]:
    """Settings with topics and a spool of the test's own, on servers that tests share."""
    with own_topics() as kafka:
        settings = Settings(
            data=str(tmp_path),
            spool=Spool(min_free_bytes=0, spare_bytes=0),
            kafka=kafka,
            s3=replace(s3, bucket="way-in", sync_path=str(tmp_path)),
        )
        bus.provision_topics(settings, [kind.topic for kind in EVENTS.values()])
        open_store(settings).ensure_bucket(settings.s3.bucket)
        yield settings
