import threading
from collections.abc import Callable, Iterator
from io import BytesIO

import pydicom
import pytest
from pynetdicom import AllStoragePresentationContexts

from bench.peers import free_port
from hilum import testobject
from hilum.database import connect
from hilum.part10 import Part10, Unsound
from hilum.settings import Postgres, Settings
from hilum.sink import Delivery, Later, Outage, Session, Settled
from hilum.testing import MemoryStore, SinkContract, a_delivery, encoded, eventually
from sinks.dicom import Dicom
from sinks.dicom.check import hurried
from sinks.dicom.session import contexts_of
from tests.peers import CT, EXPLICIT, IMPLICIT, JPEG_2000, MR, Pacs, aborts, hangs_up, pacs, raw_peer, says_nothing, status


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def settings() -> Settings:
    return Settings()


def sink_for(port: int, **more: object) -> Dicom:
    return Dicom(host="127.0.0.1", port=port, aet="PACS", **more)  # type: ignore[arg-type]  # by name


class TestDicom(SinkContract):
    @pytest.fixture
    def there(self) -> Iterator[Pacs]:
        with pacs() as running:
            yield running

    @pytest.fixture
    def sink(self, there: Pacs) -> Dicom:
        return sink_for(there.port)

    @pytest.fixture
    def broken_sink(self) -> Dicom:
        return sink_for(free_port())

    @pytest.fixture
    def arrived(self, there: Pacs) -> Callable[[str], list[bytes]]:
        # What a PACS keeps under a SOP instance UID is one object, however often it comes (PS3.4 B.2.3).
        return lambda uid: list(dict.fromkeys(there.stored[uid]))


def send(session: Session, store: MemoryStore, *deliveries: Delivery) -> list[Settled]:
    session.begin(deliveries)
    return [session.deliver(delivery, Part10(store, delivery.object)) for delivery in deliveries]


def test_a_study_has_one_association(store: MemoryStore) -> None:
    with pacs() as there:
        session = sink_for(there.port).open(Settings())
        for study in ("2.25.1", "2.25.2"):
            for n in range(3):
                send(session, store, a_delivery(store, StudyInstanceUID=study, SOPInstanceUID=f"{study}.{n}"))
        session.close()

        assert len(there.stored) == 6
        assert len(there.asked) == 2
        eventually(lambda: there.released == 2)


def test_studies_may_share_an_association(store: MemoryStore) -> None:
    with pacs() as there:
        session = sink_for(there.port, group_by="none").open(Settings())
        for study in ("2.25.1", "2.25.2"):
            send(session, store, a_delivery(store, StudyInstanceUID=study, SOPInstanceUID=f"{study}.1"))
        session.close()

        assert len(there.asked) == 1


def test_contexts_are_those_of_the_objects_and_what_they_can_be_written_as(store: MemoryStore) -> None:
    coming = [
        a_delivery(store, SOPInstanceUID="2.25.10"),
        a_delivery(store, SOPInstanceUID="2.25.11", transfer_syntax_uid=JPEG_2000, data_set=encoded({"Modality": "CT"})),
        a_delivery(store, SOPInstanceUID="2.25.12", SOPClassUID=MR, transfer_syntax_uid=IMPLICIT),
    ]
    with pacs() as there:
        session = sink_for(there.port).open(Settings())
        send(session, store, *coming)
        session.close()

        assert there.asked == [[(CT, EXPLICIT), (CT, IMPLICIT), (CT, JPEG_2000), (MR, IMPLICIT), (MR, EXPLICIT)]]
        assert len(there.stored) == 3


def test_more_than_128_contexts_take_another_association(store: MemoryStore) -> None:
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts[:70]]
    coming = [a_delivery(store, SOPInstanceUID=f"2.25.{n + 10}", SOPClassUID=uid) for n, uid in enumerate(classes)]
    with pacs(contexts=[(uid, EXPLICIT) for uid in classes]) as there:
        session = sink_for(there.port).open(Settings())
        outcomes = send(session, store, *coming)
        session.close()

        assert {outcome.state for outcome in outcomes} == {"delivered"}
        assert [len(asked) for asked in there.asked] == [128, 128]


