"""A whole Hilum with destinations of which each misbehaves in its own way, beside a healthy one.

In the end nothing is unaccounted for, and each object is at each destination once, or waits for a person or was rejected there with
the peer's words; and the healthy destination has everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from bench.faults import objects
from bench.peers import free_port
from bench.running import RunningHilum, Servers, running_hilum
from bench.wire import RawReceiver, RawSender
from hilum.account import Account
from hilum.profiles import GENERIC, profile
from hilum.testing import eventually
from tests.misbehaving import (
    EVERY_STATUS,
    Answer,
    Scp,
    aborts_every,
    answers,
    answers_after,
    forgets,
    hangs_up_every,
    healthy,
    refuses_at_first,
    says_kept,
    scp,
    words_of,
)

pytestmark = pytest.mark.system

#: As many as there are statuses, so that each is answered once.
COUNT = len(EVERY_STATUS)
OUTAGE = "SELECT says FROM v_destination_outage WHERE destination = %s"
#: States in which a delivery has ended, or waits for a person.
TAKEN, REFUSED = ("delivered", "already_there"), ("rejected", "parked")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """One that misbehaves."""

    answer: Answer
    #: Its settings beside host, port and title.
    settings: str = ""
    contexts: tuple[tuple[str, str], ...] | None = None
    associations: int = 100


DESTINATIONS = {
    "aborts": Destination(answer=aborts_every(3)),
    "hangs_up": Destination(answer=hangs_up_every(4)),
    # An answer long after who waits for it has given up: also if that one stands still for a while.
    "slow": Destination(answer=answers_after(90.0, every=9), settings="response_timeout_s = 1.0\nmax_attempts = 2"),
    "statuses": Destination(answer=answers(*EVERY_STATUS), settings="max_attempts = 2"),
    "passing": Destination(answer=refuses_at_first(1, 0xA700, 0x0000, 0x0110, 0x0000)),
    # Until it is seen to be an outage; then it takes everything.
    "takes_nothing": Destination(answer=healthy(), contexts=()),
    "takes_no_ct": Destination(answer=healthy(), contexts=((MRImageStorage, ExplicitVRLittleEndian),)),
    "one_at_a_time": Destination(answer=healthy(), associations=1, settings="workers = 2"),
    "dcm4chee": Destination(answer=answers(0x0000, 0xA770, 0xA771, 0xA778, 0xC409), settings='profile = "dcm4chee"\nmax_attempts = 2'),
    "told_otherwise": Destination(answer=answers(0x0000, 0xC000), settings='statuses = { "0xC000" = "already_there" }'),
    "forgets": Destination(answer=forgets()),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the ledger."""

    uid: str
    state: str
    attempts: int
    status: str
    comment: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What there is when all has come to rest."""

    hilum: RunningHilum
    sent: dict[str, str]  #: digest by SOP Instance UID
    account: Account
    pacs: RawReceiver
    peers: dict[str, Scp]
    #: What was said of the one that took nothing while it did, and how its deliveries were then.
    outage: str
    untouched: list[tuple[object, ...]]

    def rows(self, destination: str) -> list[Row]:
        query = """
            SELECT sop_instance_uid, state, attempts, coalesce(peer_status, ''), coalesce(comment, '')
            FROM delivery WHERE destination = %s ORDER BY sop_instance_uid
        """
        return [
            Row(uid=uid, state=state, attempts=attempts, status=status, comment=comment)
            for uid, state, attempts, status, comment in self.hilum.rows(query, destination)
        ]

    def states(self, destination: str) -> set[str]:
        return {row.state for row in self.rows(destination)}


@contextmanager
def scp_again(port: int) -> Iterator[Scp]:
    """A peer that takes everything, where another one was until now: the port may be in use for a moment longer."""
    found: list[Scp] = []

    def is_there() -> bool:
        with suppress(OSError):
            found.append(Scp(healthy(), port=port))
        return bool(found)

    eventually(is_there, what="the port is free")
    yield found[0]
    found[0].close()


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Ended]:
    folder = tmp_path_factory.mktemp("misbehaving")
    pacs = RawReceiver()
    with ExitStack() as stack:
        # On ports that no connection is given for its near end: one of them stops listening for a while.
        peers = {
            name: stack.enter_context(scp(each.answer, port=free_port(), contexts=each.contexts, associations=each.associations))
            for name, each in DESTINATIONS.items()
        }
        settings = [
            f"""
