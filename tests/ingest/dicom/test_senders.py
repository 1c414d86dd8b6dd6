"""Who may send: the settings' rules, and the exceptions made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hilum.errors import Misconfigured
from hilum.senders import Exceptions
from hilum.settings import Dicom, Sender, Settings, Title, load
from ingest.dicom.negotiation import BLOCKED, CALLED_AET, CALLING_AET, WRONG_ADDRESS, WRONG_TITLE, Rejection, Request
from ingest.dicom.senders import Senders


def request(calling: str = "CT1", called: str = "HILUM") -> Request:
    return Request(
        called_aet=called,
        calling_aet=calling,
        contexts=(),
        application_context="",
        protocol_version=1,
        max_pdu_bytes=0,
        titles=b"",
    )


def verdict(path: Path, peer: str = "192.0.2.7", *, calling: str = "CT1", called: str = "HILUM", **settings: Any) -> Rejection | None:
    return Senders(Settings(data=str(path), **settings)).reason_to_reject(request(calling, called), peer)


def test_anybody_may_call_by_any_title_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    assert verdict(tmp_path, called="OTHER") is None
    assert verdict(tmp_path, called="OTHER", dicom=Dicom(any_called_aet=False)) is CALLED_AET
    assert verdict(tmp_path, called="OTHER", dicom=Dicom(any_called_aet=False, aet="OTHER")) is None


def test_a_further_title_may_be_called_and_has_its_own_rule_for_unknown_senders(tmp_path: Path) -> None:
    dicom = Dicom(any_called_aet=False, titles={"RESEARCH": Title(unknown_senders="refuse")})

    assert verdict(tmp_path, dicom=dicom) is None
    assert verdict(tmp_path, called="RESEARCH", dicom=dicom) is CALLING_AET
    assert verdict(tmp_path, called="RESEARCH", dicom=dicom, senders={"CT1": Sender()}) is None


def test_unknown_senders_are_refused_where_the_settings_say_so(tmp_path: Path) -> None:
    dicom = Dicom(unknown_senders="refuse")

    assert verdict(tmp_path, dicom=dicom) is CALLING_AET
    assert verdict(tmp_path, dicom=dicom, senders={"CT1": Sender()}) is None


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("192.0.2.7", None),
        ("::ffff:192.0.2.7", None),
        ("198.51.100.1", WRONG_ADDRESS),
        ("2001:db8::1", None),
        ("fe80::1%eth0", WRONG_ADDRESS),
    ],
)
def test_a_sender_with_addresses_calls_from_these_only(tmp_path: Path, peer: str, expected: Rejection | None) -> None:
    senders = {"CT1": Sender(addresses=("192.0.2.0/24", "2001:db8::/32"))}

    assert verdict(tmp_path, peer, senders=senders) is expected


def test_a_sender_may_be_held_to_a_title(tmp_path: Path) -> None:
    senders = {"CT1": Sender(called=("RESEARCH",))}

    assert verdict(tmp_path, senders=senders) is WRONG_TITLE
    assert verdict(tmp_path, called="RESEARCH", senders=senders) is None


def test_blocked_by_hand_is_blocked_whatever_the_settings_say(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), senders={"CT1": Sender()})
    senders = Senders(settings)
    assert senders.reason_to_reject(request(), "192.0.2.7") is None

    Exceptions.of(settings).put("CT1", blocked=True)
    assert senders.reason_to_reject(request(), "192.0.2.7") is BLOCKED

    Exceptions.of(settings).forget("CT1")
    assert senders.reason_to_reject(request(), "192.0.2.7") is None


def test_allowed_by_hand_is_served_from_where_it_was_said(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), dicom=Dicom(unknown_senders="refuse"))
    senders = Senders(settings)
    Exceptions.of(settings).put("CT1", blocked=False, addresses=("192.0.2.0/24",))

    assert senders.reason_to_reject(request(), "192.0.2.7") is None
    assert senders.reason_to_reject(request(), "198.51.100.1") is WRONG_ADDRESS
    assert senders.reason_to_reject(request(calling="CT2"), "192.0.2.7") is CALLING_AET


def test_a_file_of_exceptions_that_is_garbled_leaves_what_was_known(tmp_path: Path) -> None:
    exceptions = Exceptions(tmp_path / "senders.json")
    exceptions.put("CT1", blocked=True)
    assert exceptions.of_sender("CT1") is not None

    (tmp_path / "senders.json").write_text("{")

    assert exceptions.of_sender("CT1") is not None
    with pytest.raises(Misconfigured, match="cannot be changed"):
        exceptions.put("CT2", blocked=True)


def test_the_narrowest_limit_holds(tmp_path: Path) -> None:
    settings = Settings(
        data=str(tmp_path),
        dicom=Dicom(max_object_bytes=1000, titles={"SMALL": Title(max_object_bytes=10)}),
        senders={"CT1": Sender(max_object_bytes=100, max_objects_per_s=2.5), "CT2": Sender()},
    )
    terms = Senders(settings).terms

    assert [terms(calling, called).max_object_bytes for calling, called in (("CT1", "HILUM"), ("CT1", "SMALL"), ("CT2", "HILUM"))] == [
        100,
        10,
        1000,
    ]
    assert (terms("CT1", "HILUM").max_objects_per_s, terms("CT2", "HILUM").max_objects_per_s) == (2.5, 0.0)


def test_an_address_that_is_none_is_refused_with_its_setting(tmp_path: Path) -> None:
    file = tmp_path / "hilum.toml"
    file.write_text('[senders.CT1]\naddresses = ["192.0.2.300"]\n')

    with pytest.raises(Misconfigured, match=r"senders\.CT1\.addresses: '192\.0\.2\.300' is no address and no network"):
        load(file)
