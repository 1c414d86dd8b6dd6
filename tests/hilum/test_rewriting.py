"""Decoders and workers that are killed: an object is not blamed for it at once, and nothing is left behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace
from pydicom.data import get_testdata_file

from hilum.dicom import decoding
from hilum.dicom.decoding import DecoderLost, decoded
from hilum.dicom.lossy import Lossy
from hilum.dicom.recode import CannotRecode
from hilum.dicom.transcode import lossy
from hilum.part10 import Part10, data_set_offset
from hilum.rewriting import DECODERS_LOST, not_rewritten
from hilum.settings import Settings
from hilum.sink import Delivery, Later
from hilum.testing import MemoryStore, a_delivery, eventually
from sinks.dicom import Dicom
from tests.peers import EXPLICIT, pacs
from tests.processes import children_of, ended

RLE = "1.2.840.10008.1.2.5"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SAMPLE = Path(str(get_testdata_file("SC_rgb_rle_2frame.dcm")))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def compressed(store: MemoryStore) -> Delivery:
    whole = SAMPLE.read_bytes()
    return a_delivery(store, transfer_syntax_uid=RLE, data_set=whole[data_set_offset(whole) :], SOPClassUID=SECONDARY_CAPTURE)


@contextmanager
def decoder_killed_at_its_work() -> Iterator[None]:
    """The process that decodes next is killed once it was given something."""
    list(decoded(SAMPLE.read_bytes(), RLE).frames)
    process = decoding._idle[-1]._process  # the one that is taken next
    pipe = process.stdin
    assert pipe is not None
    os.kill(process.pid, signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)  # until it has stopped: before that it still reads what it is given
    given = partial(unread, pipe.fileno())

    def kill() -> None:
        eventually(given, what="the decoder is given an object")
        os.kill(process.pid, signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    yield
    killing.join()


def unread(pipe: int) -> int:
    """How many bytes were written into a pipe and not read."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_decoder_that_is_killed_at_its_work_puts_the_object_off_and_the_next_try_delivers_it(store: MemoryStore) -> None:
    delivery = compressed(store)
    with pacs(contexts=[(SECONDARY_CAPTURE, EXPLICIT)]) as there:
        session = Dicom(host="127.0.0.1", port=there.port, aet="PACS").open(Settings())
        session.begin([delivery])
        with decoder_killed_at_its_work(), pytest.raises(Later, match="the decoder ended") as later:
            session.deliver(delivery, Part10(store, delivery.object))

        assert session.deliver(delivery, Part10(store, delivery.object)).state == "delivered"
        session.close()
    assert "memory" in later.value.fix


def test_a_compressor_that_is_killed_is_one_that_was_lost() -> None:
    whole = SAMPLE.read_bytes()
    with decoder_killed_at_its_work(), pytest.raises(DecoderLost):
        lossy(whole, data_set_offset(whole), RLE, Lossy(ratio=10.0))

    assert lossy(whole, data_set_offset(whole), RLE, Lossy(ratio=10.0)) is not None


def test_an_object_over_which_decoders_are_lost_again_and_again_is_rejected(store: MemoryStore) -> None:
    delivery, lost = compressed(store), DecoderLost("its pixel data cannot be decoded (the decoder ended)")
    for attempts in range(DECODERS_LOST - 1):
        with pytest.raises(Later):
            not_rewritten(replace(delivery, attempts=attempts), lost, "Why")

    assert not_rewritten(replace(delivery, attempts=DECODERS_LOST - 1), lost, "Why").state == "rejected"


def test_an_object_that_cannot_be_decoded_is_rejected_at_once(store: MemoryStore) -> None:
    assert not_rewritten(compressed(store), CannotRecode("it ends within a fragment"), "Why").state == "rejected"


#: A worker that has one decoder idle and another amid an object.
_WORKER = """
import sys, time
from pathlib import Path
from hilum.dicom import decoding

whole, rle = Path(sys.argv[1]).read_bytes(), "1.2.840.10008.1.2.5"
busy = decoding.decoded(whole, rle)
list(decoding.decoded(whole, rle).frames)
next(busy.frames)
print(*(each._process.pid for each in decoding._idle), flush=True)
time.sleep(60)
"""


def test_a_worker_that_is_killed_leaves_no_decoder_behind() -> None:
    worker = subprocess.Popen([sys.executable, "-c", _WORKER, str(SAMPLE)], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    worker.stdout.readline()
    children = children_of(worker.pid)
    assert len(children) == 2
    worker.kill()
    worker.wait()
    worker.stdout.close()

    eventually(lambda: ended(children), what="the decoders end")
