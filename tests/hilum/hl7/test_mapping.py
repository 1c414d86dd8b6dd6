from __future__ import annotations

import pytest

from hilum.errors import Misconfigured
from hilum.hl7.extract import Defaults
from hilum.hl7.facts import Mapped
from hilum.hl7.fieldmaps import fieldmap, names, over, read
from hilum.hl7.mapping import map_message
from hilum.hl7.message import parse
from hilum.order_events import Code, Identifier

OMI = """
MSH|^~\\&|RIS|NORTH|HILUM|NORTH|20261126101500||OMI^O23^OMI_O23|C1|P|2.5.1
PID|||4711^^^NORTH^MR~99^^^NAT^NI||Meier^Anna||19700203|F
PV1||I|WARD1^12^A
ORC|NW|PL1^HIS|FI1^RIS
TQ1|||||||20261126143000+0000||R
OBR|1|PL1^HIS|FI1^RIS|CTH^CT head^L
IPC|A1^RIS|RP1|1.2.3|S1|CT|CTHP^Head^L|CT-1|ROOM1|CT01~CT02
IPC|A1^RIS|RP1|1.2.3|S2|CT|CTHC^Contrast^L|CT-1|ROOM1|CT01
ORC|NW|PL2^HIS|FI2^RIS
OBR|2|PL2^HIS|FI2^RIS|MRH^MR head^L
IPC|A2^RIS|RP2|1.2.4|S3|MR
"""


def mapped(text: str, profile: str = "hl7", defaults: Defaults | None = None) -> Mapped:
    return map_message(parse(text.strip().replace("\n", "\r")), fieldmap(profile), defaults or Defaults())


def test_each_ipc_is_a_step_and_each_orc_an_order() -> None:
    orders = mapped(OMI).orders

    assert [(order.placer and order.placer.value, [s.key for p in order.procedures for s in p.steps]) for order in orders] == [
        ("PL1", ["S1", "S2"]),
        ("PL2", ["S3"]),
    ]
    first = orders[0].procedures[0]
    assert first.facts["study_instance_uid"] == "1.2.3"
    assert first.steps[0].facts["station_ae_titles"] == ("CT01", "CT02")
    assert first.steps[0].facts["protocols"] == (Code(value="CTHP", meaning="Head", scheme="L"),)
    assert orders[0].accession == Identifier(value="A1", issuer="RIS")


def test_orm_has_a_step_for_each_pair_of_orc_and_obr_and_one_study_uid_for_all() -> None:
    text = "MSH|^~\\&|RIS||||20261126||ORM^O01|C|P|2.3.1\nPID|||4711\n"
    for step in ("S1", "S2"):
        text += f"ORC|NW|PL1|FI1\nOBR|1|PL1|FI1|A^a^L^B^b^L||||||||||||||A1|RP1|{step}||||CT\n"
    orders = mapped(text + "ZDS|1.2.3^RIS^Application^DICOM", "ihe-swf").orders

    assert len(orders) == 1
    assert [step.key for step in orders[0].procedures[0].steps] == ["S1", "S2"]
    assert orders[0].procedures[0].facts["study_instance_uid"] == "1.2.3"
    assert orders[0].procedures[0].steps[0].facts["protocols"] == (Code(value="B", meaning="b", scheme="L"),)


def test_ihe_has_what_was_ordered_in_obr_4_and_the_requested_procedure_in_obr_44() -> None:
    order = "MSH|^~\\&|RIS||||20261126||ORM^O01|C|P|2.3.1\nPID|||4711\nORC|NW|PL1|FI1\nOBR|1|PL1|FI1|A^a^L^B^b^L"
    ordered = mapped(order, "ihe-swf").orders[0].procedures[0].facts
    requested = mapped(f"{order}{'|' * 40}R^r^L", "ihe-swf").orders[0].procedures[0].facts

    assert (ordered["codes"], ordered["description"]) == ((Code(value="A", meaning="a", scheme="L"),), "a")
    assert (requested["codes"], requested["description"]) == ((Code(value="R", meaning="r", scheme="L"),), "r")


@pytest.mark.parametrize(("said", "means"), [("S", "STAT"), ("A", "HIGH"), ("R", "ROUTINE"), ("P", "HIGH"), ("C", "HIGH"), ("T", "MEDIUM")])
def test_priorities_are_those_of_ihe(said: str, means: str) -> None:
    text = f"MSH|^~\\&|RIS||||20261126||ORM^O01|C|P|2.3.1\nPID|||4711\nORC|NW|PL1|FI1||||^^^^^{said}\nOBR|1|PL1|FI1|A^a^L"

    assert mapped(text).orders[0].procedures[0].facts["priority"] == means


