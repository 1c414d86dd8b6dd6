"""The three real servers as child processes."""

import io
import os
import pwd
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from minio import Minio

from bench.running import alone_on_this_machine
from hilum import bus
from hilum.errors import Misconfigured
from hilum.services import embedded, servers_for
from hilum.services.certificate import make_certificate
from hilum.services.endpoints import Endpoints, with_endpoints
from hilum.services.files import secret
from hilum.services.jars import kafka_classpath
from hilum.services.kafka import KafkaServer
from hilum.services.ports import Ports
from hilum.services.postgres import PostgresServer
from hilum.services.process import Run, launched
from hilum.services.runstate import read_run_state
from hilum.settings import Kafka, Settings
from hilum.testing import eventually
from tests.conftest import started_alone

pytestmark = pytest.mark.system
T = TypeVar("T")


@dataclass(frozen=True)
class Running:
    """The three servers, running on `data`."""

    data: Path
    endpoints: Endpoints

    def process(self, name: str) -> psutil.Process:
        return psutil.Process(self.child(name)[0])

    def of_each_process(self, ask: Callable[[psutil.Process], T]) -> list[T]:
        """The answers of all processes of the three; PostgreSQL's come and go, and one that has ended meanwhile has none."""
        heads = [self.process(name) for name in ("kafka", "postgres", "s3")]
        answers = []
        for process in [*heads, *(process for head in heads for process in head.children(recursive=True))]:
            with suppress(psutil.NoSuchProcess):
                answers.append(ask(process))
        return answers

    def child(self, name: str) -> tuple[int, int, str]:
        """Its pid, how often it was restarted, its state."""
        state = read_run_state(self.data)
        assert state is not None
        return next((child.pid, child.restarts, child.state) for child in state.children if child.name == name)

    def kill(self, name: str) -> None:
        """`kill -9`, and wait until it is back."""
        pid, restarts, _ = self.child(name)
        psutil.Process(pid).kill()
        eventually(lambda: self.child(name)[1] > restarts and self.child(name)[2] == "running", what=f"{name} is back")

    def s3(self) -> Minio:
        at = urlsplit(self.endpoints.s3_endpoint).netloc
        return Minio(endpoint=at, access_key=self.endpoints.s3_access_key, secret_key=self.endpoints.s3_secret_key, secure=False)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data = tmp_path_factory.mktemp("services")
    with started_alone(data, Settings()) as endpoints:
        yield Running(data, endpoints)


def kafka_client(endpoints: Endpoints) -> dict[str, Any]:
    return bus.client(endpoints.filled_into(Settings()))


def create_topic(endpoints: Endpoints, topic: str) -> None:
    admin = AdminClient(kafka_client(endpoints))
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(60)


def produce(endpoints: Endpoints, topic: str, *values: bytes) -> None:
    producer = Producer({**kafka_client(endpoints), "acks": "all"})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(60) == 0


