from __future__ import annotations

import re
import socket
import struct
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pydicom.data
import pytest
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, build_context
from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification  # type: ignore[attr-defined]  # made at import

from hilum import upper_layer as ul
from hilum.errors import Misconfigured
from hilum.part10 import data_set_offset
from hilum.settings import Dicom, Settings
from hilum.settings import Spool as SpoolSettings
from hilum.spool import read_arrival
from hilum.synthetic import write_ct_study
from hilum.testing import eventually
from ingest.dicom import role
from tests.ingest.dicom.running import EXPLICIT, IMPLICIT, RawPeer, Running, a_slice, associated, encoded, rejection, running, send


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as found:
        yield found


# Being an SCP


def test_verification_is_answered(receiver: Running) -> None:
    with associated(receiver.receiver.port) as association:
        assert association.send_c_echo().Status == 0x0000


def test_an_object_gets_success_and_is_in_the_spool_as_it_came_with_who_sent_it(receiver: Running) -> None:
    with associated(receiver.receiver.port) as association:
        assert send(association, encoded(a_slice())).Status == 0x0000

    assert receiver.data_sets() == [encoded(a_slice())]
    [receipt] = receiver.spool.waiting()
    arrival, _ = read_arrival(receiver.spool.read(receipt))
    assert (arrival.adapter, arrival.calling_aet, arrival.called_aet, arrival.peer) == ("dicom", "CT1", "HILUM", "127.0.0.1")
    assert (arrival.sop_class_uid, arrival.sop_instance_uid) == (CTImageStorage, "2.25.3")
    assert re.fullmatch("[0-9a-f]{16}", arrival.association)


def test_associations_are_told_apart(receiver: Running) -> None:
    for _ in range(2):
        with associated(receiver.receiver.port) as association:
            send(association, encoded(a_slice()))

    files = [receiver.spool.read(receipt) for receipt in receiver.spool.waiting()]
    assert len({read_arrival(file)[0].association for file in files}) == 2


@pytest.mark.parametrize(
    ("data_set", "status"),
    [
        (encoded(a_slice()), 0x0000),
        (encoded(a_slice(SOPInstanceUID="2.25.4")), 0xB007),
        (encoded(a_slice(SOPClassUID=MRImageStorage)), 0xB007),
        (b"This is a letter, and no data set.", 0xC000),
        (encoded(a_slice(PatientComments="x" * 9000)) * 20, 0xA700),
    ],
    ids=["as announced", "another instance", "another class", "a letter", "too large"],
)
def test_a_sender_is_told_what_became_of_its_object(tmp_path: Path, data_set: bytes, status: int) -> None:
    with running(tmp_path, max_object_bytes=100_000) as receiver, associated(receiver.receiver.port) as association:
        answer = send(association, data_set)

        assert answer.Status == status
        assert bool(answer.ErrorComment) == (status != 0)
        assert receiver.data_sets() == ([data_set] if status != 0xA700 else [])
        assert association.send_c_echo().Status == 0x0000


def test_a_spool_below_its_watermark_refuses_for_now_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path, SpoolSettings(min_free_bytes=2**62)) as receiver, associated(receiver.receiver.port) as association:
        answer = send(association, encoded(a_slice()))

        assert (answer.Status, receiver.data_sets(), receiver.leftovers()) == (0xA700, [], [])
        assert "full" in answer.ErrorComment
        assert receiver.receiver.health().ready  # else a Hilum whose spool has run full would not start again, nor empty it
        assert "nearly full" in receiver.receiver.health().says


