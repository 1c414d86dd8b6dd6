"""Ports that stay."""

import json
import socket
from pathlib import Path

import pytest

from hilum.errors import Misconfigured
from hilum.services.ports import AUTOMATIC, Ports

HOST = "127.0.0.1"


def a_listener(port: int = 0) -> socket.socket:
    return socket.create_server((HOST, port))


def test_an_automatic_port_is_the_same_at_the_next_start(tmp_path: Path) -> None:
    first = Ports(tmp_path).take("kafka.port", HOST)

    assert Ports(tmp_path).take("kafka.port", HOST) == first
    assert first in AUTOMATIC


def test_two_settings_get_two_ports(tmp_path: Path) -> None:
    ports = Ports(tmp_path)

    assert ports.take("kafka.port", HOST) != ports.take("s3.port", HOST)


def test_an_automatic_port_that_another_program_took_meanwhile_is_replaced(tmp_path: Path) -> None:
    first = Ports(tmp_path).take("kafka.port", HOST)

    with a_listener(first):
        second = Ports(tmp_path).take("kafka.port", HOST)

    assert second != first
    assert Ports(tmp_path).take("kafka.port", HOST) == second


def test_a_port_that_was_asked_for_and_is_taken_is_named_with_its_setting(tmp_path: Path) -> None:
    with a_listener() as other:
        port = other.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"127.0.0.1:{port}, the port set as kafka.port") as stop:
            Ports(tmp_path).take("kafka.port", HOST, port)

    assert stop.value.reason == "port-in-use"


@pytest.mark.parametrize("spoilt", ["", "[]", '{"kafka.port": "x"}'])
def test_a_spoilt_port_file_is_written_anew(tmp_path: Path, spoilt: str) -> None:
    (tmp_path / "ports.json").write_text(spoilt)

    port = Ports(tmp_path).take("kafka.port", HOST)

    assert json.loads((tmp_path / "ports.json").read_text()) == {"kafka.port": port}
