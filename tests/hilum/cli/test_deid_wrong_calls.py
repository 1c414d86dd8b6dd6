"""What `hilum deid` says of files, folders and policies that are not what the call takes them for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hilum.errors import Misconfigured, NotFound
from tests.hilum.cli.test_deid_command import Site, counted
from tests.hilum.cli.test_deliver_command import error_of


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    assert made.run("keys", "make").exit_code == 0
    return made


def test_a_preview_of_what_is_no_dicom_says_that(site: Site) -> None:
    (site.originals / "notes.txt").write_text("not DICOM")

    for what in (site.originals / "notes.txt", site.originals):
        error = error_of(site.run("preview", what, "-p", "basic"))
        assert isinstance(error, NotFound)
        assert "DICOM" in error.sentence


def test_a_preview_of_a_folder_shows_its_first_dicom_file(site: Site) -> None:
    (site.originals / "a.txt").write_text("not DICOM")
    file = site.put("b")

    assert json.loads(site.run("preview", site.originals, "-p", "basic").stdout)["path"] == str(file)


def test_a_look_without_originals_says_what_it_needs(site: Site) -> None:
    result = site.run("verify", site.originals, "-p", "research")

    assert result.exit_code == 2
    assert "--originals" in result.stderr


def test_a_look_at_what_cannot_be_read_is_no_success(site: Site) -> None:
    file = site.put("a")
    (site.originals / "cut").write_bytes(file.read_bytes()[:140])

    result = site.run("verify", site.originals, "-p", "basic", "--originals", site.originals)

    assert result.exit_code == 1
    assert counted(result)["failed"] == 1


def test_each_command_says_of_an_unknown_policy_that_it_is_not_there(site: Site) -> None:
    file = site.put("a")
    calls = (
        ("preview", file, "-p", "basik"),
        ("run", file, "-p", "basik", "-o", site.out),
        ("verify", file, "-p", "basik", "--originals", site.originals),
        ("policies", "show", "basik"),
    )
    for call in calls:
        error = error_of(site.run(*call, json=call[0] != "policies"))
        assert (type(error), error.fix) == (NotFound, "Did you mean basic?")


@pytest.mark.parametrize(
    ("path", "out"), [("in", "in"), ("in", "in/sub"), ("in", "."), ("in/a", "in"), ("in", "out/../in/x")], ids=lambda each: each
)
def test_originals_and_what_is_made_of_them_are_never_in_one_another(site: Site, path: str, out: str) -> None:
    site.put("a")

    error = error_of(site.run("run", site.folder / path, "-p", "basic", "-o", site.folder / out, "-j", 1))

    assert isinstance(error, Misconfigured)
    assert "--out" in error.sentence
    assert sorted(each.name for each in site.originals.iterdir()) == ["a"]


def test_hidden_files_are_left_out_and_counted(site: Site) -> None:
    site.put("a")
    site.put(".b", SOPInstanceUID="1.2.3.4.5.7")

    result = site.run("run", site.originals, "-p", "basic", "-o", site.out, "-j", 1)

    assert (json.loads(result.stdout)["hidden"], counted(result)) == (1, {"written": 1})
    assert f"Hidden files are left out: 1 in {site.originals}." in result.stderr


def test_counts_have_each_state_that_a_file_can_come_to(site: Site) -> None:
    site.put("a")

    said = json.loads(site.run("run", site.originals, "-p", "basic", "-o", site.out, "-j", 1).stdout)

    assert said["counts"] == {"written": 1} | dict.fromkeys(("there", "replaced", "duplicate", "conflict", "held", "skipped", "failed"), 0)


def test_without_a_key_it_is_said_how_to_name_one_and_to_make_one(site: Site) -> None:
    site.config.write_text("")

    error = error_of(site.run("preview", site.put("a"), "-p", "basic"))

    assert "--key" in error.fix
    assert "deid.key_path" in error.fix
    assert "hilum deid keys make" in error.fix