def consumed(endpoints: Endpoints, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({**kafka_client(endpoints), "group.id": "reader", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes] = []

    def all_there() -> bool:
        values.extend(value for record in consumer.consume(count, 0.5) if not record.error() and (value := record.value()))
        return len(values) >= count

    eventually(all_there)
    consumer.close()
    return values


def test_a_killed_broker_comes_back_with_its_messages_at_the_same_place(running: Running) -> None:
    endpoints = running.endpoints
    create_topic(endpoints, "kept")
    produce(endpoints, "kept", b"one", b"two")

    running.kill("kafka")
    produce(endpoints, "kept", b"three")

    assert consumed(endpoints, "kept", 3) == [b"one", b"two", b"three"]


def test_a_producer_goes_on_when_its_broker_was_killed(running: Running) -> None:
    endpoints = running.endpoints
    create_topic(endpoints, "goes-on")
    producer = Producer({**kafka_client(endpoints), "enable.idempotence": True})
    producer.produce("goes-on", b"before")
    assert producer.flush(60) == 0

    running.process("kafka").kill()
    producer.produce("goes-on", b"after")

    assert producer.flush(60) == 0
    assert consumed(endpoints, "goes-on", 2) == [b"before", b"after"]


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN"])
def test_kafka_refuses_a_wrong_password(running: Running, mechanism: str) -> None:
    stranger = AdminClient({**kafka_client(running.endpoints), "sasl.mechanism": mechanism, "sasl.password": "wrong", "log_level": 0})

    with pytest.raises(KafkaException):
        stranger.list_topics(timeout=3)


@pytest.mark.parametrize("port", ["kafka.port", "kafka controller port"])
def test_kafka_answers_nobody_who_has_not_logged_in(running: Running, port: str) -> None:
    # Request header 2: API 60 (DescribeCluster), version 0, correlation id 1, no client id, no tags; body: false, no tags.
    request = struct.pack(">hhihBBB", 60, 0, 1, -1, 0, 0, 0)

    assert answer_to(Ports(running.data).kept(port), struct.pack(">i", len(request)) + request, None) == b""


def test_a_log_whose_password_is_lost_is_explained(tmp_path: Path) -> None:
    identity = tmp_path / "kafka" / "data" / "meta.properties"
    identity.parent.mkdir(parents=True)
    identity.touch()

    with pytest.raises(Misconfigured, match=r"kafka-password is missing: nobody can log in") as stop:
        KafkaServer(tmp_path).prepare()

    assert stop.value.reason == "data-damaged"


def test_a_killed_database_comes_back_with_its_rows_at_the_same_place(running: Running) -> None:
    with psycopg.connect(running.endpoints.postgres_dsn) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1), (2)")

    running.kill("postgres")

    with psycopg.connect(running.endpoints.postgres_dsn) as connection:
        assert connection.execute("SELECT n FROM kept ORDER BY n").fetchall() == [(1,), (2,)]


def test_a_killed_store_comes_back_with_its_objects_at_the_same_place(running: Running) -> None:
    store = running.s3()
    store.make_bucket(bucket_name="kept")
    content = os.urandom(600_000)
    store.put_object(bucket_name="kept", object_name="1.2/3.4", data=io.BytesIO(content), length=len(content))

    running.kill("s3")

    assert running.s3().get_object(bucket_name="kept", object_name="1.2/3.4").read() == content


def test_a_bucket_takes_objects_however_many_there_are(running: Running) -> None:
    store = running.s3()
    gigabytes = shutil.disk_usage(running.data).total // 2**30

    for n in range(min(60, gigabytes // 7 + 5)):  # the store makes 7 files of up to 1 GB for a new bucket
        store.make_bucket(bucket_name=f"many-{n}")
        store.put_object(bucket_name=f"many-{n}", object_name="x", data=io.BytesIO(b"x"), length=1)


def test_the_database_keeps_what_it_has_committed_through_a_power_cut(running: Running) -> None:
    with psycopg.connect(running.endpoints.postgres_dsn) as connection:
        names = ("fsync", "synchronous_commit", "full_page_writes", "data_checksums")
        values = [connection.execute(f"SHOW {name}").fetchone() for name in names]

    assert values == [("on",)] * 4


def test_a_database_error_logs_no_value(running: Running) -> None:
    with psycopg.connect(running.endpoints.postgres_dsn) as connection:
        connection.execute("CREATE TABLE secretive (name text PRIMARY KEY)")
        connection.execute("INSERT INTO secretive VALUES (%s)", ["MARKED^PATIENT"])
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO secretive VALUES (%s)", ["MARKED^PATIENT"])

    log = running.data / "logs" / "postgres.log"
    eventually(lambda: "duplicate key value" in log.read_text())
    assert "MARKED" not in log.read_text()


def test_the_database_refuses_a_wrong_password(running: Running) -> None:
    at = urlsplit(running.endpoints.postgres_dsn)

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host=at.hostname, port=at.port, user="hilum", password="wrong", dbname="hilum")


def anonymous_status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - a loopback http URL made by the test
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_store_refuses_who_has_no_key(running: Running) -> None:
    store = running.s3()
    store.make_bucket(bucket_name="closed")
    store.put_object(bucket_name="closed", object_name="x", data=io.BytesIO(b"x"), length=1)
    endpoint = running.endpoints.s3_endpoint

    assert [anonymous_status(f"{endpoint}{path}") for path in ("/", "/closed", "/closed/x")] == [403, 403, 403]


def inner_ports(running: Running) -> set[int]:
    """Where the store's inner servers listen."""
    listening = {at.laddr.port for at in running.process("s3").net_connections("tcp") if at.status == psutil.CONN_LISTEN}
    return listening - {urlsplit(running.endpoints.s3_endpoint).port or 0}


def stranger(with_certificate: Path | None = None) -> ssl.SSLContext:
    """How an account of this machine may try it that cannot read Hilum's secrets."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    if with_certificate:
        context.load_cert_chain(with_certificate)
    return context


def answer_to(port: int, request: bytes, context: ssl.SSLContext | None) -> bytes:
    """What the server says to `request`, over TLS if there is a `context`."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
            wire = context.wrap_socket(plain) if context else plain
            wire.sendall(request)
            return wire.recv(4096)
    except OSError:  # as TLS refuses
        return b""


REQUESTS = [
    *(b"%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" % line for line in (
        b"GET /", b"GET /col/delete?collection=inner", b"GET /dir/assign", b"GET /dir/lookup?fileId=1,01&read=yes", b"GET /status",
        b"GET /healthz", b"GET /ui/index.html", b"GET /buckets/inner/x", b"POST /submit", b"DELETE /buckets/inner/x",
        b"POST /vol/grow?count=1",
    )),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"),  # gRPC: preface and empty SETTINGS (RFC 9113 3.4)
]  # fmt: skip


def test_no_inner_server_of_the_store_answers_who_has_not_its_certificate(running: Running, tmp_path: Path) -> None:
    make_certificate(tmp_path / "own.pem", "127.0.0.1")
    ports = inner_ports(running)
    ways = (None, stranger(), stranger(tmp_path / "own.pem"))

    answers = {answer_to(port, request, way) for port in ports for request in REQUESTS for way in ways}

    assert len(ports) == 7
    assert {answer.partition(b"\r\n")[0] for answer in answers} <= {b"", b"HTTP/1.0 400 Bad Request"}


def test_the_inner_servers_of_the_store_answer_who_has_their_certificate(running: Running) -> None:
    known = stranger(running.data / "secrets" / "s3-inner.pem")

    answers = [answer_to(port, REQUESTS[-1], known) for port in inner_ports(running)]

    assert any(answers)


def test_the_sockets_of_the_store_are_its_owners_alone(running: Running) -> None:
    paths = {Path(path) for at in running.process("s3").net_connections("unix") if (path := str(at.laddr)).startswith("/tmp/")}  # noqa: S108

    assert paths
    assert not [path for path in paths if path.stat().st_mode & 0o077]


def test_nothing_listens_beyond_loopback(running: Running) -> None:
    open_ = running.of_each_process(lambda process: (process.name(), process.net_connections("inet")))
    listening = {
        (name, at.laddr.ip) for name, found in open_ for at in found if at.status == psutil.CONN_LISTEN or (not at.raddr and at.laddr)
    }

    assert {ip for _, ip in listening} == {"127.0.0.1"}
    assert {name for name, _ in listening} >= {"java", "postgres", "weed"}


def test_no_secret_is_on_a_command_line(running: Running) -> None:
    secrets = {file.read_text().strip() for file in (running.data / "secrets").iterdir() if file.suffix != ".json"}
    lines = [" ".join(running.process(name).cmdline()) for name in ("kafka", "postgres", "s3")]

    assert len(secrets) >= 3
    assert not [secret for secret in secrets for line in lines if secret in line]


def test_secrets_are_readable_by_their_owner_only(running: Running) -> None:
    modes = {file.name: file.stat().st_mode & 0o777 for file in (running.data / "secrets").iterdir()}

    assert set(modes.values()) == {0o600}


def test_at_rest_the_three_take_less_than_900_megabytes(running: Running) -> None:
    assert sum(running.of_each_process(lambda process: process.memory_full_info().pss)) < 900 << 20


def test_settings_without_endpoints_are_filled_with_what_runs(running: Running) -> None:
    filled = with_endpoints(Settings(data=str(running.data)))

    assert filled.kafka == running.endpoints.filled_into(Settings()).kafka
    assert filled.postgres.dsn == running.endpoints.postgres_dsn
    assert (filled.s3.endpoint, filled.s3.secret_key) == (running.endpoints.s3_endpoint, running.endpoints.s3_secret_key)


def test_a_second_start_on_the_same_data_says_who_holds_it(running: Running) -> None:
    with pytest.raises(Misconfigured, match=f"already runs on {running.data}, as process {os.getpid()}"), embedded(running.data):
        pass


def test_two_hilums_run_side_by_side_even_under_an_odd_and_long_path(running: Running, tmp_path: Path) -> None:
    with started_alone(tmp_path / f"a, b = c's {'x' * 120}", Settings()) as other:
        create_topic(other, "mine")
        admin = AdminClient(kafka_client(running.endpoints))

        assert "mine" not in admin.list_topics(timeout=60).topics
        assert other.s3_endpoint != running.endpoints.s3_endpoint


def test_a_service_that_is_set_to_a_server_of_the_sites_own_is_not_started(tmp_path: Path) -> None:
    servers = servers_for(Settings(kafka=Kafka(bootstrap="kafka.example:9092")), tmp_path)

    assert [server.name for server in servers] == ["postgres", "s3"]


def test_a_port_that_is_set_and_taken_is_named_before_anything_starts(running: Running, tmp_path: Path) -> None:
    taken = int(running.endpoints.kafka_bootstrap.rpartition(":")[2])

    with (
        pytest.raises(Misconfigured, match=rf"127\.0\.0\.1:{taken}, the port set as kafka\.port"),
        embedded(tmp_path, Settings(kafka=Kafka(port=taken))),
    ):
        pass


def test_a_damaged_database_is_explained(tmp_path: Path) -> None:
    sound = Run(PostgresServer(tmp_path).prepare())
    eventually(sound.ready)
    sound.stop()
    (tmp_path / "postgres" / "18" / "global" / "pg_control").write_bytes(b"\0" * 8192)
    run = Run(PostgresServer(tmp_path).prepare())

    with pytest.raises(Misconfigured, match=r"The data of postgres in .* is damaged") as stop:
        eventually(run.ready)

    assert stop.value.reason == "data-damaged"


def test_a_database_of_another_version_is_explained(tmp_path: Path) -> None:
    cluster = tmp_path / "postgres" / "18"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("16\n")

    with pytest.raises(Misconfigured, match="was written by PostgreSQL '16'; this is PostgreSQL 18"):
        PostgresServer(tmp_path).prepare()


def test_a_log_without_its_identity_is_explained(tmp_path: Path) -> None:
    (tmp_path / "kafka" / "data" / "some-topic-0").mkdir(parents=True)

    with pytest.raises(Misconfigured, match=r"meta\.properties is missing") as stop:
        KafkaServer(tmp_path).prepare()

    assert stop.value.reason == "data-damaged"


def test_a_damaged_log_identity_is_explained(tmp_path: Path) -> None:
    identity = tmp_path / "kafka" / "data" / "meta.properties"
    identity.parent.mkdir(parents=True)
    identity.write_text("version=1\nnode.id=7\ncluster.id=x\n")
    secret(tmp_path / "secrets" / "kafka-password")
    run = Run(KafkaServer(tmp_path).prepare())

    with pytest.raises(Misconfigured, match=r"The data of kafka in .* is damaged") as stop:
        eventually(run.ready)

    assert stop.value.reason == "data-damaged"


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root, to mount a small disk")
def test_a_full_disk_is_explained_before_anything_starts(tmp_path: Path) -> None:
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if not mount or not umount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("this system lets no small disk be mounted")
    try:
        with pytest.raises(Misconfigured, match=r"has \d+ MB free") as stop, embedded(tmp_path / "data"):
            pass
    finally:
        subprocess.run([umount, tmp_path], check=True)

    assert stop.value.reason == "disk-full"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_everything_works_as_a_normal_user() -> None:
    """With a home and a data directory of that user's own, and nothing else in the environment."""
    jars = kafka_classpath()[0].parent
    with tempfile.TemporaryDirectory() as folder:  # tmp_path lies in a folder that is root's alone
        home = Path(folder)
        shutil.copytree(jars, home / "cache" / jars.name)
        for path in (home, *home.rglob("*")):
            shutil.chown(path, "nobody")
        program = (
            "import os; from pathlib import Path; from hilum.services import embedded\n"
            f"with embedded(Path({str(home / 'data')!r})) as endpoints: print('ready', os.geteuid(), endpoints)"
        )
        with alone_on_this_machine():
            done = subprocess.run(
                launched([sys.executable, "-c", program], user="nobody"),
                env={"HOME": str(home), "HILUM_CACHE": str(home / "cache"), "PYTHONPATH": str(Path(__file__).parents[3])},
                cwd=home,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

        assert done.stdout.startswith(f"ready {pwd.getpwnam('nobody').pw_uid}"), done.stderr
