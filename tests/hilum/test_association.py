import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.peers import free_port
from hilum.association import Association, AssociationLost, echo
from hilum.peer import NoAssociation, Peer
from hilum.testing import eventually
from hilum.upper_layer import Context, Pdu, associate_rq, pdu
from tests.peers import (
    CT,
    EXPLICIT,
    IMPLICIT,
    JPEG_2000,
    MR,
    VERIFICATION,
    aborts,
    hangs_up,
    pacs,
    raw_peer,
    says_nothing,
    status,
)

CT_EXPLICIT = Context(abstract_syntax=CT, transfer_syntax=EXPLICIT)


def peer(port: int, **more: object) -> Peer:
    return Peer(host="127.0.0.1", port=port, aet="PACS", calling_aet="HILUM", **more)  # type: ignore[arg-type]  # by name


def pieces_of(data: bytes):  # type: ignore[no-untyped-def]  # as `Pieces`
    return lambda size: iter([data[at : at + size] for at in range(0, len(data), size)])


@pytest.mark.parametrize("size", [2, 16_377, 16_378, 16_379, 2 * 16_378, 1 << 20, (3 << 20) + 2])
@pytest.mark.parametrize("max_pdu_bytes", [0, 16_384])
def test_a_data_set_of_any_size_arrives_as_it_is(size: int, max_pdu_bytes: int) -> None:
    data = os.urandom(size)
    with pacs(max_pdu_bytes=max_pdu_bytes) as there:
        association = Association(peer(there.port), [CT_EXPLICIT])
        answer = association.c_store(CT_EXPLICIT, "1.2.3", pieces_of(data))
        association.release()

        assert answer.status == 0x0000
        assert there.stored == {"1.2.3": [data]}


def test_no_pdu_is_longer_than_the_peer_takes() -> None:
    longest = 0

    def measure(connection: socket.socket) -> None:
        nonlocal longest
        stream = connection.makefile("rb")

        def read() -> tuple[int, bytes]:
            header = stream.read(6)
            return (header[0], stream.read(int.from_bytes(header[2:], "big"))) if header else (0, b"")

        read()
        contexts = b"\x21\0\0\x0c\x01\0\0\0\x40\0\0\x04" + b"1.2\0"
        user = b"\x50\0\0\x08\x51\0\0\x04" + (4096).to_bytes(4, "big")
        connection.sendall(pdu(Pdu.ASSOCIATE_AC, b"\0\1\0\0" + bytes(64) + contexts + user))
        while (found := read())[0] == Pdu.DATA:
            longest = max(longest, len(found[1]))

    with raw_peer(measure) as port:
        association = Association(peer(port, response_timeout_s=0.2), [CT_EXPLICIT])
        with pytest.raises(AssociationLost, match=r"did not answer within 0\.2 s"):
            association.c_store(CT_EXPLICIT, "1.2.3", pieces_of(bytes(100_000)))

    assert longest == 4096


def test_the_peers_status_and_comment_come_back() -> None:
    with pacs(status(0xA700, "disk  full\non /data")) as there:
        association = Association(peer(there.port), [CT_EXPLICIT])
        answer = association.c_store(CT_EXPLICIT, "1.2.3", pieces_of(b"12"))
        association.release()

    assert (answer.status, answer.comment) == (0xA700, "disk full on /data")


def test_accepted_and_refused_contexts_are_told_apart_with_the_reason() -> None:
    unknown = Context(abstract_syntax="1.2.3.4", transfer_syntax=EXPLICIT)
    compressed = Context(abstract_syntax=MR, transfer_syntax=JPEG_2000)
    with pacs() as there:
        association = Association(peer(there.port), [CT_EXPLICIT, unknown, compressed])
        association.release()

    assert set(association.accepted) == {CT_EXPLICIT}
    assert association.refused == {unknown: 3, compressed: 4}


def test_an_association_takes_128_contexts() -> None:
    contexts = [CT_EXPLICIT] + [Context(abstract_syntax=f"1.2.3.{n}", transfer_syntax=EXPLICIT) for n in range(127)]
    with pacs() as there:
        association = Association(peer(there.port), contexts)
        association.release()

    assert association.accepted == {CT_EXPLICIT: 1}
    assert len(association.refused) == 127


def test_echo_answers() -> None:
    with pacs() as there:
        assert echo(peer(there.port)).status == 0x0000


def test_a_peer_without_echo_is_said_to_have_none() -> None:
    with pacs(echo=False) as there, pytest.raises(NoAssociation, match="no C-ECHO: this SOP class is not supported"):
        echo(peer(there.port))


def test_a_refused_connection_says_what_to_check() -> None:
    port = free_port()
    with pytest.raises(NoAssociation, match=rf"127\.0\.0\.1:{port} cannot be reached: connection refused\. Check that the peer runs"):
        Association(peer(port), [CT_EXPLICIT])


def test_an_unknown_name_is_said_to_be_unknown() -> None:
    with pytest.raises(NoAssociation, match=r"The name pacs\.invalid is not known here"):
        Association(Peer(host="pacs.invalid", port=104, aet="PACS", calling_aet="HILUM"), [CT_EXPLICIT])


