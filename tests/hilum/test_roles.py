import pytest

from hilum.errors import Misconfigured
from hilum.roles import find_role, role_names
from hilum.settings import Settings


def test_roles_are_found_by_the_modules_that_offer_them() -> None:
    assert {"dicom", "publish", "validate", "route", "ledger", "index", "deliver"} <= set(role_names())


def test_an_unknown_role_is_refused_with_the_nearest() -> None:
    with pytest.raises(Misconfigured, match=r"There is no role 'validat'\. Did you mean validate\?"):
        find_role("validat", Settings())
