from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts, build_context, build_role
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import _NON_PATIENT_OBJECT_CLASSES

from hilum.settings import Dicom
from hilum.upper_layer import Pdu
from ingest.dicom.negotiation import (
    APPLICATION_CONTEXT,
    APPLICATION_CONTEXT_NAME,
    CALLED_AET,
    PROTOCOL_VERSION,
    Proposed,
    accept,
    choose,
    is_storage,
    read_request,
    reason_to_reject,
    reject,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
JPEG_2000, RLE, PRIVATE_SYNTAX = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5", "1.2.276.0.1"


COMMITMENT = "1.2.840.10008.1.20.1"


def a_request(
    *contexts: PresentationContext,
    called_aet: str = "HILUM",
    application_context: str = APPLICATION_CONTEXT,
    roles: tuple[SCP_SCU_RoleSelectionNegotiation, ...] = (),
    more: tuple[Any, ...] = (),
) -> bytes:
    """The body of an A-ASSOCIATE-RQ as pynetdicom encodes it."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = application_context
    primitive.calling_ae_title, primitive.called_ae_title = "CT1", called_aet
    for n, context in enumerate(contexts):
        context.context_id = 2 * n + 1
    primitive.presentation_context_definition_list = list(contexts)
    longest = MaximumLengthNotification()
    longest.maximum_length_received = 16382
    primitive.user_information = [longest, *roles, *more]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return pdu.encode()[6:]


def test_a_request_is_read_as_it_was_meant() -> None:
    request = read_request(a_request(build_context(CT, [JPEG_2000, IMPLICIT]), build_context(VERIFICATION, IMPLICIT)))

    assert (request.calling_aet, request.called_aet, request.max_pdu_bytes) == ("CT1", "HILUM", 16382)
    assert request.contexts == (
        Proposed(id=1, abstract_syntax=CT, transfer_syntaxes=(JPEG_2000, IMPLICIT)),
        Proposed(id=3, abstract_syntax=VERIFICATION, transfer_syntaxes=(IMPLICIT,)),
    )


def test_a_garbled_request_is_refused_wherever_it_is_cut() -> None:
    body = a_request(build_context(CT, IMPLICIT))
    whole = read_request(body)

    for length in range(len(body)):
        try:
            assert read_request(body[:length]) != whole
        except ValueError:
            continue


def test_the_answer_is_one_that_others_can_read() -> None:
    request = read_request(
        a_request(build_context(CT, [JPEG_2000]), build_context("1.2.840.10008.5.1.4.1.2.2.1", IMPLICIT), build_context(VERIFICATION, RLE))
    )

    contexts, answer = accept(request, Dicom(max_pdu_bytes=131072))

    pdu = A_ASSOCIATE_AC()
    pdu.decode(answer)
    primitive = pdu.to_primitive()
    assert [(context.context_id, context.result) for context in primitive.presentation_context_definition_results_list] == [
        (1, 0),
        (3, 3),
        (5, 4),
    ]
    assert primitive.maximum_length_received == 131072
    assert {number: context.transfer_syntax for number, context in contexts.items()} == {1: JPEG_2000}


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ((JPEG_2000, EXPLICIT, IMPLICIT), JPEG_2000),
        ((IMPLICIT, EXPLICIT), EXPLICIT),
        ((BIG, IMPLICIT), IMPLICIT),
        ((BIG,), BIG),
        ((EXPLICIT, JPEG_2000), EXPLICIT),
        ((PRIVATE_SYNTAX,), PRIVATE_SYNTAX),
    ],
)
def test_the_senders_first_choice_is_taken_and_among_uncompressed_ones_the_one_with_all_vrs(offered: tuple[str, ...], chosen: str) -> None:
    assert choose(Proposed(id=1, abstract_syntax=CT, transfer_syntaxes=offered)) == (0, chosen)


@pytest.mark.parametrize("offered", [(), ("no uid",)])
def test_a_context_without_a_transfer_syntax_is_refused(offered: tuple[str, ...]) -> None:
    assert choose(Proposed(id=1, abstract_syntax=CT, transfer_syntaxes=offered)) == (4, "")


def test_every_storage_class_that_pynetdicom_knows_is_stored() -> None:
    assert [context.abstract_syntax for context in AllStoragePresentationContexts if not is_storage(str(context.abstract_syntax))] == []


def test_retired_private_and_newer_classes_are_stored() -> None:
    assert UID("1.2.840.10008.5.1.4.1.1.6").is_retired
    nameless = [uid for uid, entry in UID_dictionary.items() if not entry[0]]
    assert "1.2.840.10008.5.1.4.1.1.40" in nameless
    for sop_class in (
        *nameless,
        "1.2.840.10008.5.1.4.1.1.6",
        "1.3.12.2.1107.5.9.1",
        "1.2.840.113619.4.26",
        "1.2.840.10008.5.1.4.1.1.9999.1",
    ):
        assert is_storage(sop_class)


def test_no_other_service_is_taken_for_storage() -> None:
    others = [
        uid
        for uid, entry in UID_dictionary.items()
        if entry[0] and entry[1] in ("SOP Class", "Meta SOP Class") and "Storage" not in entry[0]
    ]
    assert len(others) > 100
    assert [uid for uid in others if is_storage(uid)] == []


@pytest.mark.parametrize(
    "sop_class",
    [
        "1.2.840.10008.1.20.1",
        "1.2.840.10008.5.1.4.1.1.200.3",
        "1.2.840.10008.5.1.4.38.1",
        "1.2.840.10008.1.3.10",
        "1.2.840.10008.77",
        "",
        "CT",
        "1." * 40 + "1",
    ],
)
def test_what_has_no_study_or_is_no_uid_is_not_stored(sop_class: str) -> None:
    assert not is_storage(sop_class)


def test_no_class_without_patients_that_pynetdicom_knows_is_stored() -> None:
    assert len(_NON_PATIENT_OBJECT_CLASSES) > 5
    assert [uid for uid in _NON_PATIENT_OBJECT_CLASSES.values() if is_storage(uid)] == []


def test_another_application_context_is_rejected() -> None:
    request = read_request(a_request(build_context(CT, IMPLICIT), application_context="1.2.3"))

    assert reason_to_reject(request) is APPLICATION_CONTEXT_NAME


def test_another_protocol_version_is_rejected() -> None:
    request = read_request(b"\0\x02" + a_request(build_context(CT, IMPLICIT))[2:])

    assert reason_to_reject(request) is PROTOCOL_VERSION


def test_a_rejection_is_one_that_others_can_read() -> None:
    pdu = A_ASSOCIATE_RJ()
    pdu.decode(reject(CALLED_AET))

    assert (pdu.result_str, pdu.source_str, pdu.reason_str) == (
        "Rejected (Permanent)",
        "DUL service-user",
        "Called AE title not recognised",
    )


# Storage commitment


def a_role(*, scu: bool, scp: bool, sop_class: str = COMMITMENT) -> SCP_SCU_RoleSelectionNegotiation:
    return build_role(sop_class, scu_role=scu, scp_role=scp)


def answered(body: bytes) -> tuple[list[int | None], list[tuple[str, bool, bool]]]:
    """The results of the contexts and the roles in the answer, as pynetdicom reads them."""
    _, answer = accept(read_request(body), Dicom())
    pdu = A_ASSOCIATE_AC()
    pdu.decode(answer)
    primitive = pdu.to_primitive()
    roles = [each for each in primitive.user_information if isinstance(each, SCP_SCU_RoleSelectionNegotiation)]
    results = [context.result for context in primitive.presentation_context_definition_results_list]
    return results, [(str(each.sop_class_uid), bool(each.scu_role), bool(each.scp_role)) for each in roles]


@pytest.mark.parametrize(
    ("offered", "answer"),
    [((IMPLICIT,), (0, IMPLICIT)), ((IMPLICIT, EXPLICIT), (0, EXPLICIT)), ((BIG, IMPLICIT), (0, IMPLICIT)), ((BIG, JPEG_2000), (4, ""))],
)
def test_storage_commitment_is_served_in_little_endian(offered: tuple[str, ...], answer: tuple[int, str]) -> None:
    assert choose(Proposed(id=1, abstract_syntax=COMMITMENT, transfer_syntaxes=offered)) == answer


def test_without_a_proposal_of_roles_none_is_answered() -> None:
    assert answered(a_request(build_context(COMMITMENT, IMPLICIT))) == ([0], [])


@pytest.mark.parametrize("scp", [False, True])
def test_the_peer_may_be_the_scu_of_storage_commitment_and_not_the_scp(scp: bool) -> None:
    assert answered(a_request(build_context(COMMITMENT, IMPLICIT), roles=(a_role(scu=True, scp=scp),))) == (
        [0],
        [(COMMITMENT, True, False)],
    )


def test_a_peer_that_comes_to_report_on_storage_commitment_is_its_scp() -> None:
    body = a_request(build_context(COMMITMENT, IMPLICIT), build_context(CT, IMPLICIT), roles=(a_role(scu=False, scp=True),))

    assert answered(body) == ([0, 0], [(COMMITMENT, False, True)])


def test_the_peer_may_be_the_scu_of_storage_and_not_the_scp() -> None:
    assert answered(a_request(build_context(CT, IMPLICIT), roles=(a_role(scu=True, scp=True, sop_class=CT),))) == ([0], [(CT, True, False)])


def test_a_peer_that_wants_objects_from_us_is_refused() -> None:
    assert answered(a_request(build_context(CT, IMPLICIT), roles=(a_role(scu=False, scp=True, sop_class=CT),))) == ([1], [])


@pytest.mark.parametrize(
    ("preferred", "chosen"),
    [((), JPEG_2000), ((EXPLICIT,), EXPLICIT), ((RLE, IMPLICIT, EXPLICIT), IMPLICIT), ((RLE,), JPEG_2000)],
)
def test_a_transfer_syntax_that_the_site_prefers_comes_before_the_senders_first(preferred: tuple[str, ...], chosen: str) -> None:
    proposed = Proposed(id=1, abstract_syntax=CT, transfer_syntaxes=(JPEG_2000, EXPLICIT, IMPLICIT))

    assert choose(proposed, preferred) == (0, chosen)


def user_information(*more: Any) -> dict[type, Any]:
    """What is answered beside the contexts, by its kind, as pynetdicom reads it."""
    _, answer = accept(read_request(a_request(build_context(CT, IMPLICIT), more=more)), Dicom())
    pdu = A_ASSOCIATE_AC()
    pdu.decode(answer)
    return {type(each): each for each in pdu.to_primitive().user_information}


def test_who_would_have_many_operations_under_way_is_told_one() -> None:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 8

    answer = user_information(window)[AsynchronousOperationsWindowNegotiation]

    assert (answer.maximum_number_operations_invoked, answer.maximum_number_operations_performed) == (1, 1)
    assert AsynchronousOperationsWindowNegotiation not in user_information()


def test_who_asks_how_storage_is_supported_hears_of_full_support_without_coercion() -> None:
    asked = SOPClassExtendedNegotiation()
    asked.sop_class_uid, asked.service_class_application_information = UID(CT), bytes((2, 0, 0, 0, 0, 0))

    answer = user_information(asked)[SOPClassExtendedNegotiation]

    assert (answer.sop_class_uid, answer.service_class_application_information) == (CT, bytes((2, 0, 3, 0, 0, 0)))


def test_a_user_who_identifies_himself_is_served_and_his_name_is_not_kept() -> None:
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.secondary_field = 2, b"DOE", b"secret"

    request = read_request(a_request(build_context(CT, IMPLICIT), more=(identity,)))

    assert request.user_identity == "username and passcode"
    assert "DOE" not in repr(request)
    assert "secret" not in repr(request)
    assert UserIdentityNegotiation not in user_information(identity)


@given(st.lists(st.tuples(st.integers(0x50, 0x5F), st.binary(max_size=20)), max_size=8))
def test_whatever_a_peer_says_of_itself_is_read_or_refused(items: list[tuple[int, bytes]]) -> None:
    body = b"".join(struct.pack(">BxH", kind, len(value)) + value for kind, value in items)
    request = a_request(build_context(CT, IMPLICIT))
    at = request.index(b"\x50\x00", 68)

    read = read_request(request[:at] + struct.pack(">BxH", 0x50, len(body)) + body)

    assert accept(read, Dicom())[1][:1] == bytes([Pdu.ASSOCIATE_AC])