def test_an_empty_field_is_not_there_and_two_quotes_delete() -> None:
    facts = mapped('MSH|^~\\&|A||||20261126||ADT^A08|C|P|2.5\nPID|||4711||""||').patients[0].facts

    assert facts == {"name": None}


@pytest.mark.parametrize(
    ("control", "status", "change", "means"),
    [
        ("NW", "", "new", "scheduled"),
        ("XO", "", "changed", ""),
        ("CA", "CA", "cancelled", "cancelled"),
        ("DC", "", "discontinued", "discontinued"),
        ("SC", "IP", "status", "in-progress"),
        ("SC", "CM", "status", "completed"),
        ("HD", "", "on-hold", "on-hold"),
    ],
)
def test_control_and_status_say_what_becomes_of_the_order(control: str, status: str, change: str, means: str) -> None:
    order = mapped(f"MSH|^~\\&|R||||20261126||ORM^O01|C|P|2.3\nPID|||1\nORC|{control}|P1|||{status}\nOBR|1|P1").orders[0]

    assert (order.change, order.status) == (change, means)


def test_a_control_code_that_nobody_knows_is_a_change_and_noted() -> None:
    found = mapped("MSH|^~\\&|R||||20261126||ORM^O01|C|P|2.3\nPID|||1\nORC|ZZ|P1\nOBR|1|P1")

    assert found.orders[0].change == "changed"
    assert [note.code for note in found.notes] == ["order-control-unknown"]


def test_a_merge_names_who_is_no_more_and_who_stays_by_issuer() -> None:
    found = mapped("MSH|^~\\&|A||||20261126||ADT^A40|C|P|2.5\nPID|||X^^^SOUTH~N^^^NORTH\nMRG|O^^^NORTH")

    assert [(merge.prior.value, merge.surviving.value) for merge in found.merges] == [("O", "N")]


def test_several_merges_in_one_message_are_all_taken() -> None:
    found = mapped("MSH|^~\\&|A||||20261126||ADT^A40|C|P|2.5\nPID|||N1\nMRG|O1\nPID|||N2\nMRG|O2")

    assert [(merge.prior.value, merge.surviving.value) for merge in found.merges] == [("O1", "N1"), ("O2", "N2")]


@pytest.mark.parametrize("message", ["MDM^T02", "ADT^A60", "ZPA^I05", "ACK"])
def test_other_messages_mean_nothing_for_orders(message: str) -> None:
    assert mapped(f"MSH|^~\\&|A||||20261126||{message}|C|P|2.5\nPID|||1").kind == "other"


def test_an_order_without_any_number_is_noted_and_not_taken() -> None:
    found = mapped("MSH|^~\\&|R||||20261126||ORM^O01|C|P|2.3\nPID|||1\nORC|NW\nOBR|1")

    assert found.orders == ()
    assert [note.code for note in found.notes] == ["order-number-missing"]


def test_values_that_do_not_fit_their_attribute_are_left_out_and_noted() -> None:
    found = mapped(
        "MSH|^~\\&|R||||20261126||ORM^O01|C|P|2.3\nPID|||1||||never|Q\n"
        "ORC|NW|P1\nOBR|1|P1||||||||||||||||||||||C/T\nZDS|1.2.x\nIPC|||||||||A\\E\\B"
    )

    assert {note.code for note in found.notes} >= {
        "time-invalid",
        "sex-unknown",
        "modality-invalid",
        "study-uid-invalid",
        "ae-title-invalid",
    }
    assert "study_instance_uid" not in found.orders[0].procedures[0].facts


def test_every_profile_can_be_read_and_says_on_what_ground_it_is() -> None:
    assert names()[0] == "hl7"
    assert all(fieldmap(name).title and fieldmap(name).says for name in names())
    assert all(fieldmap(name).source for name in names() if fieldmap(name).basis != "default")


def test_a_profile_names_only_what_differs() -> None:
    own = read('title = "t"\nsays = "s"\nbasis = "default"\n[step]\nmodality = ["OBR-21"]', "mine")
    whole = over(own, fieldmap("hl7"))

    assert whole.step["modality"] == ("OBR-21",)
    assert whole.step["start"] == fieldmap("hl7").step["start"]


@pytest.mark.parametrize(
    ("line", "fix"),
    [('[step]\nmodalit = ["OBR-24"]', "Did you mean modality?"), ('[step]\nmodality = ["OBR24"]', "Correct the file.")],
)
def test_a_profile_with_a_mistake_is_refused_in_words(line: str, fix: str) -> None:
    with pytest.raises(Misconfigured) as stop:
        read(f'title = "t"\nsays = "s"\nbasis = "default"\n{line}', "mine")

    assert stop.value.fix == fix


def test_an_unknown_profile_is_refused_with_the_nearest() -> None:
    with pytest.raises(Misconfigured) as stop:
        fieldmap("sectr")

    assert stop.value.fix == "Did you mean sectra?"
