import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.errors import Misconfigured

GOOD = """
[destinations.archive]
type = "archive"
[destinations.copy]
type = "archive"
bucket = "copies"
endpoint = "http://127.0.0.1:9"
access_key = "AKEY"
secret_key = "HIDDEN"
[[rules]]
name = "ct"
when = 'Modality == "CT"'
to = ["archive"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hilum.toml"
    path.write_text(GOOD)
    return path


def test_right_settings_are_called_right_with_their_version(file: Path) -> None:
    done = CliRunner().invoke(app, ["config", "check", "--config", str(file), "--json"])

    found = json.loads(done.stdout)
    assert found["ok"]
    assert found["rules"] == ["ct"]
    assert len(found["config_version"]) == 12


def test_what_is_hardly_meant_is_said(file: Path) -> None:
    done = CliRunner().invoke(app, ["config", "check", "--config", str(file)])

    assert done.exit_code == 0
    assert "But: No rule sends anything to the destination copy." in done.stdout


def test_settings_without_rules_are_said_to_send_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("")

    done = CliRunner().invoke(app, ["config", "check", "--config", str(tmp_path / "empty.toml"), "--json"])

    assert json.loads(done.stdout)["doubts"] == ["There is no rule: what comes in is kept and indexed, and goes nowhere."]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("Modality", "Modalty", "Did you mean Modality"),
        ('type = "archive"\n[d', 'type = "archiv"\n[d', "Did you mean archive"),
        ("bucket", "buckt", "Did you mean bucket"),
        ('to = ["archive"]', 'to = ["archve"]', "Did you mean archive"),
    ],
)
def test_a_wrong_name_anywhere_is_refused_with_the_nearest(file: Path, old: str, new: str, sentence: str) -> None:
    file.write_text(GOOD.replace(old, new, 1))

    done = CliRunner().invoke(app, ["config", "check", "--config", str(file)])

    assert isinstance(done.exception, Misconfigured)
    assert sentence in str(done.exception)


def test_show_tells_where_each_value_comes_from_and_hides_secrets(file: Path) -> None:
    done = CliRunner().invoke(app, ["config", "show", "--config", str(file), "--json"], env={"HILUM_DICOM__AET": "X"})

    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["dicom.aet"] == {"name": "dicom.aet", "value": "X", "origin": "HILUM_DICOM__AET"}
    assert rows["dicom.port"]["origin"] == "default"
    assert rows["destinations.archive.type"]["origin"] == str(file)
    assert "HIDDEN" not in done.stdout
    assert "AKEY" not in done.stdout


def test_a_folder_that_cannot_be_watched_is_refused(file: Path) -> None:
    file.write_text(GOOD + '\n[folders.inbox]\npath = "inbox"\n')

    done = CliRunner().invoke(app, ["config", "check", "--config", str(file)])

    assert isinstance(done.exception, Misconfigured)
    assert "folders.inbox cannot be watched: path is not an absolute path" in str(done.exception)


def test_roles_that_are_missing_are_said(tmp_path: Path) -> None:
    (tmp_path / "few.toml").write_text('[roles]\nprocesses = ["dicom"]')

    done = CliRunner().invoke(app, ["config", "check", "--config", str(tmp_path / "few.toml"), "--json"])

    assert any("has the role publish" in doubt for doubt in json.loads(done.stdout)["doubts"])


def test_all_mistakes_are_said_at_once(file: Path) -> None:
    more = '[[rules]]\nname = "other"\nwhen = "Rows"\nto = ["copy"]\n[senders.CT1]\nrefuse = ["none"]\n[roles]\nprocesses = ["dicm"]\n'
    file.write_text(GOOD.replace("Modality", "Modalty").replace("bucket", "buckt") + more)

    done = CliRunner().invoke(app, ["config", "check", "--config", str(file)])

    for part in ("5 mistakes", "Modalty", "'other' gives a number", "senders.CT1.refuse", "buckt", "'dicm'"):
        assert part in str(done.exception)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("tls = true\ntls_ca = '/nowhere.pem'", "peers.CT1.tls_ca: /nowhere.pem cannot be used"),
        ("tls_ca = '/nowhere.pem'", "Set peers.CT1.tls = true"),
    ],
)
def test_files_for_tls_to_a_peer_are_looked_at(file: Path, more: str, sentence: str) -> None:
    file.write_text(f"{GOOD}[peers.CT1]\nhost = 'ct1.example'\nport = 104\n{more}\n")

    with pytest.raises(Misconfigured, match=sentence):
        CliRunner().invoke(app, ["config", "check", "--config", str(file)], catch_exceptions=False)
