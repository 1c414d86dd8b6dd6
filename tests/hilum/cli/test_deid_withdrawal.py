"""What `hilum deid patients withdraw` shows and takes: what is sure, and of what is not only what a person names."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from hilum.cli.deid_withdrawal import parted, show
from hilum.database.deidentified import Output
from hilum.database.persons import OptOut
from hilum.database.withdrawing import TakeBack
from hilum.errors import NotFound

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def found(n: int, *, sure: bool) -> TakeBack:
    output = Output(
        delivery_id=f"d{n}",
        destination="cohort",
        policy="research",
        policy_version="v",
        key_id="k",
        study_instance_uid=f"1.2.{n}",
        sop_instance_uid=f"1.2.{n}.1",
        sent_study=f"2.25.{n}",
        sent_series=f"2.25.{n}0",
        sent_as=f"2.25.{n}00",
        sent_sha256=None,
        begun_at=NOW,
        sent_at=NOW,
        withdrawn_at=None,
        project="research",
        sent_patient=f"PSEUDONYM{n}",
        state="left",
    )
    return TakeBack(output=output, why="opt-out", by=(OptOut(value="12-345", issuer="NORTH", project="research"),), sure=sure)


SURE, ONE, OTHER = found(1, sure=True), found(2, sure=False), found(3, sure=False)


@pytest.mark.parametrize(("also", "going"), [((), [SURE]), (("PSEUDONYM2",), [SURE, ONE]), (("2.25.3",), [SURE, OTHER])])
def test_of_what_is_in_doubt_only_what_is_named_goes(also: tuple[str, ...], going: list[TakeBack]) -> None:
    assert parted([SURE, ONE, OTHER], also)[0] == going


def test_what_is_named_and_not_in_doubt_is_refused_before_anything_goes() -> None:
    with pytest.raises(NotFound, match="PSEUDONYM9"):
        parted([SURE, ONE, OTHER], ["PSEUDONYM2", "PSEUDONYM9"])


def test_each_object_is_listed_with_the_line_by_which_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    show([SURE], [ONE], done=False, json=False)

    would, _, first, perhaps, _, second, last = capsys.readouterr().out.splitlines()
    assert would == "Would be taken back"
    assert first == "PSEUDONYM1\t2.25.1\t2.25.100\tcohort\tleft\t12-345 of NORTH, research"
    assert "--also PATIENT" in perhaps
    assert second.startswith("PSEUDONYM2\t")
    assert last == "1 would be taken back; do it with --yes."


def test_json_has_both_lists_and_original_uids_in_neither(capsys: pytest.CaptureFixture[str]) -> None:
    show([SURE], [ONE, OTHER], done=True, json=True)

    said = json.loads(capsys.readouterr().out)
    assert (said["count"], said["doubtful"], said["dry_run"]) == (1, 2, False)
    assert [each["sop_instance_uid"] for each in said["objects"] + said["also"]] == ["2.25.100", "2.25.200", "2.25.300"]
    assert said["objects"][0]["by"] == [{"value": "12-345", "issuer": "NORTH", "project": "research"}]
    assert "1.2.1.1" not in str(said)
