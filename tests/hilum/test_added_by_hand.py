"""What a role takes: the configuration in force, and the destinations that were added by hand."""

from __future__ import annotations

from typing import Any

import pytest

from hilum.bundle import Following
from hilum.desired import Desired, Follower, Taking, with_added
from hilum.errors import TryAgain
from hilum.events import ResourceWanted
from hilum.settings import Settings
from hilum.testing import Clock, eventually
from tests.hilum.test_bundle import PACS, Topic, a_bundle

TEST: dict[str, Any] = {"type": "dicom", "host": "192.0.2.9", "port": 104, "aet": "TEST"}


def wanted(**tables: dict[str, Any]) -> Desired:
    """Destinations that were added by hand."""
    return Desired(
        destinations={
            name: ResourceWanted(resource=f"destination/{name}", by="somebody", since=Clock()(), table=table)
            for name, table in tables.items()
        }
    )


def test_the_version_stays_that_of_what_was_applied() -> None:
    settings = Settings(destinations={"pacs": PACS})

    assert with_added(settings, {"test": TEST}).config_version == settings.config_version
    assert with_added(settings, {"test": TEST, "pacs": TEST}).destinations == {"test": TEST, "pacs": PACS}


def test_a_role_that_does_not_know_yet_what_was_added_does_not_begin() -> None:
    with Following(Settings(), "route", Topic()) as following, pytest.raises(TryAgain, match="added by hand is not known"):
        Taking(following, Follower(Settings())).take(lambda _: None)


def test_a_role_hears_of_what_is_added_and_removed_while_it_runs_and_only_then() -> None:
    follower, taken = Follower(Settings()), list[Settings]()
    follower.now = wanted()

    def begun() -> bool:
        try:
            return taking.take(taken.append)
        except TryAgain:
            return False

    with Following(Settings(), "route", Topic(a_bundle(0, pacs=PACS))) as following:
        taking = Taking(following, follower)
        eventually(begun, what="the first configuration")
        assert not taking.take(taken.append)

        follower.now = wanted(test=TEST)
        assert taking.take(taken.append)
        assert not taking.take(taken.append)

        follower.now = wanted()
        assert taking.take(taken.append)

    assert [sorted(settings.destinations) for settings in taken] == [["pacs"], ["pacs", "test"], ["pacs"]]
    assert len({settings.config_version for settings in taken}) == 1
