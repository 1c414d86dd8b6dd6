"""Each kind of loss is made, and must be found.

A small hospital whose objects all arrived is built once; the tests make losses in copies of its database.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from hilum import bus
from hilum.contract.hl7_examples import HL7_EXAMPLES, MESSAGE_ID
from hilum.database import connect
from hilum.dicom.file_meta import part10_head
from hilum.errors import Misconfigured, Reason, TryAgain
from hilum.events import (
    DeliverySettled,
    Event,
    InputEvent,
    InstanceAccepted,
    InstanceQuarantined,
    InstanceReceived,
    InstanceRouted,
    MessageReceived,
    PlannedDelivery,
    encode,
)
from hilum.reconcile import Account, reconcile
from hilum.settings import S3, Kafka, Postgres, Settings
from hilum.spool import Spool
from hilum.store import ObjectStore, open_store
from hilum.testing import an_instance, eventually, spooled
from processors import index, ledger
from tests.conftest import Log

pytestmark = pytest.mark.system


class Hospital:
    """Says what the stages would say of objects, numbered from 0."""

    def __init__(self, log: Log, settings: Settings) -> None:
        self.settings = settings
        self._log = log
        self._writer = bus.Writer(settings, "test")
        self._store = open_store(settings)

    def arrive(self, number: int, *destinations: str, decision: str = "deliver", sop: str = "", event_id: str = "") -> InstanceReceived:
        """An object comes, is stored, told of, accepted and routed."""
        received = an_instance(
            receipt=f"receipt-{number}",
            SOPInstanceUID=sop or f"2.25.1{number}",
            received_at=datetime.now(UTC),
            bucket=self.settings.s3.bucket,
            key=f"2.25.1/2.25.2/2.25.1{number}/object.dcm",
        )
        self.store(received.instance.object.key)
        self.say(received, f"receipt-{number}")
        if decision != "quarantined":
            self.say(InstanceAccepted.following(received), f"accepted-{number}")
            self.say(self._routed(received, destinations, decision), f"routed-{number}")
        else:
            self.say(self._quarantined(received), f"quarantined-{number}")
        return received

    def store(self, key: str, bucket: str = "") -> None:
        self._store.put(bucket or self.settings.s3.bucket, key, BytesIO(b"object"), 6)

    def say(self, event: Event, event_id: str) -> None:
        record = self._writer.record(event, event_id)
        self._log.put(record.topic, record.key, record.value, record.headers)

    def settled(self, delivery_id: str) -> DeliverySettled:
        return DeliverySettled(
            delivery_id=delivery_id,
            receipt="receipt-0",
            destination="archive",
            study_instance_uid="2.25.1",
            series_instance_uid="2.25.2",
            sop_instance_uid="2.25.10",
            sha256="a" * 64,
            state="delivered",
            attempts=1,
            config_version="0123456789ab",
            settled_at=datetime.now(UTC),
        )

    def _routed(self, received: InstanceReceived, destinations: tuple[str, ...], decision: Any) -> InstanceRouted:
        of = received.instance
        return InstanceRouted(
            receipt=of.receipt,
            study_instance_uid=of.study_instance_uid,
            series_instance_uid=of.series_instance_uid,
            sop_instance_uid=of.sop_instance_uid,
            sop_class_uid=of.sop_class_uid,
            transfer_syntax_uid=of.transfer_syntax_uid,
            object=of.object,
            received_at=of.received_at,
            decision=decision,
            deliveries=tuple(
                PlannedDelivery(delivery_id=f"{of.receipt}-{name}", destination=name, rules=("all",)) for name in destinations
            ),
            config_version="0123456789ab",
            decided_at=datetime.now(UTC),
        )

    def _quarantined(self, received: InstanceReceived) -> InstanceQuarantined:
        of = received.instance
        return InstanceQuarantined(
            receipt=of.receipt,
            study_instance_uid=of.study_instance_uid,
            series_instance_uid=of.series_instance_uid,
            sop_instance_uid=of.sop_instance_uid,
            stage="validate",
            reason=Reason.UID_INVALID,
            sentence="A UID is no UID.",
            fix="Correct it.",
            quarantined_at=datetime.now(UTC),
            input=InputEvent(type=InstanceReceived.topic.name, id=of.receipt, data=msgspec.Raw(encode(received))),
        )

    def until_indexed(self, receipts: int, deliveries: int) -> None:
        counts = (
            "SELECT (SELECT count(*) FROM receipt WHERE received AND (decision IS NOT NULL OR quarantine_reason IS NOT NULL)),"
            " (SELECT count(*) FROM delivery)"
        )
        with connect(self.settings.postgres.dsn) as connection:
            eventually(lambda: connection.execute(counts).fetchall() == [(receipts, deliveries)])


def until_old_enough(bucket: str, settings: Settings) -> None:
    """Until no object of the bucket is so young that it may still be on its way onto the log."""
    store = open_store(settings)
    eventually(lambda: all(datetime.now(UTC) - each.modified_at > timedelta(seconds=3) for each in store.list(bucket)))


#: Deliveries of the hospital that are settled, with their event on the log.
SETTLED = ("receipt-0-archive", "receipt-1-archive")


@pytest.fixture(scope="module")
def hospital(
    kafka: Kafka, s3: S3, postgres_server: str, make_log: type[Log], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hospital]:
    """Two objects for two destinations, one of them settled; one for none, one that came again, one in quarantine; an HL7 message."""
    name = f"r{uuid.uuid4().hex[:8]}"
    dsn = make_conninfo(postgres_server, dbname=name)
    with connect(postgres_server) as server:
        template = str(conninfo_to_dict(postgres_server)["dbname"])
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    settings = Settings(
        data=str(tmp_path_factory.mktemp("data")),
        kafka=msgspec.structs.replace(kafka, prefix=f"{name}."),
        postgres=Postgres(dsn=dsn),
        s3=msgspec.structs.replace(s3, bucket=f"reconcile-{name}"),
    )
    log = make_log(settings)
    log.make(partitions=2)
    open_store(settings).ensure_bucket(settings.s3.bucket)
    made = Hospital(log, settings)
    made.arrive(0, "archive", "pacs")
    made.arrive(1, "archive", "pacs")
    made.arrive(2, decision="no-rule")
    made.arrive(3, decision="duplicate", sop="2.25.10")
    made.arrive(4, decision="quarantined")
    for delivery_id in SETTLED:
        made.say(made.settled(delivery_id), f"settled-{delivery_id}")
    made.say(HL7_EXAMPLES[MessageReceived](), MESSAGE_ID)
    log.flush()
    with log.running(index.role(settings), ledger.role(settings)):
        made.until_indexed(5, 4)
        with connect(dsn) as connection:
            connection.execute("UPDATE delivery SET state = 'delivered', settled_at = now() WHERE delivery_id = ANY (%s)", (list(SETTLED),))
        account = reconcile(settings)  # also waits until both have passed the ends of all topics
        assert account.ok, account.details
    until_old_enough(settings.s3.bucket, settings)
    yield made
    with connect(make_conninfo(dsn, dbname="postgres")) as server:
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@dataclass
class Copy:
    """A copy of the hospital's database, on which a loss can be made."""

    settings: Settings

    def change(self, *statements: str, **values: object) -> None:
        with connect(self.settings.postgres.dsn) as connection:
            for statement in statements:
                connection.execute(statement.encode(), values)

    def account(self, **options: Any) -> Account:
        return reconcile(self.settings, **options)


