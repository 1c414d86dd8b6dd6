"""Profiles on the wire: the test SCP plays what a profile says, and the sink does what it means."""

from __future__ import annotations

import zlib

import pytest
from pydicom.uid import UID

from hilum.association import Association
from hilum.part10 import Part10
from hilum.profiles import Outcome, names, profile
from hilum.settings import Settings
from hilum.sink import Delivery, Later, Outage, Park, Session, sink_of
from hilum.testing import MemoryStore, a_delivery, encoded, eventually
from hilum.upper_layer import Context
from sinks.dicom import Dicom
from tests.misbehaving import EVERY_STATUS, Scp, answers, healthy, scp, words_of

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
PROFILES = [name for name in names() if "dicom" in profile(name).types]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def sink_for(there: Scp, name: str, **more: object) -> Dicom:
    sink = sink_of("pacs", {"type": "dicom", "host": "127.0.0.1", "port": there.port, "aet": "PACS", "profile": name, **more})
    assert isinstance(sink, Dicom)
    return sink


def attempt(session: Session, store: MemoryStore, delivery: Delivery) -> tuple[str, str, str]:
    """What one delivery came to, with the peer's status and words."""
    session.begin([delivery])
    try:
        settled = session.deliver(delivery, Part10(store, delivery.object))
    except (Later, Park) as stop:
        return type(stop).__name__, stop.peer_status, stop.peer_comment
    return settled.state, settled.peer_status, settled.peer_comment


def becomes(outcome: Outcome) -> str:
    return {"permanent": "rejected", "retry": "Later", "person": "Park"}.get(outcome, outcome)


def statuses_of(name: str) -> list[int]:
    """Every status of the standard, and what the profile names beside."""
    return sorted({*EVERY_STATUS, *(int(key, 16) for key in profile(name).dicom.statuses if "xx" not in key and key != "other")})


@pytest.mark.parametrize("name", PROFILES)
def test_each_status_becomes_what_the_profile_says(store: MemoryStore, name: str) -> None:
    statuses = statuses_of(name)
    with scp(answers(*statuses)) as there:
        session = sink_for(there, name).open(Settings())
        found = {status: attempt(session, store, a_delivery(store, SOPInstanceUID=f"2.25.{n}")) for n, status in enumerate(statuses, 10)}
        session.close()

    assert found == {
        status: (becomes(profile(name).outcome(status)), f"0x{status:04X}", words_of(status) if status else "") for status in statuses
    }


@pytest.mark.parametrize("name", [name for name in PROFILES if profile(name).dicom.answers])
def test_a_product_that_gives_its_documented_answers_leaves_nothing_open(store: MemoryStore, name: str) -> None:
    statuses = [int(code, 16) for code in profile(name).fact("dicom", "answers")]
    with scp(answers(*statuses)) as there:
        session = sink_for(there, name).open(Settings())
        found = [attempt(session, store, a_delivery(store, SOPInstanceUID=f"2.25.{n}")) for n in range(10, 10 + len(statuses))]
        session.close()

    # One success; all else is rejected or tried again with the peer's own words.
    assert [state for state, *_ in found].count("delivered") == len(there.kept) == 1
    assert all(words for state, _, words in found if state != "delivered")


def test_a_destinations_own_meaning_of_a_status_wins(store: MemoryStore) -> None:
    with scp(answers(0xC000)) as there:
        session = sink_for(there, "orthanc", statuses={"0xCxxx": "already_there"}).open(Settings())
        found = attempt(session, store, a_delivery(store))
        session.close()

    assert found == ("already_there", "0xC000", "peer says C000")


def test_one_association_too_many_is_an_outage_and_no_attempt(store: MemoryStore) -> None:
    with scp(healthy(), associations=1) as there:
        sink = sink_for(there, "dcm4chee")
        other = Association(sink.peer(Settings()), [Context(abstract_syntax=CT, transfer_syntax=EXPLICIT)])
        session = sink.open(Settings())
        with pytest.raises(Outage, match="too many associations"):
            attempt(session, store, a_delivery(store))
        other.release()
        eventually(lambda: not there._server.active_associations, what="the SCP has room again")
        found = attempt(session, store, a_delivery(store))
        session.close()

    assert found[0] == "delivered"


@pytest.mark.parametrize("name", [name for name in PROFILES if profile(name).dicom.takes])
def test_an_object_goes_out_in_a_syntax_that_is_documented(store: MemoryStore, name: str) -> None:
    takes = profile(name).fact("dicom", "takes")
    with scp(healthy(), contexts=[(CT, uid) for uid in takes]) as there:
        session = sink_for(there, name).open(Settings())
        for n, uid in enumerate(takes, 10):
            data_set = encoded({"Modality": "CT"}, IMPLICIT if uid == IMPLICIT else EXPLICIT)
            delivery = a_delivery(store, SOPInstanceUID=f"2.25.{n}", transfer_syntax_uid=uid, data_set=data_set)
            assert attempt(session, store, delivery)[0] == "delivered"
        session.close()

    assert [used for [used] in there.syntaxes.values()] == takes


@pytest.mark.parametrize("name", [name for name in PROFILES if profile(name).dicom.prefers])
def test_what_must_be_written_anew_is_written_as_the_profile_prefers(store: MemoryStore, name: str) -> None:
    data_set = encoded({"SOPClassUID": CT, "SOPInstanceUID": "2.25.7", "Modality": "CT"})
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflate.compress(data_set) + deflate.flush()
    delivery = a_delivery(store, SOPInstanceUID="2.25.7", transfer_syntax_uid=DEFLATED, data_set=deflated)
    with scp(healthy(), contexts=[(CT, IMPLICIT), (CT, EXPLICIT)]) as there:
        session = sink_for(there, name).open(Settings())
        assert attempt(session, store, delivery)[0] == "delivered"
        session.close()

    assert there.syntaxes == {"2.25.7": profile(name).fact("dicom", "prefers")[:1]}


def test_queries_go_to_the_title_that_is_set_for_them() -> None:
    sink = Dicom(host="pacs.example", port=104, aet="STORE", query_aet="QUERY", query_port=105)

    assert (sink.peer(Settings()).aet, sink.peer(Settings()).port) == ("STORE", 104)
    assert (sink.query_peer(Settings()).aet, sink.query_peer(Settings()).port) == ("QUERY", 105)
    assert Dicom(host="pacs.example", port=104, aet="STORE").query_peer(Settings()).aet == "STORE"


def test_a_check_says_how_the_peer_differs_from_its_profile() -> None:
    with scp(healthy(), contexts=[(CT, EXPLICIT), (CT, IMPLICIT)]) as there:
        found = {
            name: next(step.says for step in sink_for(there, name).check(Settings()) if step.name == "profile")
            for name in ("synapse-pacs", "isite", "merge")
        }

    assert found == {
        "synapse-pacs": f"Synapse PACS: {UID('1.2.840.10008.1.2.4.70').name} is said to be taken, and is not",
        "isite": "IntelliSpace PACS, iSite PACS: its queries have an AE title of their own, and `query_aet` is not set",
        "merge": "Merge PACS: a stub, all values are defaults",
    }
