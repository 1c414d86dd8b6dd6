"""How a running Hilum is: its endpoints, its servers, its roles. What `hilum up --json` and `hilum status` show."""

from __future__ import annotations

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psutil
from msgspec import Struct

from hilum.database.troubles import FailedRule, Misfit, StuckStudy, failed_rules, misfits_of_late, stuck_studies
from hilum.errors import HilumError, NotFound
from hilum.role import Health
from hilum.services.process import is_running
from hilum.services.runstate import ChildState, read_run_state
from hilum.settings import Settings
from hilum.structs import prepare_structs

#: So many studies that wait for a better rule are named.
MOST_STUCK = 20


class DicomEndpoint(Struct, frozen=True, kw_only=True):
    """Where modalities send to."""

    host: str
    port: int
    aet: str
    #: What they find there: `storage`, `storage-commitment`, `worklist`, `mpps`.
    services: tuple[str, ...] = ()


class StowEndpoint(Struct, frozen=True, kw_only=True):
    """Where DICOMweb clients send to."""

    url: str


class KafkaEndpoint(Struct, frozen=True, kw_only=True):
    """The broker; the password is in `<data>/secrets` (embedded) or where the settings have it from."""

    bootstrap: str
    security_protocol: str
    sasl_mechanism: str
    sasl_username: str


class PostgresEndpoint(Struct, frozen=True, kw_only=True):
    """The database; its password is in `<data>/secrets` (embedded) or where the settings have it from."""

    host: str
    port: int
    database: str
    user: str


class S3Endpoint(Struct, frozen=True, kw_only=True):
    """The object store; its keys are in `<data>/secrets` (embedded) or where the settings have them from."""

    endpoint: str
    bucket: str


class Hl7Endpoint(Struct, frozen=True, kw_only=True):
    """Where a RIS or an engine sends HL7 messages to, over MLLP."""

    host: str
    #: Where no TLS is spoken; 0: nowhere, as for the other.
    port: int
    tls_port: int = 0


class RoleStatus(Struct, frozen=True, kw_only=True):
    """One role, as it says of itself."""

    name: str
    process: str
    ready: bool
    says: str
    lag: int | None


class ProcessStatus(Struct, frozen=True, kw_only=True):
    """One child process."""

    name: str
    pid: int
    state: str
    #: Seconds in this state.
    since_s: float
    restarts: int
    last_exit: str
    #: Resident memory of the process and its children, without what they share (PSS), in MB.
    memory_mb: float
    log: str
    #: Where a process of Hilum's own answers `/health` and `/metrics`; 0 for servers.
    probe_port: int = 0


class Status(Struct, frozen=True, kw_only=True):
    """All of it. Holds no password."""

    state: str
    data: str
    pid: int
    dicom: DicomEndpoint
    #: None where the role `stow` does not run.
    stow: StowEndpoint | None
    #: None where the role `hl7` does not run.
    hl7: Hl7Endpoint | None
    kafka: KafkaEndpoint
    postgres: PostgresEndpoint
    s3: S3Endpoint
    processes: list[ProcessStatus]
    roles: list[RoleStatus]
    #: Studies whose time has come and of which a rule cannot be evaluated, the first of them; None if the database did not answer.
    stuck: list[StuckStudy] | None = None

    #: Rules that could not be evaluated on objects, those that failed on most first; None if the database did not answer.
    failed_rules: list[FailedRule] | None = None
    #: Studies and orders of the last 24 hours that do not fit, and that nobody has accepted; None if the database did not answer.
    misfits: list[Misfit] | None = None

    @property
    def ready(self) -> bool:
        """Whether all roles are."""
        return self.state == "ready" and all(role.ready for role in self.roles)


def status(settings: Settings) -> Status:
    """Ask the Hilum on `settings.data_dir` how it is; each process is given two seconds. Raises `NotFound` if none runs there."""
    from hilum.up import listener_of, listening_of

    state = read_run_state(settings.data_dir)
    if state is None or state.endpoints is None or not state.is_alive():
        raise NotFound(f"No Hilum is running on {settings.data_dir}.", fix="Start it with `hilum up`, or name its directory with --data.")
    prepare_structs()
    listener, listening = listener_of(settings), listening_of(settings)
    hl7 = listening.hl7 if listening is not None else None
    with ThreadPoolExecutor(8) as threads:
        asked = list(threads.map(_roles, state.children))
    kafka = state.endpoints.filled_into(settings).kafka
    postgres = urlsplit(state.endpoints.postgres_dsn)
    return Status(
        state=state.state,
        data=state.data,
        pid=state.pid,
        dicom=DicomEndpoint(
            host=listener.host, port=listener.port, aet=listener.aet, services=listening.services if listening is not None else ()
        ),
        stow=StowEndpoint(url=listening.stow) if listening is not None and listening.stow else None,
        hl7=Hl7Endpoint(host=hl7.host, port=hl7.port, tls_port=hl7.tls_port) if hl7 is not None else None,
        kafka=KafkaEndpoint(
            bootstrap=kafka.bootstrap,
            security_protocol=kafka.security_protocol,
            sasl_mechanism=kafka.sasl_mechanism,
            sasl_username=kafka.sasl_username,
        ),
        postgres=PostgresEndpoint(
            host=postgres.hostname or "", port=postgres.port or 5432, database=postgres.path.lstrip("/"), user=postgres.username or ""
        ),
        s3=S3Endpoint(endpoint=state.endpoints.s3_endpoint, bucket=settings.s3.bucket),
        processes=[_process(child) for child in state.children],
        roles=[role for roles in asked for role in roles],
        stuck=_stuck(state.endpoints.postgres_dsn),
        failed_rules=_failed_rules(state.endpoints.postgres_dsn),
        misfits=_misfits(state.endpoints.postgres_dsn),
    )


def _stuck(dsn: str) -> list[StuckStudy] | None:
    try:
        return stuck_studies(dsn, limit=MOST_STUCK)
    except HilumError:  # the roles say what is wrong with it
        return None


def _failed_rules(dsn: str) -> list[FailedRule] | None:
    try:
        return failed_rules(dsn)
    except HilumError:
        return None


def _misfits(dsn: str) -> list[Misfit] | None:
    try:
        return misfits_of_late(dsn)
    except HilumError:
        return None


def ask(port: int, within_s: float = 2.0) -> dict[str, Health] | None:
    """What the process that answers on this machine's `port` says of its roles; None if nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=within_s)
    try:
        connection.request("GET", "/health")
        answer = json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return {name: Health(**health) for name, health in answer["roles"].items()}


def _roles(child: ChildState) -> list[RoleStatus]:
    """Each role that `hilum up` started in the process, whatever the settings at hand say of it."""
    said = (ask(child.probe_port) if child.roles else None) or {}
    silent = Health(ready=False, says=f"its process is {child.state} and does not answer")
    found = {name: said.get(name, silent) for name in child.roles}
    return [RoleStatus(name=name, process=child.name, ready=h.ready, says=h.says, lag=h.lag) for name, h in found.items()]


def _process(child: ChildState) -> ProcessStatus:
    return ProcessStatus(
        name=child.name,
        pid=child.pid,
        state=child.state if is_running(child.pid, child.start_time) or child.state != "running" else "ended",
        since_s=round(time.time() - child.since, 1),
        restarts=child.restarts,
        last_exit=child.last_exit,
        memory_mb=round(memory_of(child.pid), 1),
        log=child.log,
        probe_port=child.probe_port,
    )


def memory_of(pid: int) -> float:
    """Proportional set size of a process and its children in MB; 0 if it is gone."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.Error:
        pass
    return total / 2**20
