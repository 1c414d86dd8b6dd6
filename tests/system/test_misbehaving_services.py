"""A whole Hilum with STOW-RS services that misbehave, each in its own way; as `test_misbehaving_destinations`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from bench.faults import objects
from bench.running import RunningHilum, Servers, running_hilum
from bench.wire import RawReceiver, RawSender
from hilum.account import Account
from tests.misbehaving_web import (
    CHECKED,
    Answer,
    Service,
    at_first,
    forgets,
    like_google,
    refuses,
    refuses_without_a_reason,
    service,
    stores,
    warns,
)

pytestmark = pytest.mark.system

COUNT = 24
TAKEN, REFUSED = ("delivered", "already_there"), ("rejected", "parked")
B00E, B00F, A900, A778 = 0xB00E, 0xB00F, 0xA900, 0xA778


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A service that misbehaves."""

    answer: Answer
    options: dict[str, Any] = field(default_factory=dict)
    settings: str = ""


DESTINATIONS = {
    "azure": Destination(answer=refuses(0, B00E, B00F, A900), settings='profile = "azure"\nmax_attempts = 2'),
    "google": Destination(answer=like_google, settings='profile = "google"'),
    "dcm4chee": Destination(answer=refuses(0, A778), settings='profile = "dcm4chee"'),
    "aws": Destination(answer=warns(0xB100), settings='profile = "aws"'),
    "conflicts": Destination(answer=refuses_without_a_reason),
    "throttles": Destination(answer=stores, options={"door": at_first(2, 429, 1)}),
    "hangs_up": Destination(answer=stores, options={"door": at_first(1, 0, hangs_up=True)}),
    "fails": Destination(answer=stores, options={"door": at_first(1, 500)}),
    "forgets": Destination(answer=forgets),
}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What there is when all has come to rest."""

    hilum: RunningHilum
    sent: set[str]
    account: Account
    pacs: RawReceiver
    services: dict[str, Service]

    def rows(self, destination: str) -> list[tuple[str, str, str, str]]:
        """SOP Instance UID, state, the service's status and what is said, of each delivery."""
        query = """
            SELECT sop_instance_uid, state, coalesce(peer_status, ''), coalesce(comment, '')
            FROM delivery WHERE destination = %s ORDER BY sop_instance_uid
        """
        return [(uid, state, status, comment) for uid, state, status, comment in self.hilum.rows(query, destination)]

    def by_status(self, destination: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for _, state, status, _ in self.rows(destination):
            found.setdefault(status, set()).add(state)
        return found


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Ended]:
    folder = tmp_path_factory.mktemp("services")
    pacs = RawReceiver()
    made = objects(COUNT, folder, patient="SERVICES")
    with ExitStack() as stack:
        services = {name: stack.enter_context(service(each.answer, **each.options)) for name, each in DESTINATIONS.items()}
        for _, data_set in made[::3]:  # these are at Google already, with other bytes
            ds = pydicom.filereader.read_dataset(BytesIO(data_set), False, True)
            services["google"].seed({keyword: str(ds[keyword].value) for keyword in CHECKED}, "another digest")
        settings = [
            f'[destinations.{name}]\ntype = "stow"\nurl = "{services[name].url}"\nretry_max_s = 1.0\n{each.settings}\n'
            for name, each in DESTINATIONS.items()
        ]
        rule = f'[[rules]]\nname = "the services"\nwhen = "true"\nto = {list(DESTINATIONS)}\n'
        running = stack.enter_context(running_hilum(folder, pacs.port, "\n".join(settings) + rule, images_only=True, servers=servers()))
        sender = RawSender(running.port, [(CTImageStorage, ExplicitVRLittleEndian)])
        assert {sender.send(CTImageStorage, uid, ExplicitVRLittleEndian, data_set) for uid, data_set in made} == {0x0000}
        sender.release()
        account = running.come_to_rest(within_s=180)
        yield Ended(hilum=running, sent={uid for uid, _ in made}, account=account, pacs=pacs, services=services)
    pacs.close()


def test_nothing_is_unaccounted_for_and_the_healthy_destination_has_everything(ended: Ended) -> None:
    account = ended.account

    assert (account.received, account.unaccounted, account.undecided) == (COUNT, 0, 0)
    assert account.pending == account.parked
    assert set(ended.pacs.received) == ended.sent


@pytest.mark.parametrize("name", DESTINATIONS)
def test_each_instance_is_there_or_is_refused_with_words(ended: Ended, name: str) -> None:
    rows = ended.rows(name)

    assert {uid for uid, *_ in rows} == ended.sent
    assert len(rows) == COUNT
    for uid, state, status, comment in rows:
        assert state in (*TAKEN, *REFUSED), (uid, state)
        assert comment or state in TAKEN, (uid, state)
        if state == "delivered" and name != "forgets":
            assert uid in ended.services[name].kept, (uid, status)


def test_the_reasons_of_azure_mean_what_its_profile_says(ended: Ended) -> None:
    found = {status.rpartition(" ")[2]: states for status, states in ended.by_status("azure").items()}

    assert found["0xB00E"] == {"already_there"}
    assert found["0xA900"] == {"rejected"}
    assert found["0xB00F"] <= set(REFUSED)  # tried again, and given up after two attempts
    assert sum(state == "delivered" for _, state, *_ in ended.rows("azure")) == COUNT // 4


def test_a_conflict_at_google_is_settled_by_asking(ended: Ended) -> None:
    states = [state for _, state, *_ in ended.rows("google")]

    assert (states.count("already_there"), states.count("delivered")) == (COUNT // 3, COUNT - COUNT // 3)


def test_what_somebody_must_put_right_at_dcm4chee_waits_for_a_person(ended: Ended) -> None:
    parked = [(status, comment) for _, state, status, comment in ended.rows("dcm4chee") if state == "parked"]

    assert len(parked) == COUNT // 2
    assert all("0xA778" in status and "Patient ID differs from the study's patient" in comment for status, comment in parked)


def test_a_warning_is_a_delivery(ended: Ended) -> None:
    assert {state for _, state, *_ in ended.rows("aws")} == {"delivered"}


def test_a_conflict_without_a_reason_and_without_the_instance_is_a_refusal(ended: Ended) -> None:
    assert {state for _, state, *_ in ended.rows("conflicts")} == {"rejected"}


@pytest.mark.parametrize("name", ["throttles", "hangs_up", "fails"])
def test_what_passes_is_delivered_in_the_end(ended: Ended, name: str) -> None:
    assert {state for _, state, *_ in ended.rows(name)} == {"delivered"}
    assert set(ended.services[name].kept) == ended.sent


@pytest.mark.parametrize(("name", "missing"), [("forgets", COUNT), ("throttles", 0)])
def test_asking_a_service_finds_out_what_it_does_not_have(ended: Ended, name: str, missing: int) -> None:
    done = ended.hilum.command("reconcile", "--destination", name, "--verify", check=False)

    assert sum(uid in done.stdout for uid in ended.sent) == missing
    assert (done.returncode == 0) is (missing == 0)
