"""Real servers for the tests that are marked `system`, each started once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil
import pytest
from confluent_kafka import Message, Producer, TopicPartition
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bench.peers import free_port
from bench.running import alone_on_this_machine
from hilum import bus
from hilum.database import connect, migrate
from hilum.errors import HilumError
from hilum.events import EVENTS, Event, Topic, decode
from hilum.role import Role
from hilum.services import embedded
from hilum.services.endpoints import Endpoints
from hilum.settings import S3, Kafka, Postgres, Settings
from hilum.testing import eventually

E = TypeVar("E", bound=Event)

#: Who runs some tests explores: each run tries other examples, keeps what failed and tries it first. How long an example takes is not
#: judged. All tests, as `./dev test` and CI run them, try the same examples each time (Hypothesis' own profile `ci`): what they find new
#: would else be found by chance, in a change that has nothing to do with it.
EXPLORE = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)

#: A file system in memory (Linux), and what must be free on it, and of memory, for the servers of one process of tests.
IN_MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of this process's own is made there
IN_MEMORY_BYTES = 2 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Choose how Hypothesis draws examples.

    And let the processes that tests start end on Ctrl-C, also where whoever started the tests has SIGINT ignored, as a shell's `&` does.
    """
    if not os.environ.get("CI") and not config.getoption("--hypothesis-profile"):
        hypothesis_settings.register_profile("explore", EXPLORE)
        hypothesis_settings.load_profile("explore")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


