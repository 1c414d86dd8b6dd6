"""What a service does not take as it is goes to it otherwise: by its settings, or once it has said so."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import UID

from hilum.part10 import data_set_offset
from hilum.sink import Delivery, Later, Settled
from hilum.testing import MemoryStore, a_delivery, encoded
from tests.peers import EXPLICIT, IMPLICIT, JPEG_2000
from tests.stow_server import Reply, Request, send, session_for, states, stores, stow_server, told

RLE = "1.2.840.10008.1.2.5"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def compressed(store: MemoryStore, uid: str = "2.25.10") -> Delivery:
    """An RLE image of two frames."""
    ds = dcmread(str(get_testdata_file("SC_rgb_rle_2frame.dcm")))
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    out = BytesIO()
    ds.save_as(out)
    whole = out.getvalue()
    more = {"SOPClassUID": SECONDARY_CAPTURE, "SOPInstanceUID": uid}
    return a_delivery(store, transfer_syntax_uid=RLE, data_set=whole[data_set_offset(whole) :], **more)


def broken(store: MemoryStore) -> Delivery:
    return a_delivery(store, SOPInstanceUID="2.25.12", transfer_syntax_uid=JPEG_2000, data_set=encoded({"SOPInstanceUID": "2.25.12"}))


def syntaxes(request: Request) -> list[str]:
    return [str(dcmread(BytesIO(file)).file_meta.TransferSyntaxUID) for file in request.files]


def by_reason(request: Request) -> Reply:
    """A service that names the syntax as its reason, instance by instance (PS3.18 I.2.2)."""
    uids = [str(dcmread(BytesIO(file)).SOPInstanceUID) for file in request.files]
    failed = {uid: 0xC122 for uid, syntax in zip(uids, syntaxes(request), strict=True) if syntax != EXPLICIT}
    stored = {uid: 0 for uid in uids if uid not in failed}
    return told(stored, failed, status=202 if stored and failed else 409 if failed else 200)


def by_status(status: int) -> Callable[[Request], Reply]:
    """A service that refuses the request as a whole."""
    return lambda request: stores(request) if set(syntaxes(request)) == {EXPLICIT} else Reply(status)


def pixels_of(file: bytes) -> np.ndarray:
    found: Dataset = dcmread(BytesIO(file))
    return found.pixel_array


@pytest.mark.parametrize("answer", [by_reason, by_status(415), by_status(406)], ids=["0xC122", "415", "406"])
def test_what_a_service_says_it_does_not_take_is_decompressed_and_sent_again(
    store: MemoryStore, answer: Callable[[Request], Reply]
) -> None:
    with stow_server(answer) as there:
        outcomes = send(session_for(there.url, store), store, [compressed(store)])

    assert states(outcomes) == ["delivered"]
    assert [syntaxes(request) for request in there.requests] == [[RLE], [EXPLICIT]]
    first, second = (request.files[0] for request in there.requests)
    assert np.array_equal(pixels_of(first), pixels_of(second))


def test_what_it_refused_once_is_not_offered_again(store: MemoryStore) -> None:
    with stow_server(by_reason) as there:
        outcomes = send(session_for(there.url, store, instances=1), store, [compressed(store, f"2.25.1{n}") for n in range(3)])

    assert states(outcomes) == ["delivered"] * 3
    assert [syntaxes(request) for request in there.requests] == [[RLE], [EXPLICIT], [EXPLICIT], [EXPLICIT]]


def test_what_the_settings_say_it_does_not_take_is_never_offered(store: MemoryStore) -> None:
    with stow_server() as there:
        coming = [compressed(store), a_delivery(store, SOPInstanceUID="2.25.11", transfer_syntax_uid=IMPLICIT)]
        outcomes = send(session_for(there.url, store, syntaxes=(EXPLICIT, IMPLICIT)), store, coming)

    assert states(outcomes) == ["delivered"] * 2
    assert [syntaxes(request) for request in there.requests] == [[EXPLICIT], [IMPLICIT]]


def test_other_instances_of_the_request_are_not_sent_again(store: MemoryStore) -> None:
    coming = [a_delivery(store, SOPInstanceUID="2.25.11"), compressed(store), a_delivery(store, SOPInstanceUID="2.25.12")]
    with stow_server(by_reason) as there:
        assert states(send(session_for(there.url, store), store, coming)) == ["delivered"] * 3

    assert [syntaxes(request) for request in there.requests] == [[EXPLICIT, RLE, EXPLICIT], [EXPLICIT]]


def test_nothing_is_transcoded_where_that_is_forbidden(store: MemoryStore) -> None:
    with stow_server(by_reason) as there:
        [outcome] = send(session_for(there.url, store, transcode="never"), store, [compressed(store)])

    assert isinstance(outcome, Settled)
    assert (outcome.state, outcome.peer_status, len(there.requests)) == ("rejected", "409 0xC122", 1)


def test_a_service_that_takes_neither_is_not_asked_for_ever(store: MemoryStore) -> None:
    with stow_server(lambda request: told(failed=dict.fromkeys(request.uids, 0xC122), status=409)) as there:
        [outcome] = send(session_for(there.url, store), store, [compressed(store)])

    assert states([outcome]) == ["rejected"]
    assert [syntaxes(request) for request in there.requests] == [[RLE], [EXPLICIT]]


def test_an_object_that_cannot_be_decoded_is_rejected_in_words_and_the_next_one_goes_on(store: MemoryStore) -> None:
    with stow_server() as there:
        outcomes = send(session_for(there.url, store, syntaxes=(EXPLICIT,)), store, [broken(store), compressed(store)])

    assert states(outcomes) == ["rejected", "delivered"]
    assert "takes no transfer syntax 1.2.840.10008.1.2.4.90, and the object cannot be rewritten" in getattr(outcomes[0], "comment", "")


def test_what_is_too_large_once_it_is_decompressed_is_not_sent(store: MemoryStore) -> None:
    with stow_server() as there:
        [outcome] = send(session_for(there.url, store, syntaxes=(EXPLICIT,), max_instance_bytes=30_000), store, [compressed(store)])

    assert isinstance(outcome, Settled)
    assert (outcome.state, there.requests) == ("rejected", [])
    assert "max_instance_bytes" in outcome.comment


def test_a_connection_lost_amid_a_transcoded_object_puts_it_off(store: MemoryStore) -> None:
    with stow_server(lambda _: Reply(0)) as there:
        [outcome] = send(session_for(there.url, store, syntaxes=(EXPLICIT,)), store, [compressed(store)])

    assert isinstance(outcome, Later)
