"""Who reads a research feed in the embedded servers reads that, and nothing else."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import trustme
import urllib3
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic
from minio import Minio
from minio.error import S3Error
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from bench.peers import free_port
from hilum import bus
from hilum.cli import app
from hilum.control_events import ConfigApplied, ResourceWanted
from hilum.deid_sections import Feed
from hilum.errors import Misconfigured, NotFound
from hilum.events import InstanceReceived
from hilum.services import servers_for
from hilum.services.feed_door import KAFKA_READERS, FeedDoor
from hilum.services.process import Run
from hilum.services.readers import Reader, admit, end, read_reader, reader_file, write_identities
from hilum.services.runstate import read_run_state
from hilum.settings import S3, Kafka, Postgres, Settings
from hilum.store import MULTIPART_FROM_BYTES, open_store
from hilum.study_events import InstanceDeidentified, PatientLinked
from hilum.testing import eventually
from tests.conftest import started_alone
from tests.hilum.cli.test_deliver_command import topics_answer

pytestmark = pytest.mark.system

FEED, ORIGINALS = "research.instance.deidentified.v1", "imaging.instance.received.v1"
CA = "authority.pem"
ALLOWED = ("*", AclOperation.READ, AclPermissionType.ALLOW)
TOPICS = (FEED, "research.patient.linked.v1")


@dataclass(frozen=True)
class Site:
    """A store and a broker of Hilum's own, with a bucket and a topic of originals, and two feeds."""

    settings: Settings

    def kill(self, name: str) -> None:
        """`kill -9`, and wait until it is back."""

        def child() -> tuple[int, int, str]:
            state = read_run_state(self.settings.data_dir)
            assert state is not None
            return next((each.pid, each.restarts, each.state) for each in state.children if each.name == name)

        pid, restarts, _ = child()
        psutil.Process(pid).kill()
        eventually(lambda: child()[1] > restarts and child()[2] == "running", what=f"{name} is back")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """All readers come through the door of feeds, as from another machine."""
    data, files = tmp_path_factory.mktemp("readers"), tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(files / CA))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(files / "server.pem"))
    door = door_of(str(files / "server.pem"), failed_logins=0)
    wanted = Settings(data=str(data), postgres=Postgres(dsn="postgresql://none"), kafka=Kafka(partitions=1), feed=door)
    with started_alone(data, wanted) as endpoints:
        settings = endpoints.filled_into(wanted)
        store = open_store(settings)
        for bucket in ("originals", "cohort", "cohort-2"):
            store.ensure_bucket(bucket)
            store.put(bucket, "1/2/3.dcm", io.BytesIO(b"what"), 4)
        kinds = (InstanceDeidentified, PatientLinked, InstanceReceived, ConfigApplied, ResourceWanted)
        bus.provision_topics(settings, [kind.topic for kind in kinds])
        eventually(partial(topics_answer, settings))
        producer = Producer(bus.client(settings))
        for topic in (FEED, ORIGINALS):
            producer.produce(topic, b"said", b"key", partition=0)
        assert producer.flush(60) == 0
        yield Site(settings)


def door_of(certificate: str, **more: Any) -> Feed:
    return Feed(host="127.0.0.1", name="localhost", kafka_port=free_port(), s3_port=free_port(), tls_certificate=certificate, **more)


def authority(site: Site) -> str:
    """The file with the authority that readers trust."""
    return str(Path(site.settings.feed.tls_certificate).with_name(CA))


def s3(site: Site, reader: Reader) -> Minio:
    return Minio(
        endpoint=urlsplit(reader.endpoint).netloc,
        access_key=reader.access_key,
        secret_key=reader.secret_key,
        http_client=urllib3.PoolManager(ca_certs=authority(site), retries=False),
    )


def kafka(site: Site, reader: Reader, **more: object) -> dict[str, Any]:
    return {
        "bootstrap.servers": reader.bootstrap,
        "security.protocol": reader.security_protocol,
        "sasl.mechanism": reader.sasl_mechanism,
        "sasl.username": reader.name,
        "sasl.password": reader.password,
        "ssl.ca.location": authority(site),
        "log_level": 0,
        **more,
    }


def read(site: Site, reader: Reader, topic: str) -> str:
    """The first thing that the reader gets of a topic: its text, or the error's name."""
    consumer = Consumer(kafka(site, reader, **{"group.id": reader.name, "enable.auto.commit": False}))
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = consumer.poll(20)
    consumer.close()
    if found is None:
        return "nothing"
    error = found.error()
    return error.name() if error is not None else (found.value() or b"").decode()


