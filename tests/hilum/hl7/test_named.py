from __future__ import annotations

from hilum.hl7.message import parse
from hilum.hl7.named import Document, document_of, named

MDM = parse(
    "MSH|^~\\&|DICTATION|NORTH|HILUM|NORTH|202611261000||MDM^T02|D1|P|2.5.1\r"
    "PID|||4711^^^NORTH~SV-1^^^INSURANCE||Meier^Anna\r"
    "ORC|RE|P1^HIS|F1^RIS\r"
    "OBR|1|P1^HIS|F1^RIS|CTH^CT head||||||||||||||A1\r"
    "TXA|1|DI|TX|202611261000||||||||DOC-1||P1^HIS~P2^HIS|F2^RIS||AU\r"
    "OBX|1|TX|||Nothing to be seen.\r"
)


def test_a_document_names_its_patients_and_orders_wherever_they_stand() -> None:
    found = named(MDM)

    assert found.patient_ids == ("4711", "SV-1")
    assert found.order_numbers == ("P1", "F1", "A1", "P2", "F2")


def test_a_merge_names_both_patients() -> None:
    text = "MSH|^~\\&|ADT||||||ADT^A40|1|P|2.5\rPID|||NEW^^^NORTH\rMRG|OLD^^^NORTH\r"

    assert named(parse(text)).patient_ids == ("NEW", "OLD")


def test_what_is_deleted_empty_or_endless_names_nobody() -> None:
    text = f'MSH|^~\\&|||||||ORM^O01|1|P|2.5\rPID|||""~^^^NORTH~{"9" * 401}\rORC|NW|""\r'

    assert named(parse(text)) == named(parse("MSH|^~\\&|||||||ACK|1|P|2.5\r"))


def test_a_document_says_what_it_is() -> None:
    assert document_of(MDM) == Document(kind="DI", number="DOC-1", status="AU")
