"""What `hilum up` runs: the servers, then topics, tables and buckets, then Hilum's own processes, under one supervisor."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from hilum.errors import Misconfigured
from hilum.provision import provision
from hilum.roles import modules_of
from hilum.services.endpoints import Endpoints, embedded_names
from hilum.services.files import write_atomically
from hilum.services.forked import done_aside, have_imported
from hilum.services.ports import Ports
from hilum.services.process import Child
from hilum.services.runstate import read_run_state
from hilum.services.up import detach, supervisor_for
from hilum.settings import Dicom, Settings
from hilum.web import url_of

#: How long `hilum up --detach` waits: the first start downloads Kafka.
READY_WITHIN_S = 600.0
#: How long one of Hilum's own processes may take to say how it is: many times what a busy one takes.
ANSWERS_WITHIN_S = 20.0
#: In the data directory: how the listeners were started, for commands that know only the directory.
_LISTENING = "listening.json"


class Mllp(Struct, frozen=True, kw_only=True):
    """Where HL7 messages are taken, over MLLP."""

    host: str
    port: int
    #: Where they are taken with TLS; 0: nowhere.
    tls_port: int


class Listening(Struct, frozen=True, kw_only=True):
    """The listeners of a Hilum, with the ports that they have."""

    dicom: Dicom
    #: What modalities find at the DICOM listener.
    services: tuple[str, ...]
    #: The base URL of the STOW-RS service; empty: there is none.
    stow: str
    #: None where the role `hl7` does not run.
    hl7: Mllp | None


def run(settings: Settings, config: Path | None, *, ready: Callable[[], None] | None = None) -> None:
    """Run everything in the foreground until SIGTERM or SIGINT. Raises `Misconfigured` if it cannot start."""
    have_imported(["hilum.host", "hilum.bus", "hilum.database", "alembic.command", "hilum.store", *modules_of(settings)])
    supervisor = supervisor_for(
        settings,
        provision=lambda endpoints: _provision(endpoints.filled_into(settings)),
        roles=lambda endpoints: _roles(settings, config, endpoints),
    )
    supervisor.run(ready=lambda _: ready() if ready else None)


def start(settings: Settings, config: Path | None) -> None:
    """Run everything in the background; return when it is ready. Raises `Misconfigured` with what stopped it."""
    running = read_run_state(settings.data_dir)
    if running is not None and running.is_alive():
        raise Misconfigured(
            "already-running",
            f"Hilum already runs on {settings.data_dir}, as process {running.pid}.",
            fix=f"Look at it with `hilum status --data {settings.data_dir}`, stop it with `hilum down`, or choose another --data.",
        )
    command: list[str | Path] = [sys.executable, "-m", "hilum", "up", "--data", settings.data_dir]
    if config:
        command += ["--config", config.resolve()]
    detach(command, settings.data_dir, ready_within_s=READY_WITHIN_S)


def listening_of(settings: Settings) -> Listening | None:
    """What listens for the Hilum that runs on the data directory, whatever settings it was started with; None if none runs there."""
    running = read_run_state(settings.data_dir)
    try:
        kept = msgspec.json.decode((settings.data_dir / _LISTENING).read_bytes(), type=Listening)
    except (OSError, msgspec.MsgspecError):
        return None
    return kept if running is not None and running.is_alive() else None


def listener_of(settings: Settings) -> Dicom:
    """The DICOM listener that runs on the data directory; else that of `settings`."""
    found = listening_of(settings)
    return found.dicom if found is not None else settings.dicom


def hl7_of(settings: Settings, *, tls: bool = False) -> tuple[str, int] | None:
    """Host and port at which this machine reaches the HL7 listener that runs on the data directory, with `tls` or without; None if none."""
    found = listening_of(settings)
    if found is None or found.hl7 is None:
        return None
    everywhere = found.hl7.host in ("0.0.0.0", "::")  # noqa: S104  # compared, not bound
    port = found.hl7.tls_port if tls else found.hl7.port
    return ("127.0.0.1" if everywhere else found.hl7.host, port) if port else None


def process_names(settings: Settings) -> list[tuple[str, int]]:
    """Names of the processes that the settings ask for, and each one's slot among those with the same roles."""
    seen: Counter[str] = Counter()
    names = []
    for roles in settings.roles.processes:
        slot = seen[roles]
        seen[roles] += 1
        names.append((roles if slot == 0 else f"{roles}#{slot}", slot))
    return names


def _services(settings: Settings) -> tuple[str, ...]:
    """What modalities find at the receiver."""
    roles, worklist = settings.role_names, settings.worklist
    found = {
        "storage": True,
        "storage-commitment": "commitment" in roles,
        "worklist": worklist.serve and "worklist" in roles,
        "mpps": worklist.mpps and "worklist" in roles,
    }
    return tuple(name for name, served in found.items() if served) if "dicom" in roles else ()


def _provision(settings: Settings) -> None:
    done_aside(provision, settings)


def _roles(settings: Settings, config: Path | None, endpoints: Endpoints) -> Sequence[Child]:
    from hilum.status import ask

    data = settings.data_dir
    ports = Ports(data)
    listener = ports.take("dicom.port", settings.dicom.host, settings.dicom.port)
    roles = settings.role_names
    stow = ports.take("stow.port", settings.stow.host, settings.stow.port) if "stow" in roles else 0
    hl7 = ports.take("hl7.port", settings.hl7.host, settings.hl7.port) if "hl7" in roles and settings.hl7.without_tls else 0
    listening = Listening(
        dicom=msgspec.structs.replace(settings.dicom, port=listener),
        services=_services(settings),
        stow=url_of(settings.stow, stow) if stow else "",
        hl7=Mllp(host=settings.hl7.host, port=hl7, tls_port=settings.hl7.tls_port) if "hl7" in roles else None,
    )
    write_atomically(data / _LISTENING, msgspec.json.encode(listening).decode())
    environment = {
        **endpoints.environment(),
        "HILUM_DICOM__PORT": str(listener),
        "HILUM_STOW__PORT": str(stow),
        "HILUM_HL7__PORT": str(hl7),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",  # of processes that a role starts for itself
    }
    if sum("dicom" in name.partition("#")[0].split(",") for name, _ in process_names(settings)) > 1:
        environment["HILUM_DICOM__REUSE_PORT"] = "true"
    if "s3" in embedded_names(settings):
        environment["HILUM_S3__SYNC_PATH"] = str(data / "s3")
    children = []
    for name, slot in process_names(settings):
        joined = name.partition("#")[0]
        port = ports.take(f"probe {name}", "127.0.0.1")

        def ready(port: int = port) -> bool:
            said = ask(port, 1.0)
            return said is not None and all(health.ready for health in said.values())

        def answers(port: int = port) -> bool:
            return ask(port, ANSWERS_WITHIN_S) is not None

        command = ["hilum.host", joined, "--data", str(data), *(["--config", str(config)] if config else [])]
        children.append(
            Child(
                name=name,
                argv=[sys.executable, "-m", *command],
                fork=command,
                log=data / "logs" / f"{name.replace(',', '-').replace('#', '-')}.log",
                ready=ready,
                env={**environment, "HILUM_PROBE__PORT": str(port), "HILUM_SLOT": str(slot)},
                stop_within_s=20.0,
                roles=tuple(role.strip() for role in joined.split(",")),
                probe_port=port,
                answers=answers,
                silent_s=settings.roles.silent_s,
            )
        )
    return children
