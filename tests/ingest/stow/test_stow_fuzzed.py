"""Broken requests and noise: a bounded part of `./dev bench fuzz --stow`."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from bench.web_patient import converse
from bench.web_requests import KEY, request
from hilum.testing import eventually
from tests.stow_client import a_body, a_file, a_head, running


def test_the_receiver_answers_forgets_and_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, idle_timeout_s=0.3, max_requests=8, anonymous=True) as receiver:
        streams = [request(f"suite/{number}") for number in range(80)]

        told = [converse(receiver.port, each) for each in streams]

        assert [each.complaint for each in told if each.complaint] == []
        eventually(lambda: receiver.receiver.health().says.endswith("0 requests under way"), what="every request is over")
        eventually(lambda: not receiver.leftovers(), what="nothing unfinished is left")
        assert len(receiver.spool.waiting()) >= sum(each.kept for each in told) > 0
        with socket.create_connection(("127.0.0.1", receiver.port), 60) as connection:
            connection.sendall(a_head(len(body := a_body(a_file()))) + body)  # in one piece, which cannot come too slowly
            assert connection.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("stow")] == []


def test_of_requests_without_a_fault_every_instance_is_stored(tmp_path: Path) -> None:
    streams = [what for number in range(200) if not (what := request(number)).changes]
    with running(tmp_path) as receiver:
        told = [converse(receiver.port, each) for each in streams]

        assert [each.outcomes for each in told] == [["200"]] * len(streams)
        stored = [data for _, data in receiver.stored()]
        assert len(stored) == sum(each.kept for each in told)
        assert {data_set for what in streams for data_set in what.data_sets} <= set(stored)
    assert len(streams) > 5


def test_the_same_seed_gives_the_same_request() -> None:
    assert request("7/1") == request("7/1") != request("7/2")
    assert any(KEY.encode() in request(number).raw for number in range(5))
