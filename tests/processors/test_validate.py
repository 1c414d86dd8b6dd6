from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw
from pydicom.uid import UID

from hilum.errors import Misconfigured, Quarantine, Reason
from hilum.events import InstanceAccepted, InstanceReceived
from hilum.settings import Sender
from hilum.testing import an_instance
from processors.validate import FINDINGS, Validate

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"


def validated(senders: dict[str, Sender] | None = None, **instance: Any) -> InstanceAccepted:
    return Validate(senders or {}).handle(an_instance(**instance))


def stopped(senders: dict[str, Sender] | None = None, **instance: Any) -> Quarantine:
    """Why the instance waits for a person."""
    with pytest.raises(Quarantine) as stop:
        validated(senders, **instance)
    return stop.value


def codes(**instance: Any) -> list[str]:
    return [finding.code for finding in validated(**instance).findings]


def test_a_sound_instance_passes_unchanged_and_without_findings() -> None:
    event = an_instance()

    accepted = Validate({}).handle(event)

    assert accepted.instance == event.instance
    assert accepted.findings == ()


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("value", ["", None])
def test_an_instance_without_one_of_its_uids_waits_for_a_person(keyword: str, value: str | None) -> None:
    stop = stopped(None, **{keyword: value})

    assert stop.reason is Reason.IDENTIFIER_MISSING
    assert stop.sentence == f"{keyword} is absent or empty."


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("value", ["1.2.abc", "1..2", "1." * 40 + "1", ".1", "1.", "DOE^JANE"])
def test_a_uid_that_no_system_can_use_waits_for_a_person_and_is_not_in_the_text(keyword: str, value: str) -> None:
    stop = stopped(None, **{keyword: value})

    assert stop.reason is Reason.UID_INVALID
    assert stop.found == value
    assert value not in str(stop)


def test_two_uids_where_one_belongs_wait_for_a_person() -> None:
    event = an_instance()
    header = event.instance.header.json | {"0020000D": {"vr": "UI", "Value": ["2.25.1", "2.25.2"]}}
    two = InstanceReceived(instance=msgspec.structs.replace(event.instance, header_json=Raw(msgspec.json.encode(header))))

    with pytest.raises(Quarantine) as stop:
        Validate({}).handle(two)
    assert stop.value.reason is Reason.UID_INVALID


def test_a_uid_too_long_even_for_the_header_waits_for_a_person() -> None:
    assert stopped(StudyInstanceUID=None, header_cut=("0020000D",)).reason is Reason.UID_INVALID


def test_an_unreadable_object_waits_for_a_person_whatever_else_is_wrong() -> None:
    stop = stopped(unreadable="There is no data set.", StudyInstanceUID="")

    assert stop.reason is Reason.UNREADABLE
    assert stop.sentence == "The data set cannot be read: There is no data set."


def test_an_object_that_is_cut_short_waits_for_a_person_though_it_has_its_uids() -> None:
    assert stopped(truncated="The data set ends 3 bytes before the end of element (7FE0,0010).").reason is Reason.TRUNCATED


def test_an_object_that_was_announced_as_it_is_passes() -> None:
    assert codes(announced_sop_class_uid=CT, announced_sop_instance_uid="2.25.3") == []


@pytest.mark.parametrize(
    ("announced", "reason", "found", "expected"),
    [
        ({"announced_sop_class_uid": MR}, Reason.SOP_CLASS_MISMATCH, CT, MR),
        ({"announced_sop_instance_uid": "2.25.4"}, Reason.SOP_INSTANCE_MISMATCH, "2.25.3", "2.25.4"),
        ({"announced_sop_class_uid": CT, "SOPClassUID": ""}, Reason.SOP_CLASS_MISMATCH, "", CT),
    ],
)
def test_another_object_than_announced_waits_for_a_person(announced: dict[str, str], reason: Reason, found: str, expected: str) -> None:
    stop = stopped(None, **announced)

    assert (stop.reason, stop.found, stop.expected) == (reason, found, expected)


@pytest.mark.parametrize(
    ("instance", "code"),
    [
        ({"SOPClassUID": "1.3.12.2.1107.5.9.1"}, "sop-class-private"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6"}, "sop-class-retired"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.9999"}, "sop-class-unknown"),
        ({"SOPClassUID": "1.2.840.10008.1.2"}, "sop-class-unknown"),
        ({"StudyInstanceUID": "1.2.03"}, "uid-leading-zero"),
        ({"SOPInstanceUID": "1.02.3"}, "uid-leading-zero"),
        ({"PatientID": ""}, "patient-id-empty"),
        ({"PatientID": None}, "patient-id-empty"),
        ({"AccessionNumber": ""}, "accession-number-empty"),
        ({"encoded_as": "1.2.840.10008.1.2"}, "encoding-differs"),
        ({"PatientIdentityRemoved": "YES", "DeidentificationMethod": ["PS3.15", "Hilum policy research"]}, "deidentified-by-hilum"),
    ],
)
def test_what_is_merely_odd_is_a_finding_and_passes(instance: dict[str, Any], code: str) -> None:
    assert codes(**instance) == [code]


def test_what_another_system_de_identified_is_not_said_to_be_ours() -> None:
    assert codes(PatientIdentityRemoved="YES", DeidentificationMethod="Another system") == []


def test_retired_is_what_the_standard_says() -> None:
    assert UID("1.2.840.10008.5.1.4.1.1.6").is_retired


def test_a_zero_by_itself_is_no_leading_zero() -> None:
    assert codes(StudyInstanceUID="1.0.3") == []


def test_several_findings_ride_along_together() -> None:
    assert codes(PatientID="", AccessionNumber="") == ["patient-id-empty", "accession-number-empty"]


def test_an_identifier_too_long_for_the_header_is_not_taken_for_empty() -> None:
    assert codes(PatientID=None, header_cut=("00100020",)) == []


def test_a_finding_that_the_senders_settings_refuse_waits_for_a_person() -> None:
    senders = {"CT1": Sender(refuse=("patient-id-empty",))}

    stop = stopped(senders, PatientID="")

    assert (stop.reason, stop.found) == (Reason.FINDING_REFUSED, "patient-id-empty")
    assert validated(senders, PatientID="", calling_aet="CT2").findings
    assert validated(senders, AccessionNumber="").findings


def test_a_setting_that_refuses_what_is_no_finding_is_refused_with_the_nearest() -> None:
    with pytest.raises(Misconfigured, match=r"senders\.CT1\.refuse names 'patient-id-emty'.*Did you mean patient-id-empty\?"):
        Validate({"CT1": Sender(refuse=("patient-id-emty",))})


def test_every_finding_has_a_sentence_and_each_can_be_found() -> None:
    assert all(sentence.endswith(".") for sentence in FINDINGS.values())
    assert set(FINDINGS) == {
        "sop-class-private",
        "sop-class-retired",
        "sop-class-unknown",
        "uid-leading-zero",
        "encoding-differs",
        "patient-id-empty",
        "accession-number-empty",
        "deidentified-by-hilum",
    }


def test_no_value_of_the_object_is_in_the_text_of_a_stop() -> None:
    marked = "MARKED^PATIENT"
    stops = [
        stopped(StudyInstanceUID=marked),
        stopped(SOPInstanceUID=marked, announced_sop_instance_uid="2.25.3"),
        stopped({"CT1": Sender(refuse=("accession-number-empty",))}, AccessionNumber="", PatientID=marked),
    ]

    assert all(marked not in f"{stop} {stop.sentence} {stop.fix}" for stop in stops)
