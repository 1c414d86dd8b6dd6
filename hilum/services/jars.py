"""Kafka's jars: pinned by version and SHA-256 in `kafka_jars.json`, fetched from Maven Central by `jgo`, kept in the user's cache.

After a change of version: `python -m hilum.services.jars VERSION` resolves the dependencies anew and writes the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import ssl
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hilum.errors import Misconfigured

MAVEN_CENTRAL = "https://repo.maven.apache.org/maven2"  #: `HILUM_MAVEN` names a mirror
PINNED = Path(__file__).with_name("kafka_jars.json")

# Dependencies of Kafka's other tools: nothing that formats and runs one broker on one machine loads them.
LEFT_OUT = frozenset({"commons-beanutils", "commons-collections", "commons-digester", "commons-logging"})
LEFT_OUT |= {"jackson-dataformat-yaml", "snakeyaml", "jspecify"}


def cache_folder() -> Path:
    """`HILUM_CACHE`, else `hilum` in the user's cache folder."""
    if chosen := os.environ.get("HILUM_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(base) / "hilum"


def kafka_classpath(pins: Path = PINNED, *, cache: Path | None = None, repository: str | None = None) -> list[Path]:
    """The jars that `pins` names, fetched and verified on first use (progress on standard error).

    `cache` is `cache_folder()` unless given; `repository` the URL in `HILUM_MAVEN`, else Maven Central.
    Raises `Misconfigured` if one cannot be had or is not the pinned one.
    """
    pinned: dict[str, str] = json.loads(pins.read_text())["jars"]
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    folder = (cache or cache_folder()) / f"kafka-{digest}"  # a folder with this name is whole and verified
    if not folder.is_dir():
        _fetch(pinned, folder, repository or os.environ.get("HILUM_MAVEN") or MAVEN_CENTRAL)
    return sorted(folder.glob("*.jar"))


def _fetch(pinned: dict[str, str], folder: Path, repository: str) -> None:
    """Make `folder` of the jars: beside its place, and moved there when it is whole and verified."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with _progress(len(pinned)) as one_more, ThreadPoolExecutor(4) as threads:
            for jar in threads.map(lambda item: _fetch_one(item[0], item[1], part, repository), pinned.items()):
                one_more(jar)
        shutil.rmtree(part / "maven")
        try:
            part.rename(folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _trust_the_system() -> None:
    """Check certificates against the system's authorities, as a site's own proxy needs it, unless told otherwise."""
    system = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    if not {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"} & os.environ.keys() and Path(system).is_file():
        os.environ["REQUESTS_CA_BUNDLE"] = system


def _fetch_one(coordinate: str, sha256: str, folder: Path, repository: str) -> str:
    group, artifact, version = coordinate.split(":")
    try:
        fetched: Path = _maven(folder / "maven", repository).project(group, artifact).at_version(version).artifact().resolve()
    except Exception as error:  # jgo raises what its HTTP library raises, and RuntimeError
        raise Misconfigured(
            "jars-unreachable",
            f"{coordinate} could not be fetched from {repository} ({type(error).__name__}).",
            fix="Kafka's jars are needed once. Check the connection and HTTPS_PROXY, REQUESTS_CA_BUNDLE if a proxy signs with a "
            "certificate of its own, HILUM_MAVEN if the site has a mirror of Maven Central; or copy the cache folder "
            f"{folder.parent} from a machine that has it; or set kafka.bootstrap to a cluster of your own.",
        ) from error
    found = hashlib.sha256(fetched.read_bytes()).hexdigest()
    if found != sha256:
        raise Misconfigured(
            "jar-changed",
            f"{coordinate} has the SHA-256 {found}, and {sha256} was expected: it is not the file that Hilum was tested with.",
            fix="Fetch again later or from another network; a file that stays different should be reported.",
        )
    fetched.rename(folder / fetched.name)
    return fetched.name


def _maven(folder: Path, repository: str = MAVEN_CENTRAL) -> Any:
    _trust_the_system()
    try:
        from jgo.maven import MavenContext
    except ImportError:
        raise Misconfigured(
            "package-missing",
            "Kafka is to run here, and the Python package jgo is not installed.",
            fix="Install Hilum with its extra: pip install 'hilum[embedded]'; or set kafka.bootstrap to a cluster of your own.",
        ) from None
    return MavenContext(repo_cache=folder, local_repos=[], remote_repos={"repository": repository}, timeout=60)


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Count on standard error: one line that grows on a terminal, first and last elsewhere."""
    done = 0
    terminal = sys.stderr.isatty()

    def say(end: str) -> None:
        print(f"\rFetching Apache Kafka: {done} of {total} files", end=end, file=sys.stderr, flush=True)

    def one_more(_name: str) -> None:
        nonlocal done
        done += 1
        if terminal:
            say("")

    say("" if terminal else "\n")
    yield one_more
    say("\n")


def pin(version: str) -> None:
    """Resolve Kafka `version` with its dependencies and write their coordinates and SHA-256 to `kafka_jars.json`."""
    from jgo.maven import Dependency

    with tempfile.TemporaryDirectory() as temporary:
        maven = _maven(Path(temporary))
        kafka = Dependency(maven.project("org.apache.kafka", "kafka_2.13").at_version(version).artifact())
        inputs, transitive = maven.resolver.resolve([kafka])
        log4j = next(d.version for d in transitive if d.artifactId == "log4j-core")
        binding = maven.project("org.apache.logging.log4j", "log4j-slf4j-impl").at_version(log4j).artifact()
        inputs.append(Dependency(binding))  # in Kafka's download, but not among the dependencies of its main jar
        jars = {}
        for dependency in [*inputs, *transitive]:
            if dependency.artifactId not in LEFT_OUT:
                content = dependency.artifact.resolve().read_bytes()
                jars[f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}"] = hashlib.sha256(content).hexdigest()
    PINNED.write_text(json.dumps({"kafka": version, "jars": dict(sorted(jars.items()))}, indent=2) + "\n")


if __name__ == "__main__":
    pin(sys.argv[1])
