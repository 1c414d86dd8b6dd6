"""One process of Hilum: its roles in a thread each, signals, and a small HTTP server for health and metrics."""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import signal
import sys
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from hilum import telemetry
from hilum.errors import HilumError
from hilum.role import Health, Role
from hilum.roles import find_role
from hilum.services.endpoints import with_endpoints
from hilum.settings import Settings, load
from hilum.structs import prepare_structs

log = telemetry.logger("host")

#: How long a signal may wait until it is seen, if the system gave it to a thread other than the main one.
SIGNAL_LOOK_S = 0.25


def host(roles: Sequence[Role], settings: Settings) -> int:
    """Run `roles` until a signal asks to stop (SIGTERM, SIGINT) or one of them ends. Returns the exit code.

    If one role ends, the others are drained too: the supervisor starts the process anew, so that no half of it lives on.
    """
    stop = threading.Event()
    failed = threading.Event()

    def run(role: Role) -> None:
        try:
            role.run(stop)
        except HilumError as error:
            failed.set()
            log.error("role_stopped", role=role.name, says=str(error))
        except Exception as error:  # a role that fails unforeseen must not leave the process half alive
            failed.set()
            log.error("role_failed", role=role.name, error=telemetry.described(error))
        finally:
            stop.set()

    prepare_structs()
    spare_the_garbage_collector()
    server = _serve(roles, settings)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    threads = [threading.Thread(target=run, args=(role,), name=role.name) for role in roles]
    log.info("process_started", roles=[role.name for role in roles], probe_port=server.server_port)
    for thread in threads:
        thread.start()
    # Looked at from time to time: a handler runs in the main thread only, and the system may give the signal to another one.
    while not asked and not stop.wait(SIGNAL_LOOK_S):
        pass
    stop.set()
    for thread in threads:
        thread.join()
    server.shutdown()
    log.info("process_ended", roles=[role.name for role in roles])
    return 1 if failed.is_set() else 0


def spare_the_garbage_collector() -> None:
    """Look for cycles seldom: a batch of events is thousands of objects without any, which are gone in half a second."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _serve(roles: Sequence[Role], settings: Settings) -> ThreadingHTTPServer:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":
                health = {role.name: _health(role) for role in roles}
                ready = all(each.ready for each in health.values())
                self._send(
                    HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
                    "application/json",
                    json.dumps({"ready": ready, "roles": {name: msgspec.to_builtins(each) for name, each in health.items()}}).encode(),
                )
            elif self.path == "/metrics":
                self._send(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest())
            else:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"Known here: /health, /metrics\n")

        def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Requests for health are not worth a line each."""

    server = ThreadingHTTPServer((settings.probe.host, settings.probe.port), Answer)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="probe", daemon=True).start()
    return server


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m hilum.host ROLES [--config FILE] [--data DIR]`: what `hilum run` does, without loading all of the command line."""
    parser = argparse.ArgumentParser(prog="hilum run")
    parser.add_argument("roles")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args(arguments)
    try:
        sys.exit(run(given.roles, given.config, given.data))
    except HilumError as error:
        sys.exit(f"hilum: {error}")


def run(roles: str, config: Path | None, data: Path | None) -> int:
    """Find the roles, joined by commas, and `host` them. Returns the exit code; raises `Misconfigured`."""
    faulthandler.enable(2)  # a crash within a library says where it was, thread by thread
    settings = with_endpoints(load(config, flags={"data": str(data) if data else None}).settings)
    telemetry.configure(settings)
    return host([find_role(name.strip(), settings) for name in roles.split(",")], settings)


def _health(role: Role) -> Health:
    try:
        return role.health()
    except Exception as error:  # an answer about health must always come
        return Health(ready=False, says=f"its health could not be read ({type(error).__name__})")


if __name__ == "__main__":
    main()
