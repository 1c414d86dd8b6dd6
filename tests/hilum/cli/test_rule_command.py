from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from hilum.cli import app
from hilum.cli.rules import _show_history
from hilum.errors import Misconfigured, NotFound
from hilum.roles import find_stage

RULES = """
[destinations.pacs]
type = "archive"
[[rules]]
name = "thin-ct"
when = 'Modality == "CT" and SliceThickness <= 1.5'
to = ["pacs"]
priority = 3
[[rules.tests]]
matches = true
header = { Modality = "CT", SliceThickness = 1 }
[[rules.tests]]
matches = false
header = { Modality = "CT", SliceThickness = 5 }
[[rules]]
name = "from-ct1"
when = 'calling_aet == "CT1"'
to = ["pacs"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "rules.toml").write_text(RULES)
    return tmp_path / "config"


def ran(*arguments: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"], env={"HILUM_DATA": "/nowhere/hilum"})
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.stdout
    return json.loads(done.stdout)


def test_rules_of_files_are_listed_in_their_order(folder: Path) -> None:
    assert [rule["name"] for rule in ran("rule", "list", "-f", folder)["rules"]] == ["thin-ct", "from-ct1"]


def test_where_no_hilum_runs_the_rules_are_those_of_the_settings_file(folder: Path) -> None:
    found = ran("rule", "list", "--config", folder / "rules.toml")

    assert (found["source"], len(found["rules"])) == ("the settings file", 2)


def test_a_rules_own_tests_are_tried(folder: Path) -> None:
    assert [test["ok"] for test in ran("rule", "test", folder)["tests"]] == [True, True]


def test_a_test_that_fails_is_shown_and_is_a_failure(folder: Path) -> None:
    (folder / "rules.toml").write_text(RULES.replace("<= 1.5", "<= 7"))

    failed = [test for test in ran("rule", "test", folder, code=1)["tests"] if not test["ok"]]

    assert [(test["rule"], test["number"], test["says"]) for test in failed] == [("thin-ct", 2, "it is to be left alone, and matches")]


def test_a_file_shows_which_rules_fire_and_what_kept_the_others_from_it(folder: Path) -> None:
    file = get_testdata_file("CT_small.dcm")

    [tried] = ran("rule", "test", folder, file, "--calling-aet", "CT1")["objects"]

    thin, sender = tried["rules"]
    assert (thin["matches"], thin["missed"]) == (False, [{"text": "SliceThickness <= 1.5", "found": "SliceThickness is 5"}])
    assert sender["matches"]


def test_a_file_that_is_no_object_is_named(folder: Path) -> None:
    done = CliRunner().invoke(app, ["rule", "test", str(folder), str(folder / "rules.toml")])
    assert isinstance(done.exception, Misconfigured)  # two candidates

    (folder / "x.dcm").write_text("no object")
    done = CliRunner().invoke(app, ["rule", "test", str(folder), str(folder / "x.dcm")])
    assert "x.dcm is no DICOM object" in str(done.exception)


@pytest.mark.parametrize("last", ["30", "30y", "x"])
def test_a_time_that_is_none_is_refused(folder: Path, last: str) -> None:
    with pytest.raises(Misconfigured, match="Write hours, days or weeks"):
        ran("rule", "test", folder, "--last", last)


def test_a_rule_is_explained(folder: Path) -> None:
    said = ran("rule", "explain", "thin-ct", "-f", folder)

    assert said["all_of"] == ['Modality == "CT"', "SliceThickness <= 1.5"]


def test_an_unknown_rule_is_named_with_the_nearest(folder: Path) -> None:
    with pytest.raises(NotFound, match=r"Did you mean thin-ct\?"):
        ran("rule", "explain", "thin", "-f", folder)


def test_doubts_are_a_failure_for_scripts(folder: Path) -> None:
    assert [(doubt["name"], doubt["code"]) for doubt in ran("rule", "lint", "-f", folder, code=1)] == [("from-ct1", "untested")]


def test_a_destination_of_the_settings_that_no_rule_of_the_folder_names_is_no_doubt(folder: Path, tmp_path: Path) -> None:
    settings = tmp_path / "hilum.toml"
    settings.write_text('[destinations.elsewhere]\ntype = "archive"\n')
    (folder / "rules.toml").write_text(RULES + '[destinations.forgotten]\ntype = "archive"\n')

    doubts = ran("rule", "lint", "-f", folder, "--config", settings, code=1)

    assert [doubt["name"] for doubt in doubts if doubt["code"] == "destination-unused"] == ["forgotten"]


def test_rules_without_tests_are_not_numbered(folder: Path) -> None:
    (folder / "rules.toml").write_text('[[rules]]\nname = "all"\nto = ["archive"]\n')

    done = CliRunner().invoke(app, ["rule", "test", str(folder)], env={"HILUM_DATA": "/nowhere/hilum"})

    assert done.stdout == f"The rules of {folder} have no tests of their own.\n"


def test_a_rule_that_fails_on_what_came_in_sends_nothing_to_quarantine(capsys: pytest.CaptureFixture[str]) -> None:
    history = find_stage("processors.route.history")
    fails = history.Count(instances=60, studies=1)

    _show_history(history.Outcome(since=datetime(2024, 2, 29, tzinfo=UTC), rules={"bad": history.OfRule(rule="bad", fails=fails)}))

    said = capsys.readouterr().out
    assert "60 in 1 studies" in said
    assert "quarantine" not in said


def test_a_dry_run_needs_no_hilum(folder: Path) -> None:
    found = ran("apply", "-f", folder, "--dry-run")

    assert len(found["version"]) == 12


def test_what_is_wrong_is_said_before_anything_is_asked(folder: Path) -> None:
    (folder / "rules.toml").write_text(RULES.replace("Modality ==", "Modalty =="))

    with pytest.raises(Misconfigured, match="Did you mean Modality"):
        ran("apply", "-f", folder)


def test_without_a_hilum_nothing_can_be_applied(folder: Path) -> None:
    with pytest.raises(NotFound):
        ran("apply", "-f", folder)


def test_config_check_tries_the_rules_tests(folder: Path) -> None:
    (folder / "rules.toml").write_text(RULES.replace("<= 1.5", "<= 7"))

    with pytest.raises(Misconfigured, match=r"thin-ct.*test 2: it is to be left alone"):
        ran("config", "check", "--config", folder / "rules.toml")
