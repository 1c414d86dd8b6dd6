"""Who reads a research feed in the servers that run here: keys of its own for one bucket, and a user of Kafka for the research topics.

A reader's keys are in a file for its owner alone, `secrets/reader-DESTINATION.json` of the data directory, made when somebody asks for
them. SeaweedFS is given the identities of all such files; it reads them anew on SIGHUP, within a tenth of a second and without refusing
anybody meanwhile. It adds and replaces identities then and forgets none before it is started again, so one that ends is first left without
any right, under another secret.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from hilum.errors import Misconfigured, NotFound, TryAgain
from hilum.services.files import private_folder, secret, write_atomically
from hilum.services.runstate import RunState, read_run_state

if TYPE_CHECKING:
    from hilum.settings import Settings

#: How long the store may take to know of a change; seen: 0.03 to 0.06 s.
_KNOWN_WITHIN_S = 10.0
_PREFIX = "reader-"


class Reader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a reader of a feed needs. Holds passwords: never log it."""

    #: Its name in both servers, and that of its consumer group.
    name: str
    bucket: str
    #: Empty without an embedded store.
    access_key: str = ""
    secret_key: str = ""
    endpoint: str = ""
    #: Empty without an embedded broker.
    password: str = ""
    bootstrap: str = ""
    security_protocol: str = ""
    sasl_mechanism: str = ""
    topics: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Reader({self.name}, {self.bucket}, …)"


def reader_file(data: Path, destination: str) -> Path:
    """Where the keys of a feed's reader are, once made."""
    return data / "secrets" / f"{_PREFIX}{quote(destination, safe='')}.json"


def read_reader(data: Path, destination: str) -> Reader | None:
    """The reader of a feed; None if it has none. Raises `Misconfigured` if its file cannot be read."""
    return _read(reader_file(data, destination))


def _read(file: Path) -> Reader | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Reader)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError):
        raise Misconfigured("reader-unreadable", f"{file} cannot be read.", fix="Delete it, and make new keys.") from None


def own_keys(data: Path) -> tuple[str, str]:
    """Hilum's own access key and secret key in the store, for everything; made on first use."""
    return secret(data / "secrets" / "s3-access-key", 12), secret(data / "secrets" / "s3-secret-key", 30)


def identities(data: Path) -> list[dict[str, object]]:
    """The readers of all feeds as SeaweedFS wants them: each may read and list its bucket, and nothing else."""
    readers = (_read(file) for file in sorted((data / "secrets").glob(f"{_PREFIX}*.json")))
    return [_identity(each, [f"Read:{each.bucket}", f"List:{each.bucket}"]) for each in readers if each is not None and each.access_key]


