"""What a study's order means for its deliveries: some wait for it, some take values from it."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psycopg
import pydicom
import pytest
from msgspec.structs import replace
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from hilum import bus
from hilum.contract.order_examples import ORDER_EXAMPLES
from hilum.database import connect
from hilum.database.order_queries import accept_match
from hilum.database.orders import write_matches, write_orders, write_patients
from hilum.database.queues import waiting_for_orders, without_order
from hilum.edited import NotEditable, part10_of, remarked
from hilum.events import MatchChanged, OrderChanged, PatientChanged
from hilum.order_events import Difference, Identifier, MatchOutcome
from hilum.part10 import Part10, Unsound
from hilum.runtime.delivery.coercions import Coercions
from hilum.runtime.delivery.queue import Queue
from hilum.sections import Sender
from hilum.settings import Settings
from hilum.sink import Delivery, Settled
from hilum.testing import MemoryStore, a_delivery
from sinks.folder import Folder
from tests.ledger import enter, some

STUDY = "2.25.1"


def encoded_in(syntax: str, **values: object) -> bytes:
    """A data set in big endian, or deflated (PS3.5 A.3, A.5)."""
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = syntax != ExplicitVRBigEndian, False
    write_dataset(out, ds)
    if syntax == ExplicitVRBigEndian:
        return out.getvalue()
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(out.getvalue()) + deflate.flush()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def connection(postgres: str) -> Iterator[psycopg.Connection]:
    with connect(postgres) as opened:
        opened.execute("TRUNCATE scheduled_order, scheduled_step, patient, patient_id, match")
        write_orders(opened, [an_order()])
        yield opened


def matched(outcome: MatchOutcome, *differing: str, version: int = 1) -> MatchChanged:
    example = ORDER_EXAMPLES[MatchChanged]()
    assert isinstance(example, MatchChanged)
    return replace(
        example,
        study_instance_uid=STUDY,
        outcome=outcome,
        version=version,
        differences=tuple(Difference(attribute=each, ordered="a", found="b") for each in differing),
    )


def an_order() -> OrderChanged:
    example = ORDER_EXAMPLES[OrderChanged]()
    assert isinstance(example, OrderChanged)
    return example


@pytest.mark.system
class TestHold:
    @pytest.fixture
    def queue(self, postgres: str, store: MemoryStore) -> Iterator[Queue]:
        enter(postgres, *some(store, 2, STUDY))
        made = Queue(postgres, "pacs", "w", bus.Writer(Settings(), "deliver"), require_order=True)
        yield made
        made.close()

    def test_nothing_goes_before_anything_is_known_of_the_order(self, queue: Queue, connection: psycopg.Connection) -> None:
        assert queue.claim(10) == []

    @pytest.mark.parametrize("outcome", ["unmatched", "no-order", "mismatched", "order-cancelled", "withdrawn"])
    def test_nothing_goes_whose_order_does_not_fit(self, queue: Queue, connection: psycopg.Connection, outcome: MatchOutcome) -> None:
        write_matches(connection, [matched(outcome)])

        assert queue.claim(10) == []

    def test_it_goes_once_its_order_has_come(self, queue: Queue, connection: psycopg.Connection) -> None:
        write_matches(connection, [matched("unmatched")])
        write_matches(connection, [matched("matched", version=2)])

        assert len(queue.claim(10)) == 2

    def test_it_waits_for_each_order_that_its_match_names(self, queue: Queue, connection: psycopg.Connection) -> None:
        order = an_order().order
        write_matches(connection, [replace(matched("matched"), order_ids=(order.order_id, "read later"))])
        assert queue.claim(10) == []
        write_orders(connection, [replace(an_order(), order=replace(order, order_id="read later"))])

        assert len(queue.claim(10)) == 2

    def test_a_person_lets_it_go_though_its_order_never_comes_into_the_index(
        self, queue: Queue, connection: psycopg.Connection, postgres: str
    ) -> None:
        write_matches(connection, [replace(matched("matched"), order_ids=("set aside",))])
        assert queue.claim(10) == []
        assert accept_match(postgres, STUDY, 1, by="ada", why="seen")

        assert len(queue.claim(10)) == 2

    def test_it_is_said_of_the_study_and_of_the_queue(self, queue: Queue, connection: psycopg.Connection, postgres: str) -> None:
        assert without_order(postgres, [STUDY]) == {STUDY}
        assert waiting_for_orders(postgres, ["pacs", "other"]) == {"pacs": 2}
        write_matches(connection, [matched("matched")])

        assert without_order(postgres, [STUDY]) == set()
        assert waiting_for_orders(postgres, ["pacs"]) == {}

    def test_it_goes_once_a_person_has_accepted_it_as_it_is_and_not_when_it_is_otherwise_by_then(
        self, queue: Queue, connection: psycopg.Connection
    ) -> None:
        write_matches(connection, [matched("mismatched")])
        connection.execute("UPDATE match SET accepted_version = version")
        claimed = queue.claim(1)
        write_matches(connection, [matched("order-cancelled", version=2)])

        assert len(claimed) == 1
        assert queue.claim(10) == []

    def test_it_goes_if_what_differs_is_set_right_on_the_way(self, queue: Queue, connection: psycopg.Connection) -> None:
        write_matches(connection, [replace(matched("mismatched", "PatientName"), coercible=True)])

        assert len(queue.claim(10)) == 2

    @pytest.mark.parametrize("grouped", [False, True])
    def test_a_destination_without_that_setting_asks_for_no_order(
        self, postgres: str, queue: Queue, connection: psycopg.Connection, grouped: bool
    ) -> None:
        other = Queue(postgres, "pacs", "v", bus.Writer(Settings(), "deliver"), grouped=grouped)
        try:
            assert len(other.claim(10)) == 2
        finally:
            other.close()

    def test_a_grouped_claim_passes_over_studies_that_wait(self, postgres: str, store: MemoryStore, connection: psycopg.Connection) -> None:
        enter(postgres, *some(store, 1, "2.25.9"), *some(store, 1, STUDY))
        write_matches(connection, [matched("matched")])
        queue = Queue(postgres, "pacs", "w", bus.Writer(Settings(), "deliver"), grouped=True, require_order=True)
        try:
            assert {each.study_instance_uid for each in queue.claim(10)} == {STUDY}
        finally:
            queue.close()


@pytest.mark.system
class TestWait:
    """Objects of senders for which orders set something right wait until their study was held against orders."""

    @pytest.fixture
    def queue(self, postgres: str, store: MemoryStore, connection: psycopg.Connection) -> Iterator[Queue]:
        connection.execute("TRUNCATE receipt")
        deliveries = some(store, 1, STUDY)
        enter(postgres, *deliveries)
        connection.execute("INSERT INTO receipt (receipt, calling_aet, received) VALUES (%s, 'CT01 ', true)", (deliveries[0].receipt,))
        made = Queue(postgres, "pacs", "w", bus.Writer(Settings(), "deliver"), coerced=("CT01",))
        yield made
        made.close()

    def test_they_wait_for_that(self, queue: Queue, connection: psycopg.Connection) -> None:
        assert queue.claim(10) == []
        write_matches(connection, [matched("unmatched")])

        assert len(queue.claim(10)) == 1

    def test_they_wait_for_the_order_itself(self, queue: Queue, connection: psycopg.Connection) -> None:
        connection.execute("TRUNCATE scheduled_order, scheduled_step")
        write_matches(connection, [matched("matched")])
        assert queue.claim(10) == []
        write_orders(connection, [an_order()])

        assert len(queue.claim(10)) == 1

    def test_and_not_for_long(self, queue: Queue, connection: psycopg.Connection) -> None:
        connection.execute("UPDATE delivery SET created_at = now() - interval '31 seconds'")

        assert len(queue.claim(10)) == 1

    def test_they_wait_until_it_is_known_who_sent_them(self, queue: Queue, connection: psycopg.Connection) -> None:
        connection.execute("UPDATE receipt SET received = false")
        write_matches(connection, [matched("unmatched")])

        assert queue.claim(10) == []

    def test_all_wait_for_that_where_the_destination_warns(self, postgres: str, queue: Queue, connection: psycopg.Connection) -> None:
        connection.execute("UPDATE receipt SET calling_aet = 'MR01'")
        warning = Queue(postgres, "pacs", "v", bus.Writer(Settings(), "deliver"), warns=True)
        try:
            before = warning.claim(10)
            write_matches(connection, [matched("matched")])

            assert (before, len(warning.claim(10))) == ([], 1)
        finally:
            warning.close()

    def test_messages_wait_for_no_such_thing(self, queue: Queue, connection: psycopg.Connection) -> None:
        connection.execute("UPDATE delivery SET receipt = ''")

        assert len(queue.claim(10)) == 1

    def test_those_of_others_go_at_once(self, queue: Queue, connection: psycopg.Connection) -> None:
        connection.execute("UPDATE receipt SET calling_aet = NULL")

        assert len(queue.claim(10)) == 1


@pytest.mark.system
class TestCoercions:
    @pytest.fixture
    def delivery(self, store: MemoryStore, connection: psycopg.Connection) -> Delivery:
        made = a_delivery(store, StudyInstanceUID=STUDY, PatientName="Synthetic^Samuel", PatientID="SYNTH0001")
        connection.execute("DELETE FROM receipt WHERE receipt = %s", (made.receipt,))
        connection.execute("INSERT INTO receipt (receipt, calling_aet) VALUES (%s, 'CT01')", (made.receipt,))
        connection.execute("DELETE FROM study")
        return made

    def looked_up(self, connection: psycopg.Connection, delivery: Delivery, *coerce: str, warns: bool = False) -> Delivery:
        settings = msgspec.convert({"senders": {"CT01": {"coerce": list(coerce)}}}, Settings)
        (found,) = Coercions.of_settings(settings, warns=warns).of(connection, [delivery])
        return found

    def test_listed_attributes_are_taken_from_the_order(self, connection: psycopg.Connection, delivery: Delivery) -> None:
        write_matches(connection, [matched("matched")])

        found = self.looked_up(connection, delivery, "PatientName", "AccessionNumber", "StudyDescription")

        assert found.edits is not None
        assert found.edits.values == {"PatientName": "Synthetic^Sam", "AccessionNumber": "SYN0001", "StudyDescription": "CT of the head"}

    def test_nothing_is_taken_for_a_sender_of_which_that_is_not_said(self, connection: psycopg.Connection, delivery: Delivery) -> None:
        write_matches(connection, [matched("matched")])
        found = Coercions.of_settings(Settings(senders={"MR01": Sender(coerce=("PatientName",))})).of(connection, [delivery])

        assert [each.edits for each in found] == [None]

    @pytest.mark.parametrize(
        ("differing", "taken"), [(("PatientName",), True), (("PatientName", "PatientBirthDate"), False), (("PatientID",), False)]
    )
    def test_what_differs_beyond_what_is_to_be_set_right_stops_it(
        self, connection: psycopg.Connection, delivery: Delivery, differing: tuple[str, ...], taken: bool
    ) -> None:
        write_matches(connection, [matched("mismatched", *differing)])

        assert (self.looked_up(connection, delivery, "PatientName", "PatientID").edits is not None) is taken

    def test_of_several_orders_is_taken_what_all_of_them_say(self, connection: psycopg.Connection, delivery: Delivery) -> None:
        order = an_order().order
        procedures = tuple(replace(each, description="CT of the neck") for each in order.procedures)
        write_orders(connection, [replace(an_order(), order=replace(order, order_id="other", procedures=procedures))])
        write_matches(connection, [replace(matched("matched"), order_ids=(order.order_id, "other"))])
        found = self.looked_up(connection, delivery, "PatientName", "AccessionNumber", "StudyDescription")

        assert found.edits is not None
        assert found.edits.values == {"PatientName": "Synthetic^Sam", "AccessionNumber": "SYN0001"}
        assert found.edits.says == f"of its orders {order.order_id}, other"

    @pytest.mark.parametrize(("uid", "values"), [(STUDY, ("SYN0002", "CT of the neck")), ("2.25.9", ())])
    def test_of_several_procedures_of_an_order_the_one_of_the_study_says_it(
        self, connection: psycopg.Connection, delivery: Delivery, uid: str, values: tuple[str, ...]
    ) -> None:
        order = an_order().order
        (first,) = order.procedures
        own, other = (Identifier(value=number) for number in ("SYN0001", "SYN0002"))
        procedures = (
            replace(first, study_instance_uid="2.25.8", accession=own),
            replace(first, study_instance_uid=uid, accession=other, description="CT of the neck"),
        )
        write_orders(connection, [replace(an_order(), order=replace(order, version=order.version + 1, procedures=procedures))])
        write_matches(connection, [matched("matched")])
        found = self.looked_up(connection, delivery, "AccessionNumber", "StudyDescription")

        assert tuple(found.edits.values.values() if found.edits is not None else ()) == values

    @pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
    def test_what_cannot_be_edited_as_it_is_goes_out_in_another_transfer_syntax(
        self, connection: psycopg.Connection, delivery: Delivery, syntax: str
    ) -> None:
        write_matches(connection, [matched("matched")])
        found = self.looked_up(connection, replace(delivery, transfer_syntax_uid=syntax), "PatientName")

        assert (found.transfer_syntax_uid, found.stored_syntax_uid) == (ExplicitVRLittleEndian, syntax)

    def test_the_destination_says_in_which_character_sets_objects_may_be_written(
        self, connection: psycopg.Connection, delivery: Delivery
    ) -> None:
        write_matches(connection, [matched("matched")])
        settings = Settings(senders={"CT01": Sender(coerce=("PatientName",))})
        found = [
            each.edits.character_sets
            for takes in ((), ("ISO_IR 100", "ISO_IR 192"))
            for each in Coercions.of_settings(settings, character_sets=takes).of(connection, [delivery])
            if each.edits is not None
        ]

        assert found == [("ISO_IR 192",), ("ISO_IR 100", "ISO_IR 192")]

    def test_a_person_may_accept_another_patients_order(self, connection: psycopg.Connection, delivery: Delivery) -> None:
        write_matches(connection, [matched("mismatched", "PatientID")])
        connection.execute("UPDATE match SET accepted_version = version")

        assert self.looked_up(connection, delivery, "PatientID").edits is not None

    def test_a_cancelled_order_sets_nothing_right(self, connection: psycopg.Connection, delivery: Delivery) -> None:
        write_matches(connection, [matched("order-cancelled")])

        assert self.looked_up(connection, delivery, "PatientName").edits is None

    def test_a_study_without_order_is_of_the_patient_into_whom_its_patient_was_merged(
        self, connection: psycopg.Connection, delivery: Delivery
    ) -> None:
        example = ORDER_EXAMPLES[PatientChanged]()
        assert isinstance(example, PatientChanged)
        stays = replace(example, patient=replace(example.patient, key="stays", ids=(Identifier(value="NEW", issuer="NORTH"),)))
        write_patients(connection, [replace(example, merged_into="stays"), stays])
        connection.execute(
            "INSERT INTO study (study_instance_uid, patient_id, receipt, received_at) VALUES (%s, 'SYNTH0001', 'r', now())", (STUDY,)
        )

        found = self.looked_up(connection, delivery, "PatientID", "AccessionNumber")

        assert found.edits is not None
        assert found.edits.values == {"PatientID": "NEW"}

    @pytest.mark.parametrize("way", [("UNKNOWN", "P1"), ("P1", "UNKNOWN"), ("P1", "UNKNOWN", "P2")])
    def test_a_merge_of_nobody_sets_nothing_right(self, connection: psycopg.Connection, delivery: Delivery, way: tuple[str, ...]) -> None:
        example = ORDER_EXAMPLES[PatientChanged]()
        assert isinstance(example, PatientChanged)
        ids = [Identifier(value=each, issuer="NORTH") for each in way]
        for n, each in enumerate(ids):
            patient = replace(example.patient, key=each.value, ids=(each,), former_ids=tuple(ids[:n]))
            write_patients(connection, [replace(example, patient=patient, merged_into=way[-1] if n + 1 < len(way) else "")])
        connection.execute(
            "INSERT INTO study (study_instance_uid, patient_id, receipt, received_at) VALUES (%s, %s, 'r', now())", (STUDY, way[0])
        )

        assert self.looked_up(connection, delivery, "PatientID").edits is None

    def test_two_such_patients_set_nothing_right(self, connection: psycopg.Connection, delivery: Delivery) -> None:
        example = ORDER_EXAMPLES[PatientChanged]()
        assert isinstance(example, PatientChanged)
        for key in ("one", "other"):
            stays = replace(example, patient=replace(example.patient, key=key, ids=(Identifier(value=key, issuer="NORTH"),)))
            gone = replace(example, patient=replace(example.patient, key=f"gone-{key}"), merged_into=key)
            write_patients(connection, [gone, stays])
        connection.execute(
            "INSERT INTO study (study_instance_uid, patient_id, receipt, received_at) VALUES (%s, 'SYNTH0001', 'r', now())", (STUDY,)
        )

        assert self.looked_up(connection, delivery, "PatientID").edits is None

    def test_a_destination_that_warns_says_that_no_order_fits(self, connection: psycopg.Connection, delivery: Delivery) -> None:
        write_matches(connection, [matched("unmatched")])

        assert self.looked_up(connection, delivery, warns=True).remark == "No order fits its study (unmatched)."

    def test_and_that_nobody_has_looked(self, connection: psycopg.Connection, delivery: Delivery) -> None:
        assert self.looked_up(connection, delivery, warns=True).remark == "Its study was not held against orders in time."

    @pytest.mark.parametrize(("outcome", "differing"), [("matched", ()), ("mismatched", ("PatientName",))])
    def test_and_nothing_of_one_whose_order_fits_or_sets_it_right(
        self, connection: psycopg.Connection, delivery: Delivery, outcome: MatchOutcome, differing: tuple[str, ...]
    ) -> None:
        write_matches(connection, [matched(outcome, *differing)])

        assert self.looked_up(connection, delivery, "PatientName", warns=True).remark == ""


class TestEditedObject:
    @pytest.fixture
    def delivery(self, store: MemoryStore) -> Delivery:
        from hilum.dicom.edits import Edits

        edits = Edits(values={"PatientName": "Right^Rita"}, at=datetime(2026, 11, 26, tzinfo=UTC), says="of its order 17")
        return replace(a_delivery(store, PatientName="Wrong^Wilma"), edits=edits)

    def test_the_destination_gets_the_new_value_and_the_store_keeps_the_old_one(
        self, store: MemoryStore, delivery: Delivery, tmp_path: Path
    ) -> None:
        session = Folder(path=str(tmp_path)).open(Settings())
        part10 = part10_of(store, delivery)
        outcome = remarked(session.deliver(delivery, part10), delivery, part10)

        (file,) = tmp_path.rglob("*.dcm")
        assert pydicom.dcmread(file).PatientName == "Right^Rita"
        assert pydicom.dcmread(io.BytesIO(Part10(store, delivery.object).file())).PatientName == "Wrong^Wilma"
        assert outcome == Settled(state="delivered", comment="in the folder With PatientName of its order 17.")

    def test_delivering_it_twice_finds_the_first(self, store: MemoryStore, delivery: Delivery, tmp_path: Path) -> None:
        session = Folder(path=str(tmp_path)).open(Settings())

        assert [session.deliver(delivery, part10_of(store, delivery)).state for _ in range(2)] == ["delivered", "already_there"]

    def test_every_way_to_read_it_gives_the_same_bytes(self, store: MemoryStore, delivery: Delivery) -> None:
        part10 = part10_of(store, delivery)
        whole = part10.file()
        with part10.mapped() as (mapped, at):
            assert bytes(mapped) == whole
        assert b"".join(part10.pieces(100)) == whole
        assert b"".join(part10.data_set(100)) == whole[at:]
        assert part10.head(300) == whole[:300]
        assert part10.size_bytes == len(whole)

    def test_a_large_object_is_edited_on_the_disk(self, store: MemoryStore, delivery: Delivery) -> None:
        document = b"%PDF" * 2_500_000
        part10 = part10_of(store, replace(a_delivery(store, EncapsulatedDocument=document), edits=delivery.edits))
        whole = b"".join(part10.pieces(2**20))

        assert pydicom.dcmread(io.BytesIO(whole)).PatientName == "Right^Rita"
        assert document in whole
        assert part10.size_bytes == len(whole)

    def test_an_object_that_is_not_what_was_received_is_not_edited_either(self, store: MemoryStore, delivery: Delivery) -> None:
        part10 = part10_of(store, replace(delivery, object=replace(delivery.object, sha256="0" * 64)))

        with pytest.raises(Unsound):
            part10.file()

    @pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
    @pytest.mark.parametrize("name", ["Right^Rita", "Wrong^Wilma"])
    def test_one_in_big_endian_or_deflated_goes_out_in_explicit_vr_little_endian(
        self, store: MemoryStore, delivery: Delivery, tmp_path: Path, syntax: str, name: str
    ) -> None:
        assert delivery.edits is not None
        edits = replace(delivery.edits, values={"PatientName": name}, stored_as=syntax)
        stored = a_delivery(store, transfer_syntax_uid=syntax, data_set=encoded_in(syntax, PatientName="Wrong^Wilma", Rows=2))
        given = replace(stored, edits=edits, transfer_syntax_uid=ExplicitVRLittleEndian)
        Folder(path=str(tmp_path)).open(Settings()).deliver(given, part10_of(store, given))

        (file,) = tmp_path.rglob("*.dcm")
        found = pydicom.dcmread(file)
        assert (found.file_meta.TransferSyntaxUID, found.PatientName, found.Rows) == (ExplicitVRLittleEndian, name, 2)
        assert given.stored_syntax_uid == syntax

    def test_one_that_cannot_be_edited_is_left_to_a_person(self, store: MemoryStore, delivery: Delivery) -> None:
        part10 = part10_of(store, replace(delivery, transfer_syntax_uid="1.2.840.10008.1.2.2"))

        with pytest.raises(NotEditable, match="PatientName"):
            part10.file()
