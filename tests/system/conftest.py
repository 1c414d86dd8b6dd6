from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest
from msgspec.structs import replace

from bench.running import RunningHilum, Servers, running_hilum
from bench.wire import RawReceiver
from hilum.settings import S3, Kafka, Postgres, Settings


@pytest.fixture(scope="session")
def pacs() -> Iterator[RawReceiver]:
    """The PACS that `one_hilum` delivers to."""
    receiver = RawReceiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def one_hilum(tmp_path_factory: pytest.TempPathFactory, pacs: RawReceiver) -> Iterator[RunningHilum]:
    """A Hilum that tests share; each sends objects of its own and asks about these only. It runs its servers itself."""
    with running_hilum(tmp_path_factory.mktemp("hilum"), pacs.port) as running:
        yield running


@pytest.fixture(scope="module")
def servers(
    own_topics: Callable[[], AbstractContextManager[Kafka]], own_database: Callable[[], AbstractContextManager[str]], s3: S3
) -> Iterator[Servers]:
    """Gives settings of the servers that tests share, each time with topics, database and bucket that nobody else uses.

    For a Hilum whose servers the test leaves alone: to start them takes longer than the rest of it.
    """
    with ExitStack() as own:

        def given() -> Settings:
            bucket = f"t{uuid.uuid4().hex[:8]}-originals"
            dsn = own.enter_context(own_database())
            return Settings(kafka=own.enter_context(own_topics()), postgres=Postgres(dsn=dsn), s3=replace(s3, bucket=bucket))

        yield given