def test_an_object_of_another_kind_later_in_the_study_takes_a_new_association(store: MemoryStore) -> None:
    with pacs() as there:
        session = sink_for(there.port).open(Settings())
        send(session, store, a_delivery(store, SOPInstanceUID="2.25.10"))
        send(session, store, a_delivery(store, SOPInstanceUID="2.25.11", SOPClassUID=MR))
        send(session, store, a_delivery(store, SOPInstanceUID="2.25.12"))
        session.close()

        assert len(there.asked) == 2
        assert len(there.stored) == 3


@pytest.mark.parametrize(("own", "taken"), [(EXPLICIT, IMPLICIT), (IMPLICIT, EXPLICIT)])
def test_an_uncompressed_object_is_written_as_the_peer_takes_it(store: MemoryStore, own: str, taken: str) -> None:
    delivery = a_delivery(store, transfer_syntax_uid=own, PatientName="Marked^Patient", WindowCenter=["40", "-600"])
    with pacs(contexts=[(CT, taken)]) as there:
        session = sink_for(there.port).open(Settings())
        [outcome] = send(session, store, delivery)
        session.close()
        [received] = there.stored[delivery.sop_instance_uid]

    assert outcome.state == "delivered"
    original = b"".join(Part10(store, delivery.object).data_set(1 << 20))
    assert parsed(received, taken) == parsed(original, own)


def parsed(data: bytes, transfer_syntax_uid: str) -> pydicom.Dataset:
    return pydicom.filereader.read_dataset(BytesIO(data), transfer_syntax_uid == IMPLICIT, True)


def test_a_compressed_object_that_the_peer_does_not_take_is_rejected_in_words_if_nothing_may_be_transcoded(store: MemoryStore) -> None:
    with pacs(contexts=[(CT, EXPLICIT)]) as there:
        session = sink_for(there.port, transcode="never", refused_contexts="permanent").open(Settings())
        [outcome] = send(session, store, a_delivery(store, transfer_syntax_uid=JPEG_2000, data_set=encoded({"Modality": "CT"})))
        session.close()

    assert outcome.state == "rejected"
    assert outcome.comment == f"PACS does not take SOP class {CT} in transfer syntax {JPEG_2000}: this transfer syntax is not supported."


def test_an_object_that_cannot_be_decoded_is_rejected_in_words_and_the_next_one_goes_on(store: MemoryStore) -> None:
    broken = a_delivery(store, transfer_syntax_uid=JPEG_2000, data_set=encoded({"PatientID": "MRN-1"}), SOPInstanceUID="2.25.10")
    with pacs(contexts=[(CT, EXPLICIT)]) as there:
        session = sink_for(there.port).open(Settings())
        refused, taken = send(session, store, broken, a_delivery(store, SOPInstanceUID="2.25.11"))
        session.close()

    assert (refused.state, taken.state) == ("rejected", "delivered")
    assert "the object cannot be rewritten: its pixel data cannot be decoded" in refused.comment
    assert "MRN-1" not in refused.comment


def test_a_large_object_is_rewritten_from_the_disk(store: MemoryStore) -> None:
    delivery = a_delivery(store, data_set=encoded({"BitsAllocated": 16, "PixelRepresentation": 0, "PixelData": bytes(9 * 2**20)}))
    with pacs(contexts=[(CT, IMPLICIT)]) as there:
        session = sink_for(there.port).open(Settings())
        [outcome] = send(session, store, delivery)
        session.close()

    assert outcome.state == "delivered"
    [received] = there.stored[delivery.sop_instance_uid]
    assert parsed(received, IMPLICIT).PixelData == bytes(9 * 2**20)


def test_odd_lengths_are_padded_where_a_destination_asks_for_it(store: MemoryStore) -> None:
    odd = b"\x10\0\x20\0LO\x03\0ABC" + b"\x20\0\x10\0SH\x01\0A"
    with pacs(contexts=[(CT, EXPLICIT)]) as there:
        for n, fixing in enumerate((True, False)):
            session = sink_for(there.port, fix_odd_lengths=fixing).open(Settings())
            send(session, store, a_delivery(store, data_set=odd, SOPInstanceUID=f"2.25.{n}"))
            session.close()

    assert there.stored["2.25.0"] == [b"\x10\0\x20\0LO\x04\0ABC " + b"\x20\0\x10\0SH\x02\0A "]
    assert there.stored["2.25.1"] == [odd]


