"""Kafka, PostgreSQL and S3 as managed child processes, and the supervisor that keeps them and Hilum's roles running.

    with embedded(data_dir) as endpoints:
        producer = bus.producer(endpoints.filled_into(Settings()))

What a setting names as the site's own server is not started; see `hilum.services.up` for `hilum up`, `down` and `status`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hilum.services.endpoints import Endpoints
    from hilum.services.supervisor import Server
    from hilum.settings import Settings

__all__ = ["embedded", "servers_for"]


@contextmanager
def embedded(data_dir: Path, settings: Settings | None = None) -> Iterator[Endpoints]:
    """Run the services on `data_dir` for as long as the block lasts, without any role; topics, tables and buckets are the caller's.

    A service that `settings` name elsewhere is not started. Raises `Misconfigured` if one cannot start; nothing is left running.
    """
    from hilum.services.endpoints import endpoints_of
    from hilum.services.supervisor import Supervisor
    from hilum.settings import Settings

    settings = settings or Settings()
    supervisor = Supervisor(data_dir, servers_for(settings, data_dir), endpoints=partial(endpoints_of, settings))
    endpoints = supervisor.start()
    try:
        yield endpoints
    finally:
        supervisor.stop()


def servers_for(settings: Settings, data_dir: Path) -> list[Server]:
    """The servers that are to run here: those for which `settings` name none of the site's own, and the door of research feeds.

    Raises `Misconfigured` if nobody could reach that door.
    """
    from hilum.services.endpoints import embedded_names
    from hilum.services.feed_door import KAFKA_READERS, S3, FeedDoor
    from hilum.services.kafka import KafkaServer
    from hilum.services.postgres import PostgresServer
    from hilum.services.seaweedfs import SeaweedServer

    data = data_dir.expanduser().resolve()
    feed, here = settings.feed, embedded_names(settings)
    servers: list[Server] = [
        KafkaServer(data, port=settings.kafka.port, readers=(feed.reached_as(), feed.kafka_port) if feed.host else None),
        PostgresServer(data, port=settings.postgres.port),
        SeaweedServer(data, port=settings.s3.port),
    ]
    behind = {"kafka": (feed.kafka_port, KAFKA_READERS), "s3": (feed.s3_port, str(settings.s3.port or S3))}
    door = [each for name, each in behind.items() if name in here and feed.host]
    return [*(server for server in servers if server.name in here), *([FeedDoor(data, feed, door)] if door else [])]