def test_a_reader_reads_its_bucket_and_can_do_nothing_else(site: Site) -> None:
    reader = admit(site.settings, "cohort", "cohort", TOPICS)
    client = s3(site, reader)

    def refused(bucket: str) -> list[str]:
        ways: dict[str, Callable[[], object]] = {
            "get": lambda: client.get_object(bucket_name=bucket, object_name="1/2/3.dcm").read(),
            "list": lambda: list(client.list_objects(bucket_name=bucket, recursive=True)),
            "put": lambda: client.put_object(bucket_name=bucket, object_name="x", data=io.BytesIO(b"x"), length=1),
            "delete": lambda: client.remove_object(bucket_name=bucket, object_name="1/2/3.dcm"),
            "policy": lambda: client.set_bucket_policy(bucket_name=bucket, policy="{}"),
            "remove": lambda: client.remove_bucket(bucket_name=bucket),
        }
        codes = []
        for name, way in ways.items():
            try:
                way()
            except S3Error as error:
                codes.append(name if error.code == "AccessDenied" else f"{name}: {error.code}")
        return codes

    assert refused("cohort") == ["put", "delete", "policy", "remove"]
    assert refused("cohort-2") == refused("originals") == ["get", "list", "put", "delete", "policy", "remove"]
    assert [bucket.name for bucket in client.list_buckets()] == ["cohort"]


def test_a_reader_reads_the_research_topics_and_no_other(site: Site) -> None:
    reader = admit(site.settings, "cohort", "cohort", TOPICS)

    admin = AdminClient(kafka(site, reader))
    with pytest.raises(KafkaException, match="AUTHORIZATION_FAILED"):
        admin.create_topics([NewTopic("mine", 1, 1)])["mine"].result(60)
    failed: list[str] = []
    producer = Producer(kafka(site, reader))
    producer.produce(FEED, b"forged", b"key", on_delivery=lambda error, _: failed.append(str(error)))
    producer.flush(60)

    assert set(admin.list_topics(timeout=60).topics) == set(TOPICS)
    assert ["TOPIC_AUTHORIZATION_FAILED" in each for each in failed] == [True]
    assert read(site, reader, FEED) == "said"