@pytest.fixture
def copy(hospital: Hospital) -> Iterator[Copy]:
    dsn = hospital.settings.postgres.dsn
    name, original = f"r{uuid.uuid4().hex[:8]}", str(conninfo_to_dict(dsn)["dbname"])
    with connect(make_conninfo(dsn, dbname="postgres")) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(original)))
    yield Copy(msgspec.structs.replace(hospital.settings, postgres=Postgres(dsn=make_conninfo(dsn, dbname=name))))
    with connect(make_conninfo(dsn, dbname="postgres")) as server:
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@dataclass
class Elsewhere:
    """A bucket of the test's own with the hospital's objects, as Part 10 files with the digests that the index holds."""

    store: ObjectStore
    bucket: str

    def key(self, number: int) -> str:
        return f"2.25.1/2.25.2/2.25.1{number}/object.dcm"

    def put(self, number: int, data_set: bytes = b"data set") -> None:
        content = part10_head("1.2.840.10008.5.1.4.1.1.2", f"2.25.1{number}", "1.2.840.10008.1.2.1") + data_set
        self.store.put(self.bucket, self.key(number), BytesIO(content), len(content))


@pytest.fixture
def elsewhere(copy: Copy) -> Elsewhere:
    bucket = f"r{uuid.uuid4().hex[:8]}"
    made = Elsewhere(open_store(copy.settings), bucket)
    made.store.ensure_bucket(bucket)
    for number in range(5):
        made.put(number)
    copy.change("UPDATE receipt SET bucket = %(bucket)s, sha256 = %(sha256)s", bucket=bucket, sha256=sha256(b"data set").hexdigest())
    copy.settings = msgspec.structs.replace(copy.settings, s3=msgspec.structs.replace(copy.settings.s3, bucket=bucket))
    return made


