"""A receiver that is killed again and again while modalities send: Success means that the object is there."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bench.peers import free_port, wait_for_port
from bench.running import RunningHilum, Servers, running_hilum
from bench.wire import RawReceiver
from hilum.services.process import Child
from hilum.spool import Spool
from tests.ingest.dicom.running import RawPeer, a_slice, encoded
from tests.roles import Roles, a_role, roles

pytestmark = pytest.mark.system
ASSOCIATIONS, KILLS = 16, 20
NO_RECEIVER = '[roles]\nprocesses = ["publish", "validate,route,ledger,index", "deliver"]\n'


class Modality(threading.Thread):
    """Sends object after object, each until it got Success; what it got Success for, by digest."""

    def __init__(self, number: int, port: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.succeeded: dict[str, str] = {}
        self.sent: set[str] = set()
        self.broken = 0
        self._number, self._port, self._stop_now = number, port, stop

    def run(self) -> None:
        peer: RawPeer | None = None
        number = 0
        while not self._stop_now.is_set():
            uid = f"2.25.{1000 + self._number}{100_000 + number}"
            data_set = encoded(a_slice(SOPInstanceUID=uid, PatientComments="x" * (10, 5_000, 10_000)[number % 3]))
            digest = hashlib.sha256(data_set).hexdigest()
            self.sent.add(digest)
            try:
                peer = peer or RawPeer(self._port)
                if peer.store(data_set, uid) == 0x0000:
                    self.succeeded[digest] = uid
                    number += 1
            except (OSError, AssertionError, ValueError):  # it was killed: the same object again, on a new association
                self.broken += 1
                peer = None
                self._stop_now.wait(0.02)
        if peer is not None:
            with suppress(OSError):
                peer.release()


@contextmanager
def receiver(running: Roles, port: int) -> Iterator[None]:
    """The receiver, killed on the way out."""
    running.start("dicom")
    wait_for_port(port)
    yield
    running.kill("dicom")


def on_spool_of(hilum: RunningHilum, port: int) -> Child:
    """A receiver on that Hilum's spool."""
    folder = hilum.config.parent
    return a_role("dicom", folder, hilum.config, HILUM_DICOM__PORT=str(port), HILUM_PROBE__PORT=str(free_port()))


def test_what_got_success_is_in_the_index_with_its_digest_and_nothing_is_half_there(tmp_path: Path, servers: Servers) -> None:
    pacs = RawReceiver(keep=False)
    port, stop = free_port(), threading.Event()
    modalities = [Modality(number, port, stop) for number in range(ASSOCIATIONS)]
    with running_hilum(tmp_path, pacs.port, NO_RECEIVER, servers=servers()) as hilum, roles(on_spool_of(hilum, port)) as running:
        for each in modalities:
            each.start()
        for _ in range(KILLS):
            with receiver(running, port):
                before = sum(len(each.succeeded) for each in modalities)
                while sum(len(each.succeeded) for each in modalities) < before + 3 * ASSOCIATIONS:  # in full swing
                    stop.wait(0.01)
                stop.wait(random.uniform(0, 0.2))
        stop.set()
        for each in modalities:
            each.join(60)
        with receiver(running, port):  # sweeps up what the killed ones left
            account = hilum.come_to_rest(240)
        unfinished = Spool.of(hilum.settings).unfinished()
        received = hilum.rows("SELECT sop_instance_uid FROM receipt")
        digests = dict(hilum.rows("SELECT sha256, sop_instance_uid FROM receipt"))
        quarantined = hilum.rows("SELECT count(*) FROM receipt WHERE quarantine_reason IS NOT NULL")
    pacs.close()

    succeeded = {digest: uid for each in modalities for digest, uid in each.succeeded.items()}
    assert sum(each.broken for each in modalities) >= KILLS
    assert len(succeeded) >= KILLS * 3 * ASSOCIATIONS
    assert {digest: digests.get(digest) for digest in succeeded} == succeeded
    assert set(digests) <= {digest for each in modalities for digest in each.sent}
    assert (account.unaccounted, account.undecided, quarantined) == (0, 0, [(0,)])
    assert unfinished == []
    assert len(received) >= len(succeeded)
