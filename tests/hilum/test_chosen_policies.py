"""Which policy a command takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hilum.anonymizing import policy_table
from hilum.errors import NotFound
from hilum.policies import Published, choose


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text('options = ["retain-uids"]')
    return tmp_path


def in_force(folder: Path, text: str) -> Published:
    (before := folder / "before").mkdir()
    (before / "mine.toml").write_text(text)
    return Published(tables={"mine": policy_table("mine", before)}, version="abc")


def test_what_is_in_force_is_taken_and_that_the_file_differs_is_said(folder: Path) -> None:
    published = in_force(folder, 'options = ["retain-device-identity"]')

    found = choose("mine", folder, published)

    assert found.table == published.tables["mine"] != policy_table("mine", folder)
    assert found.where == "published in configuration abc"
    assert policy_table("mine", folder)["version"] in found.remark


def test_where_the_file_is_what_is_in_force_nothing_more_is_said(folder: Path) -> None:
    assert not choose("mine", folder, in_force(folder, 'options = ["retain-uids"]')).remark


def test_without_what_is_in_force_the_file_is_taken_and_why_is_said(folder: Path) -> None:
    found = choose("mine", folder, Published(unread="Kafka does not answer."))

    assert (found.table, found.where) == (policy_table("mine", folder), str(folder / "mine.toml"))
    assert "Kafka does not answer." in found.remark
    assert choose("basic", folder, Published()).where == "shipped"


def test_a_policy_that_is_nowhere_is_refused_with_the_nearest(folder: Path) -> None:
    published = in_force(folder, "")

    with pytest.raises(NotFound, match="There is no policy 'mien'") as error:
        choose("mien", folder / "before", published)
    assert error.value.fix == "Did you mean mine?"
