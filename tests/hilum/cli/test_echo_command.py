"""How `hilum echo` deals with what is no DICOM node."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.errors import Misconfigured
from hilum.peer import NoAssociation
from tests.peers import pacs, raw_peer, says_nothing


def test_a_port_that_says_nothing_is_given_up_after_the_timeout() -> None:
    with raw_peer(says_nothing) as port:
        done = CliRunner().invoke(app, ["echo", "--host", "127.0.0.1", "--port", str(port), "--timeout", "0.2"])

    assert isinstance(done.exception, NoAssociation)
    assert "did not answer the association request in 0.2 s" in str(done.exception)


def test_a_port_that_says_nothing_is_given_up_soon_without_an_option() -> None:
    with raw_peer(says_nothing) as port:
        done = CliRunner().invoke(app, ["echo", "--host", "127.0.0.1", "--port", str(port)])

    assert "did not answer the association request in 5 s" in str(done.exception)


def test_a_node_answers() -> None:
    with pacs() as there:
        done = CliRunner().invoke(app, ["echo", "--host", "127.0.0.1", "--port", str(there.port), "--aet", "PACS"])

    assert done.exit_code == 0
    assert "answered 0x0000" in done.stdout


@pytest.mark.parametrize("option", ["--aet", "--calling-aet"])
@pytest.mark.parametrize("title", ["SEVENTEEN_LETTERS", "A\\B", " ", "R\u00d6NTGEN"])
def test_a_title_that_is_none_is_refused_before_anything_is_sent(option: str, title: str) -> None:
    done = CliRunner().invoke(app, ["echo", "--host", "127.0.0.1", "--port", "9", option, title])

    assert isinstance(done.exception, Misconfigured)
    assert str(done.exception).startswith(f"{option}: ")
