from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from bench.peers import free_port
from hilum.errors import Misconfigured
from hilum.outcomes import meanings
from hilum.part10 import IN_MEMORY_BYTES, Part10, Unsound
from hilum.settings import Settings
from hilum.sink import Outage, Session, Settled, sink_of
from hilum.testing import MemoryStore, SinkContract, a_delivery, encoded
from sinks.stow import Stow
from sinks.stow.answer import read
from sinks.stow.session import Manner, Requests
from tests.stow_server import Reply, Request, StowServer, send, session_for, several, states, stores, stow_server, told


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class OnMemory(Stow, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sink, with a store in memory."""

    def open(self, settings: Settings) -> Session:
        return Requests(
            self.client(), STORE, Manner(instances=16, max_request_bytes=10**8, max_instance_bytes=0, conflict="ask", meanings=meanings(""))
        )


STORE = MemoryStore()


class TestStow(SinkContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return STORE

    @pytest.fixture
    def settings(self) -> Settings:
        return Settings()

    @pytest.fixture
    def there(self) -> Iterator[StowServer]:
        with stow_server() as running:
            yield running

    @pytest.fixture
    def sink(self, there: StowServer) -> Stow:
        return OnMemory(url=there.url)

    @pytest.fixture
    def broken_sink(self) -> Stow:
        return Stow(url=f"http://127.0.0.1:{free_port()}")

    @pytest.fixture
    def arrived(self, there: StowServer) -> Callable[[str], list[bytes]]:
        return lambda uid: list(dict.fromkeys(there.stored[uid]))


# One request, many instances


def test_instances_go_together_and_arrive_byte_for_byte(store: MemoryStore) -> None:
    with stow_server() as there:
        coming = several(store, 5)
        outcomes = send(session_for(there.url, store), store, coming)

    assert states(outcomes) == ["delivered"] * 5
    assert there.posts == [[each.sop_instance_uid for each in coming]]
    assert there.requests[0].files == [store.objects[each.object.bucket, each.object.key] for each in coming]
    assert (there.requests[0].path, there.requests[0].headers["accept"]) == ("/dicom-web/studies", "application/dicom+json")


def test_a_request_has_no_more_instances_and_bytes_than_are_set(store: MemoryStore) -> None:
    large = {"data_set": encoded({"SOPInstanceUID": "2.25.1"}) + b"\x20\x00\x00\x40LT\x00\x00" * 50_000}
    with stow_server(lambda _: Reply(200)) as there:
        send(session_for(there.url, store, instances=2), store, several(store, 5))
        send(session_for(there.url, store, max_request_bytes=1_000_000), store, several(store, 5, **large))

    assert [len(request.files) for request in there.requests] == [2, 2, 1, 2, 2, 1]


def test_the_same_instance_twice_goes_in_two_requests(store: MemoryStore) -> None:
    coming = [a_delivery(store, SOPInstanceUID="2.25.10", PatientID=name) for name in "AB"]
    with stow_server() as there:
        assert states(send(session_for(there.url, store), store, coming)) == ["delivered", "delivered"]

    assert there.posts == [["2.25.10"], ["2.25.10"]]


def test_a_large_instance_is_streamed_in_a_request_of_its_own(store: MemoryStore) -> None:
    padded = (
        encoded({"SOPInstanceUID": "2.25.11"})
        + b"\xe0\x7f\x10\0OB\0\0"
        + (IN_MEMORY_BYTES + 2).to_bytes(4, "little")
        + bytes(IN_MEMORY_BYTES + 2)
    )
    coming = [*several(store, 1), a_delivery(store, SOPInstanceUID="2.25.11", data_set=padded), a_delivery(store, SOPInstanceUID="2.25.12")]
    with stow_server() as there:
        assert states(send(session_for(there.url, store), store, coming)) == ["delivered"] * 3

    assert there.posts == [["2.25.10"], ["2.25.11"], ["2.25.12"]]
    assert there.stored["2.25.11"] == [padded]


def test_an_instance_above_the_services_limit_is_rejected_without_being_sent(store: MemoryStore) -> None:
    with stow_server() as there:
        [outcome] = send(session_for(there.url, store, max_instance_bytes=100), store, several(store, 1))

    assert isinstance(outcome, Settled)
    assert (outcome.state, there.requests) == ("rejected", [])
    assert "max_instance_bytes" in outcome.comment


def test_an_object_that_is_not_what_was_received_is_not_stored_and_holds_up_no_other(store: MemoryStore) -> None:
    coming = several(store, 4)
    where = (coming[2].object.bucket, coming[2].object.key)
    store.objects[where] = store.objects[where][:-1] + b"X"
    with stow_server() as there:
        outcomes = send(session_for(there.url, store), store, coming)

    assert states(outcomes) == ["delivered", "delivered", "Unsound", "delivered"]
    assert isinstance(outcomes[2], Unsound)
    assert coming[2].sop_instance_uid not in there.stored


# What the answers mean


def by_uid(**reasons: int) -> Callable[[Request], Reply]:
    """An answer: 2.25.N of the argument uN fails for this reason, all others are stored."""
    failing = {f"2.25.{name[1:]}": reason for name, reason in reasons.items()}

    def answer(request: Request) -> Reply:
        stored = {uid: 0 for uid in request.uids if uid not in failing}
        failed = {uid: failing[uid] for uid in request.uids if uid in failing}
        return told(stored, failed, status=202 if stored and failed else 409 if failed else 200)

    return answer


def test_each_instance_has_the_outcome_that_the_answer_gives_it(store: MemoryStore) -> None:
    with stow_server(by_uid(u11=0x0111, u12=0xA700, u13=0xA900, u14=0xC122)) as there:
        outcomes = send(session_for(there.url, store), store, several(store, 5))

    assert states(outcomes) == ["delivered", "already_there", "Later", "rejected", "rejected"]
    assert [getattr(outcome, "peer_status", "") for outcome in outcomes] == ["202", "202 0x0111", "202 0xA700", "202 0xA900", "202 0xC122"]
    assert len(there.posts) == 1
    assert "transfer syntax not supported" in getattr(outcomes[4], "comment", "")


def test_a_warning_is_stored_and_told(store: MemoryStore) -> None:
    with stow_server(lambda request: told(dict.fromkeys(request.uids, 0xB000))) as there:
        [outcome] = send(session_for(there.url, store), store, several(store, 1))

    assert outcome == Settled(state="delivered", peer_status="200 0xB000")


def test_success_that_names_other_instances_only_is_not_believed(store: MemoryStore) -> None:
    with stow_server(lambda _: told({"2.25.10": 0})) as there:
        outcomes = send(session_for(there.url, store), store, several(store, 2))

    assert states(outcomes) == ["delivered", "Later"]
    assert there.posts == [["2.25.10", "2.25.11"]]


def test_success_without_a_word_of_instances_is_success(store: MemoryStore) -> None:
    with stow_server(lambda _: Reply(200, b"<html>")) as there:
        assert states(send(session_for(there.url, store), store, several(store, 2))) == ["delivered"] * 2
        assert len(there.posts) == 1


@pytest.mark.parametrize(("found", "state"), [(True, "already_there"), (False, "rejected")])
def test_a_conflict_without_a_reason_is_asked_about(store: MemoryStore, found: bool, state: str) -> None:
    def answer(request: Request) -> Reply:
        if request.method == "POST":
            return Reply(409)
        uid = request.path.rpartition("=")[2]
        return Reply(200, f'[{{"00080018": {{"vr": "UI", "Value": ["{uid}"]}}}}]'.encode()) if found else Reply(204)

    with stow_server(answer) as there:
        [outcome] = send(session_for(there.url, store), store, several(store, 1))

    assert states([outcome]) == [state]
    assert there.requests[-1].path == "/dicom-web/studies/2.25.1/series/2.25.2/instances?SOPInstanceUID=2.25.10"


@pytest.mark.parametrize(("conflict", "state"), [("already-there", "already_there"), ("rejected", "rejected")])
def test_what_a_conflict_means_may_be_set(store: MemoryStore, conflict: str, state: str) -> None:
    with stow_server(lambda _: Reply(409)) as there:
        assert states(send(session_for(there.url, store, conflict=conflict), store, several(store, 1))) == [state]
        assert len(there.requests) == 1


@pytest.mark.parametrize(
    ("status", "state"),
    [(400, "rejected"), (413, "rejected"), (415, "rejected"), (422, "rejected"), (500, "Later"), (0, "Later")],
)
def test_one_instance_that_spoils_a_request_spoils_no_other(store: MemoryStore, status: int, state: str) -> None:
    with stow_server(lambda request: Reply(status) if "2.25.11" in request.uids else stores(request)) as there:
        outcomes = send(session_for(there.url, store), store, several(store, 3))

    assert states(outcomes) == ["delivered", state, "delivered"]
    assert there.posts == [["2.25.10", "2.25.11", "2.25.12"], ["2.25.10"], ["2.25.11"], ["2.25.12"]]


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 501, 502, 504])
def test_what_the_service_refuses_altogether_is_an_outage_with_its_fix(store: MemoryStore, status: int) -> None:
    with stow_server(lambda _: Reply(status)) as there:
        outcomes = send(session_for(there.url, store), store, several(store, 1))

    assert states(outcomes) == ["Outage"]
    assert getattr(outcomes[0], "fix", "")


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_asks_to_wait_is_asked_nothing_meanwhile(store: MemoryStore, status: int) -> None:
    clock = [0.0]
    replies = iter([Reply(status, headers=(("Retry-After", "30"),))])
    with stow_server(lambda request: next(replies, None) or stores(request)) as there:
        session = session_for(there.url, store, lambda: clock[0])
        coming = several(store, 1)
        session.begin(coming)
        for seconds in (0.0, 29.0):
            clock[0] = seconds
            with pytest.raises(Outage, match=f"answered {status}: it takes nothing for 30 s"):
                session.deliver(coming[0], Part10(store, coming[0].object))
        assert len(there.requests) == 1
        clock[0] = 30.5
        assert session.deliver(coming[0], Part10(store, coming[0].object)).state == "delivered"


def test_what_was_answered_before_the_service_went_away_counts(store: MemoryStore) -> None:
    replies = iter([Reply(400), None, Reply(503)])
    with stow_server(lambda request: next(replies, None) or stores(request)) as there:
        session = session_for(there.url, store)
        coming = several(store, 3)
        session.begin(coming)

        assert session.deliver(coming[0], Part10(store, coming[0].object)).state == "delivered"
        with pytest.raises(Outage):
            session.deliver(coming[1], Part10(store, coming[1].object))
        session.close()


def test_a_service_that_finds_a_request_too_large_gets_smaller_ones(store: MemoryStore) -> None:
    with stow_server(lambda request: Reply(413) if len(request.files) > 2 else stores(request)) as there:
        outcomes = send(session_for(there.url, store, instances=4), store, several(store, 8))

    assert states(outcomes) == ["delivered"] * 8
    assert [len(uids) for uids in there.posts] == [4, 1, 1, 1, 1, 2, 2]


def test_a_service_that_does_not_answer_in_time_puts_the_object_off(store: MemoryStore) -> None:
    import threading

    asked = threading.Event()

    def slow(_: Request) -> Reply:
        asked.wait(60)
        return Reply(0)

    with stow_server(slow) as there:
        outcomes = send(session_for(there.url, store, response_timeout_s=0.2), store, several(store, 1))
        asked.set()

    assert states(outcomes) == ["Later"]
    assert "did not answer within 0.2 s" in str(outcomes[0])


def test_a_service_that_is_not_there_is_an_outage(store: MemoryStore) -> None:
    session = Requests(
        Stow(url=f"http://127.0.0.1:{free_port()}").client(),
        store,
        Manner(instances=1, max_request_bytes=1, max_instance_bytes=0, conflict="ask", meanings=meanings("")),
    )

    assert states(send(session, store, several(store, 1))) == ["Outage"]


def test_the_words_of_an_answer_are_for_the_ledger_only(store: MemoryStore) -> None:
    with stow_server(lambda _: Reply(400, b"Patient Marked^Patient is not known")) as there:
        [outcome] = send(session_for(there.url, store), store, several(store, 1))

    assert isinstance(outcome, Settled)
    assert outcome.peer_comment == "Patient Marked^Patient is not known"
    assert "Marked" not in outcome.comment


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"nonsense", b'{"00081199": 3}', b'{"00081198": {"Value": [3, {"00081155": 3}]}}', b"[" * 100_000]
)
def test_an_answer_that_is_none_says_nothing(body: bytes) -> None:
    assert read(body).nothing


# Whom the service admits


def test_credentials_are_sent(store: MemoryStore, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    with stow_server() as there:
        for more in ({"username": "hilum", "password": "secret"}, {"token": "given"}, {"token_file": str(file)}):
            send(session_for(there.url, store, **more), store, several(store, 1))
        file.write_text("second\n")
        send(session_for(there.url, store, token_file=str(file)), store, several(store, 1))

    found = [request.headers["authorization"] for request in there.requests]
    assert found == ["Basic aGlsdW06c2VjcmV0", "Bearer given", "Bearer first", "Bearer second"]


def test_a_token_whose_file_is_gone_is_for_a_person(store: MemoryStore, tmp_path: Path) -> None:
    with stow_server() as there:
        [outcome] = send(session_for(there.url, store, token_file=str(tmp_path / "token")), store, several(store, 1))

    assert isinstance(outcome, Misconfigured)


def test_tls_is_checked_both_ways(store: MemoryStore, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("hilum.test").private_key_and_cert_chain_pem.write_to_path(tmp_path / "hilum.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with stow_server(tls=context) as there:
        trusted = {"tls_ca": str(tmp_path / "ca.pem"), "tls_certificate": str(tmp_path / "hilum.pem")}
        assert states(send(session_for(there.url, store, **trusted), store, several(store, 1))) == ["delivered"]
        [untrusted] = send(session_for(there.url, store), store, several(store, 1))
        steps = [(step.name, step.ok) for step in Stow(url=there.url, **trusted).check(Settings())]  # type: ignore[arg-type]  # by name

    assert isinstance(untrusted, Outage)
    assert "is not trusted" in untrusted.sentence
    assert "tls_ca" in untrusted.fix
    assert steps == [("name", True), ("connection", True), ("TLS", True), ("service", True)]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"url": "http://user:secret@pacs/"}, "must not hold a user"),
        ({"url": "pacs/dicom-web"}, "http://host:port/path"),
        ({"url": "http://pacs", "username": "hilum"}, "go together"),
        ({"url": "http://pacs", "token": "a", "token_file": "b"}, "only one of"),
        ({"url": "http://pacs", "tls_ca": "ca.pem"}, "no setting of TLS"),
    ],
)
def test_settings_that_cannot_work_are_refused(table: dict[str, str], words: str) -> None:
    with pytest.raises(Misconfigured, match=words) as error:
        sink_of("pacs", {"type": "stow", **table})
    assert "secret" not in str(error.value)


# The check


def test_a_check_stores_the_test_object_only_if_asked_to() -> None:
    with stow_server() as there:
        assert [step.name for step in Stow(url=there.url).check(Settings())] == ["name", "connection", "service"]
        assert not there.stored
        *_, last = Stow(url=there.url).check(Settings(), with_object=True)

    assert (last.name, last.ok) == ("test object", True)
    assert len(there.stored) == 1


@pytest.mark.parametrize(("status", "fix"), [(401, "token"), (403, "token"), (404, "/studies"), (500, "/studies")])
def test_a_check_of_a_service_that_refuses_says_what_to_do(status: int, fix: str) -> None:
    with stow_server(lambda _: Reply(status)) as there:
        *_, last = Stow(url=there.url).check(Settings())

    assert (last.name, last.ok) == ("service", False)
    assert fix in last.fix


def test_a_service_that_only_stores_passes_the_check() -> None:
    with stow_server(lambda _: Reply(405, headers=(("Allow", "POST"),))) as there:
        *_, last = Stow(url=there.url).check(Settings())

    assert (last.name, last.ok) == ("service", True)
    assert "takes POST" in last.says


def test_a_test_object_that_is_refused_fails_the_check() -> None:
    with stow_server(
        lambda request: told(failed=dict.fromkeys(request.uids, 0xA700), status=409) if request.method == "POST" else Reply(204)
    ) as there:
        *_, last = Stow(url=there.url).check(Settings(), with_object=True)

    assert (last.name, last.ok) == ("test object", False)
    assert "409 (out of resources, 0xA700)" in last.says
