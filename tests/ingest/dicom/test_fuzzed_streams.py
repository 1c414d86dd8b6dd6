"""Broken conversations and noise: a bounded part of `./dev bench fuzz`, without sockets and with."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.conversations import stream
from bench.fuzz import converse
from hilum import upper_layer as ul
from hilum.testing import eventually
from ingest.dicom.answers import Answer
from ingest.dicom.commands import Command
from ingest.dicom.storage import Storing
from tests.ingest.dicom.running import RawPeer, running
from tests.ingest.dicom.test_acceptor import Association

MAY_SEND = {ul.Pdu.ASSOCIATE_AC, ul.Pdu.ASSOCIATE_RJ, ul.Pdu.DATA, ul.Pdu.RELEASE_RP, ul.Pdu.ABORT}
SEEDS = st.integers(0, 2**32 - 1)


class Fuzzed(Association):
    """An `Acceptor` that has been told a stream, and the receipts that it acknowledged."""

    def __init__(self, path: Path, *pieces: bytes) -> None:
        super().__init__(path, max_object_bytes=2**20)
        self.acknowledged: list[str] = []
        self.told = self.receive(*pieces)
        self.acceptor.close("gone")

    def _settled(self, command: Command, storing: Storing | None, answer: Answer) -> None:
        super()._settled(command, storing, answer)
        if storing is not None and storing.receipt:
            self.acknowledged.append(storing.receipt)

    def files(self) -> list[bytes]:
        return [self.spool.read(receipt) for receipt in self.spool.waiting()]


@settings(max_examples=500, deadline=None)
@given(SEEDS)
def test_whatever_comes_only_what_is_answered_stays_in_the_spool(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    association = Fuzzed(tmp_path_factory.mktemp("spool"), *stream(seed).pieces)

    assert {kind for kind, _ in association.told} <= MAY_SEND
    assert association.spool.waiting() == association.acknowledged
    assert len(association.leftovers()) == len(association.acknowledged)


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_how_a_broken_stream_is_cut_makes_no_difference_either(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    what = stream(seed)
    cut = Fuzzed(tmp_path_factory.mktemp("cut"), *what.pieces)
    whole = Fuzzed(tmp_path_factory.mktemp("whole"), what.raw)

    assert (cut.told, cut.files()) == (whole.told, whole.files())


def test_of_conversations_without_a_fault_every_object_is_stored(tmp_path: Path) -> None:
    seeds = [seed for seed in range(300) if not stream(seed).changes]

    for seed in seeds:
        what = stream(seed)
        association = Fuzzed(tmp_path / str(seed), what.raw)
        assert association.answers == [0x0000] * len(what.data_sets)
        assert all(file.endswith(data_set) for file, data_set in zip(association.files(), what.data_sets, strict=True))
    assert len(seeds) > 5


def test_the_receiver_answers_forgets_and_goes_on(tmp_path: Path) -> None:
    with running(tmp_path) as receiver:
        threads = threading.active_count()
        streams = [stream(f"sockets/{number}") for number in range(60)]

        told = [converse(receiver.receiver.port, each) for each in streams]

        eventually(lambda: threading.active_count() <= threads, what="every association is over")
        assert [each.complaint for each in told if each.complaint] == []
        assert receiver.leftovers() == []
        assert len(receiver.spool.waiting()) >= sum(each.kept for each in told) > 0
        RawPeer(receiver.receiver.port).release()


def test_the_same_seed_gives_the_same_stream() -> None:
    assert stream("7/1") == stream("7/1") != stream("7/2")