AN_EXPIRY = """
    INSERT INTO expiry (bucket, object_key, study_instance_uid, series_instance_uid, sop_instance_uid, sha256, size_bytes, receipts, days,
        policy, policy_version, decided_by)
    SELECT bucket, object_key, '', '', sop_instance_uid, '', 1, ARRAY[receipt], 30, 'originals_days = 30', 'v1', 'host/expire'
    FROM receipt WHERE object_key = %(key)s AND bucket = %(bucket)s
"""
#: A run of two deliveries.
A_RUN = (
    "INSERT INTO delivery_run (run, command, destination, asked_by, deliveries) VALUES ('run-1', 'send', 'pacs', 'me', 2)",
    """
    INSERT INTO delivery (delivery_id, destination, receipt, study_instance_uid, sop_instance_uid, run)
    SELECT 'run-1-' || n, 'pacs', 'receipt-0', '2.25.1', '2.25.1' || n, 'run-1' FROM generate_series(0, 1) AS n
    """,
)


class TestNothingLost:
    def test_everything_is_counted_once(self, copy: Copy) -> None:
        account = copy.account()

        assert account.counts() == {
            "received": 5,
            "accepted": 4,
            "quarantined": 1,
            "duplicates": 1,
            "undecided": 0,
            "routed": 2,
            "unrouted": 1,
            "waiting": 0,
            "stuck": 0,
            "sent_back": 0,
            "ignored": 0,
            "held": 0,
            "failing": 0,
            "withdrawn": 0,
            "expected_deliveries": 4,
            "delivered": 2,
            "already_there": 0,
            "returned": 0,
            "rejected": 0,
            "cancelled": 0,
            "pending": 2,
            "parked": 0,
            "unaccounted": 0,
            "spooled": 0,
            "stored": 5,
            "expired": 0,
            "read": 5,
            "messages": 1,
            "messages_pending": 0,
            "messages_parked": 0,
        }
        assert account.balance == (
            "5 received = 2 to be delivered + 1 sent nowhere by any rule + 1 duplicates + 1 quarantined + 0 undecided."
        )
        assert account.caught_up
        assert account.ok
        assert account.details == ()
        assert account.destinations == {"archive": {"delivered": 2}, "pacs": {"pending": 2}}

    def test_a_delivery_whose_event_waits_in_the_outbox_is_accounted_for(self, copy: Copy) -> None:
        copy.change(
            "UPDATE delivery SET state = 'rejected', settled_at = now() WHERE delivery_id = 'receipt-0-pacs'",
            "INSERT INTO outbox (topic, key, headers, value) VALUES ('t', 'k', '{\"ce_subject\": \"receipt-0-pacs\"}', 'x')",
        )

        account = copy.account()

        assert account.ok
        assert (account.delivered, account.rejected, account.pending) == (2, 1, 1)
        assert account.verdict == (
            "Everything is accounted for. Rejected deliveries: 1 (see `hilum dest rejected`). Objects that no rule sends anywhere: 1."
        )

    def test_what_waits_for_a_person_is_pending_and_told_apart(self, copy: Copy) -> None:
        copy.change("UPDATE delivery SET state = 'parked', parked_at = now() WHERE delivery_id = 'receipt-0-pacs'")

        account = copy.account()

        assert account.ok
        assert (account.pending, account.parked, account.destinations["pacs"]) == (2, 1, {"parked": 1, "pending": 1})
        assert "wait for a person: 1 (see `hilum deliver list --state parked`)" in account.verdict

    def test_messages_to_other_systems_are_told_apart_from_objects(self, copy: Copy) -> None:
        copy.change(
            "INSERT INTO delivery (delivery_id, destination, receipt, study_instance_uid, sop_instance_uid, state)"
            " SELECT 'm' || n, 'ris', '', '', '', CASE n WHEN 1 THEN 'parked' ELSE 'pending' END FROM generate_series(1, 3) AS n"
        )

        account = copy.account()

        assert account.ok
        assert (account.pending, account.messages_pending, account.messages_parked) == (2, 3, 1)
        assert account.messages_to == {"ris": {"parked": 1, "pending": 2}}
        assert "Messages that wait for a person: 1" in account.verdict

    def test_what_a_person_asked_for_is_expected_too(self, copy: Copy) -> None:
        copy.change(*A_RUN)

        account = copy.account()

        assert account.ok
        assert (account.expected_deliveries, account.pending) == (6, 4)

    def test_a_delivery_that_was_settled_before_the_log_s_memory_is_accounted_for(self, copy: Copy) -> None:
        copy.change("UPDATE delivery SET state = 'delivered', settled_at = now() - interval '31 days' WHERE delivery_id = 'receipt-0-pacs'")

        assert copy.account().ok

    def test_two_receipts_that_led_to_one_delivery_expect_it_once(self, copy: Copy) -> None:
        copy.change("UPDATE receipt SET decision = 'deliver', delivery_ids = ARRAY['receipt-0-archive'] WHERE receipt = 'receipt-3'")

        account = copy.account()

        assert account.ok
        assert account.expected_deliveries == 4

    def test_what_is_in_the_spool_is_told_and_no_gap(self, copy: Copy, tmp_path: Path) -> None:
        spool = Spool(tmp_path / "spool")
        spooled(spool)
        spooled(spool, SOPInstanceUID="2.25.2")

        account = reconcile(msgspec.structs.replace(copy.settings, data=str(tmp_path)))

        assert account.spooled == 2
        assert account.ok

    def test_a_damaged_file_of_the_spool_is_a_gap(self, copy: Copy, tmp_path: Path) -> None:
        spool = Spool(tmp_path / "spool")
        (spool.folder / "0190163d-8694-739b-aea5-966c26f8ad91.torn").touch()
        spool.path(spooled(spool)).write_bytes(b"")

        account = reconcile(msgspec.structs.replace(copy.settings, data=str(tmp_path)))

        assert account.unaccounted == 2
        assert "0190163d-8694-739b-aea5-966c26f8ad91.torn is damaged" in account.details[0]

    def test_an_event_that_the_index_could_not_read_waits_in_quarantine(self, copy: Copy, hospital: Hospital) -> None:
        copy.change(
            "DELETE FROM receipt WHERE receipt = 'receipt-4'",
            "DELETE FROM quarantine",
            "INSERT INTO quarantine (event_id, stage, reason, sentence, fix, quarantined_at, input_type, input_id, input)"
            " VALUES ('q', 'index', 'processing-failed', '', '', now(), %(topic)s, 'receipt-4', '')",
            topic=bus.topic_of(hospital.settings, InstanceReceived),
        )

        account = copy.account()

        assert (account.received, account.quarantined) == (5, 1)
        assert account.details == (
            "object 2.25.1/2.25.2/2.25.14/object.dcm is in the object store, and neither on the log nor in the index",
        )

    def test_what_was_only_on_its_way_is_there_at_the_second_look(self, copy: Copy) -> None:
        with connect(copy.settings.postgres.dsn) as connection:
            connection.execute("CREATE TABLE late AS SELECT * FROM delivery WHERE delivery_id = 'receipt-0-pacs'")
            connection.execute("DELETE FROM delivery WHERE delivery_id = 'receipt-0-pacs'")

            def arrives(says: str) -> None:
                if "second time" in says:
                    connection.execute("INSERT INTO delivery SELECT * FROM late")

            account = copy.account(progress=arrives)

        assert account.ok
        assert account.pending == 2

    def test_what_is_decided_during_the_second_look_counts_as_pending(self, copy: Copy) -> None:
        with connect(copy.settings.postgres.dsn) as connection:
            connection.execute("UPDATE receipt SET decision = NULL, delivery_ids = NULL WHERE receipt = 'receipt-2'")
            connection.execute("DELETE FROM delivery WHERE delivery_id = 'receipt-1-pacs'")  # so that there is a second look

            def decides(says: str) -> None:
                if "second time" in says:
                    connection.execute("UPDATE receipt SET decision = 'deliver', delivery_ids = ARRAY['new'] WHERE receipt = 'receipt-2'")

            account = copy.account(progress=decides)

        assert account.details == ("delivery receipt-1-pacs was decided on and is not in the ledger",)
        assert (account.expected_deliveries, account.delivered + account.pending) == (5, 4)

    def test_while_objects_come_in_nothing_is_unaccounted(self, s3: S3, postgres: str, make_log: type[Log], kafka: Kafka) -> None:
        settings = Settings(
            kafka=msgspec.structs.replace(kafka, prefix=f"r{uuid.uuid4().hex[:8]}."),
            postgres=Postgres(dsn=postgres),
            s3=msgspec.structs.replace(s3, bucket=f"live-{uuid.uuid4().hex[:8]}"),
            data="/nonexistent",
        )
        log = make_log(settings)
        log.make(partitions=2)
        open_store(settings).ensure_bucket(settings.s3.bucket)
        hospital, stop, sent = Hospital(log, settings), threading.Event(), list[int]()

        def send() -> None:
            while not stop.wait(0.02):
                hospital.arrive(len(sent), "archive", "pacs")
                sent.append(1)

        sender = threading.Thread(target=send)
        with log.running(index.role(settings), ledger.role(settings)):
            sender.start()
            try:
                eventually(lambda: len(sent) > 20)
                accounts = [reconcile(settings) for _ in range(2)]
            finally:
                stop.set()
                sender.join()
            last = reconcile(settings)

        assert [account.details for account in accounts] == [()] * 2
        assert all(account.expected_deliveries == account.pending for account in accounts)
        assert last.ok
        assert (last.received, last.pending) == (len(sent), 2 * len(sent))