def samples() -> Iterator[tuple[str, str, str, bytes]]:
    """(SOP class, instance, transfer syntax, data set) of every Part 10 file that pydicom brings along."""
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*")):
        if path.is_file() and (whole := path.read_bytes())[128:132] == b"DICM":
            meta = read_file_meta_info(path)
            sop_class, instance = (str(meta.get(name, "")) for name in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID"))
            if sop_class and "TransferSyntaxUID" in meta and sop_class != "1.2.840.10008.1.3.10":
                yield sop_class, instance, str(meta.TransferSyntaxUID), whole[data_set_offset(whole) :]


def test_every_sample_is_taken_in_its_own_transfer_syntax_and_kept_byte_for_byte(receiver: Running) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sent = list(samples())
    assert len(sent) > 60
    contexts = sorted({(sop_class, syntax) for sop_class, _, syntax, _ in sent})
    with associated(receiver.receiver.port, *contexts) as association:
        assert len(association.accepted_contexts) == len(contexts)
        statuses = {send(association, data_set, sop_class, instance, syntax).Status for sop_class, instance, syntax, data_set in sent}

    assert statuses <= {0x0000, 0xB007}
    assert receiver.data_sets() == [data_set for *_, data_set in sent]


def test_other_services_are_refused_context_by_context(receiver: Running) -> None:
    find, private = "1.2.840.10008.5.1.4.1.2.2.1", "1.3.12.2.1107.5.9.1"
    with associated(receiver.receiver.port, (find, IMPLICIT), (CTImageStorage, EXPLICIT), (private, EXPLICIT)) as association:
        assert [context.abstract_syntax for context in association.accepted_contexts] == [CTImageStorage, private]
        assert [context.result for context in association.rejected_contexts] == [3]


def test_a_called_title_that_is_not_ours_is_rejected_if_the_settings_say_so(tmp_path: Path) -> None:
    with running(tmp_path, any_called_aet=False) as receiver:
        assert rejection(receiver.receiver.port, "OTHER") == (1, 1, 7)
        with associated(receiver.receiver.port) as association:
            assert association.is_established


def test_one_association_more_than_allowed_is_rejected_for_now(tmp_path: Path) -> None:
    with running(tmp_path, max_associations=3) as receiver:
        open_ones = [AE("CT1").associate("127.0.0.1", receiver.receiver.port, [build_context(Verification)]) for _ in range(3)]
        assert all(each.is_established for each in open_ones)

        assert rejection(receiver.receiver.port) == (2, 3, 2)
        open_ones.pop().release()
        eventually(lambda: ", 2 associations open" in receiver.receiver.health().says)
        with associated(receiver.receiver.port) as next_one:
            assert next_one.is_established
        for each in open_ones:
            each.release()


def test_fifty_associations_at_once_are_all_served(receiver: Running) -> None:
    open_at_once = threading.Barrier(50)
    statuses: list[int] = []

    def modality(number: int) -> None:
        peer = RawPeer(receiver.receiver.port)
        open_at_once.wait(60)
        ds = encoded(a_slice(SOPInstanceUID=f"2.25.{number}"))
        statuses.append(peer.store(ds, f"2.25.{number}"))
        peer.release()

    threads = [threading.Thread(target=modality, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert statuses == [0x0000] * 50
    assert len(receiver.spool.waiting()) == 50


# Misbehaving peers


@contextmanager
def closing_all(connections: Iterable[socket.socket]) -> Iterator[None]:
    """Hold the connections open for as long as the block lasts."""
    with ExitStack() as stack:
        for connection in connections:
            stack.enter_context(connection)
        yield


def reset(peer: RawPeer) -> None:
    """Close with a TCP reset."""
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()


@pytest.mark.parametrize("hang_up", [lambda peer: peer.socket.close(), reset], ids=["closed", "reset"])
def test_an_association_dropped_amid_an_object_leaves_nothing(receiver: Running, hang_up: Callable[[RawPeer], None]) -> None:
    peer = RawPeer(receiver.receiver.port)
    peer.begin()
    peer.fragment(encoded(a_slice()) * 100)
    eventually(receiver.leftovers, what="the object is under way")

    hang_up(peer)

    eventually(lambda: not receiver.leftovers(), what="nothing is left of it")
    assert receiver.spool.waiting() == []
    assert receiver.receiver.health().ready


def test_a_silent_peer_is_aborted(tmp_path: Path) -> None:
    with running(tmp_path, idle_timeout_s=0.5) as receiver:
        peer = RawPeer(receiver.receiver.port)
        peer.begin()
        peer.fragment(b"x" * 100)

        assert peer.pdu() == (ul.Pdu.ABORT, bytes(4))
        eventually(lambda: not receiver.leftovers())


def test_a_browser_is_sent_away(receiver: Running) -> None:
    peer = RawPeer(receiver.receiver.port, associate=False)
    peer.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")

    assert peer.pdu()[0] == ul.Pdu.ABORT
    assert peer.pdu() == (0, b"")


def test_a_connection_without_a_word_does_no_harm(receiver: Running) -> None:
    with socket.create_connection(("127.0.0.1", receiver.receiver.port)):
        pass
    with associated(receiver.receiver.port) as association:
        assert association.is_established


def test_one_host_with_silent_connections_shuts_nobody_out(tmp_path: Path) -> None:
    with running(tmp_path, max_associations=2) as receiver:
        port = receiver.receiver.port
        with closing_all(socket.create_connection(("127.0.0.1", port)) for _ in range(60)):
            with associated(port) as association:
                assert send(association, encoded(a_slice())).Status == 0x0000

            assert "without a request for an association had to make room" in receiver.receiver.health().says


def test_an_association_never_gives_way_to_connections_without_a_word(tmp_path: Path) -> None:
    with running(tmp_path, max_associations=2) as receiver:
        port = receiver.receiver.port
        peer = RawPeer(port)
        with closing_all(socket.create_connection(("127.0.0.1", port)) for _ in range(60)):
            eventually(lambda: "had to make room" in receiver.receiver.health().says)

            assert peer.store(encoded(a_slice())) == 0x0000
        peer.release()


def test_after_a_release_the_connection_is_closed(receiver: Running) -> None:
    peer = RawPeer(receiver.receiver.port)
    peer.socket.sendall(ul.pdu(ul.Pdu.RELEASE_RQ, bytes(4)))

    assert [peer.pdu()[0], peer.pdu()[0]] == [ul.Pdu.RELEASE_RP, 0]


def test_an_object_of_500_mb_is_taken_in_little_memory(receiver: Running) -> None:
    process = psutil.Process()
    peer = RawPeer(receiver.receiver.port)
    peer.begin()
    peer.fragment(encoded(a_slice()))
    before = process.memory_info().rss
    piece, most = bytes(2**20), before
    for n in range(500):
        peer.fragment(piece)
        if n % 50 == 0:
            most = max(most, process.memory_info().rss)
    peer.fragment(b"\0\0", last=True)

    assert peer.status() == 0x0000
    assert most - before < 50 * 2**20
    [receipt] = receiver.spool.waiting()
    assert len(receiver.spool.read(receipt)) > 500 * 2**20


def test_a_disk_that_fills_up_amid_an_object_gets_the_sender_a_try_again_and_goes_on(tmp_path: Path, small_disk: Path) -> None:
    with running(tmp_path, SpoolSettings(path=str(small_disk), min_free_bytes=0, spare_bytes=0)) as receiver:
        peer = RawPeer(receiver.receiver.port)

        assert peer.store(encoded(a_slice()) + bytes(2 * 2**20)) == 0xA700
        assert receiver.leftovers() == []
        assert peer.store(encoded(a_slice())) == 0x0000
        peer.release()


# The role


def test_a_port_that_is_taken_is_named_with_its_fix(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        receiver = role(Settings(data=str(tmp_path), dicom=Dicom(port=taken.getsockname()[1])))

        with pytest.raises(Misconfigured, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use\. Stop the program") as refused:
            receiver.run(threading.Event())

    assert refused.value.reason == "dicom-port-taken"
    assert not receiver.health().ready
    assert "cannot listen" in receiver.health().says


def test_its_health_says_where_it_listens(receiver: Running) -> None:
    assert f"HILUM listens on 127.0.0.1:{receiver.receiver.port}, 0 associations open" in receiver.receiver.health().says


def test_when_it_stops_an_object_under_way_arrives_and_an_idle_association_is_aborted(tmp_path: Path) -> None:
    with running(tmp_path, times={"drain_s": 60}) as receiver:
        idle, busy = RawPeer(receiver.receiver.port), RawPeer(receiver.receiver.port)
        busy.begin()
        busy.fragment(encoded(a_slice()))
        eventually(receiver.leftovers)
        receiver.stop.set()

        assert idle.pdu() == (ul.Pdu.ABORT, bytes(4))
        with pytest.raises(OSError, match="refused"):
            RawPeer(receiver.receiver.port or int(busy.socket.getpeername()[1]))
        busy.fragment(b"", last=True)
        assert busy.status() == 0x0000
        assert busy.pdu() == (ul.Pdu.ABORT, bytes(4))
    assert len(receiver.spool.waiting()) == 1


def test_when_it_stops_an_object_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    with running(tmp_path, times={"drain_s": 0.3}) as receiver:
        peer = RawPeer(receiver.receiver.port)
        peer.begin()
        peer.fragment(encoded(a_slice()))
        eventually(receiver.leftovers)

        receiver.end()

        assert peer.pdu() == (ul.Pdu.ABORT, bytes(4))
        assert (receiver.leftovers(), receiver.spool.waiting()) == ([], [])


@pytest.mark.peer("dcmsend")
def test_dcmtk_sends_a_study_though_it_holds_back_small_packets(receiver: Running, tmp_path: Path) -> None:
    write_ct_study(tmp_path / "study", 20, rows=64, columns=64)

    done = subprocess.run(
        ["dcmsend", "-aec", "HILUM", "127.0.0.1", str(receiver.receiver.port), "+sd", str(tmp_path / "study")],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert len(receiver.spool.waiting()) == 20