def test_a_rejection_for_the_calling_title_says_whom_to_ask() -> None:
    with pacs(only_calling=("OTHER",)) as there, pytest.raises(NoAssociation, match=r"calling AE title not recognised.*add HILUM"):
        Association(peer(there.port), [CT_EXPLICIT])


def test_a_rejection_for_the_called_title_says_what_to_correct() -> None:
    with pacs(only_called=True, aet="OTHER") as there, pytest.raises(NoAssociation, match=r"called AE title not recognised.*PACS"):
        Association(peer(there.port), [CT_EXPLICIT])


def test_a_busy_peer_refuses_for_now() -> None:
    with pacs(associations=1) as there:
        first = Association(peer(there.port), [CT_EXPLICIT])
        with pytest.raises(NoAssociation, match="refused the association for now: too many associations"):
            Association(peer(there.port), [CT_EXPLICIT])
        first.release()


def test_a_port_that_is_not_dicom_is_said_to_be_none() -> None:
    def web_server(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with raw_peer(web_server) as port, pytest.raises(NoAssociation, match="does not speak DICOM"):
        Association(peer(port), [CT_EXPLICIT])


def test_a_peer_that_never_answers_the_request_is_given_up() -> None:
    with raw_peer(says_nothing) as port, pytest.raises(NoAssociation, match=r"did not answer the association request in 0\.2 s"):
        Association(peer(port, association_timeout_s=0.2), [CT_EXPLICIT])


@pytest.mark.parametrize("cut", [0, 5, 6, 74, 89])
def test_an_answer_that_ends_early_is_no_association(cut: int) -> None:
    whole = pdu(Pdu.ASSOCIATE_AC, b"\0\1\0\0" + bytes(64) + b"\x21\0\0\x0c\x01\0\0\0\x40\0\0\x041.2\0")

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(whole[:cut])

    with raw_peer(answer) as port, pytest.raises(NoAssociation, match="closed the connection instead of answering"):
        Association(peer(port), [CT_EXPLICIT])


def test_an_abort_instead_of_an_answer_is_told() -> None:
    with pacs(aborts) as there:
        association = Association(peer(there.port), [CT_EXPLICIT])
        with pytest.raises(AssociationLost, match="aborted the association"):
            association.c_store(CT_EXPLICIT, "1.2.3", pieces_of(b"12"))
        assert not association.is_open()


def test_a_connection_that_is_dropped_with_the_data_is_told() -> None:
    with pacs(hangs_up) as there:
        association = Association(peer(there.port), [CT_EXPLICIT])
        with pytest.raises(AssociationLost, match="closed the connection without an answer"):
            association.c_store(CT_EXPLICIT, "1.2.3", pieces_of(b"12"))


def test_an_object_whose_pieces_end_with_an_error_is_never_complete_at_the_peer() -> None:
    def spoiled(size: int) -> Iterator[bytes]:
        yield bytes(size)
        yield b"the last piece"
        raise ValueError("the digest differs")

    with pacs() as there:
        association = Association(peer(there.port), [CT_EXPLICIT])
        with pytest.raises(ValueError, match="the digest differs"):
            association.c_store(CT_EXPLICIT, "1.2.3", spoiled)
        assert not association.is_open()
        again = Association(peer(there.port), [CT_EXPLICIT])
        again.c_store(CT_EXPLICIT, "1.2.4", pieces_of(b"12"))
        again.release()

        assert set(there.stored) == {"1.2.4"}


def test_an_association_that_the_peer_aborted_meanwhile_is_not_open() -> None:
    with pacs() as there:
        association = Association(peer(there.port), [CT_EXPLICIT])
        there._server.active_associations[0].abort(block=False)

        eventually(lambda: not association.is_open())


def test_release_is_in_order() -> None:
    with pacs() as there:
        Association(peer(there.port), [CT_EXPLICIT]).release()

        eventually(lambda: there.released == 1)


def test_the_request_names_each_context_once_with_an_odd_id() -> None:
    request = associate_rq("HILUM", "PACS", [CT_EXPLICIT, Context(abstract_syntax=CT, transfer_syntax=IMPLICIT)], 16_384)

    assert request[10:26] == b"PACS            "
    assert request[26:42] == b"HILUM           "
    assert [request[at + 4] for at in range(74, len(request)) if request[at : at + 2] == b"\x20\0"] == [1, 3]


@pytest.mark.peer("storescp")
def test_dcmtk_keeps_the_bytes_that_it_is_sent(tmp_path: Path) -> None:
    from hilum.testing import _HEADER, encoded

    port, data = free_port(), encoded(_HEADER)
    server = subprocess.Popen(["storescp", "+xa", "+B", "-aet", "PACS", "-od", str(tmp_path), str(port)])
    try:
        association = eventually(lambda: _associated(port))
        assert association is not None
        answers = [association.c_store(CT_EXPLICIT, f"2.25.{n}", pieces_of(data)).status for n in range(20)]
        association.release()
        assert answers == [0] * 20
        stored = next(tmp_path.iterdir()).read_bytes()
        assert stored[144 + int.from_bytes(stored[140:144], "little") :] == data
    finally:
        server.terminate()
        server.wait()


def _associated(port: int) -> Association | None:
    try:
        return Association(peer(port), [CT_EXPLICIT, Context(abstract_syntax=VERIFICATION, transfer_syntax=IMPLICIT)])
    except NoAssociation:
        return None
