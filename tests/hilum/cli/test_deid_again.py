"""`hilum deid run` into a folder that has something of earlier runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hilum.cli.test_deid_command import Site, counted


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    assert made.run("keys", "make").exit_code == 0
    return made


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_second_run_leaves_what_is_there_already_and_says_so(site: Site, jobs: int) -> None:
    for n in range(2):
        site.put(f"{n}", SOPInstanceUID=f"1.2.3.4.5.{n}")
    words = ("run", site.originals, "-p", "research", "-o", site.out, "-j", jobs)
    assert site.run(*words).exit_code == 0
    before = {each: each.stat().st_mtime_ns for each in site.out.rglob("*.dcm")}
    site.put("2", SOPInstanceUID="1.2.3.4.5.2")

    result = site.run(*words)
    read = site.run(*words, json=False)

    assert (result.exit_code, read.exit_code) == (0, 0)
    said = json.loads(result.stdout)
    assert counted(result) == {"there": 2, "written": 1}
    assert {Path(each["written"]) for each in said["files"] if each["state"] == "there"} == before.keys()
    assert {each: each.stat().st_mtime_ns for each in before} == before
    assert "3 there already" in read.stdout


def test_other_bytes_under_a_uid_stay_unless_they_are_to_be_replaced(site: Site) -> None:
    site.put("a")
    words = ("run", site.originals, "-p", "research", "-o", site.out, "-j", 1)
    assert site.run(*words).exit_code == 0
    (file,) = site.out.rglob("*.dcm")
    before = file.read_bytes()
    site.put("a", InstanceNumber="77")

    refused = site.run(*words)
    kept = file.read_bytes()
    replaced = site.run(*words, "--replace")

    assert refused.exit_code == 4
    (said,) = json.loads(refused.stdout)["files"]
    assert (said["state"], said["reason"]) == ("conflict", "other-bytes-there")
    assert "--replace" in said["fix"]
    assert kept == before
    assert replaced.exit_code == 0
    assert counted(replaced) == {"replaced": 1}
    assert file.read_bytes() != before


@pytest.mark.parametrize("also", [(), ("--replace",)])
def test_one_instance_uid_is_never_in_two_studies_of_a_folder(site: Site, also: tuple[str, ...]) -> None:
    site.put("a")
    words = ("run", site.originals, "-p", "research", "-o", site.out, "-j", 1, *also)
    assert site.run(*words).exit_code == 0
    site.put("a", StudyInstanceUID="1.2.3.4.99")

    result = site.run(*words)

    assert result.exit_code == 4
    assert counted(result) == {"conflict": 1}
    assert len(list(site.out.rglob("*.dcm"))) == 1