[destinations.{name}]
type = "dicom"
host = "127.0.0.1"
port = {peers[name].port}
aet = "PACS"
retry_max_s = 1.0
{each.settings}
"""
            for name, each in DESTINATIONS.items()
        ]
        rule = f'[[rules]]\nname = "the others"\nwhen = "true"\nto = {list(DESTINATIONS)}\n'
        running = stack.enter_context(running_hilum(folder, pacs.port, "\n".join(settings) + rule, images_only=True, servers=servers()))
        made = objects(COUNT, folder, patient="MISBEHAVING")
        sender = RawSender(running.port, [(CTImageStorage, ExplicitVRLittleEndian)])
        assert {sender.send(CTImageStorage, uid, ExplicitVRLittleEndian, data_set) for uid, data_set in made} == {0x0000}
        sender.release()
        eventually(lambda: running.rows(OUTAGE, "takes_nothing"))
        outage = str(running.rows(OUTAGE, "takes_nothing")[0][0])
        untouched = running.rows("SELECT DISTINCT state, attempts FROM delivery WHERE destination = %s", "takes_nothing")
        port = peers["takes_nothing"].port
        peers["takes_nothing"].close()
        peers["takes_nothing"] = stack.enter_context(scp_again(port))
        account = running.come_to_rest(within_s=180)
        sent = {uid: sha256(data_set).hexdigest() for uid, data_set in made}
        yield Ended(hilum=running, sent=sent, account=account, pacs=pacs, peers=peers, outage=outage, untouched=untouched)
    pacs.close()


def test_nothing_is_unaccounted_for(ended: Ended) -> None:
    account = ended.account

    parked = sum(row.state == "parked" for name in DESTINATIONS for row in ended.rows(name))
    assert (account.received, account.unaccounted, account.undecided, account.pending) == (COUNT, 0, 0, parked)
    assert account.expected_deliveries == COUNT * (len(DESTINATIONS) + 2)


def test_the_healthy_destination_has_everything_once(ended: Ended) -> None:
    assert {row.state for row in ended.rows("pacs")} == {"delivered"}
    assert {uid: [each.sha256 for each in came] for uid, came in ended.pacs.received.items()} == {
        uid: [digest] for uid, digest in ended.sent.items()
    }


@pytest.mark.parametrize("name", DESTINATIONS)
def test_each_object_is_there_or_is_refused_with_words(ended: Ended, name: str) -> None:
    rows = ended.rows(name)
    there = ended.peers[name]

    assert [row.uid for row in rows] == sorted(ended.sent)  # once each
    for row in rows:
        assert row.state in (*TAKEN, *REFUSED), row
        if row.state in REFUSED:
            assert row.comment, row
        elif name != "forgets" and says_kept(int(row.status, 16)):
            assert there.kept[row.uid] == {ended.sent[row.uid]}, row


@pytest.mark.parametrize("name", DESTINATIONS)
def test_what_a_peer_said_is_in_the_ledger(ended: Ended, name: str) -> None:
    for row in ended.rows(name):
        if row.status not in ("", "0x0000"):
            assert words_of(int(row.status, 16)) in row.comment, row


@pytest.mark.parametrize("name", ["aborts", "hangs_up", "passing", "one_at_a_time"])
def test_what_passes_is_delivered_in_the_end(ended: Ended, name: str) -> None:
    assert ended.states(name) <= set(TAKEN)


@pytest.mark.parametrize("name", ["hangs_up", "aborts"])
def test_each_request_that_a_peer_ends_instead_of_answering_is_an_attempt_of_that_object_only(ended: Ended, name: str) -> None:
    came = ended.peers[name].came

    assert set(came) == set(ended.sent)
    assert came.total() > COUNT
    assert {row.uid: row.attempts for row in ended.rows(name)} == dict(came)


def test_a_peer_that_is_too_slow_is_told_of_in_words_and_the_other_objects_pass(ended: Ended) -> None:
    rows = ended.rows("slow")
    slow = [row for row in rows if row.state in REFUSED]

    assert len(slow) == COUNT // 9
    assert all("did not answer within 1 s" in row.comment for row in slow)
    assert {row.state for row in rows if row not in slow} == {"delivered"}


@pytest.mark.parametrize("place", range(COUNT), ids=[f"0x{status:04X}" for status in EVERY_STATUS])
def test_each_status_of_the_standard_ends_as_it_means(ended: Ended, place: int) -> None:
    status = EVERY_STATUS[place]
    order = list(ended.peers["statuses"].came)
    [row] = [row for row in ended.rows("statuses") if row.uid == order[place]]
    outcome = profile(GENERIC).outcome(status)

    assert row.status == f"0x{status:04X}"
    if outcome in ("delivered", "already_there"):
        assert (row.state, row.attempts) == (outcome, 1)
    elif outcome == "permanent":
        assert (row.state, row.attempts) == ("rejected", 1)
    elif outcome == "retry":
        assert row.state in REFUSED
        assert row.attempts == 2
        assert row.comment.startswith("Given up after 2 attempts: ")
    else:
        assert row.state in REFUSED


def test_a_peer_that_takes_no_context_is_away_and_nothing_is_counted_or_lost(ended: Ended) -> None:
    assert "takes the association and no presentation context" in ended.outage
    assert ended.untouched == [("pending", 0)]
    assert ended.states("takes_nothing") == {"delivered"}


def test_a_peer_that_takes_other_classes_only_has_its_reason_in_the_ledger(ended: Ended) -> None:
    rows = ended.rows("takes_no_ct")

    assert {row.state for row in rows} == {"parked"}
    assert all("this SOP class is not supported" in row.comment for row in rows)


def test_a_products_own_statuses_mean_what_its_profile_says(ended: Ended) -> None:
    found = {row.status: row.state for row in ended.rows("dcm4chee")}

    assert found.pop("0xA778") in REFUSED  # waits for a person
    assert found == {"0x0000": "delivered", "0xA770": "already_there", "0xA771": "rejected", "0xC409": "rejected"}


def test_a_destinations_own_meaning_of_a_status_wins(ended: Ended) -> None:
    assert {row.status: row.state for row in ended.rows("told_otherwise")} == {"0x0000": "delivered", "0xC000": "already_there"}


def test_a_peer_that_reports_success_and_has_nothing_looks_like_a_good_one(ended: Ended) -> None:
    assert ended.states("forgets") == {"delivered"}
    assert ended.peers["forgets"].kept == {}


@pytest.mark.parametrize(("name", "missing"), [("forgets", COUNT), ("hangs_up", 0)])
def test_asking_a_peer_finds_out_what_it_does_not_have(ended: Ended, name: str, missing: int) -> None:
    done = ended.hilum.command("reconcile", "--destination", name, "--verify", check=False)

    assert sum(uid in done.stdout for uid in ended.sent) == missing
    assert (done.returncode == 0) is (missing == 0)
