"""Kafka's jars are the pinned ones or none."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hilum.errors import Misconfigured
from hilum.services.jars import PINNED, kafka_classpath

JAR = b"not really a jar"

Fetch = Callable[..., list[Path]]


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *what: object) -> None:
        pass


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    """A jar in a Maven repository."""
    jar = tmp_path / "repository" / "org" / "example" / "toy" / "1.0" / "toy-1.0.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(JAR)
    return jar


@pytest.fixture
def fetch(jar: Path, tmp_path: Path) -> Iterator[Fetch]:
    """Asks for `org.example:toy` from that repository, with a cache of its own."""
    cache = tmp_path / "cache"
    pins = tmp_path / "pins.json"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(jar.parents[4]))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def fetch(sha256: str, version: str = "1.0") -> list[Path]:
            pins.write_text(json.dumps({"jars": {f"org.example:toy:{version}": sha256}}))
            return kafka_classpath(pins, cache=cache, repository=f"http://127.0.0.1:{server.server_address[1]}")

        yield fetch
        server.shutdown()


def test_a_jar_is_fetched_once_and_then_taken_from_the_cache(fetch: Fetch, jar: Path) -> None:
    digest = hashlib.sha256(JAR).hexdigest()
    first = fetch(digest)
    jar.unlink()

    assert fetch(digest) == first
    assert [jar.read_bytes() for jar in first] == [JAR]


def test_a_jar_that_is_not_the_pinned_one_is_refused_and_not_kept(fetch: Fetch, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"org\.example:toy:1\.0 has the SHA-256") as stop:
        fetch("0" * 64)

    assert stop.value.reason == "jar-changed"
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_jar_that_cannot_be_had_is_named_with_what_to_do(fetch: Fetch) -> None:
    with pytest.raises(Misconfigured, match=r"org\.example:toy:2\.0 could not be fetched") as stop:
        fetch("0" * 64, version="2.0")

    assert stop.value.reason == "jars-unreachable"
    assert "HILUM_MAVEN" in stop.value.fix


def test_every_pinned_jar_has_a_version_and_a_digest() -> None:
    pinned = json.loads(PINNED.read_text())

    assert f"org.apache.kafka:kafka_2.13:{pinned['kafka']}" in pinned["jars"]
    for coordinate, sha256 in pinned["jars"].items():
        assert coordinate.count(":") == 2
        assert len(bytes.fromhex(sha256)) == 32