#: Where the longest files are, and those of them that share `one_hilum`, each group from the longest to the shortest.
LONG = ("kill_everything", "kill_receiver", "patients_stay_out_of_sight", "apply", "misbehaving_destinations", "storage_commitment")
SHARING = ("bad_days", "samples", "commands", "import")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the whole path last, and the longest files of these first: each process of tests takes the next file that is left.

    So none begins with a long one when the others are done, and what is started for many tests does not idle through the rest.
    """
    order = {f"test_{name}.py": place for place, name in enumerate((*LONG, "", *SHARING))}
    system = {item.path for item in items if item.get_closest_marker("system")}

    def place(item: pytest.Item) -> tuple[bool, int]:
        whole_path = item.path.parent.name == "system"
        return item.path in system, 1 + order.get(item.path.name, len(LONG)) if whole_path else 0

    items.sort(key=place)  # stable: a file's tests stay together, in their order


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
def servers_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the servers that tests share have their data: in memory where there is room, since no test cuts their power.

    A disk makes them wait: PostgreSQL writes every file of a test's database to it when that is dropped.
    """
    if not IN_MEMORY.is_dir() or shutil.disk_usage(IN_MEMORY).free < IN_MEMORY_BYTES or psutil.virtual_memory().available < IN_MEMORY_BYTES:
        yield tmp_path_factory.mktemp("servers")
        return
    for left in IN_MEMORY.glob("hilum-tests-*"):  # by tests that were killed
        if not psutil.pid_exists(int(left.name.split("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"hilum-tests-{os.getpid()}-", dir=IN_MEMORY, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def started_alone(folder: Path, settings: Settings) -> Iterator[Endpoints]:
    """Servers on `folder`, started while no other process of tests starts any."""
    with ExitStack() as stack:
        with alone_on_this_machine():
            endpoints = stack.enter_context(embedded(folder, settings))
        yield endpoints


@pytest.fixture(scope="session")
def kafka(servers_folder: Path) -> Iterator[Kafka]:
    """The settings of a broker that tests share; each uses a prefix of its own."""
    elsewhere = Settings(postgres=Postgres(dsn="postgresql://none"), s3=S3(endpoint="http://none"))
    with started_alone(servers_folder / "kafka", elsewhere) as endpoints:
        yield endpoints.filled_into(elsewhere).kafka


@pytest.fixture(scope="session")
def own_topics(kafka: Kafka) -> Callable[[], AbstractContextManager[Kafka]]:
    """Gives settings of the shared broker with a prefix for topics that nobody else uses, for as long as a block lasts."""
    return partial(_own_topics, kafka)


@contextmanager
def _own_topics(kafka: Kafka) -> Iterator[Kafka]:
    own = msgspec.structs.replace(kafka, prefix=f"t{uuid.uuid4().hex[:12]}.")
    yield own
    # With the topics of hundreds of tests, some 7,000 partitions, the broker did not answer in time.
    client = bus.admin(Settings(kafka=own))
    made = [name for name in client.list_topics(timeout=60).topics if name.startswith(own.prefix)]
    for future in client.delete_topics(made, request_timeout=60).values() if made else ():
        future.result()


@pytest.fixture(scope="session")
def postgres_server(servers_folder: Path) -> Iterator[str]:
    """The address of a PostgreSQL that tests share; its database has all tables, and no test writes there."""
    elsewhere = Settings(kafka=Kafka(bootstrap="none"), s3=S3(endpoint="http://none"))
    with started_alone(servers_folder / "postgres", elsewhere) as endpoints:
        migrate(endpoints.postgres_dsn)
        yield endpoints.postgres_dsn


@pytest.fixture(scope="session")
def own_database(postgres_server: str) -> Callable[[], AbstractContextManager[str]]:
    """Gives a database with all tables, its address, for as long as a block lasts."""
    return partial(_own_database, postgres_server)


@contextmanager
def _own_database(postgres_server: str) -> Iterator[str]:
    template = str(conninfo_to_dict(postgres_server)["dbname"])
    name = f"t{uuid.uuid4().hex[:12]}"
    with connect(postgres_server) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    yield make_conninfo(postgres_server, dbname=name)
    with connect(make_conninfo(postgres_server, dbname="postgres")) as server:
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def postgres(own_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """The address of a database of the test's own, with all tables."""
    with own_database() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def s3(servers_folder: Path) -> Iterator[S3]:
    """The settings of an object store that tests share; each uses buckets of its own."""
    elsewhere = Settings(kafka=Kafka(bootstrap="none"), postgres=Postgres(dsn="postgresql://none"))
    with started_alone(servers_folder / "s3", elsewhere) as endpoints:
        yield endpoints.filled_into(elsewhere).s3


class Running:
    """A role in a thread of its own."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.stop = threading.Event()
        self.error: HilumError | None = None
        #: What it ended with, foreseen or not.
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=role.name)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.role.run(self.stop)
        except HilumError as error:
            self.error = self.failure = error
        except BaseException as error:
            self.failure = error
            raise

    def told(self) -> str:
        """How it is, in a line: for whom a test fails that waited for it."""
        if not self.ended():
            return f"{self.role.name} runs: {self.role.health().says}"
        return f"{self.role.name} has ended" + (f": {type(self.failure).__name__}: {self.failure}" if self.failure else "")

    def ended(self) -> bool:
        """Whether it has ended by itself or was stopped."""
        return not self._thread.is_alive()

    def end(self) -> None:
        """Stop it, and wait until it has."""
        self.stop.set()
        self._thread.join(60)
        assert self.ended(), f"{self.role.name} did not stop: {self.role.health()}"


class Log:
    """The topics of one test: what is said on them, and what is there. `settings` lead to them, `producer` to their broker."""

    def __init__(self, settings: Settings, producer: Producer | None = None) -> None:
        self.settings = settings
        self._producer = producer or bus.producer(settings)

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
        assert self._producer.flush(60) == 0

    def messages(self, topic: str, count: int, timeout_s: float = 60.0) -> list[Message]:
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

    def events(self, kind: type[E], count: int, timeout_s: float = 60.0) -> list[E]:
        """Every committed event of a class, once there are `count`."""
        messages = self.messages(bus.topic_of(self.settings, kind), count, timeout_s)
        return [decode(kind, message.value() or b"") for message in messages]

    @contextmanager
    def running(self, *roles: Role) -> Iterator[Sequence[Running]]:
        """Run roles for as long as the block lasts. What the block fails with has a note of how each of them was."""
        running = [Running(role) for role in roles]
        try:
            yield running
        except BaseException as error:
            error.add_note("\n".join(each.told() for each in running))
            raise
        finally:
            for each in running:
                each.stop.set()
            for each in running:
                each.end()


@pytest.fixture(scope="session")
def producer(kafka: Kafka) -> Producer:
    """The one with which tests say what is not said by what they test: a new one gets its id from the broker after half a second."""
    return bus.producer(Settings(kafka=kafka))


@pytest.fixture
def log(own_topics: Callable[[], AbstractContextManager[Kafka]], producer: Producer) -> Iterator[Log]:
    """Topics of the test's own on the shared broker, made with `log.make`."""
    with own_topics() as kafka:
        yield Log(Settings(kafka=kafka), producer)


@pytest.fixture(scope="session")
def make_log() -> type[Log]:
    """For tests that need a broker of their own."""
    return Log


@pytest.fixture(name="free_port")
def _free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    return free_port()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `peer("dcmsend")` needs that program, or file if it is a path: without it, it is skipped, and in CI it fails."""
    for marker in item.iter_markers("peer"):
        missing = [program for program in marker.args if shutil.which(program) is None and not Path(program).is_file()]
        if missing:
            sentence = f"{', '.join(missing)} is not installed; Debian's packages dcmtk, orthanc, orthanc-dicomweb and dicom3tools have it"
            if os.environ.get("CI"):
                pytest.fail(sentence)
            pytest.skip(sentence)