def test_a_test_object_is_stored_only_if_asked_for() -> None:
    with pacs(contexts=[(testobject.SOP_CLASS_UID, IMPLICIT)]) as there:
        assert [step.name for step in sink_for(there.port).check(Settings())][-1] == "C-ECHO"
        assert not there.stored
        *_, last = sink_for(there.port).check(Settings(), with_object=True)

    assert (last.name, last.ok) == ("test object", True)
    [[data_set]] = there.stored.values()
    assert parsed(data_set, IMPLICIT).PatientID == "HILUM-TEST"


def test_a_test_object_that_is_not_taken_fails_the_check_with_the_peers_status() -> None:
    with pacs(status(0xA700), contexts=[(testobject.SOP_CLASS_UID, IMPLICIT)]) as there:
        *_, last = sink_for(there.port).check(Settings(), with_object=True)

    assert (last.name, last.ok) == ("test object", False)
    assert "0xA700 (out of resources)" in last.says


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (0x0000, "delivered"),
        (0xB000, "delivered"),
        (0xB006, "delivered"),
        (0xB007, "delivered"),
        (0x0111, "already_there"),
        (0xA900, "rejected"),
        (0xC000, "rejected"),
        (0xC123, "rejected"),
        (0x0122, "rejected"),
        (0x0117, "rejected"),
    ],
)
def test_a_status_settles_the_delivery_and_is_kept_with_the_peers_words(store: MemoryStore, code: int, state: str) -> None:
    with pacs(status(code, "in my words")) as there:
        session = sink_for(there.port).open(Settings())
        [outcome] = send(session, store, a_delivery(store))
        session.close()

    assert (outcome.state, outcome.peer_status) == (state, f"0x{code:04X}")
    assert outcome.peer_comment == "in my words"
    assert "in my words" not in outcome.comment  # that is on the event


@pytest.mark.parametrize("code", [0xA700, 0xA7FF, 0x0110, 0x0213])
def test_a_status_that_may_pass_puts_the_object_off_and_keeps_the_association(store: MemoryStore, code: int) -> None:
    with pacs(status(code, "in my words")) as there:
        session = sink_for(there.port).open(Settings())
        for n in range(2):
            with pytest.raises(Later) as later:
                send(session, store, a_delivery(store, SOPInstanceUID=f"2.25.{n + 10}"))
            assert (later.value.peer_status, later.value.peer_comment) == (f"0x{code:04X}", "in my words")
            assert "in my words" not in str(later.value)  # nobody knows what a peer writes there; this text is logged
        session.close()

        assert len(there.asked) == 1


@pytest.mark.parametrize("answer", [aborts, hangs_up])
def test_an_association_that_ends_without_an_answer_puts_the_object_off(store: MemoryStore, answer: Callable[..., int]) -> None:
    with pacs(answer) as there:
        session = sink_for(there.port).open(Settings())
        with pytest.raises(Later):
            send(session, store, a_delivery(store))
        session.close()

        assert len(there.asked) == 1


@pytest.mark.parametrize("answer", [aborts, hangs_up])
def test_an_association_that_ends_in_mid_request_is_an_attempt_also_if_it_answered_before(
    store: MemoryStore, answer: Callable[..., int]
) -> None:
    first = iter([0x0000])
    with pacs(lambda event: next(first, None) if event.request.MessageID == 1 else answer(event)) as there:
        session = sink_for(there.port).open(Settings())
        send(session, store, a_delivery(store, SOPInstanceUID="2.25.10"))
        with pytest.raises(Later, match=r"aborted the association|closed the connection"):
            send(session, store, a_delivery(store, SOPInstanceUID="2.25.11"))
        session.close()

        assert len(there.asked) == 1


def test_an_association_that_the_peer_ended_between_two_objects_is_replaced_unnoticed(store: MemoryStore) -> None:
    with pacs() as there:
        session = sink_for(there.port).open(Settings())
        send(session, store, a_delivery(store, SOPInstanceUID="2.25.10"))
        there._server.active_associations[0].abort()
        [outcome] = send(session, store, a_delivery(store, SOPInstanceUID="2.25.11"))
        session.close()

        assert outcome.state == "delivered"
        assert len(there.asked) == 2


def test_after_a_failure_the_next_object_goes_on_a_new_association(store: MemoryStore) -> None:
    failing = iter([True])

    with pacs(lambda event: aborts(event) if next(failing, False) else 0x0000) as there:
        session = sink_for(there.port).open(Settings())
        with pytest.raises(Later):
            send(session, store, a_delivery(store, SOPInstanceUID="2.25.10"))
        [outcome] = send(session, store, a_delivery(store, SOPInstanceUID="2.25.11"))
        session.close()

    assert outcome.state == "delivered"


