"""What is told of workers that cannot go on."""

from __future__ import annotations

import pytest

from hilum.runtime.delivery.failing import Failing
from hilum.runtime.delivery.worker import Shared
from tests.ledger import DELIVERED, Scripted


def test_the_same_sentence_is_logged_once_and_told_until_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    failing = Failing()
    for says in ("There is no key.", "There is no key.", "Others may read it."):
        failing.began("study", says)
    assert failing.says == "Others may read it."
    failing.ended("study")
    failing.ended("study")

    logged = capsys.readouterr().err
    assert failing.says == ""
    assert logged.count("workers_stopped") == 2
    assert logged.count("destination_back") == 1


def test_new_workers_are_told_of_as_those_before_them_were_until_they_can_work() -> None:
    failing = Failing()
    failing.began("study", "There is no key.")

    assert Shared("study", Scripted(answer=lambda *_: DELIVERED), failing=failing).away() == "There is no key."
