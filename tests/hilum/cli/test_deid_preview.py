"""`hilum deid preview FILE`: what it prints, and its page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hilum.errors import HilumError
from tests.hilum.cli.test_deid_command import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    assert made.run("keys", "make").exit_code == 0
    return made


def test_a_preview_shows_each_element_and_writes_a_page_for_the_owner_alone(site: Site) -> None:
    file = site.put("a", StudyDescription="<b>Thorax</b>")
    page = site.folder / "page.html"

    result = site.run("preview", file, "--policy", "research", "--html", page)

    actions = {each["keyword"]: each for each in json.loads(result.stdout)["actions"]}
    assert result.exit_code == 0
    assert actions["PatientName"]["before"] == "Vandermeulen^Josefine"
    assert "Vandermeulen" not in actions["PatientName"]["after"]
    assert page.stat().st_mode & 0o777 == 0o600
    assert "Vandermeulen^Josefine" in page.read_text()
    assert "<b>Thorax" not in page.read_text()


def test_the_page_shows_pictures_and_how_a_mask_begins(site: Site) -> None:
    file = site.put("a", Manufacturer="Acme")
    page = site.folder / "page.html"

    shown = site.run("preview", file, "--policy", "basic", "--html", page, json=False)
    missing = site.run("preview", file, "--policy", "basic", "--html", site.folder / "none.html", "--frame", 2)
    nowhere = site.run("preview", file, "--policy", "basic", "--html", site.folder / "gone" / "page.html")

    assert isinstance(nowhere.exception, HilumError)
    assert page.read_text().count("data:image/png;base64,") == 2
    assert 'manufacturer = "ACME"' in page.read_text()
    assert 'manufacturer = "ACME"' in shown.stdout
    assert "There is no frame 2" in str(missing.exception)
    assert not (site.folder / "none.html").exists()


def test_a_preview_ends_with_what_goes_and_stays(site: Site) -> None:
    shown = site.run("preview", site.put("a", StudyDescription="Thorax"), "--policy", "research", json=False)

    *_, elements, kinds, masks = shown.stdout.splitlines()
    assert re.fullmatch(r"Elements: \d+ removed, \d+ emptied, \d+ replaced, \d+ changed, \d+ kept\.", elements)
    assert kinds.startswith("Risky kinds: ")
    assert masks == "No mask of the policy is for images like this one: nothing is painted over."


def test_a_preview_of_what_would_be_held_says_why(site: Site) -> None:
    result = site.run("preview", site.put("a", BurnedInAnnotation="YES"), "--policy", "basic")

    assert result.exit_code == 4
    assert json.loads(result.stdout)["held"]["reason"]