class TestLosses:
    """What was lost is named; the account is not in order."""

    def loss(self, account: Account, *details: str) -> None:
        assert account.details == details
        assert account.unaccounted == len(details)
        assert not account.ok

    def test_a_delivery_of_a_run(self, copy: Copy) -> None:
        copy.change(*A_RUN, "DELETE FROM delivery WHERE delivery_id = 'run-1-1'")

        account = copy.account()

        assert account.details == ("run run-1 asked for 2 deliveries, and the ledger has 1",)
        assert account.unaccounted == 1

    def test_the_run_of_a_delivery(self, copy: Copy) -> None:
        copy.change(*A_RUN, "DELETE FROM delivery_run")

        assert copy.account().details == (
            "delivery run-1-0 is in the ledger and its run is not",
            "delivery run-1-1 is in the ledger and its run is not",
        )

    def test_an_instance_on_the_log_and_nowhere_else(self, copy: Copy) -> None:
        copy.change("DELETE FROM receipt WHERE receipt = 'receipt-2'", "DELETE FROM instance WHERE receipt = 'receipt-2'")

        self.loss(
            copy.account(),
            "receipt receipt-2 of instance 2.25.12 is on the log and not in the index",
            "object 2.25.1/2.25.2/2.25.12/object.dcm is in the object store, and neither on the log nor in the index",
        )

    def test_a_message_on_the_log_and_nowhere_else(self, copy: Copy) -> None:
        copy.change("DELETE FROM hl7_message")

        self.loss(copy.account(), f"message {MESSAGE_ID} is on the log and not in the index")

    def test_a_message_that_the_index_could_not_read_is_in_quarantine(self, copy: Copy) -> None:
        copy.change(
            "DELETE FROM hl7_message",
            "INSERT INTO quarantine SELECT (jsonb_populate_record(quarantine, jsonb_build_object('event_id', 'q', 'input_id', %(id)s::text,"
            " 'input_type', %(type)s::text))).* FROM quarantine",
            id=MESSAGE_ID,
            type=bus.topic_of(copy.settings, MessageReceived),
        )

        assert copy.account().details == ()

    def test_an_object_in_the_store_and_nowhere_else_and_one_that_the_store_lost(self, copy: Copy, hospital: Hospital) -> None:
        other = f"{hospital.settings.s3.bucket}-other"
        store = open_store(hospital.settings)
        store.ensure_bucket(other)
        for number in (0, 1, 2, 3, 9):
            hospital.store(f"2.25.1/2.25.2/2.25.1{number}/object.dcm", other)
        hospital.store("2.25.1/2.25.2/2.25.18/object.json", other)
        copy.change("UPDATE receipt SET bucket = %(other)s", other=other)
        copy.settings = msgspec.structs.replace(copy.settings, s3=msgspec.structs.replace(copy.settings.s3, bucket=other))
        until_old_enough(other, hospital.settings)

        self.loss(
            copy.account(),
            "object 2.25.1/2.25.2/2.25.19/object.dcm is in the object store, and neither on the log nor in the index",
            "object 2.25.1/2.25.2/2.25.14/object.dcm was received and is no longer in the object store",
        )

    def test_a_delivery_without_a_row_in_the_ledger(self, copy: Copy) -> None:
        copy.change("DELETE FROM delivery WHERE delivery_id = 'receipt-0-pacs'")

        account = copy.account()

        self.loss(account, "delivery receipt-0-pacs was decided on and is not in the ledger")
        assert account.expected_deliveries == 4
        assert account.pending == 1

    def test_a_row_in_the_ledger_without_a_decision(self, copy: Copy) -> None:
        copy.change("UPDATE receipt SET delivery_ids = ARRAY['receipt-0-archive'] WHERE receipt = 'receipt-0'")

        self.loss(copy.account(), "delivery receipt-0-pacs is in the ledger and nothing was decided on it")

    def test_a_settled_delivery_of_which_neither_log_nor_outbox_says_so(self, copy: Copy) -> None:
        copy.change("UPDATE delivery SET state = 'delivered', settled_at = now() WHERE delivery_id = 'receipt-0-pacs'")

        self.loss(copy.account(), "delivery receipt-0-pacs is settled in the ledger and the log does not say so")

    def test_a_receipt_whose_received_event_never_came(self, copy: Copy) -> None:
        copy.change("UPDATE receipt SET received = false WHERE receipt = 'receipt-1'")

        self.loss(
            copy.account(),
            "receipt receipt-1 of instance 2.25.11 is on the log and not in the index",
            "receipt receipt-1 is in the index, and that it was received is not",
        )

    def test_an_accepted_instance_that_cannot_be_found(self, copy: Copy) -> None:
        copy.change("DELETE FROM instance WHERE receipt = 'receipt-1'")

        self.loss(copy.account(), "receipt receipt-1 was accepted and its instance is not in the index")

    def test_many_losses_are_counted_and_the_first_named(self, copy: Copy) -> None:
        copy.change(
            "UPDATE receipt SET delivery_ids = (SELECT array_agg('lost-' || lpad(n::text, 3, '0')) FROM generate_series(1, 100) AS n)"
            " WHERE receipt = 'receipt-2'"
        )

        account = copy.account()

        assert account.unaccounted == 100
        assert len(account.details) == 20
        assert account.details[0] == "delivery lost-001 was decided on and is not in the ledger"


