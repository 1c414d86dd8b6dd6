import pytest

from hilum.errors import Misconfigured, Quarantine, Reason
from hilum.events import InstanceReceived
from hilum.settings import Sender, Settings
from hilum.testing import an_instance
from processors.validate import Validate, role

PRIVATE = "1.3.46.670589.5.0.1"
RETIRED = "1.2.840.10008.5.1.4.1.1.6"
NEWER = "1.2.840.10008.5.1.4.1.1.9999"


def codes(event: InstanceReceived) -> list[str]:
    return [finding.code for finding in Validate({}).handle(event).findings]


def stopped(event: InstanceReceived) -> Quarantine:
    with pytest.raises(Quarantine) as stop:
        Validate({}).handle(event)
    return stop.value


def test_a_sound_instance_is_passed_on_as_it_came() -> None:
    event = an_instance()

    accepted = Validate({}).handle(event)

    assert accepted.instance == event.instance
    assert accepted.findings == ()


def test_what_cannot_be_read_waits() -> None:
    assert stopped(an_instance(unreadable="element 0008,0018 has no VR")).reason is Reason.UNREADABLE


def test_what_ends_too_early_waits() -> None:
    assert stopped(an_instance(truncated="the data set ends 200 bytes too early")).reason is Reason.TRUNCATED


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("value", ["", None])
def test_an_instance_without_an_identifier_waits(keyword: str, value: str | None) -> None:
    stop = stopped(an_instance(**{keyword: value}))

    assert stop.reason is Reason.IDENTIFIER_MISSING
    assert stop.sentence == f"{keyword} is absent or empty."


@pytest.mark.parametrize("value", ["1.2.three", "1..2", "1.2.", "1" * 65, "DOE^JANE"])
def test_an_identifier_that_is_no_uid_waits_and_is_not_in_the_sentence(value: str) -> None:
    stop = stopped(an_instance(StudyInstanceUID=value))

    assert stop.reason is Reason.UID_INVALID
    assert stop.found == value
    assert value not in str(stop)


def test_an_object_of_another_class_than_announced_waits() -> None:
    stop = stopped(an_instance(announced_sop_class_uid="1.2.840.10008.5.1.4.1.1.4"))

    assert stop.reason is Reason.SOP_CLASS_MISMATCH
    assert stop.expected == "1.2.840.10008.5.1.4.1.1.4"


def test_another_object_than_announced_waits() -> None:
    assert stopped(an_instance(announced_sop_instance_uid="2.25.999")).reason is Reason.SOP_INSTANCE_MISMATCH


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ({"SOPClassUID": PRIVATE}, "sop-class-private"),
        ({"SOPClassUID": RETIRED}, "sop-class-retired"),
        ({"SOPClassUID": NEWER}, "sop-class-unknown"),
        ({"SeriesInstanceUID": "1.02.3"}, "uid-leading-zero"),
        ({"PatientID": ""}, "patient-id-empty"),
        ({"PatientID": None}, "patient-id-empty"),
        ({"AccessionNumber": ""}, "accession-number-empty"),
    ],
)
def test_what_a_person_may_want_to_know_is_noted_and_stops_nothing(what: dict[str, str | None], code: str) -> None:
    assert codes(an_instance(**what)) == [code]


def test_a_value_that_the_event_leaves_out_is_not_taken_for_empty() -> None:
    assert codes(an_instance(PatientID=None, header_cut=("00100020",))) == []


def test_a_senders_settings_can_refuse_a_finding() -> None:
    validate = Validate({"CT1": Sender(refuse=("patient-id-empty",))})

    with pytest.raises(Quarantine, match="The settings of its sender refuse that") as stop:
        validate.handle(an_instance(PatientID="", calling_aet="CT1"))

    assert stop.value.reason is Reason.FINDING_REFUSED
    assert validate.handle(an_instance(PatientID="", calling_aet="CT2"))


def test_no_sentence_holds_a_value_of_the_patient() -> None:
    for event in (an_instance(StudyInstanceUID=""), an_instance(truncated="x"), an_instance(announced_sop_instance_uid="2.25.9")):
        assert "Marked" not in str(stopped(event))


def test_a_setting_that_refuses_a_finding_which_does_not_exist_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"senders\.CT1\.refuse names 'patient-id-emty'.*Did you mean patient-id-empty\?"):
        role(Settings(senders={"CT1": Sender(refuse=("patient-id-emty",))}))