def test_a_peer_that_refuses_connections_is_an_outage(store: MemoryStore) -> None:
    session = sink_for(free_port()).open(Settings())

    with pytest.raises(Outage, match="cannot be reached: connection refused"):
        send(session, store, a_delivery(store))


def test_a_peer_that_refuses_the_association_is_an_outage(store: MemoryStore) -> None:
    with pacs(only_calling=("OTHER",)) as there, pytest.raises(Outage, match="calling AE title not recognised"):
        send(sink_for(there.port).open(Settings()), store, a_delivery(store))


def test_a_peer_that_does_not_answer_in_time_puts_the_object_off(store: MemoryStore) -> None:
    released = threading.Event()

    def hang(_: object) -> int:
        released.wait(60)
        return 0x0000

    with pacs(hang) as there:
        session = sink_for(there.port, response_timeout_s=0.2).open(Settings())
        with pytest.raises(Later, match=r"did not answer within 0\.2 s"):
            send(session, store, a_delivery(store))
        released.set()


def test_an_object_that_is_not_what_was_received_is_not_sent(store: MemoryStore) -> None:
    delivery, good = a_delivery(store, SOPInstanceUID="2.25.10"), a_delivery(store, SOPInstanceUID="2.25.11")
    where = (delivery.object.bucket, delivery.object.key)
    store.objects[where] = store.objects[where][:-1] + b"X"
    with pacs() as there:
        session = sink_for(there.port).open(Settings())
        with pytest.raises(Unsound):
            send(session, store, delivery)
        send(session, store, good)
        session.close()

        assert set(there.stored) == {"2.25.11"}


def test_a_large_object_is_streamed(store: MemoryStore) -> None:
    delivery = a_delivery(store, data_set=encoded({"Modality": "CT"}) + bytes(20 * 2**20))
    with pacs() as there:
        session = sink_for(there.port).open(Settings())
        [outcome] = send(session, store, delivery)
        session.close()

        assert outcome.state == "delivered"
        assert len(there.stored[delivery.sop_instance_uid][0]) == 20 * 2**20 + len(encoded({"Modality": "CT"}))


def test_an_idle_association_is_released(store: MemoryStore) -> None:
    with pacs() as there:
        session = sink_for(there.port, idle_s=0.0).open(Settings())
        send(session, store, a_delivery(store))
        session.rest()

        eventually(lambda: there.released == 1)


def test_an_association_stays_open_while_work_may_come(store: MemoryStore) -> None:
    with pacs() as there:
        session = sink_for(there.port, idle_s=60.0).open(Settings())
        for n in range(2):
            send(session, store, a_delivery(store, SOPInstanceUID=f"2.25.{n + 10}"))
            session.rest()
        session.close()

        assert len(there.asked) == 1


def test_the_calling_title_is_hilums_unless_set(store: MemoryStore) -> None:
    with pacs(only_calling=("SPECIAL",)) as there:
        session = sink_for(there.port, calling_aet="SPECIAL").open(Settings())
        assert send(session, store, a_delivery(store))[0].state == "delivered"
        session.close()


def test_a_compressed_object_is_offered_as_it_is_and_as_it_can_be_written() -> None:
    assert [context.transfer_syntax for context in contexts_of(CT, JPEG_2000)] == [JPEG_2000, EXPLICIT, IMPLICIT]
    assert [context.transfer_syntax for context in contexts_of(CT, JPEG_2000, transcode=False)] == [JPEG_2000]
    assert [context.transfer_syntax for context in contexts_of(CT, "1.2.840.10008.1.2.4.102")] == ["1.2.840.10008.1.2.4.102"]  # video


def steps(sink: Dicom) -> list[tuple[str, bool]]:
    return [(step.name, step.ok) for step in sink.check(Settings())]


def test_a_check_walks_from_the_name_to_the_echo() -> None:
    with pacs() as there:
        assert steps(sink_for(there.port)) == [
            ("name", True),
            ("connection", True),
            ("association", True),
            ("presentation contexts", True),
            ("compression", True),
            ("C-ECHO", True),
        ]


def test_a_check_ends_with_the_name_if_it_is_unknown() -> None:
    assert steps(Dicom(host="pacs.invalid", port=104, aet="PACS")) == [("name", False)]


