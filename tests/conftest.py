"""Real servers for the tests that are marked `system`, each started once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from confluent_kafka import Message, TopicPartition
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hilum import bus
from hilum.database import connect, migrate
from hilum.errors import HilumError
from hilum.events import EVENTS, Event, Topic, decode
from hilum.role import Role
from hilum.services import embedded
from hilum.settings import S3, Kafka, Postgres, Settings
from hilum.testing import eventually

E = TypeVar("E", bound=Event)


def pytest_configure() -> None:
    """Let the processes that tests start end on Ctrl-C, also where whoever started the tests has SIGINT ignored, as a shell's `&` does."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    path = tmp_path / "small"
    path.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here: not root, or in a container that may not")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def read_only(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that may not be written to; root may write everywhere but on a disk that is mounted so."""
    if os.geteuid() == 0:
        disk: Path = request.getfixturevalue("small_disk")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        yield disk
    else:
        path = tmp_path / "read-only"
        path.mkdir(mode=0o500)
        yield path
        path.chmod(0o700)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """The settings of a broker that tests share; each uses a prefix of its own."""
    elsewhere = Settings(postgres=Postgres(dsn="postgresql://none"), s3=S3(endpoint="http://none"))
    with embedded(tmp_path_factory.mktemp("kafka"), elsewhere) as endpoints:
        yield endpoints.filled_into(elsewhere).kafka


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL that tests share; its database has all tables, and no test writes there."""
    elsewhere = Settings(kafka=Kafka(bootstrap="none"), s3=S3(endpoint="http://none"))
    with embedded(tmp_path_factory.mktemp("postgres"), elsewhere) as endpoints:
        migrate(endpoints.postgres_dsn)
        yield endpoints.postgres_dsn


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The address of a database of the test's own, with all tables."""
    template = str(conninfo_to_dict(postgres_server)["dbname"])
    name = f"t{uuid.uuid4().hex[:12]}"
    with connect(postgres_server) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    yield make_conninfo(postgres_server, dbname=name)
    with connect(make_conninfo(postgres_server, dbname="postgres")) as server:
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """The settings of an object store that tests share; each uses buckets of its own."""
    elsewhere = Settings(kafka=Kafka(bootstrap="none"), postgres=Postgres(dsn="postgresql://none"))
    with embedded(tmp_path_factory.mktemp("s3"), elsewhere) as endpoints:
        yield S3(endpoint=endpoints.s3_endpoint, access_key=endpoints.s3_access_key, secret_key=endpoints.s3_secret_key)


class Running:
    """A role in a thread of its own."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.stop = threading.Event()
        self.error: HilumError | None = None
        self._thread = threading.Thread(target=self._run, name=role.name)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.role.run(self.stop)
        except HilumError as error:
            self.error = error

    def ended(self) -> bool:
        """Whether it has ended by itself or was stopped."""
        return not self._thread.is_alive()

    def end(self) -> None:
        """Stop it, and wait until it has."""
        self.stop.set()
        self._thread.join(20)
        assert self.ended(), f"{self.role.name} did not stop: {self.role.health()}"


class Log:
    """The topics of one test: what is said on them, and what is there. `settings` lead to them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._producer = bus.producer(settings)

    def make(self, *topics: Topic, partitions: int = 0) -> None:
        """Make topics: all of the events', and these."""
        kafka = msgspec.structs.replace(self.settings.kafka, partitions=partitions)
        bus.provision_topics(Settings(kafka=kafka), [*topics, *(kind.topic for kind in EVENTS.values())])

    def say(self, *events: Event, stage: str = "test") -> list[str]:
        """Put events on their topics; their ids."""
        writer = bus.Writer(self.settings, stage)
        ids = [str(uuid.uuid4()) for _ in events]
        for event, id_ in zip(events, ids, strict=True):
            record = writer.record(event, id_)
            self.put(record.topic, record.key, record.value, record.headers)
        self.flush()
        return ids

    def put(self, topic: str, key: bytes, value: bytes, headers: bus.Headers | None = None, partition: int = -1) -> None:
        """Hand any message to the producer."""
        self._producer.produce(topic, value, key, partition, headers=headers or [])
        self._producer.poll(0)

    def flush(self) -> None:
        """Return once everything is on the log."""
        assert self._producer.flush(20) == 0

    def messages(self, topic: str, count: int, timeout_s: float = 20.0) -> list[Message]:
        """Every committed message of a topic, once there are `count`; more if there are more by then."""
        consumer = bus.consumer(self.settings, "test")
        partitions = bus.partition_counts(consumer, [topic])[topic]
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        found: list[Message] = []

        def enough() -> bool:
            found.extend(consumer.consume(10_000, 0.1))
            return len(found) >= count

        try:
            eventually(enough, timeout_s, what=f"{count} messages on {topic}")
            while more := consumer.consume(10_000, 0.3):
                found += more
        finally:
            consumer.close()
        assert not [message.error() for message in found if message.error()]
        return found

    @contextmanager
    def following(self, kind: type[Event]) -> Iterator[Callable[[], list[Message]]]:
        """Gives a function that returns what has come on the topic of `kind` since it was last called."""
        topic = bus.topic_of(self.settings, kind)
        consumer = bus.consumer(self.settings, "test")
        partitions = bus.partition_counts(consumer, [topic])[topic]
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        try:
            yield lambda: [message for message in consumer.consume(10_000, 0.05) if not message.error()]
        finally:
            consumer.close()

    def events(self, kind: type[E], count: int, timeout_s: float = 20.0) -> list[E]:
        """Every committed event of a class, once there are `count`."""
        messages = self.messages(bus.topic_of(self.settings, kind), count, timeout_s)
        return [decode(kind, message.value() or b"") for message in messages]

    @contextmanager
    def running(self, *roles: Role) -> Iterator[Sequence[Running]]:
        """Run roles for as long as the block lasts."""
        running = [Running(role) for role in roles]
        try:
            yield running
        finally:
            for each in running:
                each.stop.set()
            for each in running:
                each.end()


@pytest.fixture
def log(kafka: Kafka) -> Log:
    """Topics of the test's own on the shared broker, made with `log.make`."""
    return Log(Settings(kafka=msgspec.structs.replace(kafka, prefix=f"t{uuid.uuid4().hex[:8]}.")))


@pytest.fixture(scope="session")
def make_log() -> type[Log]:
    """For tests that need a broker of their own."""
    return Log


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `peer("dcmsend")` needs that program, or file if it is a path: without it, it is skipped, and in CI it fails."""
    for marker in item.iter_markers("peer"):
        missing = [program for program in marker.args if shutil.which(program) is None and not Path(program).is_file()]
        if missing:
            sentence = f"{', '.join(missing)} is not installed; Debian's packages dcmtk, orthanc, orthanc-dicomweb and dicom3tools have it"
            if os.environ.get("CI"):
                pytest.fail(sentence)
            pytest.skip(sentence)
