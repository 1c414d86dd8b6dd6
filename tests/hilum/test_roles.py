import pytest
from msgspec.structs import replace

from hilum.errors import Misconfigured
from hilum.roles import find_role, role_doubts, role_names
from hilum.settings import Query, Roles, Sender, Settings


def test_roles_are_found_by_the_modules_that_offer_them() -> None:
    assert {"dicom", "publish", "validate", "route", "ledger", "index", "deliver"} <= set(role_names())


def test_a_sender_that_may_be_asked_wants_the_role_that_asks() -> None:
    settings = Settings(
        roles=Roles(processes=("dicom", "publish", "validate,route,ledger,index", "deliver,commitment")),
        senders={"CT1": Sender(query=Query(host="192.0.2.1", port=104))},
    )

    assert ["No process of roles.processes has the role query" in said for said in role_doubts(settings)] == [True]


def test_messages_for_a_ris_want_the_role_that_enters_them() -> None:
    settings = Settings(
        roles=Roles(processes=("dicom", "publish", "validate,route,ledger,index", "deliver,commitment")),
        destinations={"ris": {"type": "hl7", "host": "192.0.2.1", "port": 2575}},
    )

    assert ["No process of roles.processes has the role notices" in said for said in role_doubts(settings)] == [True]


def test_what_waits_for_an_order_wants_the_roles_that_know_orders() -> None:
    settings = Settings(
        roles=Roles(processes=("dicom", "publish", "validate,route,ledger,index,orders", "deliver,commitment")),
        destinations={"pacs": {"type": "dicom", "require_order": "hold"}, "old": {"type": "dicom"}},
        senders={"CT1": Sender(coerce=("PatientName",))},
    )

    pacs, sender = role_doubts(settings)
    assert pacs.startswith('destinations.pacs.require_order is "hold", and no process of roles.processes has the role match')
    assert sender.startswith("senders.CT1.coerce")
    assert role_doubts(replace(settings, roles=Roles(processes=(*settings.roles.processes, "match")))) == []


def test_an_unknown_role_is_refused_with_the_nearest() -> None:
    with pytest.raises(Misconfigured, match=r"There is no role 'validat'\. Did you mean validate\?"):
        find_role("validat", Settings())


@pytest.mark.parametrize(
    ("processes", "sentences"),
    [
        (Roles().processes, []),
        (("dicom", "dicom", "publish", "validate,route,ledger,index", "validate,route,ledger,index", "deliver", "deliver,commitment"), []),
        ((), ["roles.processes is empty"]),
        (("dicom", "publish,validate,route,ledger,index", "commitment"), ["No process of roles.processes has the role deliver"]),
        (("dicom", "hl7", "publish", "validate,route,ledger,index,orders", "deliver,commitment"), ["has the role match"]),
        (("dicom,publish", "publish", "validate,route,ledger,index,deliver", "commitment"), ["Several processes have the role publish"]),
        (("dicom", "publish", "validate,validate,route,ledger,index,deliver", "commitment"), ["has the role validate twice"]),
        (("dicom", "publish", "validate,route", "route,ledger,index,deliver", "commitment"), ["Different processes have the role route"]),
    ],
)
def test_roles_that_are_missing_or_in_each_others_way_are_said(processes: tuple[str, ...], sentences: list[str]) -> None:
    found = role_doubts(Settings(roles=Roles(processes=processes)))

    assert len(found) == len(sentences)
    assert all(sentence in said for sentence, said in zip(sentences, found, strict=True))