def test_a_check_ends_with_the_association_if_it_is_refused() -> None:
    with pacs(only_called=True, aet="OTHER") as there:
        *_, last = sink_for(there.port).check(Settings())

    assert (last.name, last.ok) == ("association", False)
    assert last.fix == "Correct `aet`: the peer does not go by the name PACS."


def test_a_check_tells_of_a_peer_that_takes_no_images() -> None:
    with pacs(contexts=[]) as there:
        found = {step.name: step for step in sink_for(there.port).check(Settings())}

    assert not found["presentation contexts"].ok
    assert found["presentation contexts"].fix == "Ask its administrator to let HILUM store images, not only query or echo."
    assert found["C-ECHO"].ok


def test_a_check_tells_which_usual_classes_are_not_taken() -> None:
    with pacs() as there:
        found = {step.name: step for step in sink_for(there.port).check(Settings())}

    assert found["presentation contexts"].says.startswith("takes 2 of 13 usual SOP classes; not Computed Radiography Image,")


def test_a_check_tells_in_which_compressions_nothing_is_taken() -> None:
    jpeg_lossless = "1.2.840.10008.1.2.4.70"
    with pacs(contexts=[(CT, EXPLICIT), (MR, EXPLICIT), (CT, JPEG_2000), (CT, jpeg_lossless), (MR, jpeg_lossless)]) as there:
        found = {step.name: step for step in sink_for(there.port).check(Settings())}

    assert found["compression"].says == (
        "takes JPEG Lossless, JPEG 2000 Lossless for 1 of 2 SOP classes; takes no JPEG Baseline, no JPEG-LS Lossless, no JPEG 2000, no RLE;"
        " what it does not take is decompressed"
    )


@pytest.mark.system
def test_a_check_tells_which_objects_of_the_index_would_not_be_taken(postgres: str) -> None:
    kinds = [(CT, IMPLICIT), (CT, JPEG_2000), (CT, "1.2.840.10008.1.2.4.102"), ("1.2.840.10008.5.1.4.1.1.104.1", EXPLICIT)]
    insert = """
        INSERT INTO instance (sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid, transfer_syntax_uid, bucket,
            object_key, size_bytes, sha256, receipt, received_at)
        VALUES (%s, 's', 's', %s, %s, 'b', 'k', 1, 'x', 'r', now())
    """
    with connect(postgres) as connection:
        for number, kind in enumerate(kinds):
            connection.execute(insert, (f"2.25.{number}", *kind))
    with pacs(contexts=[(CT, EXPLICIT)]) as there:
        found = {step.name: step for step in sink_for(there.port).check(Settings(postgres=Postgres(dsn=postgres)))}

    assert (found["objects in the index"].ok, found["objects in the index"].warning) == (True, True)
    says = found["objects in the index"].says
    assert says.startswith("takes 2 of 4 kinds; not ")
    assert "CT Image in MPEG-4 AVC/H.264 High Profile / Level 4.1" in says
    assert "Encapsulated PDF in Explicit VR Little Endian" in says
    with pacs(contexts=[(MR, EXPLICIT)]) as there:
        nothing = {step.name: step for step in sink_for(there.port).check(Settings(postgres=Postgres(dsn=postgres)))}
    assert not nothing["objects in the index"].ok
    assert nothing["objects in the index"].says.startswith("PACS takes 0 of 4 kinds; not ")


def test_a_check_without_the_index_tests_the_peer_all_the_same() -> None:
    dsn = f"postgresql://hilum@127.0.0.1:{free_port()}/hilum"
    with pacs() as there:
        assert steps(sink_for(there.port)) == [
            (step.name, step.ok) for step in sink_for(there.port).check(Settings(postgres=Postgres(dsn=dsn)))
        ]


def test_a_check_is_less_patient_than_deliveries() -> None:
    peer = hurried(sink_for(104, connect_timeout_s=2.0, association_timeout_s=60.0).peer(Settings()))

    assert (peer.connect_timeout_s, peer.association_timeout_s, peer.response_timeout_s) == (2.0, 10.0, 10.0)


def test_a_check_of_a_peer_that_hangs_comes_to_an_end() -> None:
    with raw_peer(says_nothing) as port:
        assert steps(sink_for(port, association_timeout_s=0.2))[-1] == ("association", False)