def write_identities(data: Path, more: Iterable[dict[str, object]] = ()) -> Path:
    """Write who may ask the store for what: Hilum for everything, readers for their buckets. Returns the file."""
    access_key, secret_key = own_keys(data)
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    hilum = {"name": "hilum", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    others = {str(each["name"]): each for each in (*identities(data), *more)}
    file = data / "secrets" / "s3-identities.json"
    write_atomically(file, json.dumps({"identities": [hilum, *others.values()]}))
    return file


def embedded_here(settings: Settings) -> tuple[bool, bool]:
    """Whether the store, and whether the broker that `settings` name run here, on the data directory."""
    state = _running(settings)
    if state is None or state.endpoints is None:
        return False, False
    names = {child.name for child in state.children}
    return (
        "s3" in names and state.endpoints.s3_endpoint == settings.s3.endpoint,
        "kafka" in names and state.endpoints.kafka_bootstrap == settings.kafka.bootstrap,
    )


class ReachedAt(msgspec.Struct, frozen=True, kw_only=True):
    """Where a reader finds both servers."""

    endpoint: str
    bootstrap: str
    security_protocol: str


def reached_at(settings: Settings) -> ReachedAt:
    """Where readers find the servers that run here: at the door of feeds where it is open, else on this machine alone.

    Raises `Misconfigured` if the settings of the door name no address to reach.
    """
    state, kafka = _running(settings), settings.kafka
    if not settings.feed.host or state is None or not any(child.name == "feed" for child in state.children):
        return ReachedAt(endpoint=settings.s3.endpoint, bootstrap=kafka.bootstrap, security_protocol=kafka.security_protocol)
    name = settings.feed.reached_as()
    return ReachedAt(
        endpoint=f"https://{name}:{settings.feed.s3_port}", bootstrap=f"{name}:{settings.feed.kafka_port}", security_protocol="SASL_SSL"
    )


def admit(settings: Settings, destination: str, bucket: str, topics: tuple[str, ...], *, own_store: bool = True) -> Reader:
    """Make the keys of a feed's reader, or see to it that those made before are in force; the bucket is there. May be repeated.

    The bucket is not asked about unless it is in the store that runs here (`own_store`). Raises `NotFound` if neither server runs here,
    `TryAgain` if one does not answer.
    """
    with _changing(settings):
        in_store, in_kafka = embedded_here(settings)
        in_store = in_store and own_store
        if not in_store and not in_kafka:
            raise NotFound("Neither its store nor its Kafka runs here.", fix="Give readers keys where these are managed.")
        known = read_reader(settings.data_dir, destination)
        if known is None or known.bucket != bucket:  # a destination of the same name, with another bucket
            known = Reader(name=f"{_PREFIX}{quote(destination, safe='')}", bucket=bucket)
        at = reached_at(settings)
        reader = replace(
            known,
            access_key=(known.access_key or secrets.token_urlsafe(12)) if in_store else "",
            secret_key=(known.secret_key or secrets.token_urlsafe(30)) if in_store else "",
            endpoint=at.endpoint if in_store else "",
            password=(known.password or secrets.token_urlsafe(24)) if in_kafka else "",
            bootstrap=at.bootstrap if in_kafka else "",
            security_protocol=at.security_protocol if in_kafka else "",
            sasl_mechanism=settings.kafka.sasl_mechanism if in_kafka else "",
            topics=topics if in_kafka else (),
        )
        write_atomically(reader_file(settings.data_dir, destination), msgspec.json.format(msgspec.json.encode(reader)).decode() + "\n")
        if in_store:
            write_identities(settings.data_dir)
            _reload(settings, lambda: _may_read(settings, reader))
        if in_kafka:
            from hilum.services import kafka_users

            kafka_users.put(settings, reader.name, reader.password)
            kafka_users.let_read(settings, reader.name, reader.topics, reader.name)
    return reader


def end(settings: Settings, destination: str) -> None:
    """Have the keys of a feed's reader opened nothing any more, and forget them. May be repeated.

    Raises `NotFound` if it has none, `TryAgain` if a server does not answer; then the keys' file is still there.
    """
    with _changing(settings):
        reader = read_reader(settings.data_dir, destination)
        if reader is None:
            raise NotFound(f"Nobody has keys for the feed {destination}.", fix="See `hilum deid feed`.")
        in_store, in_kafka = embedded_here(settings)
        for asked, there, what in ((reader.access_key, in_store, "store"), (reader.password, in_kafka, "Kafka")):
            if asked and not there:
                raise TryAgain(f"The {what} for which the keys are does not run here.", fix="Start it with `hilum up`.")
        if reader.password:
            from hilum.services import kafka_users

            kafka_users.let_nothing(settings, reader.name)
            kafka_users.put(settings, reader.name, secrets.token_urlsafe(24))
        if reader.access_key:
            write_identities(settings.data_dir, [_identity(replace(reader, secret_key=secrets.token_urlsafe(30)), [])])
            _reload(settings, lambda: not _may_read(settings, reader))
        reader_file(settings.data_dir, destination).unlink(missing_ok=True)


def _identity(reader: Reader, actions: list[str]) -> dict[str, object]:
    credentials = [{"accessKey": reader.access_key, "secretKey": reader.secret_key}]
    return {"name": reader.name, "credentials": credentials, "actions": actions}


def _running(settings: Settings) -> RunState | None:
    state = read_run_state(settings.data_dir)
    return state if state is not None and state.is_alive() else None


@contextmanager
def _changing(settings: Settings) -> Iterator[None]:
    """Alone: of two that change readers at once, the second writes what the first wrote, too."""
    private_folder(settings.data_dir / "secrets")
    held = os.open(settings.data_dir / "secrets" / "readers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _reload(settings: Settings, known: Callable[[], bool]) -> None:
    """Have the store read its identities, and wait until it knows them. Raises `TryAgain` if it does not."""
    deadline = time.monotonic() + _KNOWN_WITHIN_S
    while time.monotonic() < deadline:
        state = _running(settings)
        child = next((each for each in state.children if each.name == "s3" and each.state == "running"), None) if state else None
        if child is not None:  # else it is being started, and reads them then
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGHUP)
        for _ in range(10):
            if known():
                return
            time.sleep(0.05)
    raise TryAgain("The store does not take the keys.", fix="See that it runs (`hilum status`), and repeat.")


def _may_read(settings: Settings, reader: Reader) -> bool:
    from hilum.store import open_store

    keys = replace(settings.s3, access_key=reader.access_key, secret_key=reader.secret_key)
    try:
        next(iter(open_store(replace(settings, s3=keys)).list(reader.bucket)), None)
    except Misconfigured as refused:
        if refused.reason == "s3-access-denied":
            return False
        raise
    return True