def test_a_reader_reads_in_its_own_group_and_in_no_other_and_no_other_topic_in_it(site: Site) -> None:
    reader = admit(site.settings, "cohort", "cohort", TOPICS)

    def first(topic: str, group: str) -> str:
        consumer = Consumer(kafka(site, reader, **{"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}))
        consumer.subscribe([topic])
        found = consumer.poll(20)
        assert found is not None
        error = found.error()
        if error is None:
            consumer.commit(message=found, asynchronous=False)
        consumer.close()
        return error.name() if error is not None else (found.value() or b"").decode()

    assert first(FEED, reader.name) == "said"
    assert {first(FEED, group) for group in ("reader-cohort-2", "index")} == {"GROUP_AUTHORIZATION_FAILED"}
    assert first(ORIGINALS, reader.name) == "TOPIC_AUTHORIZATION_FAILED"


def test_a_reader_changes_nothing_and_learns_nothing_of_the_broker(site: Site) -> None:
    reader = admit(site.settings, "cohort", "cohort", TOPICS)
    admin, feed = AdminClient(kafka(site, reader)), ConfigResource(ConfigResource.Type.TOPIC, FEED)
    broker, forever = ConfigResource(ConfigResource.Type.BROKER, "1"), ConfigEntry("retention.ms", "1")
    forever.incremental_operation = AlterConfigOpType.SET
    altered = ConfigResource(ConfigResource.Type.TOPIC, FEED, incremental_configs=[forever])
    itself = AclBinding(*(ResourceType.TOPIC, ORIGINALS, ResourcePatternType.LITERAL, f"User:{reader.name}"), *ALLOWED)
    password = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
    ways: dict[str, Any] = {
        "configs of a topic": lambda: admin.incremental_alter_configs([altered]),
        "configs of a topic, shown": lambda: admin.describe_configs([feed]),
        "configs of the broker, shown": lambda: admin.describe_configs([broker]),
        "deletion": lambda: admin.delete_topics([FEED], operation_timeout=20),
        "deletion of records": lambda: admin.delete_records([TopicPartition(FEED, 0, 1)]),
        "partitions": lambda: admin.create_partitions([NewPartitions(FEED, 2)]),
        "rules": lambda: admin.create_acls([itself]),
        "the password of hilum": lambda: admin.alter_user_scram_credentials([UserScramCredentialUpsertion("hilum", password, b"mine")]),
        "another group": lambda: admin.describe_consumer_groups(["index"]),
        "deletion of another group": lambda: admin.delete_consumer_groups(["index"]),
    }

    def refused(name: str) -> bool:
        try:
            for answer in ways[name]().values():
                answer.result(20)
        except KafkaException as error:
            return str(error.args[0].name()).endswith("AUTHORIZATION_FAILED")
        return False

    assert [name for name in ways if not refused(name)] == []
    assert {each.group_id for each in admin.list_consumer_groups().result(20).valid} <= {reader.name}
    writer = Producer(kafka(site, reader, **{"transactional.id": "deliver-1", "transaction.timeout.ms": 5000}))
    with pytest.raises(KafkaException, match="AUTHORIZATION_FAILED"):
        writer.init_transactions(20)
    assert read(site, reader, FEED) == "said"


def test_each_feed_has_keys_of_its_own_for_their_owner_alone(site: Site) -> None:
    first, again, second = (admit(site.settings, name, name, TOPICS) for name in ("cohort", "cohort", "cohort-2"))
    file = reader_file(site.settings.data_dir, "cohort")

    assert first == again
    assert {first.access_key, first.secret_key, first.password}.isdisjoint({second.access_key, second.secret_key, second.password})
    assert file.stat().st_mode & 0o777 == 0o600
    assert first.secret_key not in repr(first)


def test_keys_that_end_open_nothing_and_both_servers_come_back_without_them(site: Site) -> None:
    kept, gone = (admit(site.settings, name, name, TOPICS) for name in ("cohort", "cohort-2"))

    end(site.settings, "cohort-2")

    with pytest.raises(S3Error):
        s3(site, gone).get_object(bucket_name="cohort-2", object_name="1/2/3.dcm")
    with pytest.raises(KafkaException):
        AdminClient(kafka(site, gone)).list_topics(timeout=2)
    assert read_reader(site.settings.data_dir, "cohort-2") is None
    with pytest.raises(NotFound):
        end(site.settings, "cohort-2")

    for name in ("kafka", "s3"):
        site.kill(name)
    with pytest.raises(S3Error):
        s3(site, gone).get_object(bucket_name="cohort-2", object_name="1/2/3.dcm")
    assert s3(site, kept).get_object(bucket_name="cohort", object_name="1/2/3.dcm").read() == b"what"
    assert read(site, kept, FEED) == "said"
    assert ORIGINALS in bus.admin(site.settings).list_topics(timeout=60).topics


PAGE = Path("docs/operations/research-feed.md").read_text("utf-8")


def test_the_bucket_policy_of_the_page_lets_readers_read_and_hilum_write(site: Site) -> None:
    """Of a store of the site's own: here that of Hilum, with two users who may do nothing but what the policy says."""
    own = site.settings
    users = {name: {"accessKey": f"key-of-{name}", "secretKey": f"secret-of-{name}"} for name in ("reader-cohort", "hilum-cohort")}
    write_identities(own.data_dir, [{"name": name, "credentials": [keys], "actions": []} for name, keys in users.items()])
    state = read_run_state(own.data_dir)
    assert state is not None
    os.kill(next(each.pid for each in state.children if each.name == "s3"), signal.SIGHUP)
    (policy,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

    def client(access_key: str, secret_key: str, region: str | None) -> Minio:
        netloc = urlsplit(own.s3.endpoint).netloc
        return Minio(endpoint=netloc, access_key=access_key, secret_key=secret_key, secure=False, region=region)

    client(own.s3.access_key, own.s3.secret_key, "us-east-1").set_bucket_policy(bucket_name="cohort", policy=policy)
    reader, writer = (users[name] for name in ("reader-cohort", "hilum-cohort"))

    def may(keys: dict[str, str], bucket: str, region: str | None = None) -> list[str]:
        asked = client(keys["accessKey"], keys["secretKey"], region)
        ways: dict[str, Callable[[], object]] = {
            "get": lambda: asked.get_object(bucket_name=bucket, object_name="1/2/3.dcm").read(),
            "list": lambda: list(asked.list_objects(bucket_name=bucket, recursive=True)),
            "put": lambda: asked.put_object(bucket_name=bucket, object_name="x", data=io.BytesIO(b"x"), length=1),
            "delete": lambda: asked.remove_object(bucket_name=bucket, object_name="x"),
            "policy": lambda: asked.get_bucket_policy(bucket_name=bucket),
        }
        done = []
        for name, way in ways.items():
            with suppress(S3Error):
                way()
                done.append(name)
        return done

    eventually(lambda: may(reader, "cohort") == ["get", "list"])
    assert may(writer, "cohort") == ["get", "list", "put", "delete"]
    assert may(reader, "originals", "us-east-1") == may(writer, "originals", "us-east-1") == []
    sink = replace(own, s3=replace(own.s3, access_key=writer["accessKey"], secret_key=writer["secretKey"]))
    store, large = open_store(sink), bytes(MULTIPART_FROM_BYTES + 1)
    store.check("cohort")
    store.put("cohort", "1/2/large.dcm", io.BytesIO(large), len(large))
    assert store.stat("cohort", "1/2/large.dcm").size_bytes == len(large)
    store.delete("cohort", "1/2/large.dcm")


def test_the_acls_of_the_page_are_those_that_hilum_makes_for_readers() -> None:
    lines = [" ".join(line.replace("\\\n", " ").split()) for line in re.findall(r"^kafka-acls(?:[^\n]*\\\n)*[^\n]*", PAGE, re.MULTILINE)]
    ours = [line for line in lines if "User:reader-cohort" in line]

    assert all("--operation Read" in line and "--add" in line for line in ours)
    assert {name for line in ours for name in re.findall(r"--topic (\S+)", line)} == set(TOPICS)
    assert [name for line in ours for name in re.findall(r"--group (\S+)", line)] == ["reader-cohort"]


def test_readers_come_through_the_door_by_tls_alone_and_hilum_does_not(site: Site) -> None:
    reader, own = admit(site.settings, "cohort", "cohort", TOPICS), site.settings
    feed = own.feed

    assert (reader.endpoint, reader.bootstrap) == (f"https://localhost:{feed.s3_port}", f"localhost:{feed.kafka_port}")
    assert reader.security_protocol == "SASL_SSL"
    assert (urlsplit(own.s3.endpoint).hostname, own.kafka.bootstrap.partition(":")[0]) == ("127.0.0.1", "127.0.0.1")
    with pytest.raises(urllib3.exceptions.HTTPError):
        urllib3.request("GET", f"http://localhost:{feed.s3_port}/cohort/1/2/3.dcm", retries=False, timeout=5)
    with pytest.raises(KafkaException):
        AdminClient(kafka(site, reader, **{"security.protocol": "SASL_PLAINTEXT"})).list_topics(timeout=2)


@dataclass(frozen=True)
class Strict:
    """Another door, with the address of its metrics."""

    kafka_port: int
    s3_port: int
    metrics: str

    def counted(self, metric: str) -> float:
        told = urllib3.request("GET", self.metrics, timeout=20).data.decode()
        return sum(float(line.split()[-1]) for line in told.splitlines() if line.startswith(metric))


FAILED, REFUSED = "hilum_feed_logins_failed_total", 'hilum_feed_connections_refused_total{reason="failed-logins"}'


@pytest.fixture
def strict(site: Site, tmp_path: Path) -> Iterator[Strict]:
    """Another door to the same servers, that refuses an address after three failed logins, for long."""
    (tmp_path / "logs").mkdir()
    shutil.copy(site.settings.data_dir / "ports.json", tmp_path)
    feed = door_of(site.settings.feed.tls_certificate, failed_logins=3, refused_s=3600)
    child = FeedDoor(tmp_path, feed, [(feed.kafka_port, KAFKA_READERS), (feed.s3_port, "s3.port")]).prepare()
    run = Run(child)
    eventually(run.ready)
    yield (door := Strict(feed.kafka_port, feed.s3_port, f"http://127.0.0.1:{child.probe_port}/metrics"))
    assert door.counted(FAILED) >= 3
    assert door.counted(REFUSED) >= 1
    run.ask_to_stop()
    run.wait()
    assert (tmp_path / "logs" / "feed.log").read_text().count("feed_refuses") == 1


def test_after_too_many_wrong_passwords_for_kafka_nobody_from_there_is_answered(site: Site, strict: Strict) -> None:
    reader = replace(admit(site.settings, "cohort", "cohort", TOPICS), bootstrap=f"localhost:{strict.kafka_port}")
    wrong = replace(reader, password="guessed")

    assert set(AdminClient(kafka(site, reader)).list_topics(timeout=60).topics) == set(TOPICS)
    handshake(site, strict.kafka_port)
    assert strict.counted(FAILED) == 0
    guesses = [AdminClient(kafka(site, wrong)) for _ in range(3)]  # each tries by itself
    eventually(lambda: strict.counted(FAILED) >= 3, what=f"{len(guesses)} clients fail to log in")
    with pytest.raises(OSError):
        handshake(site, strict.kafka_port)


def handshake(site: Site, port: int) -> None:
    """Come to the door by TLS. Raises `OSError`."""
    with socket.create_connection(("localhost", port), timeout=60) as plain:
        ssl.create_default_context(cafile=authority(site)).wrap_socket(plain, server_hostname="localhost").close()


def test_after_too_many_wrong_keys_for_the_store_nobody_from_there_is_answered(site: Site, strict: Strict) -> None:
    reader = replace(admit(site.settings, "cohort", "cohort", TOPICS), endpoint=f"https://localhost:{strict.s3_port}")
    client, open_before = s3(site, reader), s3(site, reader)
    for _ in range(5):  # who has no right to a bucket is known all the same
        with pytest.raises(S3Error, match="AccessDenied"):
            client.get_object(bucket_name="originals", object_name="1/2/3.dcm")
    assert open_before.get_object(bucket_name="cohort", object_name="1/2/3.dcm").read() == b"what"

    for wrong in (replace(reader, secret_key="guessed"), replace(reader, access_key="guessed"), replace(reader, secret_key="again")):
        with pytest.raises(S3Error, match=r"SignatureDoesNotMatch|InvalidAccessKeyId"):
            s3(site, wrong).get_object(bucket_name="cohort", object_name="1/2/3.dcm")

    with pytest.raises(urllib3.exceptions.HTTPError):
        s3(site, reader).get_object(bucket_name="cohort", object_name="1/2/3.dcm")
    # Whoever was in goes on: several may come from one address.
    assert open_before.get_object(bucket_name="cohort", object_name="1/2/3.dcm").read() == b"what"


@pytest.mark.parametrize(
    ("feed", "reason"), [(Feed(host="127.0.0.1"), "tls-certificate"), (Feed(host="::", tls_certificate="/x.pem"), "feed-name")]
)
def test_without_certificate_or_name_there_is_no_door(tmp_path: Path, feed: Feed, reason: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        next(server for server in servers_for(Settings(feed=feed), tmp_path) if server.name == "feed").prepare()

    assert refused.value.reason == reason


def test_without_an_address_for_others_or_servers_of_hilums_own_there_is_no_door(tmp_path: Path) -> None:
    elsewhere = {"kafka": Kafka(bootstrap="k:9092"), "s3": S3(endpoint="http://s"), "postgres": Postgres(dsn="postgresql://p")}

    assert "feed" not in [server.name for server in servers_for(Settings(), tmp_path)]
    assert servers_for(replace(Settings(feed=Feed(host="127.0.0.1")), **elsewhere), tmp_path) == []


def test_nobody_is_given_keys_for_servers_of_the_sites_own(tmp_path: Path) -> None:
    elsewhere = replace(Settings(data=str(tmp_path)), s3=S3(endpoint="http://store.example"))

    with pytest.raises(NotFound, match="Neither its store nor its Kafka runs here"):
        admit(elsewhere, "cohort", "cohort", TOPICS)


def test_the_command_makes_keys_and_shows_where_they_are_but_never_a_key(site: Site, tmp_path: Path) -> None:
    config = tmp_path / "hilum.toml"
    feed = site.settings.feed
    door = f'[feed]\nhost = "{feed.host}"\nname = "{feed.name}"\nkafka_port = {feed.kafka_port}\ns3_port = {feed.s3_port}\n'
    config.write_text(
        f'{door}[postgres]\ndsn = "postgresql://none"\n'
        '[destinations.study]\ntype = "research"\npolicy = "research"\nbucket = "study-bucket"\n'
    )

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, ["deid", "feed", *words, "--config", str(config), "--data", str(site.settings.data)])

    before, made = (json.loads(run("study", "--json", *more).stdout) for more in ((), ("--make",)))
    told = run("study", "--end")
    reader = read_reader(site.settings.data_dir, "study")

    assert reader is not None
    assert (before["keys"], made["keys"]) == ("", str(reader_file(site.settings.data_dir, "study")))
    assert (made["bucket"], made["endpoint"], made["user"], made["elsewhere"]) == ("study-bucket", reader.endpoint, "reader-study", [])
    shown = run("study").stdout + told.stdout
    assert not [secret for secret in (reader.access_key, reader.secret_key, reader.password) if secret in shown + str(made)]
    assert list(s3(site, reader).list_objects(bucket_name="study-bucket")) == []
    assert (told.exit_code, run("study", "--end", "--yes").exit_code) == (0, 0)
    assert read_reader(site.settings.data_dir, "study") is None
    assert isinstance(run("stduy").exception, NotFound)