class TestReadBack:
    def test_an_object_that_is_listed_and_cannot_be_read_is_named(self, copy: Copy, elsewhere: Elsewhere) -> None:
        def loses(says: str) -> None:
            if says == "Comparing":  # after the listing
                elsewhere.store.delete(elsewhere.bucket, elsewhere.key(2))

        account = copy.account(progress=loses)

        assert account.details == (f"object {elsewhere.key(2)} cannot be read",)
        assert (account.unaccounted, account.ok) == (1, False)
        assert (account.stored, account.read) == (5, 5)

    def test_an_original_that_expired_is_accounted_for(self, copy: Copy, elsewhere: Elsewhere) -> None:
        elsewhere.store.delete(elsewhere.bucket, elsewhere.key(2))
        assert copy.account().details == (f"object {elsewhere.key(2)} was received and is no longer in the object store",)
        copy.change(AN_EXPIRY, bucket=elsewhere.bucket, key=elsewhere.key(2))

        account = copy.account(verify=True)

        assert account.ok, account.details
        assert (account.stored, account.expired) == (4, 1)

    def test_one_that_expires_between_listing_and_reading_is_no_loss(self, copy: Copy, elsewhere: Elsewhere) -> None:
        copy.change(AN_EXPIRY, bucket=elsewhere.bucket, key=elsewhere.key(2))

        def expires(says: str) -> None:
            if says == "Comparing":
                elsewhere.store.delete(elsewhere.bucket, elsewhere.key(2))

        assert copy.account(progress=expires).ok

    def test_what_can_be_read_the_second_time_is_no_loss(self, copy: Copy, elsewhere: Elsewhere) -> None:
        def comes_back(says: str) -> None:
            if says == "Comparing":
                elsewhere.store.delete(elsewhere.bucket, elsewhere.key(2))
            elif "Reading a second time" in says:
                elsewhere.put(2)

        assert copy.account(progress=comes_back).ok

    def test_verify_reads_every_object_whole_and_names_one_that_was_changed(self, copy: Copy, elsewhere: Elsewhere) -> None:
        assert copy.account(verify=True).ok
        elsewhere.put(3, b"changed")

        assert copy.account().ok
        account = copy.account(verify=True)

        assert account.details == (f"object {elsewhere.key(3)} is not what was received: its digest differs",)
        assert not account.ok


