"""Whatever is wrong with an object, a key or a policy, nothing is made: as files and as deliveries, with a reason and a fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hilum.anonymizing import NotAnonymized
from hilum.cli import app
from hilum.errors import HilumError, Misconfigured
from processors.anonymize.delivering import Outgoing, table_of
from tests.processors.anonymize.objects import a_file, read
from tests.wrong_objects import SECRET, WRONG_OBJECTS, WRONG_SETUPS, WrongObject, WrongSetup, said_of, set_up


def title_of(wrong: WrongObject | WrongSetup) -> str:
    return wrong.title


def run(folder: Path, policy: str = "", key: str = "right") -> Result:
    """`hilum deid run` over the folder `in`, as a machine with this policy and key."""
    deid = set_up(folder, policy, key)
    config = folder / "hilum.toml"
    config.write_text(f'[deid]\nkey_path = "{deid.key_path}"\npolicies = "{deid.policies}"\n', encoding="utf-8")
    words = ["deid", "run", str(folder / "in"), "--policy", "site", "--out", str(folder / "out"), "--jobs", "1", "--json"]
    return CliRunner().invoke(app, [*words, "--config", str(config)])


def files(folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if each.is_file()]


@pytest.mark.parametrize("wrong", WRONG_OBJECTS, ids=title_of)
def test_a_delivery_is_not_made(wrong: WrongObject, tmp_path: Path) -> None:
    deid = set_up(tmp_path, wrong.policy)
    outgoing = Outgoing.of(table_of("site", deid.folder), deid)

    with pytest.raises(NotAnonymized) as stop:
        outgoing.made(wrong.original(), survivor_of=lambda _ids: None)

    assert stop.value.reason == wrong.reason
    assert stop.value.sentence.endswith("It was not sent.")
    assert stop.value.fix.endswith((".", "list", "ocr"))
    assert SECRET.casefold() not in f"{stop.value} {stop.value.fix} {stop.value.place}".casefold()
    assert stop.value.__cause__ is None


@pytest.mark.parametrize("wrong", WRONG_OBJECTS, ids=title_of)
def test_no_file_is_written(wrong: WrongObject, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "wrong.dcm").write_bytes(wrong.original())
    is_dicom = wrong.original()[128:132] == b"DICM"  # what is none at all may lie among files

    result = run(tmp_path, wrong.policy)

    (said,) = json.loads(result.stdout)["files"]
    assert (said["state"], said.get("reason", "")) == (("held", wrong.reason) if is_dicom else ("skipped", ""))
    assert not is_dicom or (said["says"] and said["fix"])
    assert SECRET.casefold() not in result.output.casefold()
    assert result.exit_code == (4 if is_dicom else 3)
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize("wrong", WRONG_SETUPS, ids=title_of)
def test_with_a_wrong_key_or_policy_nothing_begins(wrong: WrongSetup, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.dcm").write_bytes(a_file([(0x00100020, "LO", b"P1")]))

    result = run(tmp_path, wrong.policy, wrong.key)

    assert isinstance(result.exception, HilumError)
    assert vars(result.exception)["reason"] == wrong.reason
    assert result.exception.fix
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", WRONG_SETUPS, ids=title_of)
def test_with_a_wrong_key_or_policy_a_destination_does_not_begin(wrong: WrongSetup) -> None:
    said = said_of(wrong)

    assert said.reason == wrong.reason
    assert said.fix


@pytest.mark.parametrize("spoil", ["missing", "open"])
def test_a_key_that_is_spoilt_later_stops_a_destination(spoil: str, tmp_path: Path) -> None:
    deid = set_up(tmp_path)
    outgoing = Outgoing.of(table_of("site", deid.folder), deid)
    assert deid.key_file is not None
    deid.key_file.chmod(0o644) if spoil == "open" else deid.key_file.unlink()

    with pytest.raises(Misconfigured) as stop:
        outgoing.current()

    assert stop.value.reason == f"key-{spoil}"


@pytest.mark.parametrize("value", [b"29.02.2024", b"20240230", SECRET.encode(), b"2024-02-29"])
def test_a_wrong_date_is_kept_out_where_dates_go(value: bytes, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.dcm").write_bytes(a_file([(0x00080020, "DA", value), (0x00080022, "DA", value), (0x00100020, "LO", b"P1")]))

    result = run(tmp_path)

    (out,) = files(tmp_path / "out")
    assert result.exit_code == 0
    assert value not in out.read_bytes()
    assert read(out.read_bytes()).StudyDate == ""
