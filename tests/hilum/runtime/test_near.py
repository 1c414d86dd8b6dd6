"""Cut-through: what lies in the spool still is delivered from there, and anything else from the object store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from hilum.part10 import Part10, Unsound
from hilum.runtime.delivery.near import near_by
from hilum.spool import Spool
from hilum.testing import MemoryStore, a_delivery, spooled


class Arrived:
    """An object that is in the spool and in the store, and its delivery."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = Spool(path, spare_bytes=10 * 2**20)
        self.store = MemoryStore()
        self.receipt = spooled(self.spool)
        self.delivery = replace(a_delivery(self.store), receipt=self.receipt)
        self.original = self.store.objects[self.delivery.object.bucket, self.delivery.object.key]

    def read(self) -> bytes:
        return Part10(self.store, self.delivery.object, lambda: near_by(self.path, self.delivery)).file()


@pytest.fixture
def arrived(tmp_path: Path) -> Arrived:
    return Arrived(tmp_path / "spool")


def test_an_object_that_waits_in_the_spool_is_read_there(arrived: Arrived) -> None:
    assert arrived.read() == arrived.original
    assert arrived.store.reads == 0


def test_an_object_whose_file_was_given_back_is_read_there_until_it_is_written_again(arrived: Arrived) -> None:
    arrived.spool.remove([arrived.receipt])

    assert arrived.read() == arrived.original
    assert arrived.store.reads == 0


def test_an_object_whose_file_was_written_again_is_read_from_the_store(arrived: Arrived) -> None:
    arrived.spool.remove([arrived.receipt])
    spooled(arrived.spool, PatientID="SOMEBODY")

    assert arrived.read() == arrived.original
    assert arrived.store.reads == 1


def test_a_file_that_is_being_written_again_is_found_out_by_its_digest(arrived: Arrived) -> None:
    arrived.spool.remove([arrived.receipt])
    [file] = (arrived.path / "objects").glob("*.free")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    assert arrived.read() == arrived.original
    assert arrived.store.reads == 1


@pytest.mark.parametrize("content", [b"", b"x", bytes(5000), bytes(128) + b"DICM"])
def test_whatever_lies_in_the_spool_harms_nothing(arrived: Arrived, content: bytes) -> None:
    arrived.spool.path(arrived.receipt).write_bytes(content)

    assert arrived.read() == arrived.original


#: A receiver that gives files back and writes others into them.
_RECEIVER = """
import sys
from pathlib import Path
from hilum.spool import Spool
from hilum.testing import spooled

spool = Spool(Path(sys.argv[1]), spare_bytes=10 * 2**20)
spool.remove([sys.argv[2]])
print(flush=True)
n = 0
while True:
    n += 1
    spool.remove([spooled(spool, PatientID=f"SOMEBODY {n}")])
"""


def test_a_receiver_that_is_killed_while_it_writes_the_file_again_harms_no_read(arrived: Arrived) -> None:
    receiver = subprocess.Popen([sys.executable, "-c", _RECEIVER, str(arrived.path), arrived.receipt], stdout=subprocess.PIPE)
    assert receiver.stdout is not None
    receiver.stdout.readline()
    for _ in range(200):
        assert arrived.read() == arrived.original
    receiver.kill()
    receiver.wait()
    receiver.stdout.close()

    assert arrived.read() == arrived.original


#: A worker that reads.
_WORKER = """
import sys
from pathlib import Path
import msgspec
from hilum.runtime.delivery.near import near_by
from hilum.sink import Delivery

delivery = msgspec.json.decode(sys.argv[2], type=Delivery)
while near_by(Path(sys.argv[1]), delivery) is not None:
    print(flush=True)
"""


def test_a_worker_that_is_killed_amid_a_read_leaves_the_file_as_it_was(arrived: Arrived) -> None:
    before = arrived.spool.path(arrived.receipt).read_bytes()
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(arrived.path), msgspec.json.encode(arrived.delivery).decode()], stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    assert worker.stdout.readline()
    worker.kill()
    worker.wait()
    worker.stdout.close()

    assert arrived.spool.path(arrived.receipt).read_bytes() == before
    assert arrived.read() == arrived.original
    assert arrived.store.reads == 0


def test_without_a_spool_on_this_machine_it_is_the_store(arrived: Arrived, tmp_path: Path) -> None:
    assert near_by(tmp_path / "elsewhere", arrived.delivery) is None


def test_what_the_store_says_of_an_object_that_is_nowhere_counts(arrived: Arrived) -> None:
    arrived.spool.path(arrived.receipt).unlink()
    arrived.store.objects.clear()

    with pytest.raises(Unsound):
        arrived.read()