class TestNotInOrder:
    def test_an_undecided_instance_is_not_lost_and_not_in_order(self, copy: Copy) -> None:
        copy.change("UPDATE receipt SET decision = NULL WHERE receipt = 'receipt-2'")

        account = copy.account()

        assert (account.undecided, account.unaccounted) == (1, 0)
        assert not account.ok

    @pytest.mark.parametrize("reader", ["index", "ledger"])
    def test_a_reader_that_is_behind_is_told(self, copy: Copy, reader: str) -> None:
        copy.change(
            "UPDATE consumer_offset SET next_offset = next_offset - 1 WHERE ctid = (SELECT ctid FROM consumer_offset"
            " WHERE group_name = %(reader)s AND next_offset > 0 LIMIT 1)",
            reader=reader,
        )

        account = copy.account(wait_s=0.1)

        assert not account.caught_up
        assert not account.ok
        assert account.unaccounted == 0

    def test_a_database_without_tables_is_a_matter_for_a_person(self, copy: Copy) -> None:
        copy.change("DROP TABLE consumer_offset")

        with pytest.raises(Misconfigured, match="hilum provision"):
            copy.account()

    def test_topics_that_were_never_made_are_a_matter_for_a_person(self, copy: Copy) -> None:
        kafka = msgspec.structs.replace(copy.settings.kafka, prefix="never.")

        with pytest.raises(Misconfigured, match="hilum provision"):
            reconcile(msgspec.structs.replace(copy.settings, kafka=kafka))

    def test_a_database_that_is_away_is_to_be_tried_again(self, copy: Copy, free_port: int) -> None:
        dsn = make_conninfo(copy.settings.postgres.dsn, port=free_port)

        with pytest.raises(TryAgain, match="PostgreSQL"):
            reconcile(msgspec.structs.replace(copy.settings, postgres=Postgres(dsn=dsn)))
