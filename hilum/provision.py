"""Make what Hilum needs on Kafka, PostgreSQL and S3. Everything here may be repeated."""

from __future__ import annotations

from msgspec import Struct

from hilum.settings import Settings


class Provisioned(Struct, frozen=True, kw_only=True):
    """What was there and what was made."""

    what: str
    total: int
    made: int


def provision(settings: Settings) -> list[Provisioned]:
    """Make topics, tables and buckets; destinations of messages begin.

    Raises `TryAgain` if one of the servers does not answer, `Misconfigured` if it refuses.
    """
    from hilum.bus import provision_topics
    from hilum.database import migrate
    from hilum.database.told import begin_now
    from hilum.notices import message_destinations
    from hilum.store import open_store

    topics, new_topics = provision_topics(settings)
    migrations = migrate(settings.postgres.dsn)
    begin_now(settings.postgres.dsn, message_destinations(settings.destinations))
    store = open_store(settings)
    made = store.ensure_bucket(settings.s3.bucket)
    return [
        Provisioned(what="topics", total=topics, made=new_topics),
        Provisioned(what="database migrations", total=migrations.total, made=migrations.made),
        Provisioned(what="buckets", total=1, made=int(made)),
    ]
