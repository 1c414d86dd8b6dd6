from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.running import hilum
from hilum.services.endpoints import Endpoints
from hilum.services.process import start_time
from hilum.services.runstate import ChildState, RunState, write_run_state
from hilum.settings import Settings
from hilum.status import status

_ENDPOINTS = Endpoints(kafka_bootstrap="k:1", postgres_dsn="postgresql://p", s3_endpoint="http://s", s3_access_key="a", s3_secret_key="s")


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"ready": True, "roles": {"dicom": {"ready": True, "says": "listens", "lag": None}}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def healthy_port() -> Iterator[int]:
    """Of a process that says that its role `dicom` is ready."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def _a_child(name: str, roles: tuple[str, ...], probe_port: int) -> ChildState:
    return ChildState(name=name, pid=2**22 + 1, start_time=1.0, state="running", since=time.time(), roles=roles, probe_port=probe_port)


@pytest.fixture
def data(tmp_path: Path, healthy_port: int) -> Path:
    """The data directory of a Hilum with other roles than the default settings have, most of them in processes that are dead."""
    children = [
        ChildState(name="kafka", pid=os.getpid(), start_time=start_time(os.getpid()) or 0.0, state="running", since=time.time()),
        _a_child("dicom", ("dicom",), healthy_port),
        _a_child("dicom#1", ("dicom",), 1),
        _a_child("stow,folder", ("stow", "folder"), 1),
    ]
    pid = os.getpid()
    write_run_state(
        RunState(pid=pid, start_time=start_time(pid) or 0.0, data=str(tmp_path), state="ready", endpoints=_ENDPOINTS, children=children)
    )
    return tmp_path


def test_every_role_that_was_started_is_told_of_also_where_the_settings_do_not_name_it(data: Path) -> None:
    found = status(Settings(data=str(data)))

    assert [(role.process, role.name, role.ready) for role in found.roles] == [
        ("dicom", "dicom", True),
        ("dicom#1", "dicom", False),
        ("stow,folder", "stow", False),
        ("stow,folder", "folder", False),
    ]
    assert found.roles[1].says == "its process is running and does not answer"
    assert not found.ready


def test_the_exit_code_tells_of_a_dead_role_that_only_the_settings_of_up_name(data: Path) -> None:
    done = hilum("status", "--data", data, check=False)

    assert done.returncode == 1
    assert "folder" in done.stdout
